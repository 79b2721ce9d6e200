"""UTM zones, in hand-made manifests."""

from toy_findings import at, by_name, concerned, table

from sare_tf.checks import (
    position_findings,
    zone_findings,
)
from sare_tf.checks.finding import ERROR, NOTE


def test_images_of_no_zone_and_of_several():
    rows = table(
        ("a", "test", "query", at(500_000)),
        ("b", "test", "database", at(500_010)),
        ("c", "test", "database", at(400_000, zone="54S")),
        ("d", "test", "database", {}),
        # Degrees instead of metres; east and north swapped.
        ("e", "test", "database", at(-79.99, 40.44)),
        ("f", "test", "database", at(4_500_000, 500_000)),
    )
    found = by_name(zone_findings.zones(rows))
    assert set(found) == {"no_position", "outside_zone", "several_zones"}
    assert concerned(found["no_position"]) == ["d"]
    assert concerned(found["outside_zone"]) == ["e", "f"]
    assert found["outside_zone"].severity == ERROR
    assert found["several_zones"].message.startswith(
        "2 UTM zones: 17T (4), 54S (1)."
    )
    assert found["several_zones"].severity == NOTE


def test_the_letter_of_the_hemisphere_in_records():
    """Cape Town by pyproj's metres; Tokyo is in band S, Washington, too."""
    rows = table(
        ("a", "test", "query", at(261_872.6, 6_243_171.0, zone="34S")),
        ("b", "test", "database", at(386_437.6, 3_946_808.2, zone="54S")),
        ("c", "test", "database", at(323_383.2, 4_308_450.8, zone="18S")),
        ("d", "test", "database", at(584_958.7, 4_477_051.0, zone="17N")),
    )
    found = by_name(zone_findings.zones(rows))
    assert concerned(found["hemisphere"]) == ["a"]
    assert found["hemisphere"].severity == ERROR
    assert found["hemisphere"].images[0][1].startswith("latitude 56.2")
    # The letter N changes nothing but the name of the zone.
    assert concerned(found["outside_zone"]) == ["d"]
    assert "latitude band" in found["outside_zone"].action


def test_no_zone_at_all_is_worth_a_note():
    rows = table(
        ("a", "test", "query", at(1, 1, zone="")),
        ("b", "test", "database", at(2, 2, zone="")),
    )
    [found] = zone_findings.zones(rows)
    assert (found.name, found.severity) == ("no_zone", NOTE)
    places = table(("a", "test", "query", {"place_id": "x"}))
    assert zone_findings.zones(places) == []
    assert position_findings.suspicious(places) == []


def test_a_zone_without_band_beside_others():
    rows = table(
        ("a", "test", "query", at(500_000)),
        ("b", "test", "database", at(500_000, zone="17")),
    )
    found = by_name(zone_findings.zones(rows))
    assert found["no_zone"].images == [("b", "zone '17'")]
    assert found["no_zone"].severity == ERROR

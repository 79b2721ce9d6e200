"""Findings in hand-made manifests: each kind appears, and not without cause."""

import re

import numpy as np
import pandas as pd
import pytest
import toy_manifest

from sare_tf.checks import (
    duplicates,
    image_findings,
    land,
    matching,
    place_names,
    position_findings,
    positions,
    splits_and_positives,
    zone_findings,
)
from sare_tf.checks.finding import ERROR, NOTE, WARNING, Finding
from sare_tf.checks.image_contents import ImageContents
from sare_tf.dataset import image_decoding
from sare_tf.dataset.names import ROLES, SPLITS, TRAIN_RULES
from sare_tf.dataset.positives import make_relations
from sare_tf.dataset.readers import utm_zones
from sare_tf.dataset.readers.collector import ABSENT, NOT_IMAGE
from sare_tf.evaluation import protocols

RADIUS = 25.0


def table(*rows, **common):
    """Rows are (image_id, split, role) with further columns as a dict."""
    return toy_manifest.make(
        {"image_id": name, "split": split, "role": role, **common, **more}
        for name, split, role, more in rows
    )


def at(east, north=4_500_000.0, zone="17T"):
    return {"utm_east_m": east, "utm_north_m": north, "utm_zone": zone}


def contents(rows, *, digests=None, sizes=None, problems=(), **traits):
    count = len(rows)
    numbers = np.arange(count) if digests is None else np.array(digests)
    return ImageContents(
        problems=dict(problems),
        complaints={},
        digests=np.repeat(numbers.astype(np.uint8)[:, None], 16, axis=1),
        sizes=np.array(sizes or [(480, 640)] * count, np.int32),
        traits={name: traits.get(name, []) for name in image_decoding.TRAITS},
    )


def by_name(findings):
    names = [finding.name for finding in findings]
    assert len(set(names)) == len(names)
    return {finding.name: finding for finding in findings}


def concerned(finding):
    return [image for image, _ in finding.images]


def test_a_finding_counts_its_images():
    fields = {"severity": NOTE, "name": "n", "message": "m", "action": "a"}
    assert Finding(images=[("a", ""), ("b", "")], **fields).count == 2
    assert Finding(count=7, **fields).count == 7


def test_what_the_reader_refused_is_grouped_by_reason():
    found = image_findings.refused(
        [
            ("a.jpg", f"named in the list, {ABSENT}"),
            ("b.jpg", f"named in the list, {ABSENT}"),
            ("c.jpg", "line 3: 4 fields, not 5"),
            ("d.jpg", "line 17: 9 fields, not 5"),
            ("e.jpg", "heading is no number: 'north'"),
            ("notes.txt", NOT_IMAGE),
        ]
    )
    assert [(one.severity, one.name, concerned(one)) for one in found] == [
        (ERROR, "missing_file", ["a.jpg", "b.jpg"]),
        (WARNING, "left_out", ["c.jpg", "d.jpg"]),
        (WARNING, "left_out", ["e.jpg"]),
        (NOTE, "left_out", ["notes.txt"]),
    ]
    assert found[1].message == (
        "2 files left out: line 3: 4 fields, not 5 (and similar)."
    )
    assert found[2].message == (
        "1 file left out: heading is no number: 'north'."
    )
    assert image_findings.refused([]) == []


def test_unreadable_images():
    rows = table(
        ("a", "test", "query", {}),
        ("b", "test", "database", {}),
    )
    [found] = image_findings.unreadable(
        rows, contents(rows, problems={1: "empty file"})
    )
    assert found.severity == ERROR
    assert found.images == [("b", "empty file")]
    assert image_findings.unreadable(rows, contents(rows)) == []


def duplicates_of(rows, digests, *, relations=None, problems=(), **options):
    return by_name(
        duplicates.find(
            rows,
            contents(rows, digests=digests, problems=problems),
            relations=relations,
            radius_m=RADIUS,
            **options,
        )
    )


def test_copies_in_two_splits_are_an_error():
    rows = table(
        ("a", "train", "database", at(0)),
        ("b", "test", "database", at(1)),
        ("c", "test", "query", at(2)),
    )
    found = duplicates_of(rows, [5, 5, 6])
    assert list(found) == ["duplicates_across_splits"]
    assert found["duplicates_across_splits"].severity == ERROR
    assert found["duplicates_across_splits"].images == [
        ("a", "train; the same as b"),
        ("b", "test; the same as a"),
    ]


@pytest.mark.parametrize(
    ("split", "severity"), [("train", WARNING), ("test", ERROR)]
)
def test_a_query_that_is_in_the_database(split, severity):
    rows = table(
        ("q1", split, "query", at(0)),
        ("q2", split, "query", at(1)),
        ("d", split, "database", at(2)),
        ("other", split, "database", at(3)),
    )
    found = duplicates_of(rows, [5, 5, 5, 6])
    assert found["queries_in_database"].severity == severity
    assert found["queries_in_database"].images == [
        ("q1", f"{split}; the same as d"),
        ("q2", f"{split}; the same as d"),
    ]
    # The queries are copies of each other, too.
    assert concerned(found["duplicates"]) == ["q2"]
    assert found["duplicates"].severity == WARNING
    assert set(found) == {"queries_in_database", "duplicates"}


def test_a_copy_that_is_listed_as_junk_is_none():
    """As in Holidays, where a query is in the database."""
    rows = table(
        ("q", "test", "query", {}),
        ("d", "test", "database", {}),
    )
    junk = make_relations([("q", "d", "junk")], rows)
    assert duplicates_of(rows, [5, 5], relations=junk) == {}
    right = make_relations([("q", "d", "positive")], rows)
    assert set(duplicates_of(rows, [5, 5], relations=right)) == {
        "queries_in_database"
    }


def test_a_query_of_the_time_of_its_copy():
    """As in Tokyo Time Machine, all of whose queries are in the database."""
    rows = table(
        ("q", "val", "query", {"timestamp": "201306"}),
        ("d", "val", "database", {"timestamp": "201306"}),
        ("q2", "val", "query", {"timestamp": "201306"}),
        ("d2", "val", "database", {"timestamp": "201406"}),
        ("q3", "val", "query", {}),
        ("d3", "val", "database", {}),
    )
    digests = [5, 5, 6, 6, 7, 7]
    found = duplicates_of(rows, digests)["queries_in_database"]
    assert concerned(found) == ["q", "q2", "q3"]
    found = duplicates_of(rows, digests, by_timestamp={"val"})
    assert concerned(found["queries_in_database"]) == ["q2", "q3"]
    tokyotm = matching.by_protocol(protocols.choose("tokyotm"), None)
    assert tokyotm.other_timestamp
    netvlad = TRAIN_RULES["netvlad"]
    assert matching.by_manifest("", **netvlad).other_timestamp
    assert not matching.by_manifest("").other_timestamp


def test_parts_of_one_file_are_no_copies():
    rows = table(
        ("a.jpg#xywh=0,0,9,9", "test", "query", {}),
        ("a.jpg", "test", "database", {}),
    )
    assert duplicates_of(rows, [5, 5]) == {}


def test_unreadable_images_are_no_copies():
    rows = table(
        ("a", "test", "query", {}),
        ("b", "test", "query", {}),
    )
    assert duplicates_of(rows, [5, 5], problems={0: "no", 1: "no"}) == {}


@pytest.mark.parametrize(
    ("first", "second", "is_odd"),
    [
        (at(0), at(25), False),
        (at(0), at(25.5), True),
        (at(0), at(0, zone="54S"), True),
        ({"place_id": "x"}, {"place_id": "x"}, False),
        ({"place_id": "x"}, {"place_id": "y"}, True),
        ({"place_id": "x"}, {}, True),
    ],
)
def test_a_copy_at_another_place(first, second, is_odd):
    rows = table(
        ("a", "train", "database", first),
        ("b", "train", "database", second),
    )
    found = duplicates_of(rows, [5, 5])
    assert ("duplicates_elsewhere" in found) == is_odd
    assert found["duplicates"].count == 1


def test_copies_of_many_images_equal_a_loop():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 40, 120)
    splits = rng.choice(SPLITS, 120)
    rows = table(
        *((f"{n:03d}", split, "database", {}) for n, split in enumerate(splits))
    )
    expected = [
        f"{n:03d}"
        for n in range(120)
        if any(
            digests[n] == digests[m] and splits[n] != splits[m]
            for m in range(120)
        )
    ]
    found = duplicates_of(rows, digests)["duplicates_across_splits"]
    assert sorted(concerned(found)) == expected
    assert 0 < len(expected) < 120


def test_splits_that_are_missing():
    rows = table(
        ("a", "train", "query", {}),
        ("b", "train", "database", {}),
        ("c", "val", "database", {}),
    )
    found = splits_and_positives.splits(rows, evaluated="test")
    assert [(one.severity, one.message) for one in found] == [
        (ERROR, "The split val has no query image."),
        (ERROR, "The split test has no image."),
    ]
    [val] = splits_and_positives.splits(rows.iloc[:2], evaluated="train")[:1]
    assert (val.severity, val.message) == (NOTE, "The split val has no image.")


def line(split, *, queries, database):
    """Images on a line, by their metres east."""
    return table(
        *((f"q{east}", split, "query", at(east)) for east in queries),
        *((f"d{east}", split, "database", at(east)) for east in database),
    )


def by_radius(**options):
    return matching.by_manifest("within", rule="radius", **options)


def positives_of(rows, split, rule, *, is_used):
    """Findings, how many queries have no positive, and samples."""
    matches = matching.match(rows, split, rule)
    findings = splits_and_positives.positives(matches, is_used=is_used)
    return findings, matches.num_without, list(matches.samples)


def test_queries_without_a_positive():
    rows = line("train", queries=(0, 100, 200), database=(25, 130, 500))
    [found], count, samples = positives_of(
        rows, "train", by_radius(radius_m=25.0), is_used=True
    )
    assert (found.severity, count) == (WARNING, 2)
    assert concerned(found) == ["q100", "q200"]
    assert found.message == (
        "2 of 3 queries of the split train (66.7 %) have no positive "
        "(within): training leaves them out."
    )
    assert samples == [("q0", ["d25"])]


@pytest.mark.parametrize(("is_used", "severity"), [(1, ERROR), (0, WARNING)])
def test_no_query_has_a_positive(is_used, severity):
    rows = line("test", queries=(0, 100), database=(500,))
    [found], count, samples = positives_of(
        rows, "test", by_radius(radius_m=25.0), is_used=bool(is_used)
    )
    assert (found.severity, count, samples) == (severity, 2, [])
    assert found.message.endswith("they count as misses.")


def test_the_protocol_decides(tmp_path):
    rows = line("test", queries=(0, 100), database=(25.0,))
    for name, severity in (("pitts30k", WARNING), ("msls", NOTE)):
        rule = matching.by_protocol(protocols.choose(name), None)
        [found], count, _ = positives_of(rows, "test", rule, is_used=True)
        assert (found.severity, count) == (severity, 1)
        assert f"(protocol {name})" in found.message
    rule = matching.by_protocol(protocols.choose("tokyo247"), None)
    [found], count, _ = positives_of(rows, "test", rule, is_used=True)
    assert (found.severity, found.name) == (ERROR, "nothing_tells_what_matches")
    assert "Expected panorama_id of every image" in found.message
    [found], *_ = positives_of(rows, "test", rule, is_used=False)
    assert found.severity == NOTE


def test_samples_are_of_different_places():
    """One of the three places has nearly all queries."""
    rows = table(
        *((f"q{n}", "val", "query", {"place_id": "a"}) for n in range(20)),
        ("q20", "val", "query", {"place_id": "b"}),
        ("q21", "val", "query", {"place_id": "c"}),
        *((f"d{p}", "val", "database", {"place_id": p}) for p in "abc"),
    )
    rule = matching.by_protocol(protocols.choose("place"), None)
    samples = matching.match(rows, "val", rule).samples
    assert samples == [("q0", ["da"]), ("q20", ["db"]), ("q21", ["dc"])]


def test_blocks_of_queries_change_nothing():
    rng = np.random.default_rng(0)
    rows = line(
        "val",
        queries=rng.permutation(2000)[:60].tolist(),
        database=rng.permutation(2000)[:30].tolist(),
    )
    rule = by_radius(radius_m=20.0)
    whole = matching.match(rows, "val", rule)
    assert matching.match(rows, "val", rule, block=7) == whole
    assert 0 < whole.num_without < 60
    assert whole.samples


def test_places_without_names_are_squares():
    """Ten queries of each of three places, in their order."""
    images = table(
        *(
            (f"{place}{number}", "val", role, {"place_id": place})
            for place in "abc"
            for role, numbers in (("query", range(10)), ("database", (10, 11)))
            for number in numbers
        )
    )
    rule = matching.by_manifest("of the same place", rule="place")
    samples = matching.match(images, "val", rule).samples
    assert [query for query, _ in samples] == ["a0", "b0", "c0"]
    # Without names, places are squares of 50 m: eight of ten, from end to end.
    east = [100 * place + view for place in range(10) for view in range(5)]
    images = line("val", queries=east, database=range(0, 1000, 100))
    samples = matching.match(images, "val", by_radius(radius_m=20.0)).samples
    assert [query for query, _ in samples] == [
        *("q0", "q100", "q200", "q300", "q500", "q600", "q700", "q900")
    ]


def test_a_split_without_queries_has_none_without_positive():
    rows = line("val", queries=(), database=(0,))
    rule = by_radius(radius_m=20.0)
    assert positives_of(rows, "val", rule, is_used=True) == (
        [],
        0,
        [],
    )


def test_places_with_one_image_and_in_several_splits():
    rows = table(
        ("a1", "train", "database", {"place_id": "a"}),
        ("a2", "train", "query", {"place_id": "a"}),
        ("b1", "train", "database", {"place_id": "b"}),
        ("b2", "test", "query", {"place_id": "b"}),
        ("b3", "test", "database", {"place_id": "b"}),
        ("c1", "test", "database", {}),
    )
    found = by_name(splits_and_positives.places(rows))
    alone = found["place_with_one_image"]
    assert alone.images == [("b1", "train, place b")]
    assert alone.message.startswith("1 place of 3 with one image")
    shared = found["place_in_several_splits"]
    assert concerned(shared) == ["b2", "b3"]
    assert shared.message.startswith("1 place of 2 in several splits")
    assert shared.severity == alone.severity == WARNING
    assert splits_and_positives.places(rows.iloc[:2]) == []


def test_overlap_equals_a_loop():
    rng = np.random.default_rng(0)
    rows = table(
        *(
            (
                f"{n:03d}",
                SPLITS[n % 3],
                ROLES[n % 2],
                at(*rng.integers(0, 1500, 2), zone=("17T", "18T")[n % 5 == 0]),
            )
            for n in range(300)
        )
    )
    found = position_findings.overlap(rows, radius_m=RADIUS)
    assert [one.severity for one in found] == [WARNING, WARNING]
    for split, one in zip(("val", "test"), found, strict=True):
        expected = [
            judged.image_id
            for judged in rows[rows["split"] == split].itertuples()
            if any(
                np.hypot(
                    judged.utm_east_m - trained.utm_east_m,
                    judged.utm_north_m - trained.utm_north_m,
                )
                <= RADIUS
                and judged.utm_zone == trained.utm_zone
                for trained in rows[rows["split"] == "train"].itertuples()
            )
        ]
        assert sorted(concerned(one)) == expected
        assert one.message.startswith(f"{len(expected)} of 100 images")
        assert 0 < len(expected) < 100


def places(*names):
    return table(
        *(
            (f"{n}.jpg", "test", "database", {"place_id": name})
            for n, name in enumerate(names)
        )
    )


def test_names_that_hardly_name_a_place():
    rows = places("tower", "nan", "None", "NA", "unknown", "-1", "2.5E+13", "")
    found = by_name(place_names.place_names(rows))
    assert set(found) == {"no_place", "doubtful_place"}
    assert concerned(found["no_place"]) == ["7.jpg"]
    assert concerned(found["doubtful_place"]) == [
        f"{n}.jpg" for n in range(1, 7)
    ]
    assert found["doubtful_place"].severity == WARNING


def test_places_under_several_names():
    names = ["12", "12.0", "012", "Old Town", "old  town", "caf\u00e9"]
    rows = places(*names, "cafe\u0301", "13", "tower", "tower")
    [found] = place_names.place_names(rows)
    assert found.name == "similar_places"
    assert concerned(found) == [f"{n}.jpg" for n in range(7)]
    assert found.message == (
        "3 places under several names, such as '12' and '12.0' and '012'."
    )
    assert place_names.place_names(places("1", "2", "10", "a 1", "a 10")) == []
    assert place_names.place_names(places("", "")) == []


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


def city(count=200, *, latitude=40.44, longitude=-79.99, name="c"):
    """Photographs within a kilometre or so, with degrees."""
    rng = np.random.default_rng(0)
    return {
        f"{name}{n:03d}": (latitude + a, longitude + b)
        for n, (a, b) in enumerate(rng.uniform(-0.005, 0.005, (count, 2)))
    }


def located(degrees):
    """A manifest as readers make it of degrees."""
    latitude, longitude = np.array(list(degrees.values())).T
    east, north, zones = utm_zones.project(latitude, longitude)
    return table(
        *(
            (name, "test", "database", at(float(x), float(y), zone=zone))
            for name, x, y, zone in zip(
                degrees, east, north, zones, strict=True
            )
        )
    )


def test_a_city_is_not_suspicious():
    rows = located(city())
    assert position_findings.suspicious(rows) == []
    assert zone_findings.zones(rows) == []
    assert set(positions.regions(rows)) == {0}


def test_swapped_latitude_and_longitude():
    rows = located(city() | {"s1": (-79.99, 40.44), "s2": (-79.985, 40.441)})
    found = by_name(position_findings.suspicious(rows))
    assert concerned(found["swapped"]) == ["s1", "s2"]
    assert found["swapped"].severity == ERROR
    [(_, detail), _] = found["swapped"].images
    assert detail == "latitude -79.99000, longitude 40.44000"
    assert set(found) == {"swapped", "antarctica"}


def test_all_of_it_swapped():
    rows = located(city(latitude=-79.9, longitude=40.4))
    [found] = position_findings.suspicious(rows)
    assert (found.name, found.severity) == ("antarctica", WARNING)
    assert found.count == 200


def test_all_of_it_swapped_and_at_sea():
    """Cape Town: 33.9 south, 18.4 east; the other way round the Atlantic."""
    [found] = position_findings.suspicious(
        located(city(latitude=18.4, longitude=-33.9))
    )
    assert (found.name, found.severity) == ("at_sea", WARNING)
    assert found.count == 200
    assert re.search(
        r"around 18\.\d+, -33\.\d+\. With latitude and longitude swapped, they "
        r"would be on land, around -33\.\d+, 18\.\d+\.",
        found.message,
    )
    rows = located(city(latitude=-33.9, longitude=18.4))
    assert position_findings.suspicious(rows) == []
    # 0, 30 W and 30 S, 0: sea both ways. The first is above 0.
    [found] = position_findings.suspicious(
        located(city(latitude=-30, longitude=-5))
    )
    assert found.name == "at_sea"
    assert "swapped, they" not in found.message


def test_land_and_sea():
    places = {
        (40.44, -79.99): False,  # Pittsburgh
        (35.68, 139.69): False,  # Tokyo
        (51.51, -0.13): False,  # London
        (-0.13, 51.51): True,  # The Indian Ocean
        (-0.5, 179.999): True,
        (-0.5, -179.999): True,
        (89.99, 0.0): True,
        (-90.0, 180.0): False,
        (np.nan, 12.0): False,
    }
    assert land.is_sea(np.array(list(places))).tolist() == list(places.values())


def test_near_the_diagonal_nothing_is_swapped():
    rows = located(
        city(latitude=36.20, longitude=36.15)
        | city(20, latitude=36.15, longitude=36.40, name="d")
    )
    assert position_findings.suspicious(rows) == []


def test_an_image_far_from_all_others():
    rows = located(city() | {"far": (40.8, -79.5)})
    [found] = position_findings.suspicious(rows)
    assert (found.name, concerned(found)) == ("far_from_all", ["far"])
    assert positions.regions(rows).tolist().count(0) == 200
    # A world tour of single images is no mistake.
    tour = located({f"{n}": (n - 40.0, 20.0 + n / 10) for n in range(80)})
    assert position_findings.suspicious(tour) == []
    assert position_findings.suspicious(tour.iloc[:1]) == []


def test_the_position_zero():
    rows = table(
        *((f"c{n}", "test", "database", at(500_000 + n)) for n in range(9)),
        ("zero", "test", "database", at(0, 0)),
    )
    found = by_name(position_findings.suspicious(rows))
    assert concerned(found["position_zero"]) == ["zero"]
    assert found["position_zero"].severity == ERROR
    # Metres that are made up may begin there.
    rows = table(
        *(
            (f"c{n}", "test", "database", at(0, 2.4 * n, zone=""))
            for n in range(9)
        ),
    )
    assert position_findings.suspicious(rows) == []


@pytest.mark.parametrize(("copies", "is_odd"), [(24, False), (25, True)])
def test_many_images_at_one_position(copies, is_odd):
    """A panorama of Pittsburgh has 24 cut-outs."""
    rows = table(
        *((f"s{n}", "test", "database", at(500_000)) for n in range(copies)),
        *((f"c{n}", "test", "database", at(500_010 + n)) for n in range(9)),
    )
    found = by_name(position_findings.suspicious(rows))
    assert ("same_position" in found) == is_odd
    if is_odd:
        assert found["same_position"].count == 25
        assert "25 images at 1 position" in found["same_position"].message


def test_sizes():
    rows = table(*((f"{n}", "test", "query", {}) for n in range(6)))
    sizes = [(480, 640), (640, 480), (63, 40), (64, 40), (200, 300), (0, 0)]
    found = by_name(
        image_findings.sizes(
            rows, contents(rows, sizes=sizes), height=480, width=640
        )
    )
    assert {name: one.severity for name, one in found.items()} == {
        "tiny": WARNING,
        "enlarged": NOTE,
        "both_orientations": NOTE,
    }
    assert found["tiny"].images == [("2", "40 x 63")]
    # 64 x 40 and 300 x 200.
    assert found["enlarged"].count == 2
    assert found["both_orientations"].message.startswith(
        "3 images in portrait format and 2 in landscape; all become 640 x 480"
    )
    plain = image_findings.sizes(rows, contents(rows), height=480, width=640)
    assert plain == []


def test_images_that_are_special():
    rows = table(*((f"{n}", "test", "query", {}) for n in range(6)))
    found = image_findings.traits(
        rows, contents(rows, animated=[0, 4], turned=[1])
    )
    assert [(one.name, one.severity, concerned(one)) for one in found] == [
        ("turned", NOTE, ["1"]),
        ("animated", NOTE, ["0", "4"]),
    ]
    assert image_findings.traits(rows, contents(rows)) == []


def test_tables_of_records_may_have_any_index():
    rows = line("test", queries=(0,), database=(1, 2))
    rows.index = pd.Index([7, 5, 3])
    assert position_findings.suspicious(rows) == []

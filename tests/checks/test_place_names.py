"""Names of places, in hand-made manifests."""

from toy_findings import by_name, concerned, table

from sare_tf.checks import (
    place_names,
)
from sare_tf.checks.finding import WARNING


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

"""Findings of single images, in hand-made manifests."""

from toy_findings import by_name, concerned, contents, table

from sare_tf.checks import (
    image_findings,
)
from sare_tf.checks.finding import ERROR, NOTE, WARNING, Finding
from sare_tf.dataset.readers.collector import ABSENT, NOT_IMAGE


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

"""Parts: whole or absent, whatever happens on the way."""

import json
import os
import re

import pytest

from sare_tf.runtime.resumable_parts import ResumableParts


def write(parts, name, text="content", **facts):
    with parts.write(name, what=f"the part {name}") as part:
        part.path(".txt").write_text(text)
        part.path(".rows").write_bytes(b"12")
        part.facts.update(facts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_part_is_found_with_its_files_and_facts(tmp_path):
    write(ResumableParts(tmp_path), "one", count=3, rejected=[["a", "b"]])
    part = ResumableParts(tmp_path).find("one")
    assert part.facts == {"count": 3, "rejected": [["a", "b"]]}
    assert part.sizes == {".rows": 2, ".txt": 7}
    assert part.path(".txt") == tmp_path / "one.txt"
    assert part.path(".txt").read_text() == "content"
    assert names(tmp_path) == ["one.json", "one.rows", "one.txt"]
    assert ResumableParts(tmp_path).find("two") is None


def edit_receipt(folder, **changes):
    path = folder / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "one.json").unlink(),
        lambda folder: (folder / "one.json").write_text("{"),
        lambda folder: (folder / "one.json").write_text("[]"),
        lambda folder: (folder / "one.json").write_text("{}"),
        lambda folder: (folder / "one.rows").unlink(),
        lambda folder: (folder / "one.txt").write_text("shorter"[:-1]),
        lambda folder: (folder / "one.txt").write_text("another"),
        lambda folder: edit_receipt(folder, sizes={".txt": 7}),
        lambda folder: edit_receipt(folder, facts={"count": 4}),
    ],
    ids=[
        *("no receipt", "no JSON", "a list", "nothing", "no file", "cut off"),
        *("other bytes", "file left out", "other facts"),
    ],
)
def test_a_part_that_is_not_whole_is_absent(tmp_path, damage):
    parts = ResumableParts(tmp_path)
    write(parts, "one")
    damage(tmp_path)
    assert parts.find("one") is None
    write(parts, "one")
    assert parts.find("one") is not None


def test_a_damaged_part_is_named(tmp_path, caplog):
    parts = ResumableParts(tmp_path)
    write(parts, "one")
    (tmp_path / "one.txt").write_text("another")
    assert parts.find("one") is None
    assert "Building a damaged part again: one.txt: not as" in caplog.text
    assert parts.find("two") is None
    assert caplog.text.count("Building") == 1
    with pytest.raises(OSError, match="without 1 of 1, such as one"):
        parts.gather(["one"])
    parts.remove("one")
    assert names(tmp_path) == []


def test_records_are_not_read_again(tmp_path):
    """Their own checksums are compared by whatever reads them."""
    parts = ResumableParts(tmp_path)
    with parts.write("one", what="it") as part:
        part.path(".tfrecord").write_bytes(b"one")
    (tmp_path / "one.tfrecord").write_bytes(b"two")
    assert parts.find("one").sizes == {".tfrecord": 3}


def test_a_part_of_an_earlier_version_is_found(tmp_path):
    parts = ResumableParts(tmp_path)
    write(parts, "one", count=3)
    path = tmp_path / "one.json"
    path.write_text('{"sizes": {".txt": 7, ".rows": 2}, "facts": {"count": 3}}')
    assert parts.find("one").facts == {"count": 3}


def fail(part):
    part.path(".txt").write_text("half")
    raise KeyError


def test_an_error_leaves_nothing_and_keeps_the_part_before(tmp_path):
    parts = ResumableParts(tmp_path)
    write(parts, "one", text="before")
    for name in ("one", "two"):
        with pytest.raises(KeyError), parts.write(name, what="it") as part:
            fail(part)
    assert names(tmp_path) == ["one.json", "one.rows", "one.txt"]
    assert parts.find("one").path(".txt").read_text() == "before"


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_kill_while_files_are_put_in_place(tmp_path, monkeypatch, moment):
    """The receipt comes last: of a part with another, nothing counts."""
    parts, real, moved = ResumableParts(tmp_path), os.replace, []

    def killed(source, target):
        # The receipt itself is written under another name first.
        if os.path.dirname(source) != os.path.dirname(target):
            moved.append(target)
            if len(moved) > moment:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(parts, "one")
    assert parts.find("one") is None
    assert len(names(tmp_path)) == moment
    monkeypatch.undo()
    write(parts, "one")
    assert parts.find("one").sizes == {".rows": 2, ".txt": 7}


def test_a_part_may_be_written_twice_at_the_same_time(tmp_path):
    parts = ResumableParts(tmp_path)
    with parts.write("one", what="it") as part:
        part.path(".txt").write_text("first")
        part.path(".rows").write_bytes(b"1")
        write(parts, "one", text="second")
        assert parts.find("one").path(".txt").read_text() == "second"
    assert parts.find("one").path(".txt").read_text() == "first"
    assert names(tmp_path) == ["one.json", "one.rows", "one.txt"]


def test_the_message_of_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"write the part one.*No space left.*what is finished"
    ):
        write(ResumableParts(tmp_path), "one")
    assert names(tmp_path) == []
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "absent"))):
        write(ResumableParts(tmp_path / "absent"), "one")


def test_all_parts_in_the_order_of_their_names(tmp_path):
    parts = ResumableParts(tmp_path)
    for name in ("b", "a", "c"):
        write(parts, name, position=name)
    whole = parts.gather(["c", "a", "b"])
    assert [part.facts["position"] for part in whole] == ["c", "a", "b"]
    with pytest.raises(OSError, match="without 2 of 4, such as d"):
        parts.gather(["a", "d", "b", "e"])


def test_parts_that_are_not_wanted_any_more(tmp_path):
    parts = ResumableParts(tmp_path)
    for name in ("a", "b", "c"):
        write(parts, name)
    (tmp_path / ".a.0123").mkdir()
    (tmp_path / ".a.0123" / "a.txt").write_text("half")
    (tmp_path / "d.rows").write_text("no receipt")
    parts.discard_others({"a", "c"})
    parts.remove("c")
    assert names(tmp_path) == ["a.json", "a.rows", "a.txt"]
    parts.remove("c")

"""Files and folders are whole, or as they were, after errors and kills."""

import os
import pathlib

import pytest

from sare_tf.runtime import atomic_files, resumable_parts


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, text):
    with atomic_files.folder_in_one_piece(folder) as temporary:
        (temporary / "file").write_text(text)


def test_a_folder_is_replaced_once_it_is_complete(tmp_path):
    out = tmp_path / "new" / "out"
    write(out, "first")
    with atomic_files.folder_in_one_piece(out) as temporary:
        (temporary / "other").touch()
        assert (out / "file").read_text() == "first"
    assert names(out) == ["other"]
    assert names(out.parent) == ["out"]


def half(path):
    path.write_text("half")
    raise KeyError


def test_an_error_leaves_the_folder_as_it_was(tmp_path):
    write(tmp_path / "out", "first")
    with (
        pytest.raises(KeyError),
        atomic_files.folder_in_one_piece(tmp_path / "out") as temporary,
    ):
        half(temporary / "file")
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert names(tmp_path) == ["out"]


def kill_at_rename(monkeypatch, moment):
    """The process ends before its rename of that number, from 0."""
    real, renamed = pathlib.Path.rename, []

    def rename(path, target):
        if len(renamed) == moment:
            raise KeyboardInterrupt
        renamed.append(path)
        return real(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename)


@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.parametrize(
    "recover", [atomic_files.put_back, atomic_files.settle_folder]
)
def test_a_kill_between_renames_is_undone(
    tmp_path, monkeypatch, moment, recover
):
    out = tmp_path / "out"
    write(out, "first")
    kill_at_rename(monkeypatch, moment)
    with pytest.raises(KeyboardInterrupt):
        write(out, "second")
    monkeypatch.undo()
    assert out.exists() == (moment == 0)
    recover(out)
    assert (out / "file").read_text() == "first"
    if recover is atomic_files.settle_folder:
        assert names(tmp_path) == ["out"]
    write(out, "third")
    assert (out / "file").read_text() == "third"
    assert names(tmp_path) == ["out"]


def test_a_replaced_folder_that_a_kill_left_is_removed(tmp_path):
    write(tmp_path / "out", "new")
    write(tmp_path / ".out.replaced", "old")
    atomic_files.put_back(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "new"


def fill(out, made_from, *, until, stop=False):
    """Appends numbers to a file up to `until`; returns where it began."""
    with atomic_files.folder_to_resume(out, made_from) as unfinished:
        begin = unfinished.done
        for number in range(begin, until):
            with (unfinished.folder / "file").open("a") as file:
                file.write(str(number))
            unfinished.record(number + 1)
        if stop:
            raise KeyboardInterrupt
    return begin


def test_a_folder_is_filled_by_several_runs(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fill(out, {"a": 1}, until=3, stop=True)
    assert names(tmp_path) == [".out.unfinished", ".out.unfinished.json"]
    assert fill(out, {"a": 1}, until=5) == 3
    assert (out / "file").read_text() == "01234"
    assert names(tmp_path) == ["out"]


def test_a_folder_made_from_something_else_starts_over(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fill(out, {"a": 1}, until=3, stop=True)
    assert fill(out, {"a": 2}, until=2) == 0
    assert (out / "file").read_text() == "01"


@pytest.mark.parametrize("text", ["{", "[]", '{"made_from": {"a": 1}}', ""])
def test_a_record_of_progress_that_is_damaged_starts_over(tmp_path, text):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fill(out, {"a": 1}, until=3, stop=True)
    (tmp_path / ".out.unfinished.json").write_text(text)
    assert fill(out, {"a": 1}, until=2) == 0
    assert (out / "file").read_text() == "01"


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "text"
    atomic_files.write_text(path, "first")
    with (
        pytest.raises(KeyError),
        atomic_files.file_in_one_piece(path) as temporary,
    ):
        half(temporary)
    assert path.read_text() == "first"
    atomic_files.write_json(path, {"b": 1, "a": [2]})
    assert path.read_text() == '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}\n'
    assert names(tmp_path) == ["text"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, FileNotFoundError, "Expected a.json in.*Run the stage first"),
        ("{", ValueError, "Expected JSON.*delete it and run the stage again"),
    ],
)
def test_json_that_is_absent_or_damaged(tmp_path, text, error, message):
    path = tmp_path / "a.json"
    if text:
        path.write_text(text)
    with pytest.raises(error, match=message):
        atomic_files.read_json(path, made_by="the stage")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_only_a_new_path(tmp_path, kind):
    atomic_files.check_new(tmp_path / "absent", kind=kind)
    with pytest.raises(
        ValueError, match=rf"Expected a new {kind}. Received: out='.*, or rem"
    ):
        atomic_files.check_new(tmp_path, kind=kind)


def test_only_an_earlier_result_is_replaced(tmp_path):
    (tmp_path / "a-1").touch()
    (tmp_path / "b").touch()
    atomic_files.check_replaceable(tmp_path, names={"a-*", "b", "c"})
    atomic_files.check_replaceable(tmp_path / "absent", names={"b"})
    with pytest.raises(ValueError, match=r"only \['b'\].*also holds \['a-1'\]"):
        atomic_files.check_replaceable(tmp_path, names={"b"})
    with pytest.raises(ValueError, match="which is a file"):
        atomic_files.check_replaceable(tmp_path / "b", names={"b"})


@pytest.mark.parametrize("can_link", [True, False])
def test_a_second_name(tmp_path, monkeypatch, can_link):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("content")
    atomic_files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content"
    assert (tmp_path / "a").samefile(tmp_path / "b") == can_link


def test_the_fingerprint_depends_on_names_contents_and_order(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("1")
    paths[1].write_text("2")

    def fingerprint(paths):
        return atomic_files.fingerprint(paths, relative_to=tmp_path)

    # Of sha256sum, over the bytes a NUL 1 b NUL 2.
    assert fingerprint(paths).startswith("0e11826e1bf49d46")
    assert fingerprint(paths[::-1]) != fingerprint(paths)
    before = fingerprint(paths)
    paths[1].write_text("3")
    assert fingerprint(paths) != before


@pytest.fixture
def events(monkeypatch):
    """What is forced to the disk, by inode, and what is renamed."""
    events = []
    fsync, replace, rename = os.fsync, os.replace, pathlib.Path.rename

    def flushed(descriptor):
        events.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def inodes(path):
        path = pathlib.Path(path)
        inside = path.rglob("*") if path.is_dir() else []
        return {one.stat().st_ino for one in (path, *inside)}

    def replaced(source, target):
        events.append(("rename", inodes(source)))
        replace(source, target)

    def renamed(self, target):
        events.append(("rename", inodes(self)))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(pathlib.Path, "rename", renamed)
    return events


def check_flushed(events, folder):
    """Before the rename, what is renamed; after it, the folder of the name."""
    last = max(i for i, (what, _) in enumerate(events) if what == "rename")
    before = {inode for what, inode in events[:last] if what == "flush"}
    assert events[last][1] <= before
    assert ("flush", folder.stat().st_ino) in events[last:]


def test_a_file_is_on_the_disk_before_it_is_renamed(tmp_path, events):
    atomic_files.write_text(tmp_path / "file", "first")
    check_flushed(events, tmp_path)


def test_a_folder_is_on_the_disk_before_it_is_renamed(tmp_path, events):
    for text in ("first", "second"):
        with atomic_files.folder_in_one_piece(tmp_path / "out") as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "file").write_text(text)
        check_flushed(events, tmp_path)


def test_parts_are_on_the_disk_before_their_receipt(tmp_path, events):
    parts = resumable_parts.ResumableParts(tmp_path)
    with parts.write("one", what="a part") as part:
        part.path(".npy").write_bytes(b"content")
    renames = [i for i, (what, _) in enumerate(events) if what == "rename"]
    check_flushed(events, tmp_path)
    check_flushed(events[: renames[-1]], tmp_path)

"""What is made of a folder of photographs, and kept up to date."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy_photos
import toy_search
from paths import ROOT
from PIL import Image

from sare_tf.photo_database import indexing, updating
from sare_tf.records import building
from sare_tf.records.image_preparation import Unsteady
from sare_tf.runtime import run_lock, sealed_json
from sare_tf.search import embedding


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return toy_search.export(tmp_path_factory.mktemp("export"))


@pytest.fixture
def folder(tmp_path):
    return toy_photos.photographs(tmp_path / "photos")


@pytest.fixture
def prepare(tmp_path, export):
    """Prepares a folder; `embedded` are the photographs that were embedded."""

    def prepare(folder, *, cache=tmp_path / "cache", export=export, **options):
        return toy_photos.prepare(folder, cache, export=export, **options)

    return prepare


@pytest.fixture
def embedded(monkeypatch):
    """The photographs that were embedded, in order."""
    names = []
    real = embedding.embed_batches

    def embed(servable, images, image_ids, **options):
        for batch in real(servable, images, image_ids, **options):
            names.extend(image_ids[len(names) : len(names) + len(batch)])
            yield batch

    monkeypatch.setattr(embedding, "embed_batches", embed)
    return names


def _change(path, content):
    """Another content under the same name, and another time."""
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def test_the_second_call_makes_nothing(prepare, folder, tmp_path, monkeypatch):
    first = prepare(folder)
    assert len(toy_photos.contents(first)) == 6
    before = toy_photos.files(tmp_path / "cache")
    assert not any("unfinished" in name or "lock" in name for name in before)
    monkeypatch.setattr(updating, "update", None)
    assert prepare(folder) == first
    # The same folder by another path.
    (tmp_path / "link").symlink_to(folder)
    assert prepare(tmp_path / "link") == first
    assert toy_photos.files(tmp_path / "cache") == before


def test_only_what_changed_is_embedded(prepare, folder, tmp_path, embedded):
    prepare(folder)
    assert len(embedded) == 6
    embedded.clear()
    (folder / "3").mkdir()
    (folder / "3/new.png").write_bytes(toy_search.jpeg(3, 0))
    (folder / "0/0.jpg").unlink()
    _change(folder / "1/1.jpg", toy_search.jpeg(4, 0))
    (folder / "2/0.jpg").rename(folder / "2/moved.jpg")
    database = prepare(folder)
    assert sorted(embedded) == ["1/1.jpg", "2/moved.jpg", "3/new.png"]
    known = toy_photos.contents(database)
    assert sorted(known) == [
        *("0/1.jpg", "1/0.jpg", "1/1.jpg", "2/1.jpg", "2/moved.jpg"),
        "3/new.png",
    ]
    anew = prepare(folder, cache=tmp_path / "other")
    assert toy_photos.contents(anew) == known
    embedded.clear()
    # Touched, but the same.
    os.utime(folder / "2/1.jpg", ns=(5, 5))
    assert toy_photos.contents(prepare(folder)) == known
    assert embedded == []


@pytest.mark.parametrize("count", [1, 2])
def test_few_photographs(prepare, tmp_path, count):
    folder = toy_photos.photographs(tmp_path / "few", places=1, views=count)
    assert len(toy_photos.contents(prepare(folder))) == count
    toy_photos.photographs(folder, places=2, views=2)
    assert len(toy_photos.contents(prepare(folder))) == 4


def test_unreadable_ones_among_others(prepare, folder, caplog):
    (folder / "0/cut.jpg").write_bytes(toy_search.jpeg(0, 5)[:300])
    (folder / "0/text.JPG").write_text("not an image")
    (folder / "notes.txt").write_text("not an image")
    database = prepare(folder)
    assert len(toy_photos.contents(database)) == 6
    listed = (database.records / "rejected.csv").read_text()
    assert "0/cut.jpg,a damaged" in listed
    assert "0/text.JPG,not a JPEG" in listed
    # Repaired.
    _change(folder / "0/cut.jpg", toy_search.jpeg(0, 5))
    assert len(toy_photos.contents(prepare(folder))) == 7


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "jpg.*with no file. Put photographs there"),
        (["a.txt", "b.mov"], "with 2 other files, such as a.txt. Put"),
    ],
)
def test_a_folder_without_photographs(prepare, tmp_path, names, words):
    folder = tmp_path / "none"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=words):
        prepare(folder)
    assert not (tmp_path / "cache").exists()


def test_no_folder(prepare, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        prepare(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="a file"):
        prepare(folder / "0/0.jpg")


def test_no_photograph_can_be_read(prepare, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jpg").write_text("not an image")
    with pytest.raises(ValueError, match="at least one image.*a.jpg: not"):
        prepare(tmp_path / "bad")


def test_all_photographs_are_taken_away(prepare, folder):
    prepare(folder)
    shutil.move(folder / "0", folder.parent / "0")
    for name in ("1", "2"):
        shutil.rmtree(folder / name)
    with pytest.raises(ValueError, match="Expected photographs in the folder"):
        prepare(folder)
    shutil.move(folder.parent / "0", folder / "0")
    assert len(toy_photos.contents(prepare(folder))) == 2


def test_a_folder_that_changes_meanwhile(prepare, folder, monkeypatch):
    monkeypatch.setattr(updating, "_WAIT_S", 0)
    real, calls = building.build, []

    def build(options, **keywords):
        calls.append(options)
        if len(calls) == 1:
            (folder / "0/late.jpg").write_bytes(toy_search.jpeg(0, 9))
            raise Unsteady("changed.")
        return real(options, **keywords)

    monkeypatch.setattr(building, "build", build)
    database = prepare(folder)
    assert "0/late.jpg" in toy_photos.contents(database)
    monkeypatch.setattr(updating, "update", None)
    assert prepare(folder) == database


def test_a_photograph_that_comes_after_the_list(prepare, folder, monkeypatch):
    """It is found the next time, whether it is in the records or not."""
    real = indexing.update

    def update(*arguments, **keywords):
        (folder / "0/late.jpg").write_bytes(toy_search.jpeg(0, 9))
        return real(*arguments, **keywords)

    monkeypatch.setattr(indexing, "update", update)
    assert len(toy_photos.contents(prepare(folder))) == 6
    monkeypatch.setattr(indexing, "update", real)
    assert len(toy_photos.contents(prepare(folder))) == 7


def test_a_folder_that_keeps_changing(prepare, folder, monkeypatch):
    monkeypatch.setattr(updating, "_WAIT_S", 0)

    def build(options, **keywords):
        raise Unsteady("Expected images that stay as they are.")

    monkeypatch.setattr(building, "build", build)
    with pytest.raises(ValueError, match="that stay as they are"):
        prepare(folder)


def test_one_run_at_a_time(prepare, folder, tmp_path):
    prepare(folder)
    (entry,) = (tmp_path / "cache/photos").iterdir()
    with run_lock.only_run(entry):
        prepare(folder)  # Only searching needs no lock.
        (folder / "0/new.jpg").write_bytes(toy_search.jpeg(0, 9))
        with pytest.raises(BlockingIOError, match="one run at a time"):
            prepare(folder)
    assert len(toy_photos.contents(prepare(folder))) == 7


def _entry(database):
    return database.index.parent


@pytest.mark.parametrize("damage", ["format", "nonsense", "absent"])
def test_a_cache_of_another_version(prepare, folder, damage):
    database = prepare(folder)
    before = toy_photos.contents(database)
    state = _entry(database) / "state.json"
    if damage == "format":
        content = json.loads(state.read_text())
        del content["sha256"]
        content["network"]["format"] = 0
        sealed_json.write(state, content)
    elif damage == "nonsense":
        state.write_text("{")
    else:
        state.unlink()
    assert toy_photos.contents(prepare(folder)) == before


def test_damage_is_repaired(prepare, folder):
    database = prepare(folder)
    before = toy_photos.contents(database)
    with (database.index / "descriptors.npy").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 40)
    with pytest.raises(ValueError, match="SHA-256"):
        toy_photos.contents(database)
    assert prepare(folder) == database  # Sizes and times are the same.
    repaired = prepare(folder, repair=True)
    assert toy_photos.contents(repaired) == before


@pytest.mark.parametrize("kind", ["absent", "damaged"])
def test_a_wrong_export_is_refused_before_any_work(
    prepare, folder, tmp_path, export, kind
):
    wrong = tmp_path / "wrong"
    if kind == "damaged":
        shutil.copytree(export, wrong)
        (model,) = wrong.rglob("saved_model.pb")
        model.write_bytes(b"x")
    with pytest.raises((FileNotFoundError, ValueError), match="an? .*export"):
        prepare(folder, export=wrong)
    assert not list((tmp_path / "cache").rglob("manifest.parquet"))


def test_another_model_has_a_cache_of_its_own(prepare, folder, tmp_path):
    first = prepare(folder)
    other = toy_search.export(tmp_path / "other", length=1.00001)
    second = prepare(folder, export=other)
    assert second.index != first.index
    assert prepare(folder) == first


def test_a_kill_at_any_moment(prepare, folder, tmp_path):
    """What a kill leaves is what is on the disk: a copy of it is resumed.

    Copies are made at moments at which the first and the second run touch the
    file system.
    """
    moments = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}
    cache, copies = tmp_path / "cache", []
    state = {"active": False, "seen": 0, "every": 17}

    def hook(event, arguments):
        if not state["active"] or event not in moments:
            return
        if not str(arguments[0]).startswith(str(cache)):
            return
        state["active"] = False
        state["seen"] += 1
        if state["seen"] % state["every"] == 0:
            copy = tmp_path / f"copy{len(copies)}"
            shutil.copytree(cache, copy)
            copies.append(copy)
        state["active"] = True

    sys.addaudithook(hook)
    state["active"] = True
    prepare(folder)
    state["active"] = False
    first = len(copies)
    shutil.copytree(folder / "0", folder / "3")
    state["active"] = True
    expected = toy_photos.contents(prepare(folder))
    state["active"] = False
    assert first >= 5
    assert len(copies) - first >= 3
    for copy in copies:
        database = prepare(folder, cache=copy)
        assert toy_photos.contents(database) == expected, copy
        left = [
            name
            for name in toy_photos.files(copy)
            if "/." in name and not name.endswith(".lock")
        ]
        assert left == [], copy


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up(prepare, folder, tmp_path, small_disk):
    database = prepare(folder, cache=small_disk / "cache")
    before = toy_photos.contents(database)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    Image.effect_noise((300, 300), 90).save(folder / "new.png")
    with pytest.raises(OSError, match="Expected to write.*Make room"):
        prepare(folder, cache=small_disk / "cache")
    # What was there is as it was.
    assert toy_photos.contents(database) == before
    filler.unlink()
    database = prepare(folder, cache=small_disk / "cache")
    assert toy_photos.contents(database).keys() == {*before, "new.png"}


def test_a_second_look_imports_no_network(prepare, folder, tmp_path, export):
    database = prepare(folder)
    code = (
        "import sys; from sare_tf import locate;"
        "from sare_tf.pages.options import LocateOptions;"
        "(name, answer), = locate.run(LocateOptions(photo_folder=sys.argv[1],"
        "cache=sys.argv[2], export=sys.argv[3], photos=[sys.argv[4]]));"
        "assert answer.matches[0].image_id == '1/1.jpg', answer;"
        "made = {'embedder', 'backbones', 'exported_graph'} & "
        "{name.split('.')[-1] for name in sys.modules if 'sare_tf' in name};"
        "assert not made, made;"
        "assert 'sare_tf.photo_database.updating' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, folder, tmp_path / "cache", export]
        + [folder / "1/0.jpg"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert Path(database.index).is_dir()

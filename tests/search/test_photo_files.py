"""Photographs on the command line are those that readers find, too."""

import pytest
from toy_folders import touch

from sare_tf.dataset import readers
from sare_tf.search import photo_files

HIDDEN = [
    *("._IMG[1].jpg", ".thumbs/t.jpg", "a/.b/c.jpg"),
    *("@eaDir/IMG[1].jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/IMG[1].jpg"),
]
SHOWN = ["IMG[1].jpg", "a/b c.PNG", "a, b/d.jpeg"]


@pytest.fixture
def folder(tmp_path):
    return touch(tmp_path / "photos", *HIDDEN, *SHOWN, "notes.txt")


def test_a_folder_without_what_is_hidden(folder):
    expected = sorted(folder / name for name in SHOWN)
    assert photo_files.expand(str(folder)) == expected
    assert photo_files.expand(f"{folder}/**/*[.]*") == sorted(
        [*expected, folder / "notes.txt", folder / "@eaDir/IMG[1].jpg"]
        + [folder / name for name in HIDDEN[3:]]
    )


def test_readers_find_the_same(folder):
    place = folder.parent / "set" / "database" / "place"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    reading = readers.read(
        place.parents[1], reader="place_folders", split_fractions=(0, 0, 1)
    )
    prefix = "database/place/"
    assert sorted(reading.manifest["image_id"]) == [
        prefix + name for name in sorted(SHOWN)
    ]


def test_what_is_named_is_taken(folder):
    for name in (*SHOWN, *HIDDEN, "notes.txt", "absent.jpg"):
        assert (
            photo_files.expand(str(folder / name)) == [folder / name]
            or (folder / name).is_dir()
        )
    assert photo_files.expand(str(folder / ".thumbs")) == [
        folder / ".thumbs/t.jpg"
    ]


def test_the_name_of_a_photograph_in_a_folder(tmp_path):
    (tmp_path / "photos/a").mkdir(parents=True)
    photo = tmp_path / "photos/a/1.jpg"
    photo.write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "other.jpg").symlink_to(photo)
    for folder in ("photos", "link"):
        for name in ("photos/a/1.jpg", "link/a/../a/1.jpg", "other.jpg"):
            path = tmp_path / name
            assert photo_files.name_in(tmp_path / folder, path) == "a/1.jpg"
    assert photo_files.name_in(tmp_path / "photos/a", tmp_path / "b.jpg") == ""

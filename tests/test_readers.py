import numpy as np
import pytest

from sare_tf import readers
from sare_tf.readers import at_names, place_folders

# The name that the VPR-datasets-downloader's documentation gives for a field
# each: east, north, zone, letter, latitude, longitude, panorama, tile,
# heading, pitch, roll, height, timestamp, note.
FULL = (
    "@0584983.37@4477125.29@17@T@040.43977@-079.99825@000829@02@090@030@@@"
    "20130801_101500@day_forward_pittsburgh@.jpg"
)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_a_full_name():
    assert at_names.parse(FULL) == {
        "utm_east_m": 584983.37,
        "utm_north_m": 4477125.29,
        "utm_zone": "17T",
        "panorama_id": "000829",
        "heading_deg": 90.0,
        "timestamp": "20130801_101500",
        "condition": "day_forward_pittsburgh",
    }


@pytest.mark.parametrize(
    "name",
    [
        "@1.5@2@.jpg",
        "@1.5@2@@@@@@@@@@@@@.JPG",
        "@ 1.5@2.0.png",
        "@1.5@2@@@@@None@@@@@@@@.jpeg",
    ],
)
def test_a_short_name(name):
    fields = at_names.parse(name)
    assert (fields["utm_east_m"], fields["utm_north_m"]) == (1.5, 2.0)
    assert fields["utm_zone"] == fields["panorama_id"] == ""
    assert "heading_deg" not in fields


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("@1@2@.txt", "not one of .jpg, .jpeg, .png"),
        ("photo.jpg", "no @<east>@<north>@"),
        ("x@1@2@.jpg", "no @<east>@<north>@"),
        ("@1@.jpg", "are no numbers: '1', ''"),
        ("@one@2@.jpg", "are no numbers: 'one', '2'"),
        ("@nan@2@.jpg", "are no numbers: 'nan', '2'"),
        ("@1@2@@@@@@@north@.jpg", "heading is no number: 'north'"),
    ],
)
def test_a_wrong_name(name, reason):
    with pytest.raises(ValueError, match=reason.replace(".", r"\.")):
        at_names.parse(name)


def test_at_names(tmp_path):
    root = touch(
        tmp_path / "me@home" / "city",
        "images/train/database/@1@2@.jpg",
        "images/train/queries/street a/@3@4@.PNG",
        "images/test/database/@5@6@.jpeg",
        "images/test/database/photo.jpg",
        "images/test/database/.DS_Store",
        "images/test/notes.txt",
    )
    reading = readers.read(root, reader="at_names")
    columns = ["image_id", "split", "role", "utm_east_m"]
    assert reading.manifest[columns].to_numpy().tolist() == [
        ["train/database/@1@2@.jpg", "train", "database", 1.0],
        ["train/queries/street a/@3@4@.PNG", "train", "query", 3.0],
        ["test/database/@5@6@.jpeg", "test", "database", 5.0],
    ]
    assert [path for path, _ in reading.rejected] == ["test/database/photo.jpg"]
    for image_id in reading.manifest["image_id"]:
        assert (reading.root / image_id).is_file()


def test_place_folders_with_split_folders(tmp_path):
    root = touch(
        tmp_path,
        "train/database/tower/a.jpg",
        "train/queries/tower/deep/er/b.jpg",
        "val/database/lake/c.jpg",
        "val/database/loose.jpg",
        "val/database/lake/readme.md",
    )
    reading = readers.read(root, reader="place_folders")
    columns = ["image_id", "split", "role", "place_id"]
    assert reading.manifest[columns].to_numpy().tolist() == [
        ["train/database/tower/a.jpg", "train", "database", "tower"],
        ["train/queries/tower/deep/er/b.jpg", "train", "query", "tower"],
        ["val/database/lake/c.jpg", "val", "database", "lake"],
    ]
    assert reading.rejected == [
        ("val/database/lake/readme.md", "not one of .jpg, .jpeg, .png"),
        ("val/database/loose.jpg", "not in a folder of its place"),
    ]


def test_places_are_split_by_seed_and_stay_whole(tmp_path):
    root = touch(
        tmp_path,
        *(f"images/database/p{n:02d}/a.jpg" for n in range(20)),
        *(f"images/queries/p{n:02d}/b.jpg" for n in range(20)),
    )
    first = readers.read(root, reader="place_folders", seed=1).manifest
    again = readers.read(root, reader="place_folders", seed=1).manifest
    other = readers.read(root, reader="place_folders", seed=2).manifest
    assert first["split"].tolist() == again["split"].tolist()
    assert first["split"].tolist() != other["split"].tolist()
    assert first.groupby("place_id")["split"].nunique().max() == 1
    counts = first[first["role"] == "query"]["split"].value_counts()
    # 0.6, 0.15 and 0.25 of 20.
    assert counts.to_dict() == {"train": 12, "val": 3, "test": 5}


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "elsewhere", "a.jpg")
    dataset = tmp_path / "mine"
    for role in ("database", "queries"):
        place = dataset / "test" / role / "tower"
        place.parent.mkdir(parents=True)
        place.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(dataset)
    reading = readers.read(dataset, reader="place_folders")
    assert len(reading.manifest) == 2


@pytest.mark.parametrize("reader", list(readers.READERS))
def test_an_empty_or_absent_folder(tmp_path, reader):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="Expected images at .* with none"):
        readers.read(tmp_path, reader=reader)
    with pytest.raises(FileNotFoundError, match="Check --dataset"):
        readers.read(tmp_path / "absent", reader=reader)


def test_an_unknown_reader(tmp_path):
    with pytest.raises(ValueError, match="at_names, .*place_folders. Received"):
        readers.read(tmp_path, reader="gsv")


def test_split_folders_beside_role_folders(tmp_path):
    touch(tmp_path, "database/a/1.jpg", "train/database/b/2.jpg")
    with pytest.raises(ValueError, match="either split folders or database"):
        readers.read(tmp_path, reader="place_folders")


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)]
)
def test_wrong_fractions(fractions):
    with pytest.raises(ValueError, match="with sum 1. Received"):
        place_folders.split_places(list("abcdef"), fractions=fractions, seed=0)


def test_too_few_places():
    with pytest.raises(ValueError, match="at least 3 places"):
        place_folders.split_places(
            ["a", "b"], fractions=(0.6, 0.2, 0.2), seed=0
        )
    split = place_folders.split_places(["a", "b"], fractions=(0, 0, 1), seed=0)
    assert split == {"a": "test", "b": "test"}


@pytest.mark.parametrize("count", range(3, 40))
def test_every_split_gets_a_place(count):
    places = [str(number) for number in range(count)]
    split = place_folders.split_places(
        places, fractions=(0.98, 0.01, 0.01), seed=0
    )
    counts = np.unique(list(split.values()), return_counts=True)[1]
    assert len(counts) == 3
    assert counts.sum() == count

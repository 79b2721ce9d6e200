import math
import os
import re
from pathlib import Path

import pytest
from absl import flags
from paths import ROOT
from toy_folders import column, touch

import sare_tf.flags  # noqa: F401
from sare_tf.dataset import readers
from sare_tf.dataset.readers import at_names, files_on_disk
from sare_tf.dataset.readers.collector import Collector, Source, crop

# The name that the VPR-datasets-downloader's documentation gives for a field
# each: east, north, zone, letter, latitude, longitude, panorama, tile,
# heading, pitch, roll, height, timestamp, note.
FULL = (
    "@0584983.37@4477125.29@17@T@040.43977@-079.99825@000829@02@090@030@@@"
    "20130801_101500@day_forward_pittsburgh@.jpg"
)


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


def test_links_that_lead_to_themselves(tmp_path):
    place = touch(tmp_path, "test/database/a/1.jpg") / "test/database/a"
    (place / "self.jpg").symlink_to("self.jpg")
    (place / "there").symlink_to("back")
    (place / "back").symlink_to("there")
    reading = readers.read(tmp_path, reader="place_folders")
    # The builder opens it and lists why it cannot.
    assert [Path(name).name for name in column(reading, "place_id")] == [
        "1.jpg",
        "self.jpg",
    ]
    assert [Path(name).name for name, _ in reading.rejected] == [
        "back",
        "there",
    ]


def test_an_option_that_no_reader_has(tmp_path):
    with pytest.raises(TypeError, match="seed. Received: zone"):
        readers.read(tmp_path, reader="at_names", zone="17T")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["b.txt", "c.jpg", "d.jpg", "._d.jpg"],
            "3 other files, such as c.jpg",
        ),
        (["place/a.jpg"], "1 other files, such as place/a.jpg"),
        (["database/a.jpg"], "1 other files, such as database/a.jpg: not in a"),
        (["notes.txt"], "(1 other files)"),
        ([], "(0 other files)"),
    ],
)
def test_images_elsewhere_are_counted(tmp_path, names, message):
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=re.escape(message)):
        readers.read(tmp_path, reader="place_folders")


@pytest.mark.parametrize("reader", list(readers.READERS))
def test_an_empty_or_absent_folder(tmp_path, reader):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="Received: dataset=.* with none"):
        readers.read(tmp_path, reader=reader)
    with pytest.raises(FileNotFoundError, match="Check --dataset"):
        readers.read(tmp_path / "absent", reader=reader)


@pytest.mark.parametrize("reader", list(readers.READERS))
def test_every_reader_has_a_card(reader):
    cards = ROOT / "data"
    assert any(
        f"--reader={reader}" in card.read_text(encoding="utf-8")
        for card in cards.glob("*.md")
    )


def test_the_help_names_every_reader():
    words = re.findall(r"\w+", flags.FLAGS["reader"].help)
    assert set(readers.READERS) <= set(words)


def test_the_table_of_cards_names_every_reader():
    cards = ROOT / "data"
    table = (cards / "README.md").read_text(encoding="utf-8")
    for reader in readers.READERS:
        assert f"`{reader}`" in table
    for card in re.findall(r"\]\((\w+\.md)\)", table):
        assert (cards / card).is_file()


def test_an_unknown_reader(tmp_path):
    with pytest.raises(ValueError, match="at_names, .*vpr_bench. Received"):
        readers.read(tmp_path, reader="gsv")


def test_split_folders_beside_role_folders(tmp_path):
    touch(tmp_path, "database/a/1.jpg", "train/database/b/2.jpg")
    with pytest.raises(ValueError, match="either split folders or database"):
        readers.read(tmp_path, reader="place_folders")


def collector(root):
    return Collector(root, root, layout="here")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd.jpg", "not a path relative to the dataset"),
        ("C:\\photos\\a.jpg", "not a path relative to the dataset"),
        ("", "not a path relative to the dataset"),
        ("../a.jpg", "leaves the dataset's folder by .."),
        ("a/..\\../a.jpg", "leaves the dataset's folder by .."),
        ("a/b.txt", "not one of .jpg, .jpeg, .png"),
        ("a/gone.jpg", "named in the list, but no such file"),
        ("a", "not one of .jpg, .jpeg, .png"),
    ],
)
def test_paths_of_a_list_that_are_refused(tmp_path, name, reason):
    touch(tmp_path, "a.jpg", "set/a/b.txt")
    found = collector(tmp_path / "set")
    assert found.listed_file(name) == ""
    assert found.rejected == [(name, reason)]


def test_a_list_alone(tmp_path):
    """Paths are judged as ever, but the files need not be there."""
    found = Collector(tmp_path, tmp_path, layout="", list_only=True)
    assert found.listed_file("a/gone.jpg") == "a/gone.jpg"
    assert found.listed_file("../a.jpg") == found.listed_file("a/b.txt") == ""
    assert set(filter(readers.reads_lists, readers.READERS)) == {
        *("csv_table", "netvlad_mat", "openibl", "patch_netvlad")
    }
    with pytest.raises(
        ValueError, match="a reader of lists: csv_table, .*msls"
    ):
        readers.read(tmp_path, reader="msls", list_only=True)


def test_paths_of_a_list_are_made_alike(tmp_path):
    found = collector(touch(tmp_path, "a/b.JPG"))
    for name in ("a/b.JPG", "./a//b.JPG", "a\\b.JPG"):
        assert found.listed_file(name) == "a/b.JPG"


def test_names_that_are_no_text_are_refused(tmp_path):
    folder = touch(tmp_path, "database/a/1.jpg") / "database" / "a"
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb"):
        pass
    found = readers.read(
        tmp_path, reader="place_folders", split_fractions=(0, 0, 1)
    )
    assert column(found, "split") == {"database/a/1.jpg": "test"}
    assert found.rejected == [
        ("database/a/caf\\udce9.jpg", "its name is not UTF-8; rename it")
    ]


def test_what_a_collector_refuses(tmp_path):
    found = collector(tmp_path)
    assert found.add("a", split="test", role="query")
    assert not found.add("a", split="test", role="query")
    assert not found.add("b", split="test", role="query", degrees=(0.0, 0.0))
    assert not found.add("c", split="test", role="query", utm_east_m=math.nan)
    assert found.rejected == [
        ("a", "named more than once"),
        ("b", "latitude and longitude are 0: no position"),
        ("c", "east and north are no numbers"),
    ]


def test_a_part_of_an_image():
    image_id, source = crop("jpg/a.jpg", (136.5, 34.1, 648.5, 955.7))
    # Rounded to even: 136 and 648; 34 and 956.
    assert image_id == "jpg/a.jpg#xywh=136,34,512,922"
    assert source == Source("jpg/a.jpg", (136, 34, 648, 956))


def test_which_of_several_files(tmp_path):
    touch(tmp_path, "a.csv", "b.csv", ".c.csv")
    with pytest.raises(ValueError, match=r"with a\.csv, b\.csv\. Choose"):
        files_on_disk.only_file(tmp_path, "images.csv", "*.csv")
    touch(tmp_path, "images.csv")
    found = files_on_disk.only_file(tmp_path, "images.csv", "*.csv")
    assert found.name == "images.csv"


def test_tables_and_lists_that_cannot_be_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,x\n1,caf\xe9\n")
    for read in (files_on_disk.read_table, files_on_disk.read_lines):
        with pytest.raises(ValueError, match="utf-8.*get the file again"):
            list(read(tmp_path / "a.csv"))
        with pytest.raises(ValueError, match="No such file"):
            list(read(tmp_path / "b.csv"))
    (tmp_path / "a.csv").write_text("id,x\n1,NaN\n")
    with pytest.raises(ValueError, match="without .'y'.. Choose another"):
        files_on_disk.read_table(tmp_path / "a.csv", "id", "y")
    table = files_on_disk.read_table(tmp_path / "a.csv", "id", "x")
    assert table.to_numpy().tolist() == [["1", "NaN"]]


# What the common downloader and others write, one of each dataset.
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        # MSLS: the note says time, direction and city.
        (
            "@0345671.21@6173245.57@33@U@055.67612@0012.56834@"
            "-g99BW2Qh2janiUXbaokqg@@@@@@20180512@night_forward_cph@.jpg",
            {
                "utm_zone": "33U",
                "panorama_id": "-g99BW2Qh2janiUXbaokqg",
                "timestamp": "20180512",
                "condition": "night_forward_cph",
            },
        ),
        # SF-XL: a heading; zone 10 south of 40 degrees.
        (
            "@0551284.41@4180342.00@10@S@037.76960@-122.41760@"
            "kTZ8ABEpCWPMZ8kRGJqs4Q@@270@@@@201406@@.JPG",
            {"utm_zone": "10S", "heading_deg": 270.0, "timestamp": "201406"},
        ),
        # Nordland and AmsterTime: made-up metres; the number is a frame.
        ("@0@00023.8@@@@@10@@@@@@@@.jpg", {"utm_north_m": 23.8, "frame": 10}),
        ("@0@7000@@@@@7@@@@@@@@.jpg", {"utm_north_m": 7000.0, "frame": 7}),
    ],
)
def test_names_of_datasets(name, columns):
    found = at_names.parse(name)
    assert {key: found[key] for key in columns} == columns
    assert ("frame" in found) == ("frame" in columns)


def test_a_list_replaces_the_folder(tmp_path):
    root = touch(
        tmp_path,
        "images/test/database/a/@1@2@.jpg",
        "images/test/database/@3@4@.jpg",
        "images/test/queries/@5@6@.jpg",
    )
    (root / "images/test/database_images_paths.txt").write_text(
        "a/@1@2@.jpg\n\n../queries/@5@6@.jpg\ngone/@7@8@.jpg\n"
    )
    found = readers.read(root, reader="at_names")
    assert column(found, "role") == {
        "test/database/a/@1@2@.jpg": "database",
        "test/queries/@5@6@.jpg": "query",
    }
    assert [path for path, _ in found.rejected] == [
        "test/database/../queries/@5@6@.jpg",
        "test/database/gone/@7@8@.jpg",
    ]


def test_a_split_without_roles(tmp_path):
    """The training images of SF-XL lie in train/ itself."""
    root = touch(
        tmp_path,
        *(f"train/37.7/@{10 * n + m}@0@.jpg" for n in range(5) for m in (1, 9)),
        "train/37.7/@999@0@.jpg",
        "val/queries/@1@0@.jpg",
    )
    roles = column(readers.read(root, reader="at_names"), "role")
    squares = [
        sorted(roles[f"train/37.7/@{10 * n + m}@0@.jpg"] for m in (1, 9))
        for n in range(5)
    ]
    assert squares == [["database", "query"]] * 5
    assert roles["train/37.7/@999@0@.jpg"] == "database"


def test_names_of_two_zones_in_one_city(tmp_path):
    """London: 51.5 north, 0.1 east, in zone 31 and in zone 30 (pyproj)."""
    root = touch(
        tmp_path,
        "test/database/@701277.67@5709417.12@30@U@.jpg",
        "test/database/@700000@5709417.12@30@U@.jpg",
        "test/queries/@298722.334872973@5709417.124847525@31@U@.jpg",
    )
    found = readers.read(root, reader="at_names").manifest
    assert found["utm_zone"].tolist() == ["30U"] * 3
    assert found["utm_east_m"].tolist()[:2] == [700000.0, 701277.67]
    assert found["utm_east_m"][2] == pytest.approx(715155.936251880, abs=1e-5)
    assert found["utm_north_m"][2] == pytest.approx(5709986.340778, abs=1e-5)

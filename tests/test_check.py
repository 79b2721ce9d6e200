"""The stage that checks: what it says of a dataset, of lists and of records."""

import csv
import json
import logging
import re

import numpy as np
import pytest
import toy_damage
import toy_search
from absl import flags
from absl.testing import flagsaver
from paths import SHARED
from PIL import Image
from scipy import io
from toy_images import BAD, GOOD, encode
from toy_search import jpeg

from sare_tf import build_records, check
from sare_tf.checks import sources
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset import manifest
from sare_tf.records.options import RecordOptions

SPECS = SHARED / "data" / "netvlad_specs"
TOWER = SHARED / "data" / "ie_tower_320"
FILES = ["check.html", "check.json", "images.csv"]


def photos(root, *, places=3):
    """Places in all splits, in folders, without anything to find."""
    for number, split in enumerate(manifest.SPLITS):
        for place in range(places):
            for role, views in (("database", (0, 1)), ("queries", (2,))):
                folder = root / split / role / f"{split}{place}"
                folder.mkdir(parents=True)
                for view in views:
                    encoded = large(100 * number + place, view)
                    (folder / f"{view}.jpg").write_bytes(encoded)
    return root


def large(place, view):
    """The toy picture with sides of 64 pixels."""
    pixels = np.random.default_rng((place, view)).integers(0, 256, (8, 8, 3))
    pixels = pixels.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return encode(Image.fromarray(pixels), "JPEG")


def run(root, **options):
    options = {
        "dataset": root / "photos",
        "reader": "place_folders",
        "image_height": 64,
        "image_width": 64,
        **options,
    }
    path = check.run(CheckOptions(findings=root / "findings", **options))
    assert sorted(p.name for p in path.parent.iterdir()) == FILES
    return json.loads(path.read_text())


def found(summary):
    return {one["name"]: one for one in summary["findings"]}


def images_of(root, name):
    with (root / "findings/images.csv").open(newline="") as file:
        return [
            (row["image"], row["detail"])
            for row in csv.DictReader(file)
            if row["finding"] == name
        ]


@pytest.fixture
def root(tmp_path):
    photos(tmp_path / "photos")
    return tmp_path


def test_nothing_to_find(root):
    summary = run(root)
    assert summary["findings"] == []
    assert summary["ok"]
    assert summary["of"] == "dataset"
    assert summary["images_decoded"] == 27
    assert summary["counts"]["val"] == {
        "database": 6,
        "query": 3,
        "places": 3,
        "with_position": 0,
        "queries_without_positive": 0,
    }
    assert summary["sizes"] == {
        "different": 1,
        "upright": 0,
        "lying": 0,
        "square": 27,
        "most_frequent": [{"width": 64, "height": 64, "count": 27}],
    }
    page = (root / "findings/check.html").read_text()
    assert "No error found." in page
    # Three sample places of each split, of a query and two positives.
    assert page.count('<div class="case">') == 9
    assert page.count("data:image/jpeg") == 27
    for rule in (
        "Positives of train: of the same place_id, --train_positives=openibl.",
        "Positives of val: of the same place_id.",
        "Positives of test: protocol place.",
    ):
        assert rule in page


def test_everything_wrong_with_images(root):
    folder = root / "photos/test/database/test0"
    for name, (encoded, _) in BAD.items():
        (folder / f"{name}.jpg").write_bytes(encoded)
    for name, encoded in GOOD.items():
        (folder / f"{name}.jpg").write_bytes(encoded)
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "notes.txt").write_text("hello")
    copied = (root / "photos/train/database/train0/0.jpg").read_bytes()
    (folder / "copy.jpg").write_bytes(copied)
    summary = run(root)
    assert not summary["ok"]
    listed = dict(images_of(root, "unreadable"))
    names = [f"test/database/test0/{name}.jpg" for name in [*BAD, "gone"]]
    assert sorted(listed) == sorted(names)
    for name, (_, reason) in BAD.items():
        # The builder could convert it, with an extra.
        reason = reason.removeprefix("not a JPEG or PNG image: a HEIC")
        assert reason in listed[f"test/database/test0/{name}.jpg"]
    assert listed[names[-1]].startswith("cannot be read: ")
    assert images_of(root, "duplicates_across_splits") == [
        (
            "train/database/train0/0.jpg",
            "train; the same as test/database/test0/copy.jpg",
        ),
        (
            "test/database/test0/copy.jpg",
            "test; the same as train/database/train0/0.jpg",
        ),
    ]
    assert images_of(root, "cmyk") == [("test/database/test0/cmyk.jpg", "")]
    assert images_of(root, "animated") == [
        ("test/database/test0/animated_png.jpg", "")
    ]
    assert images_of(root, "left_out") == [
        ("test/database/test0/notes.txt", "not one of .jpg, .jpeg, .png")
    ]
    severities = [one["severity"] for one in summary["findings"]]
    assert severities == sorted(
        severities, key=["error", "warning", "note"].index
    )
    page = (root / "findings/check.html").read_text()
    assert "Training or evaluation would be wrong" in page


def test_damaged_images_that_decode(root):
    """Copies of one photograph, damaged as failed disks and downloads do."""
    folder = root / "photos/test/database/test0"
    whole = large(7, 7)
    scan = whole.index(b"\xff\xda") + 14
    middle = (scan + len(whole)) // 2
    damaged = {
        # What a copy that failed leaves: zeros, with and without an end.
        "zeros": whole[:middle] + bytes(len(whole) - middle - 2) + whole[-2:],
        "cut": whole[:middle] + whole[-2:],
        "block": whole[:middle] + b"\x5a" * 40 + whole[middle + 40 :],
    }
    for name, encoded in damaged.items():
        (folder / f"{name}.jpg").write_bytes(encoded)
    grey = Image.new("L", (640, 480), 128)
    # All bits of an optimised scan of one colour are zeros.
    (folder / "flat.jpg").write_bytes(encode(grey, "JPEG", optimize=True))
    (folder / "steps.jpg").write_bytes(encode(grey, "JPEG", progressive=True))
    assert run(root)["ok"]
    listed = dict(images_of(root, "damaged"))
    assert sorted(listed) == sorted(
        f"test/database/test0/{name}.jpg" for name in damaged
    )
    assert all("data" in complaint for complaint in listed.values())


def test_the_same_of_records(root):
    """Counts and findings do not depend on what is looked at."""
    folder = root / "photos/test/database/test0"
    (folder / "bad.jpg").write_bytes(b"")
    copied = (root / "photos/train/database/train0/0.jpg").read_bytes()
    (folder / "copy.jpg").write_bytes(copied)
    build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
        )
    )
    of_dataset = run(root)
    of_records = run(root, check_of="records", records=root / "records")
    assert of_records["of"] == "records"
    assert of_records["sizes"] == of_dataset["sizes"]
    assert of_records["images_decoded"] == 28
    for summary in (of_dataset, of_records):
        assert found(summary)["duplicates_across_splits"]["count"] == 2
    # The builder has left it out already.
    assert found(of_dataset)["unreadable"]["count"] == 1
    assert "unreadable" not in found(of_records)
    left_out = found(of_records)["left_out"]
    assert (left_out["count"], left_out["severity"]) == (1, "note")
    page = (root / "findings/check.html").read_text()
    assert page.count("data:image/jpeg") == 28


def test_damaged_records_are_named(root):
    records = build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
        )
    )
    path = records / "val-database-00000-of-00001.tfrecord"
    raw = bytearray(path.read_bytes())
    raw[500] ^= 1  # In the first record.
    path.write_bytes(bytes(raw))
    summary = run(root, dataset=None, records=records)
    [(image, reason)] = images_of(root, "unreadable")
    assert image == "val/database/val0/0.jpg"
    assert "valid checksums" in reason
    assert not summary["ok"]
    assert found(summary)["unreadable"]["severity"] == "error"


def test_records_without_digests_are_reported(tmp_path):
    """As an earlier version left them."""
    path = toy_search.records(tmp_path)
    assert sources.RecordsSource(path).findings() == []
    toy_damage.forget_digests(path / "records.json")
    [finding] = sources.RecordsSource(path).findings()
    assert (finding.name, finding.severity) == ("no_digests", "warning")
    assert "cannot tell whether they have changed" in finding.message
    assert "run python -m sare_tf.build_records" in finding.action


def test_what_is_checked(root):
    build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
        )
    )
    both = {"records": root / "records"}
    assert run(root, **both)["of"] == "dataset"
    assert run(root, **both, dataset=root / "gone")["of"] == "records"
    assert run(root, **both, check_of="records")["of"] == "records"
    with pytest.raises(FileNotFoundError, match="Check --dataset"):
        run(root, **both, check_of="dataset", dataset=root / "gone")
    with pytest.raises(FileNotFoundError, match="build_records"):
        run(root, dataset=None, records=root / "gone")
    for check_of in ("auto", "dataset"):
        with pytest.raises(ValueError, match="Received: no --dataset"):
            run(root, dataset=None, check_of=check_of)
    with pytest.raises(ValueError, match="Received: no --records"):
        run(root, check_of="records")


def test_an_unknown_split_or_protocol(root):
    with pytest.raises(ValueError, match="train, val, test. Received: split='"):
        run(root, split="tset")
    with pytest.raises(ValueError, match="Received: protocol='pits30k'"):
        run(root, protocol="pits30k")


def test_a_protocol_that_cannot_be_followed(root):
    summary = run(root, protocol="pitts30k")
    error = found(summary)["nothing_tells_what_matches"]
    assert error["severity"] == "error"
    assert "(protocol pitts30k): Expected coordinates" in error["message"]
    assert summary["counts"]["test"]["queries_without_positive"] == 3


def test_something_else_is_not_replaced(root):
    run(root)
    run(root)
    (root / "findings" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="thesis.tex.*Choose another folder"):
        run(root)


def table(root, *lines):
    folder = root / "set"
    folder.mkdir()
    (folder / "images.csv").write_text(
        "path,utm_east,utm_north,utm_zone,split,role\n" + "\n".join(lines)
    )
    return folder


def test_a_list_without_its_images(tmp_path):
    folder = table(
        tmp_path,
        "a.jpg,500000,4500000,17T,test,database",
        "b.jpg,500020,4500000,17T,test,query",
        "c.jpg,500090,4500000,17T,test,query",
    )
    options = {"dataset": folder, "reader": "csv_table"}
    summary = run(tmp_path, **options)
    assert not summary["ok"]
    assert summary["images_decoded"] == 0
    assert found(summary)["no_image_there"]["severity"] == "error"
    assert images_of(tmp_path, "no_positive") == [("c.jpg", "test")]
    # Asked for, it is no error.
    summary = run(tmp_path, **options, check_images=False)
    assert summary["ok"]
    assert found(summary)["no_image_there"]["severity"] == "note"
    page = (tmp_path / "findings/check.html").read_text()
    assert "no image was read" in page
    assert "Where: 3 images, zone 17T" in page
    assert "<h2>Sample places</h2>" not in page
    # With one of them, the others are missing.
    (folder / "a.jpg").write_bytes(jpeg(0, 0))
    summary = run(tmp_path, **options)
    assert summary["images_decoded"] == 1
    assert [image for image, _ in images_of(tmp_path, "missing_file")] == [
        "b.jpg",
        "c.jpg",
    ]
    # And are found to be without opening any.
    summary = run(tmp_path, **options, check_images=False)
    assert found(summary)["missing_file"]["count"] == 2
    assert summary["images_decoded"] == 0


def test_a_zone_with_the_letter_of_the_hemisphere(tmp_path):
    """Cape Town, by pyproj's metres."""
    folder = table(
        tmp_path,
        "a.jpg,261872,6243171,34S,test,database",
        "b.jpg,261877,6243171,34S,test,query",
    )
    options = {"dataset": folder, "reader": "csv_table", "check_images": False}
    summary = run(tmp_path, **options)
    finding = found(summary)["zone_notation"]
    assert (finding["severity"], finding["count"]) == ("warning", 2)
    assert "'34S' of 2 images is taken for 34H." in finding["message"]
    assert not {"outside_zone", "hemisphere"} & found(summary).keys()


def test_a_list_of_netvlad_without_folders(tmp_path):
    names = np.empty((1, 1), object)
    names[0, 0] = "000/000829_pitch1_yaw1.jpg"
    structure = {"whichSet": "test", "dbImageFns": names, "qImageFns": names}
    structure |= {
        "utmDb": np.array([[5e5], [4.5e6]]),
        "utmQ": np.array([[5e5], [4.5e6]]),
    }
    (tmp_path / "set").mkdir()
    io.savemat(tmp_path / "set/toy_test.mat", {"dbStruct": structure})
    options = {"dataset": tmp_path / "set", "reader": "netvlad_mat"}
    summary = run(tmp_path, **options, check_images=False, protocol="pitts30k")
    assert summary["counts"]["test"]["query"] == 1
    assert set(found(summary)) == {"no_image_there", "missing_split", "no_zone"}
    # A reader that has no list says what is missing, as ever.
    with pytest.raises(ValueError, match="with none"):
        run(tmp_path, dataset=tmp_path / "set", reader="msls")


def test_positions_and_roles_on_the_map(tmp_path):
    """Splits side by side; each has its colour and its name in the legend."""
    rows = [
        f"{split}{role}{n}.jpg,{500_000 + 100 * n + 2 * len(role) + 2000 * at}"
        f",4500000,17T,{split},{role}"
        for at, split in enumerate(manifest.SPLITS)
        for role in manifest.ROLES
        for n in range(5)
    ]
    folder = table(tmp_path, *rows)
    for row in rows:
        name = row.partition(",")[0]
        (folder / name).write_bytes(large(len(name), rows.index(row)))
    summary = run(tmp_path, dataset=folder, reader="csv_table")
    assert summary["ok"]
    assert summary["counts"]["train"]["with_position"] == 10
    page = (tmp_path / "findings/check.html").read_text()
    (key,) = re.findall(r'<p class="key">(.*)</p>', page)
    named = re.findall(r'<i class="([^"]*)"></i>([^<]*)<', key)
    shades = (("database", " faint"), ("query", ""))
    assert named == [
        (split + shade, f"{split} {role}")
        for role, shade in shades
        for split in manifest.SPLITS
    ]
    # 5 points of each.
    for kind, _ in named:
        (path,) = re.findall(rf'<path class="{kind}" [^>]*d="([^"]*)"', page)
        assert path.count("h0") == 5
    # A query stands 2 * (8 - 5) m from its positive.
    assert "6.0 m" in page


def test_the_command_ends_in_1_where_there_is_an_error(root, caplog):
    def command():
        flags.FLAGS(
            [
                "check",
                f"--dataset={root / 'photos'}",
                "--reader=place_folders",
                f"--findings={root / 'findings'}",
            ]
        )
        check.main([])

    caplog.set_level(logging.INFO)
    with flagsaver.flagsaver():
        command()
        assert "0 errors in 1 finding; look at" in caplog.text
        assert "Next: python -m sare_tf.build_records" in caplog.text
        caplog.clear()
        (root / "photos/test/database/test0/bad.jpg").write_bytes(b"")
        with pytest.raises(SystemExit) as ended:
            command()
    assert ended.value.code == 1
    assert "error: 1 image cannot be decoded." in caplog.text
    assert "test/database/test0/bad.jpg (empty file)" in caplog.text
    assert "Next:" not in caplog.text


def test_shares_that_are_no_numbers(root):
    with flagsaver.flagsaver(split_fractions=["1", "half"]):
        with pytest.raises(ValueError, match="--split_fractions=1,half"):
            check.main([])


@pytest.mark.skipif(
    not SPECS.is_dir(), reason="the official files are not here"
)
def test_the_official_lists_of_pittsburgh_30k(tmp_path):
    (tmp_path / "set").mkdir()
    for split in manifest.SPLITS:
        name = f"pitts30k_{split}.mat"
        (tmp_path / "set" / name).symlink_to(SPECS / name)
    summary = run(
        tmp_path,
        dataset=tmp_path / "set",
        reader="netvlad_mat",
        check_images=False,
        protocol="pitts30k",
    )
    assert summary["ok"]
    counts = summary["counts"]
    assert [counts[split]["query"] for split in counts] == [7416, 7608, 6816]
    # 7,320 queries have a positive within 10 m: OpenIBL's log says so, too.
    without = [counts[split]["queries_without_positive"] for split in counts]
    assert without == [7416 - 7320, 0, 0]
    overlap = found(summary)["splits_overlap"]
    assert overlap["message"].startswith(
        "600 of 17,608 images of the split val"
    )


@pytest.mark.skipif(not TOWER.is_dir(), reason="ie_tower_320 is not here")
def test_photographs_of_a_tower(tmp_path):
    """Two of its clips share 46 frames, under two names of places."""
    summary = run(tmp_path, dataset=TOWER)
    assert summary["ok"]
    assert summary["images_decoded"] == 2877
    assert summary["sizes"]["most_frequent"] == [
        {"width": 320, "height": 180, "count": 2877}
    ]
    counts = {name: one["count"] for name, one in found(summary).items()}
    assert counts == {
        "duplicates": 46,
        "duplicates_elsewhere": 92,
        "place_with_one_image": 2,
    }
    clips = {
        image.split("/")[1]
        for image, _ in images_of(tmp_path, "duplicates_elsewhere")
    }
    assert clips == {"f22_cafeteria_main", "f22_central_alt"}

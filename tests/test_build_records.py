import io
import logging
import os
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import toy_damage
from PIL import Image
from toy_search import jpeg

from sare_tf import build_records
from sare_tf.dataset import manifest
from sare_tf.dataset.positives import find_positives
from sare_tf.records import records
from sare_tf.records.options import RecordOptions


def photos(root, *, places=5, database=3, queries=2):
    """Places in all splits, in folders."""
    for split in manifest.SPLITS:
        for place in range(places):
            for role, count in (("database", database), ("queries", queries)):
                folder = root / split / role / f"p{place}"
                folder.mkdir(parents=True)
                for view in range(count):
                    (folder / f"{view}.jpg").write_bytes(jpeg(place, view))
    return root


def build(root, *, executor=None, **options):
    return build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
            **options,
        ),
        executor=executor,
    )


@pytest.fixture
def root(tmp_path):
    photos(tmp_path / "photos")
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_image_comes_back_untouched(root):
    opened = records.Records(build(root))
    table = opened.manifest
    assert len(table) == 3 * 5 * 5
    assert not list(opened.path.glob(".*"))
    order = np.random.default_rng(0).permutation(len(table)).repeat(2)
    rows = table.iloc[order]
    for image_id, encoded in zip(
        rows["image_id"], opened.read_images(rows), strict=True
    ):
        assert (root / "photos" / image_id).read_bytes() == encoded
    assert table[["height", "width"]].drop_duplicates().values.tolist() == [
        [32, 32]
    ]


def test_shards_are_plain_tfrecords_at_the_offsets_said(root):
    """Read by hand: the framing that TFRecord documents, and by TensorFlow."""
    opened = records.Records(build(root))
    for name, part in opened.manifest.groupby("shard", sort=False):
        raw = (opened.path / name).read_bytes()
        assert len(raw) == opened.metadata["shards"][name]["bytes"]
        dataset = tf.data.TFRecordDataset(str(opened.path / name))
        for row, serialised in zip(
            part.itertuples(), dataset.as_numpy_iterator(), strict=True
        ):
            (length,) = struct.unpack_from("<Q", raw, row.byte_offset)
            start = row.byte_offset + 12
            assert raw[start : start + length] == serialised
            assert row.byte_length == length + 16
            feature = tf.train.Example.FromString(serialised).features.feature
            assert feature["image/id"].bytes_list.value == [
                row.image_id.encode()
            ]
            assert feature["image/place"].bytes_list.value == [
                row.place_id.encode()
            ]


def test_the_same_bytes_for_any_number_of_workers(root):
    first = contents(build(root, num_workers=1))
    (root / "records").rename(root / "before")
    assert contents(build(root, num_workers=7)) == first


def large_photos(root, *, places=5, **views):
    """Each file is 200 kB: what follows the end of a JPEG is passed over."""
    photos(root, places=places, **views)
    for path in root.rglob("*.jpg"):
        path.write_bytes(path.read_bytes().ljust(200_000))
    return root


def test_a_place_is_in_one_shard_and_in_one_run(tmp_path):
    large_photos(tmp_path / "photos", places=9)
    table = records.Records(build(tmp_path, shard_mebibytes=1)).manifest
    assert table["shard"].nunique() > 6
    for _, part in table.groupby(["split", "role", "place_id"]):
        assert part["shard"].nunique() == 1
        assert np.ptp(part.index) == len(part) - 1
    # A place has 0.57 MiB, a shard from 0.5 to 2.
    sizes = table.groupby("shard")["byte_length"].sum()
    assert sizes.between(0.5 * 2**20, 2 * 2**20).all()


def test_images_without_place_are_grouped_by_position(tmp_path):
    folder = tmp_path / "photos" / "images" / "test" / "database"
    folder.mkdir(parents=True)
    for east in (5.0, 205.0, 7.0, 201.0):
        (folder / f"@{east}@3@.jpg").write_bytes(jpeg(int(east), 0))
    out = build_records.run(
        RecordOptions(dataset=tmp_path / "photos", records=tmp_path / "records")
    )
    table = records.Records(out).manifest
    assert table["utm_east_m"].tolist() == [5.0, 7.0, 201.0, 205.0]
    assert table["place_id"].tolist() == [""] * 4


def test_unchanged_work_is_kept(root):
    build(root)
    before = (root / "records").stat().st_ino
    build(root)
    assert (root / "records").stat().st_ino == before
    (root / "photos/train/database/p0/0.jpg").write_bytes(jpeg(9, 9))
    fingerprint = records.Records(root / "records").fingerprint
    build(root)
    assert records.Records(root / "records").fingerprint != fingerprint


def test_other_options_replace_records(root):
    build(root)
    build(root, shard_mebibytes=1)
    made_from = records.Records(root / "records").metadata["made_from"]
    assert made_from["shard_mebibytes"] == 1


def png(mode):
    encoded = io.BytesIO()
    Image.new(mode, (8, 6)).save(encoded, "PNG")
    return encoded.getvalue()


def bmp():
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6)).save(encoded, "BMP")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (
            ["database/a", "database/b", "database/c"],
            "the split train has no query",
        ),
        (
            ["queries/a", "queries/b", "queries/c"],
            "the split train has no database",
        ),
        (["queries/a", "database/b", "queries/c"], "no query has a positive"),
        (["queries/a", "database/a", "database/b", "database/c"], ""),
    ],
)
def test_records_that_cannot_be_trained_on(tmp_path, caplog, folders, reason):
    """The report names what they are good for instead."""
    for folder in folders:
        path = tmp_path / "photos" / "train" / folder / "0.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(0, 0))
    with caplog.at_level(logging.INFO):
        build(tmp_path)
    if reason:
        assert f"cannot be trained on these records: {reason}" in caplog.text
    assert ("Next: python -m sare_tf.index" in caplog.text) == bool(reason)
    assert ("Next: python -m sare_tf.train" in caplog.text) == (not reason)


def test_bad_files_are_left_out_and_listed(root, caplog):
    folder = root / "photos/train/database/p0"
    bad = {
        "text.jpg": b"this is no image",
        "empty.jpg": b"",
        "half.jpg": jpeg(1, 1)[:400],
        "other.png": bmp(),
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (folder / "grey.png").write_bytes(png("L"))
    (folder / "clear.PNG").write_bytes(png("RGBA"))
    build(root)
    rejected = pd.read_csv(root / "records/rejected.csv")
    names = rejected["path"].str.rpartition("/")[2].tolist()
    assert names == sorted([*bad, "gone.jpg"])
    reasons = dict(zip(names, rejected["reason"], strict=True))
    assert reasons["empty.jpg"] == "empty file"
    assert reasons["text.jpg"].startswith("not a JPEG or PNG image")
    assert reasons["gone.jpg"].startswith("cannot be read")
    assert all("\n" not in reason for reason in reasons.values())
    table = records.Records(root / "records").manifest
    kept = set(table["image_id"])
    assert {f"train/database/p0/{name}" for name in bad}.isdisjoint(kept)
    sizes = table.set_index("image_id")[["height", "width"]]
    for name in ("grey.png", "clear.PNG"):
        assert sizes.loc[f"train/database/p0/{name}"].tolist() == [6, 8]


def test_what_is_odd_is_kept_and_listed(root):
    alone = root / "photos/train/queries/alone"
    alone.mkdir()
    (alone / "0.jpg").write_bytes(jpeg(50, 0))
    build(root)
    warnings = pd.read_csv(root / "records/warnings.csv")
    assert warnings.values.tolist() == [
        ["train/alone", "place with one image"],
        [
            "train/queries/alone/0.jpg",
            "query without a positive in the database",
        ],
    ]
    assert records.Records(root / "records").metadata["warnings"] == 2


@pytest.mark.parametrize("options", [{}, {"reencode_quality": 90}])
def test_damaged_jpegs_that_decode_are_named(root, options):
    """Also once another image has changed the records."""
    folder = root / "photos/train/database/p0"
    whole = jpeg(0, 0)
    (folder / "bad.jpg").write_bytes(whole[:-2] + bytes(500) + whole[-2:])
    expected = [
        "train/database/p0/bad.jpg",
        "damaged JPEG, which decodes: Corrupt JPEG data: 498 extraneous bytes "
        "before marker 0xd9",
    ]
    for number in range(2):
        (root / f"photos/test/database/p1/new{number}.jpg").write_bytes(whole)
        build(root, **options)
        warnings = pd.read_csv(root / "records/warnings.csv")
        assert warnings.to_numpy().tolist() == [expected]


def test_a_split_that_is_absent_is_told(tmp_path):
    folder = tmp_path / "photos/test/database/a"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(jpeg(0, 0))
    build(tmp_path)
    warnings = pd.read_csv(tmp_path / "records/warnings.csv")
    assert warnings.values.tolist() == [
        ["test/a", "place with one image"],
        ["train", "split without an image"],
        ["val", "split without an image"],
        ["test", "split without a query image"],
    ]


def test_no_image_at_all(tmp_path):
    folder = tmp_path / "photos/test/database/a"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(b"no")
    with pytest.raises(ValueError, match="can be decoded. Received: 1 files"):
        build(tmp_path)
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("name", ["thesis.tex", "train-00000.tfrecord"])
def test_something_else_is_not_replaced(root, name):
    """Neither alone nor beside earlier records."""
    precious = root / "records" / name
    precious.parent.mkdir()
    precious.write_text("precious")
    message = f"also holds .'{name}'. and would be replaced"
    with pytest.raises(ValueError, match=message):
        build(root)
    precious.unlink()
    build(root)
    precious.write_text("precious")
    with pytest.raises(ValueError, match=message):
        build(root, shard_mebibytes=1)
    assert precious.exists()


def test_a_rule_that_cannot_be_followed_is_refused_at_once(root):
    with pytest.raises(ValueError, match="Use --positives=place"):
        build(root, positives="radius")
    assert not (root / "records").exists()


def test_an_error_leaves_the_old_records(root, monkeypatch):
    build(root)
    before = contents(root / "records")

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(records, "serialise", fail)
    with pytest.raises(OSError, match="No space"):
        build(root, verify_images=False)
    assert contents(root / "records") == before
    assert os.listdir(root / ".records.partial") == []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-query-00000-of-00001.tfrecord", lambda b: b[:-9], "bytes, not"),
        ("manifest.parquet", lambda b: b[:100], "manifest.parquet: not as wri"),
        ("records.json", lambda _: b"{}", "Delete the folder"),
        ("records.json", lambda b: b.replace(b"75", b"76"), "has changed"),
        ("records.json", lambda _: b"[" * 10_000, "Expected JSON"),
        ("records.json", lambda _: b"{", "Expected JSON"),
    ],
)
def test_damaged_records_are_refused_and_built_again(
    root, name, change, message
):
    path = build(root) / name
    whole = contents(root / "records")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        records.Records(root / "records")
    build(root)
    assert contents(root / "records") == whole


def test_a_flipped_bit_is_found_when_read(root):
    opened = records.Records(build(root))
    path = opened.path / "val-database-00000-of-00001.tfrecord"
    raw = bytearray(path.read_bytes())
    raw[500] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="valid checksums"):
        list(opened.read_images(opened.rows("val", "database")))


def test_absent_records(tmp_path):
    with pytest.raises(FileNotFoundError, match="build_records"):
        records.Records(tmp_path)


def test_absent_rows(tmp_path):
    folder = tmp_path / "photos/test/database/a"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_bytes(jpeg(0, 0))
    opened = records.Records(build(tmp_path))
    with pytest.raises(ValueError, match="with 1 test/database. Check --split"):
        opened.rows("train", "query")


def revisited(root, *, box, **gnd):
    """A query that is a part of an image, and a database of three."""
    (root / "photos/jpg").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c", "query")):
        (root / f"photos/jpg/{name}.jpg").write_bytes(jpeg(number, 0))
    truth = {
        "imlist": ["a", "b", "c"],
        "qimlist": ["query"],
        "gnd": [{"bbx": box, **gnd}],
    }
    (root / "photos/gnd_toy.pkl").write_bytes(pickle.dumps(truth))
    return root


def build_revisited(root, **options):
    return build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="revisited",
            **options,
        )
    )


def test_a_query_is_cut_out_without_loss(tmp_path):
    revisited(tmp_path, box=[3.4, 5.6, 20.5, 30.2], easy=[0])
    opened = records.Records(build_revisited(tmp_path))
    query = opened.rows("test", "query")
    assert query["image_id"].tolist() == ["jpg/query.jpg#xywh=3,6,17,24"]
    assert query[["height", "width"]].to_numpy().tolist() == [[24, 17]]
    [encoded] = opened.read_images(query)
    cut = np.asarray(Image.open(io.BytesIO(encoded)))
    whole = np.asarray(Image.open(tmp_path / "photos/jpg/query.jpg"))
    np.testing.assert_array_equal(cut, whole[6:30, 3:20])
    # The database is untouched.
    [encoded, *_] = opened.read_images(opened.rows("test", "database"))
    assert encoded == (tmp_path / "photos/jpg/a.jpg").read_bytes()


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        # Images of 32 x 32 pixels.
        ([-5, -5, 10, 40], (slice(0, 32), slice(0, 10))),
        ([30, 30, 90, 90], (slice(30, 32), slice(30, 32))),
    ],
)
def test_a_part_ends_at_the_border(tmp_path, box, inside):
    revisited(tmp_path, box=box, easy=[0])
    opened = records.Records(build_revisited(tmp_path))
    [encoded] = opened.read_images(opened.rows("test", "query"))
    whole = np.asarray(Image.open(tmp_path / "photos/jpg/query.jpg"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(encoded))), whole[inside]
    )


def test_a_part_outside_is_refused(tmp_path):
    revisited(tmp_path, box=[32, 0, 40, 10], easy=[0])
    build_revisited(tmp_path)
    rejected = pd.read_csv(tmp_path / "records/rejected.csv")
    [reason] = rejected["reason"]
    assert "lies outside the image, 32 x 32 pixels" in reason


def test_relations_lie_beside_the_manifest(tmp_path):
    revisited(tmp_path, box=[0, 0, 9, 9], easy=[0], hard=[2], junk=[1])
    opened = records.Records(build_revisited(tmp_path))
    query = "jpg/query.jpg#xywh=0,0,9,9"
    assert opened.relations.to_numpy().tolist() == [
        [query, "jpg/a.jpg", "easy"],
        [query, "jpg/c.jpg", "hard"],
        [query, "jpg/b.jpg", "junk"],
    ]
    assert opened.metadata["relations"] == 3
    found = find_positives(
        opened.rows("test", "query"),
        opened.rows("test", "database"),
        relations=opened.relations,
    )
    assert found[0].tolist() == [0, 2]
    warnings = pd.read_csv(tmp_path / "records/warnings.csv")
    assert warnings["what"].tolist() == ["train", "val"]


def test_relations_count_in_the_fingerprint(tmp_path):
    revisited(tmp_path, box=[0, 0, 9, 9], easy=[0])
    before = records.Records(build_revisited(tmp_path)).fingerprint
    gnd = tmp_path / "photos/gnd_toy.pkl"
    truth = pickle.loads(gnd.read_bytes())
    truth["gnd"][0]["easy"] = [1]
    gnd.write_bytes(pickle.dumps(truth))
    after = records.Records(build_revisited(tmp_path))
    assert after.relations["database"].tolist() == ["jpg/b.jpg"]
    assert after.fingerprint != before


def test_relations_of_refused_images_are_left_out(tmp_path):
    revisited(tmp_path, box=[0, 0, 9, 9], easy=[0, 1])
    (tmp_path / "photos/jpg/a.jpg").write_bytes(b"no")
    opened = records.Records(build_revisited(tmp_path))
    assert opened.relations["database"].tolist() == ["jpg/b.jpg"]
    (tmp_path / "photos/jpg/b.jpg").write_bytes(b"no")
    build_revisited(tmp_path)
    warnings = pd.read_csv(tmp_path / "records/warnings.csv")
    assert warnings.to_numpy().tolist()[-1] == [
        "test",
        "split where nothing says what matches",
    ]


def test_damaged_relations_are_refused(tmp_path):
    out = build_revisited(revisited(tmp_path, box=[0, 0, 9, 9], easy=[0, 1]))
    relations = records.Records(out).relations
    records.write_relations(relations[:1], out)
    with pytest.raises(ValueError, match="relations.parquet: not as written"):
        records.Records(out)
    toy_damage.forget_digests(out / "records.json")
    with pytest.raises(ValueError, match="another number of rows"):
        records.Records(out)
    (out / "relations.parquet").unlink()
    with pytest.raises(ValueError, match="Delete the folder"):
        records.Records(out)


def test_no_list_no_relations(root):
    opened = records.Records(build(root))
    assert opened.relations is None
    assert opened.metadata["relations"] is None


@pytest.mark.parametrize("rule", ["auto", "radius"])
def test_a_split_that_nothing_is_known_of(tmp_path, rule):
    """The test cities of Mapillary SLS have no coordinates."""
    for role in ("query", "database"):
        folder = tmp_path / "photos/test/miami" / role
        (folder / "images").mkdir(parents=True)
        (folder / "images" / f"{role}.jpg").write_bytes(jpeg(0, 0))
        (folder / "seq_info.csv").write_text(
            f",key,sequence_key,frame_number\n0,{role},S,1\n"
        )
        (folder / "subtask_index.csv").write_text(
            ",key,all,s2w,w2s,o2n,n2o,d2n,n2d\n"
            f"0,{role},True,False,False,False,False,False,False\n"
        )
    out = build_records.run(
        RecordOptions(
            dataset=tmp_path / "photos",
            records=tmp_path / "records",
            reader="msls",
            positives=rule,
        )
    )
    warnings = pd.read_csv(out / "warnings.csv").to_numpy().tolist()
    assert warnings[-1] == [
        "test",
        "split where nothing says what matches",
    ]
    assert records.Records(out).manifest["subtasks"].tolist() == ["all", "all"]


def test_options_reach_the_reader(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["path,latitude,longitude"]
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, 0))
        lines.append(f"{number}.jpg,51.5,{0.1 + number / 1e6}")
    (folder / "images.csv").write_text("\n".join(lines))
    out = build_records.run(
        RecordOptions(
            dataset=folder,
            records=tmp_path / "records",
            reader="csv_table",
            split_fractions=(0, 0, 1),
            query_fraction=0.5,
            utm_zone="30U",
        )
    )
    opened = records.Records(out)
    assert opened.metadata["counts"] == {"test/database": 4, "test/query": 4}
    assert set(opened.manifest["utm_zone"]) == {"30U"}


def test_places_of_two_zones_are_two_groups(tmp_path):
    folder = tmp_path / "photos/images/test/database"
    folder.mkdir(parents=True)
    # London's and Tokyo's zones are far apart: each keeps its own.
    for name in ("@500003@4000003@30@S@", "@500004@4000003@54@S@"):
        (folder / f"{name}.jpg").write_bytes(jpeg(1, 0))
    opened = records.Records(
        build_records.run(
            RecordOptions(
                dataset=tmp_path / "photos", records=tmp_path / "records"
            )
        )
    )
    assert opened.manifest["utm_zone"].tolist() == ["30S", "54S"]
    [shard] = opened.path.glob("*.tfrecord")
    places = [
        tf.train.Example.FromString(raw)
        .features.feature["image/place"]
        .bytes_list.value[0]
        for raw in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()
    ]
    assert places == [b"30S_50000_400000", b"54S_50000_400000"]

"""Damage to records is refused when they are opened, or when they are read."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import toy_damage
import toy_search
from test_build_records import contents
from toy_search import photographs

from sare_tf import build_records
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records

SHARD = "test-database-00000-of-00001.tfrecord"
AGAIN = "run python -m sare_tf.build_records"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return toy_search.records(tmp_path_factory.mktemp("built"))


@pytest.fixture
def out(built, tmp_path):
    return shutil.copytree(built, tmp_path / "records")


def change_manifest(out, change):
    path = out / "manifest.parquet"
    table = pd.read_parquet(path)
    change(table).to_parquet(path, index=False)


def swapped(table):
    """Two rows in each other's place."""
    return table.iloc[[1, 0, *range(2, len(table))]].reset_index(drop=True)


@pytest.mark.parametrize(
    "change",
    [
        swapped,
        lambda table: table.assign(image_id=table["image_id"] + "x"),
        lambda table: table.assign(role=table["role"].to_numpy()[::-1]),
        lambda table: table.assign(utm_east_m=table["utm_east_m"] + 1),
        lambda table: table.assign(byte_offset=table["byte_offset"] + 1),
        lambda table: table.drop(columns="byte_offset"),
        lambda table: table.assign(place_id=None),
    ],
)
def test_a_manifest_of_other_rows(out, change):
    change_manifest(out, change)
    with pytest.raises(ValueError, match=f"manifest.parquet: not as.*{AGAIN}"):
        Records(out)


@pytest.mark.parametrize("at", np.linspace(0, 0.999, 40))
def test_a_flipped_bit_in_the_manifest(out, at):
    path = out / "manifest.parquet"
    toy_damage.flip(path, int(at * path.stat().st_size), bit=3)
    with pytest.raises(ValueError, match="manifest.parquet: not as written"):
        Records(out)


def test_the_manifest_of_other_records(out, tmp_path):
    other = toy_search.records(tmp_path / "other", first_place=20)
    shutil.copy(other / "manifest.parquet", out)
    with pytest.raises(ValueError, match="manifest.parquet: not as written"):
        Records(out)


def test_a_fingerprint_of_others(out):
    path = out / "records.json"
    fingerprint = Records(out).fingerprint
    path.write_text(path.read_text().replace(fingerprint, "0" * 64))
    with pytest.raises(ValueError, match=f"content has changed.*{AGAIN}"):
        Records(out)


def test_a_digest_that_is_gone(out):
    path = out / "records.json"
    own = path.read_text().rindex('"sha256"')
    toy_damage.flip(path, own + 3)
    with pytest.raises(ValueError, match="its own digest is missing"):
        Records(out)


@pytest.mark.parametrize("forget", [False, True])
def test_another_image_with_valid_checksums(out, forget):
    """As the records of version 0.1 notice it, too."""
    path = out / SHARD
    kept = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in kept:
            writer.write(record.replace(b"\xff\xd8", b"\xff\xd9", 1))
    if forget:
        toy_damage.forget_digests(out / "records.json")
    opened = Records(out)
    rows = opened.rows("test", "database")
    with pytest.raises(ValueError, match=f"not the one that was.*{AGAIN}"):
        list(opened.read_images(rows))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not the one"):
        list(opened.encoded_dataset(rows.iloc[::-1]))
    others = opened.rows("test", "query")
    assert len(list(opened.read_images(others))) == len(others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="byte_offset"), "byte_offset"),
        (lambda table: table.assign(place_id=None), "str in the column place_"),
        (lambda table: table.assign(frame=0.5), "int64 in the column frame"),
        (lambda table: table.assign(utm_east_m="5"), "float64 in the column"),
        (lambda table: table[1:], "another number of rows"),
        (lambda table: table.assign(sha256="no"), "hexadecimal|SHA-256"),
    ],
)
def test_records_of_version_0_1_without_what_they_need(out, change, message):
    change_manifest(out, change)
    toy_damage.forget_digests(out / "records.json")
    with pytest.raises(ValueError, match=f"({message}).*{AGAIN}"):
        list(Records(out).read_images(Records(out).manifest))


def test_every_flipped_bit_of_an_earlier_manifest_is_no_traceback(out):
    path = out / "manifest.parquet"
    toy_damage.forget_digests(out / "records.json")
    size, refused = path.stat().st_size, []
    for at in np.linspace(0, size - 1, 200).astype(int):
        toy_damage.flip(path, at, bit=5)
        try:
            Records(out)
        except ValueError as error:
            refused.append(str(error))
        toy_damage.flip(path, at, bit=5)
    assert len(refused) > 50
    assert all(AGAIN in message for message in refused)


def test_a_damaged_manifest_is_not_taken_over(tmp_path):
    """A shard is built again, of files that have not changed."""
    options = RecordOptions(
        dataset=photographs(tmp_path / "photos"),
        records=tmp_path / "records",
        reader="at_names",
    )
    out = build_records.run(options)
    whole = contents(out)
    change_manifest(
        out, lambda table: table.assign(heading_deg=table["heading_deg"] + 1)
    )
    build_records.run(options)
    assert contents(out) == whole

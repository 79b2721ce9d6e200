"""Damage made by hand, of every kind, is found where it is."""

import pandas as pd
import pytest
import tensorflow as tf
import toy_damage
from absl import flags
from absl.testing import flagsaver
from test_build_records import build, photos

from sare_tf import build_records
from sare_tf.records import records
from sare_tf.records.verification import find_damage, verify

SHARD = "val-database-00000-of-00001.tfrecord"


@pytest.fixture
def out(tmp_path):
    photos(tmp_path / "photos")
    return build(tmp_path)


def rows_of(out, shard=SHARD):
    table = records.Records(out).manifest
    return table[table["shard"] == shard]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_whole_records(out, num_workers, caplog):
    assert find_damage(out, num_workers=num_workers) == []
    verify(out)
    assert "is whole" in caplog.text


@pytest.mark.parametrize("part", ["length", "its checksum", "data", "checksum"])
def test_a_flipped_bit_is_told_by_its_record(out, part):
    """And the records behind it are read, to the next flipped bit."""
    rows = rows_of(out)
    within = {"length": 1, "its checksum": 9, "data": 200, "checksum": -2}
    for position in (2, 5):
        row = rows.iloc[position]
        at = within[part] + row["byte_offset"]
        at += row["byte_length"] * (within[part] < 0)
        toy_damage.flip(out / SHARD, at)
    found = find_damage(out)
    assert [(d.file, d.byte_offset) for d in found] == [
        (SHARD, rows["byte_offset"].iloc[2]),
        (SHARD, rows["byte_offset"].iloc[5]),
    ]
    for damage, position in zip(found, (2, 5), strict=True):
        assert damage.what.startswith(rows["image_id"].iloc[position])


def test_a_shard_cut_short(out):
    rows = rows_of(out)
    path = out / SHARD
    whole = path.read_bytes()
    cut = int(rows["byte_offset"].iloc[7])
    path.write_bytes(whole[: cut + 30])
    size, record = find_damage(out)
    assert str(size) == (
        f"{SHARD} at byte {cut + 30}: the file ends at byte {cut + 30}, not "
        f"at {len(whole)}"
    )
    assert record.byte_offset == cut
    path.write_bytes(whole[:cut])
    size, record = find_damage(out)
    assert record.byte_offset == cut
    assert record.what.endswith("and all after it are missing")
    path.write_bytes(whole + b"more")
    [longer] = find_damage(out)
    assert longer.byte_offset == len(whole)
    path.unlink()
    [absent] = find_damage(out)
    assert str(absent).startswith(f"{SHARD}: cannot be read: No such file")


def rewrite(path, change):
    """Writes records anew, with valid checksums."""
    kept = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    kept = change(kept)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in kept:
            writer.write(record)


def test_records_of_equal_length_that_changed_places(out):
    rows = rows_of(out)
    lengths = rows["byte_length"].tolist()
    first, second = next(
        (a, b)
        for a in range(len(lengths))
        for b in range(a + 1, len(lengths))
        if lengths[a] == lengths[b]
    )

    def swap(kept):
        kept[first], kept[second] = kept[second], kept[first]
        return kept

    rewrite(out / SHARD, swap)
    found = find_damage(out)
    assert [damage.byte_offset for damage in found] == [
        rows["byte_offset"].iloc[position] for position in (first, second)
    ]
    assert rows["image_id"].iloc[second] in found[0].what.partition(": ")[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.replace(b"\xff\xd8", b"\xff\xd9", 1), "not the one that"),
        (lambda r: b"\xff" * len(r), "no Example"),
        (lambda r: r.replace(b"image/id", b"image/ix"), "no Example"),
    ],
)
def test_records_with_other_content(out, change, message):
    rewrite(out / SHARD, lambda kept: [change(kept[0]), *kept[1:]])
    [damage] = find_damage(out)
    assert damage.byte_offset == 0
    assert message in damage.what


def test_a_record_of_another_length(out):
    rewrite(out / SHARD, lambda kept: [kept[0] + b"\x32\x01x", *kept[1:]])
    found = find_damage(out)
    # The first is longer, so that nothing starts where the others should.
    assert "another record lies there" in found[1].what
    assert [damage.byte_offset for damage in found[1:]] == rows_of_json(out)


def rows_of_json(out):
    table = pd.read_parquet(out / "manifest.parquet")
    return table["byte_offset"][table["shard"] == SHARD].tolist()


@pytest.mark.parametrize(
    ("column", "value"),
    [("heading_deg", 5.0), ("sha256", "0"), ("place_id", "elsewhere")],
)
def test_a_manifest_that_was_edited(out, column, value):
    table = pd.read_parquet(out / "manifest.parquet")
    table.loc[0, column] = value
    table.to_parquet(out / "manifest.parquet", index=False)
    digest, rows, *_ = find_damage(out)
    assert str(digest) == "manifest.parquet: its SHA-256 is another"
    assert rows.file == "manifest.parquet"
    assert "not those of records.json" in rows.what
    toy_damage.forget_digests(out / "records.json")
    assert find_damage(out)[0] == rows


def test_offsets_that_were_edited(out):
    table = pd.read_parquet(out / "manifest.parquet")
    table.loc[table["shard"] == SHARD, "byte_offset"] += 1
    table.to_parquet(out / "manifest.parquet", index=False)
    digest, damage = find_damage(out)
    assert digest.file == "manifest.parquet"
    assert damage.file == SHARD
    assert "end to end" in damage.what
    toy_damage.forget_digests(out / "records.json")
    assert find_damage(out) == [damage]


def test_rows_that_are_missing(out):
    table = pd.read_parquet(out / "manifest.parquet")
    table[table["shard"] != SHARD].to_parquet(out / "manifest.parquet")
    found = find_damage(out)
    assert str(found[2]) == f"{SHARD}: 15 images, of which the manifest has 0"


def test_a_manifest_that_cannot_be_read(out):
    toy_damage.forget_digests(out / "records.json")
    (out / "manifest.parquet").write_bytes(b"PAR1")
    [damage] = find_damage(out)
    assert "cannot be read" in damage.what
    pd.DataFrame({"image_id": []}).to_parquet(out / "manifest.parquet")
    [damage] = find_damage(out)
    assert "without the columns" in damage.what


def test_an_earlier_manifest(out):
    table = pd.read_parquet(out / "manifest.parquet").drop(columns="sha256")
    table.to_parquet(out / "manifest.parquet", index=False)
    toy_damage.forget_digests(out / "records.json")
    [damage] = find_damage(out)
    assert damage.what.endswith("without the columns ['sha256'].")


def test_relations_that_cannot_be_read(out):
    toy_damage.edit(out / "records.json", relations=3)
    [damage] = find_damage(out)
    assert damage.file == "relations.parquet"


def test_a_shard_too_many(out):
    (out / "more.tfrecord").write_bytes(b"")
    [damage] = find_damage(out)
    assert damage.what == "a shard that records.json does not name"


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], r"records.json as it.*holds shards=\[\]"),
        ({SHARD: {}}, "lacks 'cou"),
    ],
)
def test_a_records_json_that_says_too_little(out, shards, message):
    toy_damage.edit(out / "records.json", shards=shards)
    with pytest.raises(ValueError, match=f"{message}.*build_records"):
        find_damage(out)
    with pytest.raises(ValueError, match=f"{message}.*build_records"):
        records.Records(out)


def test_records_without_digests_are_whole_and_say_so(out, caplog):
    toy_damage.forget_digests(out / "records.json")
    verify(out)
    assert "has no digests of manifest.parquet" in caplog.text
    assert len(records.Records(out).manifest) == 75


def test_the_command_fails_and_the_shard_is_built_again(out, caplog):
    fingerprint = records.Records(out).fingerprint
    whole = (out / SHARD).read_bytes()
    others = {path.name: path.stat().st_ino for path in out.glob("*database*")}
    toy_damage.flip(out / SHARD, 500)
    with flagsaver.flagsaver():
        flags.FLAGS(["program", "--verify", f"--records={out}"])
        with pytest.raises(ValueError, match=f"1 damages, in {SHARD}"):
            build_records.main([])
    assert f"{SHARD} at byte 0: " in caplog.text
    (out / SHARD).unlink()
    build(out.parent)
    assert (out / SHARD).read_bytes() == whole
    assert records.Records(out).fingerprint == fingerprint
    for name, inode in others.items():
        assert ((out / name).stat().st_ino == inode) == (name != SHARD)

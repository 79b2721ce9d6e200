"""Tuples as records, against the images and the order they are made of."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy_damage
import toy_training
from absl import flags
from absl.testing import flagsaver
from toy_executor import IdleExecutor, ObservedExecutor, PicklingExecutor
from toy_search import jpeg

from sare_tf import build_records
from sare_tf.dataset import tuple_lists
from sare_tf.records import building, tuple_building
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.training import datasets
from sare_tf.training.batches import AugmentationDraws

# A tuple of 4 images has some 3 kB.
MANY = 700


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Records, and a list of 700 tuples of their train split."""
    root = tmp_path_factory.mktemp("data")
    source = Records(toy_training.records(root))
    rows = source.manifest[source.manifest["split"] == "train"]
    rng = np.random.default_rng(0)
    positions = [rng.permutation(len(rows))[:4] for _ in range(MANY)]
    tuple_lists.write(
        tuple_lists.make(np.array(positions), rows), root / "list.parquet"
    )
    return root


def build(root, out, **options):
    options = {"shard_mebibytes": 1, "tuple_list": root / "list.parquet"} | (
        options
    )
    return tuple_building.build(records=root / "records", out=out, **options)


@pytest.fixture(scope="module")
def built(root):
    return build(root, root / "tuples")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def positions(root, stored):
    """Of the tuples as stored, in the manifest of their source."""
    source = Records(root / "records")
    return source, tuple_lists.find(stored.table(), source.manifest)


def test_what_is_stored_is_the_list_in_random_order(root, built):
    stored = TupleRecords(built)
    assert (stored.count, stored.images_per_tuple) == (MANY, 4)
    listed = tuple_lists.read(root / "list.parquet")
    order = np.random.default_rng(0).permutation(MANY)
    assert stored.table().equals(listed.iloc[order].reset_index(drop=True))


def test_an_example_holds_the_bytes_and_names_of_a_tuple(root, built):
    source, found = positions(root, TupleRecords(built))
    names = source.manifest["image_id"].to_numpy(object)
    shards = sorted(built.glob("*.tfrecord"))
    assert len(shards) == 3
    number = 0
    for path in shards:
        assert path.name.endswith("-of-00003.tfrecord")
        assert 0.5 * 2**20 < path.stat().st_size < 1.1 * 2**20
        for serialised in tf.data.TFRecordDataset(str(path)):
            example = tf.train.Example.FromString(serialised.numpy())
            feature = example.features.feature
            of_tuple = names[found[number]]
            assert feature["image/id"].bytes_list.value == [
                name.encode() for name in of_tuple
            ]
            assert feature["image/encoded"].bytes_list.value == [
                (root / "photos" / name).read_bytes() for name in of_tuple
            ]
            number += 1
    assert number == MANY


def test_the_same_bytes_again(root, built, tmp_path):
    assert contents(build(root, tmp_path / "again")) == contents(built)
    other = contents(build(root, tmp_path / "other", seed=1))
    assert set(other) == set(contents(built))
    assert other != contents(built)


@pytest.mark.parametrize(("draws", "limit"), [(0, 0), (3, 300)])
def test_the_batches_are_those_of_random_access(root, built, draws, limit):
    """Bit for bit, over several shards and runs, the last of 60 tuples."""
    stored = TupleRecords(built)
    source, found = positions(root, stored)
    options = {"height": 20, "width": 24, "tuples_per_batch": 8}
    options["draws"] = AugmentationDraws(draws, seed=5) if draws else None
    in_sequence = datasets.tuple_record_dataset(stored, seed=5, **options)
    if limit:
        in_sequence = in_sequence.take(limit // 8)
    order = stored.order(seed=5)[: limit or None]
    by_access = datasets.tuple_dataset(source, found[order], **options)
    count = (limit or MANY) // 8
    assert int(in_sequence.cardinality()) == count
    assert in_sequence.element_spec == by_access.element_spec
    seen = 0
    for (one, zeros), (other, _) in zip(in_sequence, by_access, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
        assert zeros.shape == (8,)
        seen += 1
    assert seen == count


def test_parts_of_batches_make_the_whole(built):
    options = {"height": 20, "width": 24, "tuples_per_batch": 8, "seed": 2}
    options["draws"] = AugmentationDraws(3, seed=2)

    def batches(part):
        dataset = datasets.tuple_record_dataset(
            TupleRecords(built), part=part, **options
        ).take(5)
        assert int(dataset.cardinality()) == 5
        return list(dataset.as_numpy_iterator())

    whole, *halves = (batches(part) for part in ((0, 1), (0, 2), (1, 2)))
    for (x, _), *parts in zip(whole, *halves, strict=True):
        for name in ("images", "draws"):
            joined = np.concatenate([part[name] for part, _ in parts])
            np.testing.assert_array_equal(joined, x[name])


def test_the_order_is_a_permutation_drawn_by_the_seed(built):
    """Shards in random order, in runs of 128 that span them."""
    stored = TupleRecords(built)
    metadata = json.loads((built / "tuples.json").read_text())
    counts = [shard["count"] for shard in metadata["shards"].values()]
    shard_of = np.repeat(np.arange(3), counts)
    first_shards = set()
    for seed in range(8):
        order = stored.order(seed=seed)
        np.testing.assert_array_equal(order, stored.order(seed=seed))
        assert sorted(order) == list(range(MANY))
        assert (order != np.arange(MANY)).mean() > 0.9
        # As shuffling in runs leaves them, but for the ends of shards.
        runs = [shard_of[order[i : i + 128]] for i in range(0, MANY, 128)]
        assert all(len(set(run)) <= 2 for run in runs)
        first_shards.add(runs[0][0])
    assert first_shards == {0, 1, 2}


@pytest.mark.parametrize("scheme", ["ram://", "file://"])
def test_any_storage_that_tensorflow_reads(built, tmp_path, scheme):
    """`ram` is a file system of TensorFlow's own, reached by its paths alone:
    what local files can do and gs:// cannot would fail there."""
    folder = f"{scheme}{tmp_path}/copy"
    tf.io.gfile.makedirs(folder)
    for path in built.iterdir():
        with tf.io.gfile.GFile(f"{folder}/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    local, remote = TupleRecords(built), TupleRecords(folder)
    assert remote.table().equals(local.table())
    assert remote.fingerprint == local.fingerprint
    options = {"height": 8, "width": 8, "tuples_per_batch": 100, "seed": 2}
    for (one, _), (other, _) in zip(
        datasets.tuple_record_dataset(local, **options),
        datasets.tuple_record_dataset(remote, **options),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    shard = f"{folder}/tuples-00001-of-00003.tfrecord"
    tf.io.gfile.remove(shard)
    with tf.io.gfile.GFile(shard, "wb") as file:
        file.write(b"cut")
    with pytest.raises(ValueError, match="has 3 bytes, not"):
        TupleRecords(folder)
    tf.io.gfile.remove(shard)
    with pytest.raises(ValueError, match="Copy or build them again"):
        TupleRecords(folder)


def test_unchanged_work_is_kept_and_other_work_replaces_it(root, tmp_path):
    out = build(root, tmp_path / "tuples")
    before = out.stat().st_ino
    first = TupleRecords(out).fingerprint
    build(root, out)
    assert out.stat().st_ino == before
    build(root, out, seed=3)
    assert out.stat().st_ino != before
    assert TupleRecords(out).fingerprint != first


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tuples-00002-of-00003.tfrecord", lambda b: b[:-1], "bytes, not"),
        ("tuples.json", lambda b: b[:40], "Expected whole tuple records"),
        ("tuples.json", lambda _: b"{}", "it lacks 'count'"),
        (
            "tuples.json",
            lambda b: b.replace(b'count": ', b'count": 1'),
            "changed",
        ),
        ("tuples.json", lambda _: b"[" * 10_000, "whole tuple records"),
        ("tuples.parquet", lambda b: b[:100], "Expected whole tuple records"),
        ("tuples.parquet", lambda b: b + b" ", "its SHA-256 is another"),
    ],
)
def test_damage_is_refused_and_built_again(
    root, built, tmp_path, name, change, message
):
    out = shutil.copytree(built, tmp_path / "tuples")
    (out / name).write_bytes(change((out / name).read_bytes()))
    with pytest.raises(ValueError, match=message):
        TupleRecords(out).table()
    build(root, out)
    assert contents(out) == contents(built)


def test_a_list_of_another_length_is_damage(built, tmp_path):
    out = shutil.copytree(built, tmp_path / "tuples")
    tuple_lists.write(TupleRecords(built).table()[:5], out / "tuples.parquet")
    toy_damage.forget_digests(out / "tuples.json")
    with pytest.raises(ValueError, match="another number of tuples"):
        TupleRecords(out).table()


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run python -m sare_tf.build"):
        TupleRecords(tmp_path)
    with pytest.raises(ValueError, match="that TensorFlow can read.*nowhere"):
        TupleRecords("nowhere://bucket/tuples")


def test_images_outside_the_train_split(root, tmp_path):
    source = Records(root / "records")
    table = tuple_lists.make(np.array([[0, 1, 2]]), source.manifest)
    assert source.manifest["split"][0] == "test"
    tuple_lists.write(table, tmp_path / "list.parquet")
    with pytest.raises(ValueError, match="of the train split of the records"):
        build(root, tmp_path / "o", tuple_list=tmp_path / "list.parquet")


def test_something_else_is_not_replaced(root, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="Choose another folder"):
        build(root, tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_fewer_tuples_than_a_batch(built):
    few, options = MANY + 1, {"height": 8, "width": 8}
    with pytest.raises(ValueError, match=f"{MANY} tuples, tuples_per_batch="):
        datasets.tuple_record_dataset(
            TupleRecords(built), tuples_per_batch=few, **options
        )


def test_by_the_command(root, built, tmp_path):
    with flagsaver.flagsaver():
        flags.FLAGS(
            [
                "program",
                f"--records={root / 'records'}",
                f"--tuple_list={root / 'list.parquet'}",
                f"--tuples={tmp_path / 'tuples'}",
                "--shard_mebibytes=1",
            ]
        )
        build_records.main([])
    assert contents(tmp_path / "tuples") == contents(built)


def test_a_stopped_build_is_taken_up(root, built, tmp_path):
    """Its finished shards are kept; one without its receipt is not whole."""

    def stop_after_two(do, shards):
        for shard in shards[:2]:
            do(shard)
        (tmp_path / f".tuples.partial/{shards[1].digest}.json").unlink()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(
            root, tmp_path / "tuples", executor=ObservedExecutor(stop_after_two)
        )
    assert os.listdir(tmp_path) == [".tuples.partial"]
    resumed = ObservedExecutor()
    build(root, tmp_path / "tuples", executor=resumed)
    assert [shard.name for shard in resumed.given] == [
        f"tuples-0000{n}-of-00003.tfrecord" for n in (1, 2)
    ]
    assert contents(tmp_path / "tuples") == contents(built)
    assert os.listdir(tmp_path) == ["tuples"]


def test_an_executor_elsewhere_builds_the_same_bytes(root, built, tmp_path):
    executor = PicklingExecutor()
    build(root, tmp_path / "tuples", executor=executor)
    assert len(executor.given) == 3
    assert contents(tmp_path / "tuples") == contents(built)


def test_records_built_again_at_the_same_path(tmp_path):
    """Tuples have the images as they are now, in one process.

    First the same images are in other shards, then they are other images.
    """
    for number in range(4):
        folder = tmp_path / f"photos/database/p{number}"
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes(jpeg(number, 0).ljust(600_000))
    fingerprints = []
    for turn, mebibytes in enumerate((1, 128, 128)):
        if turn == 2:
            for path in (tmp_path / "photos").rglob("*.jpg"):
                path.write_bytes(
                    jpeg(turn, 0).ljust(500_000) + path.read_bytes()
                )
        records = building.build(
            RecordOptions(
                dataset=tmp_path / "photos",
                records=tmp_path / "records",
                reader="place_folders",
                split_fractions=(1, 0, 0),
                shard_mebibytes=mebibytes,
            )
        )
        source = Records(records)
        fingerprints.append(source.fingerprint)
        tuple_lists.write(
            tuple_lists.make(np.array([[0, 2, 3], [3, 1, 0]]), source.manifest),
            tmp_path / "list.parquet",
        )
        stored = TupleRecords(
            tuple_building.build(
                records=records,
                tuple_list=tmp_path / "list.parquet",
                out=tmp_path / f"tuples{turn}",
            )
        )
        table = stored.table().iloc[stored.order(seed=0)].to_numpy()
        for names, encoded in zip(
            table, stored.encoded_dataset(seed=0), strict=True
        ):
            assert encoded.numpy().tolist() == [
                (tmp_path / "photos" / name).read_bytes() for name in names
            ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_other_records_than_were_planned(root, tmp_path):
    """As a worker would find them whose folder is not the shared one."""
    shard = tuple_building.TupleShard("s", np.zeros((1, 3), int), "other", "d")
    with pytest.raises(ValueError, match="which have changed"):
        tuple_building.write_shard(
            shard, Records(root / "records"), folder=tmp_path
        )


def test_a_shard_that_is_missing_after_all(root, tmp_path):
    with pytest.raises(OSError, match="Expected every part to be built"):
        build(root, tmp_path / "tuples", executor=IdleExecutor())
    assert not (tmp_path / "tuples").exists()


def test_a_disk_that_is_full(root, built, tmp_path, monkeypatch):
    """What is written after the first shard fails, as on a full disk."""
    writer = tf.io.TFRecordWriter
    paths = []

    def full(path):
        paths.append(path)
        if len(paths) == 2:
            raise tf.errors.ResourceExhaustedError(
                None, None, f"{path}; No space left on device"
            )
        return writer(path)

    monkeypatch.setattr(tf.io, "TFRecordWriter", full)
    with pytest.raises(OSError, match=r"No space left.*Make room"):
        build(root, tmp_path / "tuples")
    assert not (tmp_path / "tuples").exists()
    build(root, tmp_path / "tuples")
    # One failed; of three shards the first was kept.
    assert len(paths) == 1 + 1 + 2
    assert contents(tmp_path / "tuples") == contents(built)


def test_damaged_records_are_told(root, tmp_path):
    records = shutil.copytree(root / "records", tmp_path / "records")
    for path in records.glob("train-*.tfrecord"):
        raw = bytearray(path.read_bytes())
        raw[50] ^= 1
        path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="valid checksums"):
        tuple_building.build(
            records=records,
            tuple_list=root / "list.parquet",
            out=tmp_path / "tuples",
        )

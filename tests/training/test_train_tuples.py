"""Training on tuples that were built, against training by random access."""

import shutil

import keras
import numpy as np
import pytest
import toy_damage
import toy_training

from sare_tf import build_records, train
from sare_tf.dataset import tuple_lists
from sare_tf.records import tuple_building
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.records.tuple_records import TupleRecords
from sare_tf.training import datasets
from sare_tf.training.batches import AugmentationDraws
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state
from sare_tf.training.stored_tuples import StoredTuples

OPTIONS = {**toy_training.OPTIONS, "augment": ["crop", "erase"]}


@pytest.fixture(scope="module")
def root(toy_records, toy_run, tmp_path_factory):
    """Records, a run that mined, and the tuples of its first epoch."""
    root = tmp_path_factory.mktemp("data")
    shutil.copytree(toy_records, root / "records")
    shutil.copytree(toy_records.parent / "photos", root / "photos")
    shutil.copytree(toy_run.after[1], root / "mined")
    build_tuples(root, root / "tuples")
    return root


def build_tuples(root, out, **options):
    return tuple_building.build(
        records=root / "records",
        tuple_list=root / "mined" / "epoch-0001" / "tuples.parquet",
        out=out,
        **options,
    )


def run(root, checkpoints, **changes):
    options = {"records": root / "records", "tuples": str(root / "tuples")}
    return train.run(
        TrainingOptions(checkpoints=checkpoints, **OPTIONS | options | changes)
    )


@pytest.fixture(scope="module")
def recorded(root):
    return toy_training.RecordedRun(
        root,
        records=root / "records",
        tuples=str(root / "tuples"),
        **OPTIONS,
    )


@pytest.fixture
def finished(recorded):
    return recorded.finished


def weights(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def saved(checkpoints, epoch):
    return keras.models.load_model(checkpoints / epoch / "model.keras")


def assert_same_weights(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_leaves_the_tuples_it_trained_on(root, toy_run):
    table = tuple_lists.read(root / "mined" / "epoch-0001" / "tuples.parquet")
    manifest = Records(root / "records").manifest
    # The first of two epochs, rounds of 6 queries.
    np.testing.assert_array_equal(
        tuple_lists.find(table, manifest), np.concatenate(toy_run.tuples[:2])
    )
    rows = manifest.set_index("image_id")
    queries = rows.loc[table["query"], "place_id"].to_numpy()
    positives = rows.loc[table["positive"], "place_id"].to_numpy()
    np.testing.assert_array_equal(queries, positives)


def test_training_equals_fitting_by_random_access(root, finished):
    """Both epochs, bit for bit, with the tuples looked up in the records."""
    stored = TupleRecords(root / "tuples")
    source = Records(root / "records")
    found = tuple_lists.find(stored.table(), source.manifest)
    network = saved(finished, "epoch-0000")
    losses = []
    for epoch in (1, 2):
        seed = toy_training.options().seed_of(epoch)
        dataset = datasets.tuple_dataset(
            source,
            found[stored.order(seed=seed)],
            height=32,
            width=32,
            tuples_per_batch=3,
            draws=AugmentationDraws(8, seed=seed),
        )
        rate = 0.001
        network.optimizer.learning_rate.assign(rate)
        history = network.fit(dataset, shuffle=False, verbose=0)
        losses.append(history.history["loss"][0])
    assert_same_weights(network, saved(finished, "epoch-0002"))
    _, *epochs = read_state(finished)[1]["history"]
    assert [entry["loss"] for entry in epochs] == losses
    assert "violating" not in epochs[0]
    assert not (finished / "epoch-0002" / "tuples.parquet").exists()


def test_a_stopped_run_ends_as_if_undisturbed(
    root, recorded, finished, tmp_path
):
    """Its tuples may have moved in between."""
    shutil.copytree(recorded.after[1], tmp_path / "run")
    moved = shutil.copytree(root / "tuples", tmp_path / "moved")
    run(root, tmp_path / "run", tuples=str(moved))
    assert_same_weights(
        saved(tmp_path / "run", "epoch-0002"), saved(finished, "epoch-0002")
    )


def test_a_part_of_the_tuples(root):
    """7 of 12: two full batches of the same order."""
    part, whole = (
        StoredTuples(
            Records(root / "records"),
            toy_training.options(
                tuples=str(root / "tuples"), queries_per_epoch=count
            ),
        )
        for count in (7, 0)
    )
    assert (part.steps, whole.steps) == (2, 4)
    assert int(part.dataset(seed=1).cardinality()) == 2
    for (one, _), (other, _) in zip(
        part.dataset(seed=1), whole.dataset(seed=1).take(2), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_run_resumes_only_with_its_own_tuples(root, finished, tmp_path):
    other = build_tuples(root, tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="tuples_fingerprint: '"):
        run(root, finished, tuples=str(other), epochs=3)
    with pytest.raises(ValueError, match="tuples_fingerprint: None there"):
        run(root, root / "mined", augment=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_negatives": 3}, "with 2, num_negatives=3"),
        ({"queries_per_epoch": 2}, "2 tuples in an epoch, tuples_per_batch=3"),
    ],
)
def test_options_that_do_not_fit(root, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(root, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_records_of_only_the_val_split_are_enough(
    root, finished, tmp_path, caplog
):
    photos = tmp_path / "photos"
    shutil.copytree(root / "photos" / "val", photos / "val")
    options = {"dataset": photos, "reader": "place_folders"}
    records = build_records.run(
        RecordOptions(records=tmp_path / "records", **options)
    )
    checkpoints = run(root, tmp_path / "run", records=records, epochs=0)
    assert "other records than the tuples were made of" in caplog.text
    config, state = read_state(checkpoints)
    expected_config, expected = read_state(finished)
    assert config == expected_config | {"epochs": 0}
    assert state["history"] == expected["history"][:1]


def test_validating_on_images_that_are_trained_on_is_refused(root, tmp_path):
    photos = tmp_path / "photos" / "val"
    shutil.copytree(root / "photos" / "train", photos)
    # The names of images hold their split, as of a layout without splits.
    records = build_records.run(
        RecordOptions(
            dataset=tmp_path / "photos",
            records=tmp_path / "records",
            reader="place_folders",
        )
    )
    stored = shutil.copytree(root / "tuples", tmp_path / "tuples")
    table = TupleRecords(stored).table()
    renamed = table.map(lambda name: name.replace("train/", "val/", 1))
    tuple_lists.write(renamed, stored / "tuples.parquet")
    toy_damage.forget_digests(stored / "tuples.json")
    with pytest.raises(ValueError, match="images that are not trained on"):
        run(root, tmp_path / "run", records=records, tuples=str(stored))


@pytest.mark.parametrize("aggregation", ["gem", "netvlad"])
def test_damage_is_named_when_it_is_read(root, tmp_path, aggregation):
    """In the first epoch, or for NetVLAD's first centres."""
    stored = shutil.copytree(root / "tuples", tmp_path / "tuples")
    path = stored / "tuples-00000-of-00001.tfrecord"
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="whole tuple.*corrupted record at"):
        run(
            root,
            tmp_path / "run",
            tuples=str(stored),
            aggregation=aggregation,
            epochs=1,
        )

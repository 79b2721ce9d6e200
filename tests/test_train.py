"""Training runs on tiny images: what is kept, resumed and refused."""

import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_training
from finished_runs import assert_same_run, comparable, events, weights
from toy_search import jpeg

from sare_tf import build_records, model, train
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, run_lock
from sare_tf.training import compiled_network, datasets, optimizers, train_data
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return toy_training.records(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(records, tmp_path_factory):
    """A run that was never disturbed."""
    return train.run(
        TrainingOptions(
            records=records,
            checkpoints=tmp_path_factory.mktemp("run") / "checkpoints",
            **toy_training.OPTIONS,
        )
    )


def test_what_a_run_leaves(finished):
    config, state = read_state(finished)
    assert config["num_clusters"] == 4
    assert [entry["epoch"] for entry in state["history"]] == [0, 1, 2]
    assert state["last"] == "epoch-0002"
    kept = {"epoch-0000", state["best"], state["last"]}
    assert {path.name for path in finished.iterdir()} == {
        *kept,
        "config.json",
        "state.json",
        "tensorboard",
    }
    for name in kept:
        assert {path.name for path in (finished / name).iterdir()} == {
            "model.keras",
            "remembered.npy",
            *(["tuples.parquet"] if name != "epoch-0000" else []),
        }
    for entry in state["history"]:
        assert set(entry["recall_at"]) == {"1", "5", "10"}
    assert state["history"][-1]["loss"] > 0
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_training_moves_what_it_should(finished):
    def trained(name):
        model = keras.models.load_model(finished / name / "model.keras")
        return model.get_layer("embedder").get_weights()

    for before, after in zip(
        trained("epoch-0000"), trained("epoch-0002"), strict=True
    ):
        assert (before != after).any()


def test_the_best_epoch_has_the_best_recall_at_5(finished):
    _, state = read_state(finished)
    best = state["history"][int(state["best"].removeprefix("epoch-"))]
    top = max(entry["recall_at"]["5"] for entry in state["history"])
    assert best["recall_at"]["5"] == top


def test_a_stopped_run_ends_as_if_undisturbed(records, finished, tmp_path):
    options = {**toy_training.OPTIONS, "epochs": 1}
    checkpoints = tmp_path / "checkpoints"
    train.run(
        TrainingOptions(records=records, checkpoints=checkpoints, **options)
    )
    train.run(
        TrainingOptions(
            records=records, checkpoints=checkpoints, **toy_training.OPTIONS
        )
    )
    assert_same_run(checkpoints, finished)


class Killed(BaseException):
    """Passes every `except Exception`."""


@pytest.mark.parametrize("state_write", [2, 3])
def test_a_kill_between_two_writes_repeats_the_epoch(
    records, finished, tmp_path, monkeypatch, state_write
):
    """Write 1 ends epoch 0, 2 and 3 the epochs after."""
    write_json = atomic_files.write_json
    written = []

    def write(path, value):
        if path.name == "state.json":
            written.append(path)
            if len(written) == state_write:
                raise Killed
        write_json(path, value)

    options = {"records": records, "checkpoints": tmp_path / "checkpoints"}
    options |= toy_training.OPTIONS
    monkeypatch.setattr(atomic_files, "write_json", write)
    with pytest.raises(Killed):
        train.run(TrainingOptions(**options))
    monkeypatch.undo()
    train.run(TrainingOptions(**options))
    assert_same_run(tmp_path / "checkpoints", finished)


def test_a_finished_run_is_left_as_it_is(records, finished):
    before = comparable(finished)
    train.run(
        TrainingOptions(
            records=records, checkpoints=finished, **toy_training.OPTIONS
        )
    )
    assert comparable(finished) == before


def test_other_options_are_refused(records, finished):
    options = {**toy_training.OPTIONS, "num_clusters": 8}
    with pytest.raises(ValueError, match="num_clusters: 4 there, 8 now"):
        train.run(
            TrainingOptions(records=records, checkpoints=finished, **options)
        )


def test_other_records_are_refused(finished, tmp_path):
    other = toy_training.records(tmp_path, places=7)
    with pytest.raises(ValueError, match="records_fingerprint"):
        train.run(
            TrainingOptions(
                records=other, checkpoints=finished, **toy_training.OPTIONS
            )
        )


def test_a_folder_of_something_else_is_refused(records, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="Choose another --checkpoints"):
        train.run(
            TrainingOptions(
                records=records, checkpoints=tmp_path, **toy_training.OPTIONS
            )
        )
    assert (tmp_path / "thesis.tex").exists()


def test_a_run_without_an_epoch_starts_over(records, tmp_path):
    """Options may be corrected after a first try that did not get far."""
    checkpoints = tmp_path / "checkpoints"
    options = {**toy_training.OPTIONS, "epochs": 0}
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        train.run(
            TrainingOptions(
                records=records,
                checkpoints=checkpoints,
                **options | {"weights": "missing.h5"},
            )
        )
    assert (checkpoints / "config.json").is_file()
    train.run(
        TrainingOptions(records=records, checkpoints=checkpoints, **options)
    )
    config, state = read_state(checkpoints)
    assert (config["weights"], state["last"]) == (None, "epoch-0000")


def test_a_loss_that_is_not_finite_stops_training(records, tmp_path):
    options = {
        **toy_training.OPTIONS,
        "optimizer": "sgd",
        "learning_rate": 1e38,
    }
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match="Expected a finite .* Received"):
        train.run(
            TrainingOptions(records=records, checkpoints=checkpoints, **options)
        )
    assert all(np.isfinite(array).all() for array in weights(checkpoints))


def test_one_wrong_image_names_its_step_and_tuple(
    records, finished, tmp_path, monkeypatch
):
    """A NaN in the second epoch, second round, second batch: step 4 of 4.

    Its queries are the last three in the order of that epoch. The run that
    goes on ends as if undisturbed, though it was stopped between two rounds.
    """
    made = datasets.tuple_dataset
    calls = []

    def poisoned(source, tuples, **options):
        calls.append(tuples)
        wrong = 1 if len(calls) == 4 else -1

        def poison(step, batch):
            images = tf.cast(batch[0], tf.float32)
            return tf.where(step == wrong, np.nan, images), batch[1]

        return made(source, tuples, **options).enumerate().map(poison)

    options = {"records": records, "checkpoints": tmp_path / "checkpoints"}
    options |= toy_training.OPTIONS
    monkeypatch.setattr(datasets, "tuple_dataset", poisoned)
    with pytest.raises(ValueError, match="Expected a finite loss") as raised:
        train.run(TrainingOptions(**options))
    monkeypatch.undo()
    order = np.random.default_rng((0, 2)).permutation(12)[9:]
    queries = Records(records).rows("train", "query")
    names = queries["image_id"].iloc[order].tolist()
    for part in (
        f"loss=nan at step 4 of epoch 2, queries {names}",
        "The last checkpoint, epoch-0001, is untouched",
    ):
        assert part in str(raised.value)
    assert read_state(tmp_path / "checkpoints")[1]["last"] == "epoch-0001"
    train.run(TrainingOptions(**options))
    assert_same_run(tmp_path / "checkpoints", finished)


def test_a_step_that_spoils_the_weights_alone(records, tmp_path):
    """One step: its loss is computed before the weights overflow."""
    options = {
        **toy_training.OPTIONS,
        "optimizer": "sgd",
        "learning_rate": 3e38,
        "weight_decay": 1e6,
        "tuples_per_batch": 12,
    }
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match="Expected finite weights. Received"):
        train.run(
            TrainingOptions(records=records, checkpoints=checkpoints, **options)
        )
    assert all(np.isfinite(array).all() for array in weights(checkpoints))


def _spoil(checkpoints):
    """Puts a NaN into a weight of the last epoch."""
    path = checkpoints / read_state(checkpoints)[1]["last"] / "model.keras"
    model = keras.models.load_model(path)
    layer = model.get_layer("embedder").get_layer("netvlad")
    centres = keras.ops.convert_to_numpy(layer.centres)
    layer.centres.assign(np.full_like(centres, np.nan))
    model.save(path)


def test_a_descriptor_that_is_not_finite_names_the_image(
    records, finished, tmp_path
):
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(finished, checkpoints)
    _spoil(checkpoints)
    options = {**toy_training.OPTIONS, "epochs": 3}
    # Embedded first: the queries of the first round, as the records have them.
    first = np.sort(np.random.default_rng((0, 3)).permutation(12)[:6])[0]
    name = Records(records).rows("train", "query")["image_id"].iloc[first]
    with pytest.raises(
        ValueError, match=f"finite descriptors.* for {name} and 5 other"
    ):
        train.run(
            TrainingOptions(records=records, checkpoints=checkpoints, **options)
        )


def _miner(records, **changes):
    options = toy_training.options(**changes)
    return train_data.Miner(
        train_data.Split(Records(records), "train", options), options
    )


def test_rounds_are_whole_batches_and_grow_when_the_rate_is_halved(records):
    """12 queries; every is 4, 8 and 16 in epochs 1, 2 and 3."""
    miner = _miner(
        records, refresh_every_queries=4, tuples_per_batch=2, halve_every=1
    )
    for epoch, lengths in ((1, [4, 4, 4]), (2, [6, 6]), (3, [12])):
        rounds = miner.rounds(epoch)
        assert [len(queries) for queries in rounds] == lengths
        assert sorted(np.concatenate(rounds)) == list(range(12))
    miner = _miner(records, refresh_every_queries=1, tuples_per_batch=5)
    assert [len(queries) for queries in miner.rounds(1)] == [5, 5]
    miner = _miner(records, refresh_every_queries=0)
    assert [len(queries) for queries in miner.rounds(1)] == [12]


def test_the_interval_never_exceeds_what_was_asked(records):
    for every in range(1, 14):
        miner = _miner(records, refresh_every_queries=every, tuples_per_batch=2)
        longest = max(len(queries) for queries in miner.rounds(1))
        assert longest <= max(2, every + every % 2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embedding_in_blocks_equals_one_call(records, monkeypatch, dtype):
    options = toy_training.options(cache_dtype=dtype, batch_size=4)
    split = train_data.Split(Records(records), "train", options)
    embedder = compiled_network.build(split, options).get_layer("embedder")
    monkeypatch.setattr(train_data, "_EMBED_BLOCK_BYTES", 5 * 4 * 384)
    found = split.embed(embedder, split.database)
    assert found.dtype == dtype
    dataset = datasets.image_dataset(
        split.records, split.database, height=32, width=32, batch_size=12
    )
    expected = embedder.predict(dataset, verbose=0)
    tolerance = 1e-6 if dtype == "float32" else 2**-11
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_too_few_negatives(records, tmp_path):
    options = {**toy_training.OPTIONS, "num_negatives": 50}
    with pytest.raises(ValueError, match="has 10 of 12 database images"):
        train.run(
            TrainingOptions(
                records=records, checkpoints=tmp_path / "c", **options
            )
        )


def test_no_query_with_a_positive(tmp_path):
    records = toy_training.records(tmp_path, queries=0)
    with pytest.raises(ValueError, match="Expected query images in the split"):
        train.run(
            TrainingOptions(
                records=records,
                checkpoints=tmp_path / "c",
                **toy_training.OPTIONS,
            )
        )


def test_without_a_val_split_the_last_epoch_is_the_best(tmp_path, caplog):
    toy_training.records(tmp_path)
    (tmp_path / "photos" / "val").rename(tmp_path / "elsewhere")
    records = build_records.run(
        RecordOptions(
            dataset=tmp_path / "photos",
            records=tmp_path / "records",
            reader="place_folders",
        )
    )
    checkpoints = train.run(
        TrainingOptions(
            records=records,
            checkpoints=tmp_path / "checkpoints",
            **{**toy_training.OPTIONS, "epochs": 1},
        )
    )
    assert "the last epoch counts as the best" in caplog.text
    assert read_state(checkpoints)[1]["best"] == "epoch-0001"


def test_patience_ends_a_run(records, tmp_path):
    """Nothing is learnt at a rate of 0: every epoch equals epoch 0."""
    options = {
        **toy_training.OPTIONS,
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "epochs": 9,
        "patience": 2,
    }
    checkpoints = train.run(
        TrainingOptions(
            records=records, checkpoints=tmp_path / "checkpoints", **options
        )
    )
    _, state = read_state(checkpoints)
    assert (state["best"], state["last"]) == ("epoch-0000", "epoch-0002")


def test_validation_on_a_part_of_the_queries(records):
    opened = Records(records)

    def chosen(**changes):
        options = toy_training.options(**changes)
        val = train_data.Validation(opened, options)
        return val.queries["image_id"].tolist()

    everything = opened.rows("val", "query")["image_id"].tolist()
    assert chosen(val_queries=0) == chosen(val_queries=12) == everything
    some = chosen(val_queries=5)
    assert len(set(some)) == 5
    assert some == sorted(some) == chosen(val_queries=5)
    assert some != chosen(val_queries=5, seed=1)


def test_validation_drops_results_of_the_same_time(tmp_path):
    """Each query is a database image as well: alone of its time, or not.

    Spot 0 has an image of another time, spot 1 has none.
    """
    for role, images in {
        "queries": [(0, 2014), (1, 2014)],
        "database": [(0, 2014), (0, 2009), (1, 2014), (2, 2009)],
    }.items():
        for split in ("train", "val"):
            for spot, year in images:
                name = f"@{1000 * spot}@0@@@@@@@@@@@{year}@@.jpg"
                path = tmp_path / "city" / "images" / split / role / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(spot, 0))
    records = Records(
        build_records.run(
            RecordOptions(
                dataset=tmp_path / "city", records=tmp_path / "records"
            )
        )
    )
    for rule, expected in (("openibl", 1.0), ("netvlad", 0.5)):
        val = train_data.Validation(
            records, toy_training.options(train_positives=rule)
        )
        embedder = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.UnitNormalization(),
            ]
        )
        assert val.recall(*val.embed(embedder))[1] == expected


@pytest.mark.parametrize(
    ("loss", "kernel", "optimizer"),
    [
        ("sare_independent", "cauchy", "sgd"),
        ("sare_joint", "exponential", "adam"),
    ],
)
def test_other_losses_train(records, tmp_path, loss, kernel, optimizer):
    options = {
        **toy_training.OPTIONS,
        "loss": loss,
        "kernel": kernel,
        "optimizer": optimizer,
        "epochs": 1,
        "queries_per_epoch": 6,
        "augment": ["crop", "colour"],
        "halve_every": 0,
    }
    checkpoints = train.run(
        TrainingOptions(
            records=records, checkpoints=tmp_path / "checkpoints", **options
        )
    )
    entry = read_state(checkpoints)[1]["history"][1]
    assert np.isfinite(entry["loss"])
    # 6 queries of 12: at least half of the negatives remembered are unknown.
    remembered = np.load(checkpoints / "epoch-0001" / "remembered.npy")
    assert (remembered >= 0).all(axis=1).sum() == 6


def test_given_centres_and_layers_reach_the_network(records, tmp_path):
    centres = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    np.save(tmp_path / "centres.npy", centres)
    options = {
        **toy_training.OPTIONS,
        "epochs": 0,
        "cut_layer": "stage3_relu",
        "train_from": "stage2_conv",
        "netvlad_centres": str(tmp_path / "centres.npy"),
    }
    found = train.run(
        TrainingOptions(
            records=records, checkpoints=tmp_path / "run", **options
        )
    )
    _, state = read_state(found)
    model = keras.models.load_model(found / state["last"] / "model.keras")
    embedder = model.get_layer("embedder")
    layer = embedder.get_layer("netvlad")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer.centres), centres
    )
    trained = {weight.path.split("/")[-2] for weight in model.trainable_weights}
    assert trained == {
        "stage2_conv",
        "stage2_norm",
        "stage3_conv",
        "stage3_norm",
        "netvlad",
    }


def test_centres_are_for_netvlad_alone(records, tmp_path):
    options = {
        **toy_training.OPTIONS,
        "aggregation": "gem",
        "netvlad_centres": "centres.npy",
    }
    with pytest.raises(ValueError, match="'netvlad' with.*aggregation='gem'"):
        train.run(
            TrainingOptions(
                records=records, checkpoints=tmp_path / "run", **options
            )
        )


PLACES = {"places_per_batch": 3, "images_per_place": 4, "learning_rate": 0.01}


def test_a_loss_over_places_trains_without_mining(records, tmp_path):
    options = {**toy_training.OPTIONS, **PLACES, "loss": "place_sare_joint"}
    found = train.run(
        TrainingOptions(
            records=records, checkpoints=tmp_path / "run", **options
        )
    )
    before, *epochs = read_state(found)[1]["history"]
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert "violating" not in epochs[0]
    assert set(before["recall_at"]) == {"1", "5", "10"}


def test_training_on_places_ends_as_if_undisturbed(records, tmp_path):
    options = {**toy_training.OPTIONS, **PLACES, "loss": "place_triplet_hard"}
    whole = train.run(
        TrainingOptions(records=records, checkpoints=tmp_path / "a", **options)
    )
    stopped = tmp_path / "b"
    train.run(
        TrainingOptions(
            records=records, checkpoints=stopped, **options | {"epochs": 1}
        )
    )
    train.run(TrainingOptions(records=records, checkpoints=stopped, **options))
    assert_same_run(whole, stopped)


def test_places_with_too_few_images_are_an_error(records, tmp_path):
    options = {**toy_training.OPTIONS, "loss": "place_sare_joint"}
    options |= {"places_per_batch": 3, "images_per_place": 5}
    with pytest.raises(ValueError, match="3 places with 5 images each"):
        train.run(
            TrainingOptions(
                records=records, checkpoints=tmp_path / "run", **options
            )
        )
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_another_run_trains(records, tmp_path, monkeypatch):
    options = TrainingOptions(
        records=records, checkpoints=tmp_path / "run", **toy_training.OPTIONS
    )
    with run_lock.only_run(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match="/run', which is being writ"):
            train.run(options)
        # Other workers belong to the run of their chief.
        monkeypatch.setattr(train.strategies, "is_chief", lambda _: False)
        monkeypatch.setattr(train, "_run", lambda *_: "trained")
        assert train.run(options) == "trained"


def test_a_dry_run_writes_nothing(records, tmp_path, caplog):
    """12 queries in two rounds; 4 steps of 3 tuples of 4 images."""
    before = sorted(tmp_path.rglob("*"))
    with caplog.at_level(logging.INFO):
        train.run(
            TrainingOptions(
                records=records,
                checkpoints=tmp_path / "run",
                dry_run=True,
                **toy_training.OPTIONS,
            )
        )
    assert sorted(tmp_path.rglob("*")) == before
    for line in (
        "12 queries, 12 database images; 4 steps of 3 tuples, 12 images, "
        "mined in 2 rounds",
        "2, about 8 steps",
        "12 queries, 12 database images\n",
        " trained, 0 frozen; descriptors of 384 numbers",
        " MiB  mining: descriptors",
        " MiB  together",
    ):
        assert line in caplog.text
    with caplog.at_level(logging.INFO):
        train.run(
            TrainingOptions(
                records=records,
                checkpoints=tmp_path / "run",
                dry_run=True,
                **{
                    **toy_training.OPTIONS,
                    **PLACES,
                    "loss": "place_sare_joint",
                },
            )
        )
    assert "2 steps of 3 places, 12 images" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_only_the_aggregation_is_trained(records, tmp_path):
    found = train.run(
        TrainingOptions(
            records=records,
            checkpoints=tmp_path / "run",
            **toy_training.OPTIONS
            | {"epochs": 1, "patience": 0, "train_from": "aggregation"},
        )
    )
    first, last = (
        keras.models.load_model(found / name / "model.keras").get_layer(
            "embedder"
        )
        for name in ("epoch-0000", "epoch-0001")
    )
    for layer, stays in (("backbone", True), ("netvlad", False)):
        weights = [e.get_layer(layer).get_weights() for e in (first, last)]
        same = [np.array_equal(a, b) for a, b in zip(*weights, strict=True)]
        assert all(same) if stays else not any(same)


def test_nothing_to_train_is_refused(records, tmp_path):
    with pytest.raises(ValueError, match="'aggregation', aggregation='mac'"):
        train.run(
            TrainingOptions(
                records=records,
                checkpoints=tmp_path / "run",
                **toy_training.OPTIONS
                | {"train_from": "aggregation", "aggregation": "mac"},
            )
        )


def test_fewer_queries_than_a_batch_are_refused_at_once(records, tmp_path):
    for changes in ({"tuples_per_batch": 13}, {"queries_per_epoch": 2}):
        options = {**toy_training.OPTIONS, **changes}
        with pytest.raises(ValueError, match="at least one full batch"):
            train.run(
                TrainingOptions(
                    records=records, checkpoints=tmp_path / "c", **options
                )
            )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "steps"}, "halving, cosine"),
        ({"precision": "float16"}, "float32, mixed_bfloat16"),
        ({"warmup_epochs": 2}, "fewer epochs of warm-up"),
        ({"averaging_momentum": 1.0}, "at least 0 and below 1"),
    ],
)
def test_options_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_training.options(**changes)


COSINE = {
    **toy_training.OPTIONS,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "averaging_momentum": 0.75,
}


@pytest.fixture(scope="module")
def averaged(records, tmp_path_factory):
    """With a cosine, warm-up and an average; profiled."""
    return train.run(
        TrainingOptions(
            records=records,
            checkpoints=tmp_path_factory.mktemp("run") / "checkpoints",
            profile=True,
            **COSINE,
        )
    )


def test_a_stopped_run_keeps_its_average_and_its_schedule(
    records, averaged, tmp_path, monkeypatch
):
    """It is stopped after epoch 1, by an error in epoch 2."""
    options = {"records": records, "checkpoints": tmp_path / "checkpoints"}
    mine = train_data.Miner.mine

    def stop(self, *args, **kwargs):
        if kwargs["seed"] == toy_training.options().seed_of(2):
            raise Killed
        return mine(self, *args, **kwargs)

    monkeypatch.setattr(train_data.Miner, "mine", stop)
    with pytest.raises(Killed):
        train.run(TrainingOptions(**options, **COSINE))
    monkeypatch.undo()
    assert read_state(options["checkpoints"])[1]["last"] == "epoch-0001"
    train.run(TrainingOptions(**options, **COSINE))
    assert_same_run(averaged, options["checkpoints"])
    with pytest.raises(ValueError, match="epochs: 2 there, 3 now"):
        train.run(TrainingOptions(**options, **COSINE | {"epochs": 3}))


def test_rates_of_a_cosine_with_warm_up(averaged):
    """4 steps an epoch; 1 of 2 epochs of warm-up, the last step of each.

    Epoch 1: 3/4 of 0.001. Epoch 2: (1 + cos(3/4 pi)) / 2 of it.
    """
    history = read_state(averaged)[1]["history"]
    np.testing.assert_allclose(
        [entry["learning_rate"] for entry in history[1:]],
        [0.00075, 0.0005 * (1 - 0.5**0.5)],
        rtol=1e-5,
    )
    found = [
        (step, float(value))
        for step, tag, value in events(averaged)
        if tag == "train/learning_rate"
    ]
    # Two rounds of two steps: after steps 2, 4, 6 and 8.
    assert [step for step, _ in found] == [2, 4, 6, 8]
    np.testing.assert_allclose(
        [rate for _, rate in found],
        [0.00025, 0.00075]
        + [0.0005 * (1 + np.cos(np.pi * t)) for t in (0.25, 0.75)],
        rtol=1e-5,
    )


def test_the_average_is_what_is_validated_and_saved(records, averaged):
    _, state = read_state(averaged)
    path = averaged / state["last"] / "model.keras"
    network = keras.models.load_model(path)
    options = toy_training.options(**COSINE)
    val = train_data.Validation(Records(records), options)

    def recall():
        found = val.recall(*val.embed(network.get_layer("embedder")))
        return {str(k): value for k, value in found.items()}

    assert recall() == state["history"][-1]["recall_at"]
    saved = network.get_layer("embedder").get_weights()
    optimizers.exchange_average(network)
    for average, weight in zip(
        saved, network.get_layer("embedder").get_weights(), strict=True
    ):
        assert 0 < abs(average - weight).max() < 0.1


def test_a_profile_is_written(averaged):
    profiles = averaged.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    assert len(list(profiles)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "mixed_bfloat16"},
        {"jit_compile": True},
    ],
    ids=["bfloat16", "compiled"],
)
def test_other_arithmetic_trains_as_well(records, tmp_path, changes):
    """bfloat16 has 8 bits, 0.4 percent; XLA adds in another order alone."""
    options = {**toy_training.OPTIONS, "epochs": 1, "inverse_bandwidth": 0.1}
    options |= changes
    plain = options | {"precision": "float32", "jit_compile": False}
    found = [
        train.run(
            TrainingOptions(
                records=records, checkpoints=tmp_path / name, **settings
            )
        )
        for name, settings in (("plain", plain), ("changed", options))
    ]
    losses = [read_state(run)[1]["history"][1]["loss"] for run in found]
    tolerance = 0.02 if "precision" in changes else 1e-4
    assert losses[0] > 0.1
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
    network = keras.models.load_model(found[1] / "epoch-0001" / "model.keras")
    assert network.jit_compile == changes.get("jit_compile", False)
    for weight in network.weights:
        assert weight.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_what_bfloat16_trained_computes_in_float32_when_asked(records):
    options = toy_training.options(precision="mixed_bfloat16")
    embedder = compiled_network.build_embedder(options)
    conv = embedder.get_layer("backbone").get_layer("stage2_conv")
    assert conv.compute_dtype == "bfloat16"
    plain = compiled_network.build_embedder(toy_training.options())
    plain.set_weights(embedder.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    images = images.astype(np.float32)
    expected = keras.ops.convert_to_numpy(plain(images))
    rough = keras.ops.convert_to_numpy(embedder(images))
    assert rough.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-5)
    assert abs(rough - expected).max() > 1e-5
    exact = keras.ops.convert_to_numpy(model.in_float32(embedder)(images))
    np.testing.assert_allclose(exact, expected, atol=1e-6)

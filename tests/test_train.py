"""Training runs on tiny images: what is kept, resumed and refused."""

import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_damage
import toy_training
from finished_runs import assert_same_run, comparable, events

from sare_tf import build_records, train
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, run_lock
from sare_tf.training import datasets, divergence, optimizers
from sare_tf.training.miner import Miner
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state
from sare_tf.training.validation import Validation


def run(records, checkpoints, **changes):
    options = toy_training.OPTIONS | changes
    return train.run(
        TrainingOptions(records=records, checkpoints=checkpoints, **options)
    )


@pytest.fixture
def finished(toy_run):
    return toy_run.finished


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
        recall, rank = entry["recall_at"], entry["mean_reciprocal_rank"]
        assert recall["1"] <= rank <= (1 + recall["1"]) / 2
        assert entry["val_queries"] == 12
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_training_lowers_the_loss_and_moves_every_weight(finished):
    _, one, two = read_state(finished)[1]["history"]
    assert two["loss"] < one["loss"]

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


class Killed(BaseException):
    """Passes every `except Exception`."""


def kill_between_two_writes(patch):
    """Kills the run after it has saved an epoch, before state.json names it."""
    write_json = atomic_files.write_json

    def write(path, value):
        if path.name == "state.json":
            raise Killed
        write_json(path, value)

    patch.setattr(atomic_files, "write_json", write)


def kill_while_mining(patch):
    def mine(*args, **kwargs):
        raise Killed

    patch.setattr(Miner, "mine", mine)


def poison_second_epoch(patch):
    """Puts a NaN into the second epoch, second round, second batch."""
    tuple_dataset, made = datasets.tuple_dataset, []

    def poisoned(source, tuples, **options):
        made.append(tuples)
        wrong = 1 if len(made) == 4 else -1

        def poison(step, batch):
            images = tf.cast(batch[0], tf.float32)
            return tf.where(step == wrong, np.nan, images), batch[1]

        dataset = tuple_dataset(source, tuples, **options)
        return dataset.enumerate().map(poison)

    patch.setattr(datasets, "tuple_dataset", poisoned)


def test_a_run_that_is_stopped_again_and_again_ends_as_if_undisturbed(
    toy_records, toy_run, tmp_path, monkeypatch
):
    """Killed in epoch 1, ended by a wrong image in epoch 2, killed there.

    The NaN is in step 4 of 4, between two rounds; its queries are the last
    three in the order of that epoch.
    """
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(toy_run.after[0], checkpoints)
    with monkeypatch.context() as patch:
        kill_between_two_writes(patch)
        with pytest.raises(Killed):
            run(toy_records, checkpoints)
    assert read_state(checkpoints)[1]["last"] == "epoch-0000"
    assert (checkpoints / "epoch-0001").is_dir()
    with monkeypatch.context() as patch:
        poison_second_epoch(patch)
        with pytest.raises(ValueError, match="Expected a finite loss") as error:
            run(toy_records, checkpoints, epochs=5)
    order = np.random.default_rng((0, 2)).permutation(12)[9:]
    queries = Records(toy_records).rows("train", "query")
    names = queries["image_id"].iloc[order].tolist()
    for text in (
        f"loss=nan at step 4 of epoch 2, queries {names}",
        "The last checkpoint, epoch-0001, is untouched",
    ):
        assert text in str(error.value)
    assert read_state(checkpoints)[1]["last"] == "epoch-0001"
    with monkeypatch.context() as patch:
        kill_while_mining(patch)
        with pytest.raises(Killed):
            run(toy_records, checkpoints)
    run(toy_records, checkpoints)
    assert_same_run(checkpoints, toy_run.finished)


def test_a_finished_run_is_left_as_it_is(toy_records, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    run(toy_records, tmp_path / "run")
    assert comparable(tmp_path / "run") == comparable(finished)


def test_other_options_are_refused(toy_records, finished):
    with pytest.raises(ValueError, match="num_clusters: 4 there, 8 now"):
        run(toy_records, finished, num_clusters=8)


def test_other_records_are_refused(toy_records, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = atomic_files.read_json(path, made_by="train")
    config["records_fingerprint"] = "of others"
    atomic_files.write_json(path, config)
    toy_damage.forget_digests(tmp_path / "run" / "state.json")
    with pytest.raises(ValueError, match="records_fingerprint: 'of others' th"):
        run(toy_records, tmp_path / "run")


def test_options_that_are_newer_than_a_run_have_their_defaults(
    toy_records, finished, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = atomic_files.read_json(path, made_by="train")
    del config["place_miner"], config["inverse_bandwidth_limits"]
    atomic_files.write_json(path, config)
    toy_damage.forget_digests(tmp_path / "run" / "state.json")
    run(toy_records, tmp_path / "run")
    with pytest.raises(ValueError, match="place_miner: None there, 'none' now"):
        run(toy_records, tmp_path / "run", place_miner="none")


def test_a_folder_of_something_else_is_refused(toy_records, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="Choose another --checkpoints"):
        run(toy_records, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_run_without_an_epoch_starts_over(toy_records, tmp_path):
    """Options may be corrected after a first try that did not get far."""
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        run(toy_records, checkpoints, epochs=0, weights="missing.h5")
    assert (checkpoints / "config.json").is_file()
    run(toy_records, checkpoints, epochs=0)
    config, state = read_state(checkpoints)
    assert (config["weights"], state["last"]) == (None, "epoch-0000")


def test_without_a_val_split_the_last_epoch_is_the_best(
    toy_records, tmp_path, caplog
):
    photos = tmp_path / "photos"
    shutil.copytree(toy_records.parent / "photos" / "train", photos / "train")
    records = build_records.run(
        RecordOptions(
            dataset=photos, records=tmp_path / "records", reader="place_folders"
        )
    )
    checkpoints = run(
        records,
        tmp_path / "run",
        epochs=1,
        loss="place_sare_joint",
        **PLACES,
    )
    assert "the last epoch counts as the best" in caplog.text
    _, state = read_state(checkpoints)
    assert [entry["recall_at"] for entry in state["history"]] == [None, None]
    assert state["best"] == "epoch-0001"


def test_patience_ends_a_run(toy_records, tmp_path, caplog):
    """Nothing is learnt at a rate of 0: epoch 1 validates as epoch 0.

    Of the two, the one that was trained is the best.
    """
    checkpoints = run(
        toy_records,
        tmp_path / "run",
        learning_rate=0.0,
        weight_decay=0.0,
        epochs=9,
        patience=1,
        queries_per_epoch=3,
    )
    _, state = read_state(checkpoints)
    before, after = state["history"]
    assert before["recall_at"] == after["recall_at"]
    assert (state["best"], state["last"]) == ("epoch-0001", "epoch-0001")
    assert "Validation has 12 queries. Fewer than 50" in caplog.text


PLACES = {"places_per_batch": 3, "images_per_place": 4, "learning_rate": 0.01}


def test_a_loss_over_places_trains_without_mining_and_resumes(
    toy_records, tmp_path
):
    options = {**PLACES, "records": toy_records, "loss": "place_sare_joint"}
    whole = toy_training.RecordedRun(tmp_path, **toy_training.OPTIONS | options)
    before, *epochs = read_state(whole.finished)[1]["history"]
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert "violating" not in epochs[0]
    assert set(before["recall_at"]) == {"1", "5", "10"}
    run(checkpoints=whole.after[1], **options)
    assert_same_run(whole.after[1], whole.finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "place_sare_joint", "images_per_place": 5},
            "16 places with 5 images each",
        ),
        ({"num_negatives": 50}, "has 10 of 12 database images"),
        ({"tuples_per_batch": 13}, "at least one full batch"),
        ({"queries_per_epoch": 2}, "at least one full batch"),
    ],
)
def test_data_that_does_not_do_is_refused_before_a_folder_is_made(
    toy_records, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        run(toy_records, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_another_run_trains(
    toy_records, tmp_path, monkeypatch
):
    with run_lock.only_run(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match="/run', which is being writ"):
            run(toy_records, tmp_path / "run")
        # Other workers belong to the run of their chief.
        monkeypatch.setattr(train.strategies, "is_chief", lambda _: False)
        monkeypatch.setattr(train, "_train", lambda *_: "trained")
        assert run(toy_records, tmp_path / "run") == "trained"


def test_a_dry_run_writes_nothing(toy_records, tmp_path, caplog):
    """12 queries in two rounds; 4 steps of 3 tuples of 4 images."""
    with caplog.at_level(logging.INFO):
        run(toy_records, tmp_path / "run", dry_run=True)
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
        run(
            toy_records,
            tmp_path / "run",
            dry_run=True,
            loss="place_sare_joint",
            **PLACES,
        )
    assert "2 steps of 3 places, 12 images" in caplog.text
    assert not list(tmp_path.iterdir())


COSINE = {
    **toy_training.OPTIONS,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "averaging_momentum": 0.75,
}


@pytest.fixture(scope="module")
def averaged(toy_records, tmp_path_factory):
    """With a cosine, warm-up and an average; profiled."""
    return toy_training.RecordedRun(
        tmp_path_factory.mktemp("run"),
        records=toy_records,
        profile=True,
        **COSINE,
    )


def test_a_resumed_run_keeps_its_average_and_its_schedule(
    toy_records, averaged, tmp_path
):
    checkpoints = shutil.copytree(averaged.after[1], tmp_path / "run")
    run(toy_records, checkpoints, **COSINE)
    assert_same_run(averaged.finished, checkpoints)
    with pytest.raises(ValueError, match="epochs: 2 there, 3 now"):
        run(toy_records, checkpoints, **COSINE | {"epochs": 3})


def test_rates_of_a_cosine_with_warm_up(averaged):
    """4 steps an epoch; 1 of 2 epochs of warm-up, the last step of each.

    Epoch 1: 3/4 of 0.001. Epoch 2: (1 + cos(3/4 pi)) / 2 of it.
    """
    history = read_state(averaged.finished)[1]["history"]
    np.testing.assert_allclose(
        [entry["learning_rate"] for entry in history[1:]],
        [0.00075, 0.0005 * (1 - 0.5**0.5)],
        rtol=1e-5,
    )
    rates = [
        (step, float(value))
        for step, tag, value in events(averaged.finished)
        if tag == "train/learning_rate"
    ]
    # Two rounds of two steps: after steps 2, 4, 6 and 8.
    assert [step for step, _ in rates] == [2, 4, 6, 8]
    np.testing.assert_allclose(
        [rate for _, rate in rates],
        [0.00025, 0.00075]
        + [0.0005 * (1 + np.cos(np.pi * t)) for t in (0.25, 0.75)],
        rtol=1e-5,
    )


def test_the_average_is_validated_and_saved(toy_records, averaged):
    _, state = read_state(averaged.finished)
    path = averaged.finished / state["last"] / "model.keras"
    network = keras.models.load_model(path)
    val = Validation(Records(toy_records), toy_training.options(**COSINE))
    recall, rank = val.measure(*val.embed(network.get_layer("embedder")))
    last = state["history"][-1]
    assert {str(k): v for k, v in recall.items()} == last["recall_at"]
    assert rank == last["mean_reciprocal_rank"]
    saved = network.get_layer("embedder").get_weights()
    optimizers.exchange_average(network)
    for average, weight in zip(
        saved, network.get_layer("embedder").get_weights(), strict=True
    ):
        assert 0 < abs(average - weight).max() < 0.1


def test_a_profile_is_written(averaged):
    profiles = averaged.finished.glob(
        "tensorboard/plugins/profile/*/*.xplane.pb"
    )
    assert len(list(profiles)) == 1


def test_a_rate_that_diverges_ends_by_name_and_can_be_lowered(
    toy_records, toy_run, tmp_path, caplog
):
    """Epoch 1 stays as it is; a lower rate resumes after it."""
    checkpoints = shutil.copytree(toy_run.after[1], tmp_path / "run")
    with pytest.raises(divergence.Diverged, match="lower --learning_rate"):
        run(toy_records, checkpoints, learning_rate=1e38)
    assert "best             epoch-0001" in caplog.text
    _, state = read_state(checkpoints)
    assert state["last"] == "epoch-0001"
    assert read_state(toy_run.after[1])[1] == state
    run(toy_records, checkpoints)
    assert_same_run(checkpoints, toy_run.finished)

"""Training runs on tiny images: what is kept, resumed and refused."""

import keras
import numpy as np
import pytest
import toy_training

from sare_tf import build_records, files, train


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return toy_training.records(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(records, tmp_path_factory):
    """A run that was never disturbed."""
    return train.run(
        records=records,
        checkpoints=tmp_path_factory.mktemp("run") / "checkpoints",
        **toy_training.OPTIONS,
    )


def weights(checkpoints, name="last"):
    _, state = train.read_state(checkpoints)
    model = keras.models.load_model(checkpoints / state[name] / "model.keras")
    variables = [*model.weights, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def comparable(checkpoints):
    """The history without what takes time."""
    history = train.read_state(checkpoints)[1]["history"]
    return [
        {key: value for key, value in entry.items() if not key.endswith("_s")}
        for entry in history
    ]


def assert_same_run(one, other):
    assert comparable(one) == comparable(other)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_run_leaves(finished):
    config, state = train.read_state(finished)
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
    _, state = train.read_state(finished)
    best = state["history"][int(state["best"].removeprefix("epoch-"))]
    top = max(entry["recall_at"]["5"] for entry in state["history"])
    assert best["recall_at"]["5"] == top


def test_a_stopped_run_ends_as_if_undisturbed(records, finished, tmp_path):
    options = {**toy_training.OPTIONS, "epochs": 1}
    checkpoints = tmp_path / "checkpoints"
    train.run(records=records, checkpoints=checkpoints, **options)
    train.run(records=records, checkpoints=checkpoints, **toy_training.OPTIONS)
    assert_same_run(checkpoints, finished)


class Killed(BaseException):
    """Passes every `except Exception`."""


@pytest.mark.parametrize("state_write", [3, 4])
def test_a_kill_between_two_writes_repeats_the_epoch(
    records, finished, tmp_path, monkeypatch, state_write
):
    """Write 1 starts the run, 2 ends epoch 0, 3 and 4 the epochs after."""
    write_json = files.write_json
    written = []

    def write(path, value):
        if path.name == "state.json":
            written.append(path)
            if len(written) == state_write:
                raise Killed
        write_json(path, value)

    options = {"records": records, "checkpoints": tmp_path / "checkpoints"}
    options |= toy_training.OPTIONS
    monkeypatch.setattr(files, "write_json", write)
    with pytest.raises(Killed):
        train.run(**options)
    monkeypatch.undo()
    train.run(**options)
    assert_same_run(tmp_path / "checkpoints", finished)


def test_a_finished_run_is_left_as_it_is(records, finished):
    before = comparable(finished)
    train.run(records=records, checkpoints=finished, **toy_training.OPTIONS)
    assert comparable(finished) == before


def test_other_options_are_refused(records, finished):
    options = {**toy_training.OPTIONS, "num_clusters": 8}
    with pytest.raises(ValueError, match="num_clusters: 4 there, 8 now"):
        train.run(records=records, checkpoints=finished, **options)


def test_other_records_are_refused(finished, tmp_path):
    other = toy_training.records(tmp_path, places=7)
    with pytest.raises(ValueError, match="records_fingerprint"):
        train.run(records=other, checkpoints=finished, **toy_training.OPTIONS)


def test_a_folder_of_something_else_is_refused(records, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="Choose another --checkpoints"):
        train.run(records=records, checkpoints=tmp_path, **toy_training.OPTIONS)
    assert (tmp_path / "thesis.tex").exists()


def test_a_loss_that_is_not_finite_stops_training(records, tmp_path):
    options = {
        **toy_training.OPTIONS,
        "optimizer": "sgd",
        "learning_rate": 1e38,
    }
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match="Expected a finite loss. Received"):
        train.run(records=records, checkpoints=checkpoints, **options)
    assert all(np.isfinite(array).all() for array in weights(checkpoints))


def test_too_few_negatives(records, tmp_path):
    options = {**toy_training.OPTIONS, "num_negatives": 50}
    with pytest.raises(ValueError, match="has 10 of 12 database images"):
        train.run(records=records, checkpoints=tmp_path / "c", **options)


def test_no_query_with_a_positive(tmp_path):
    records = toy_training.records(tmp_path, queries=0)
    with pytest.raises(ValueError, match="Expected query images in the split"):
        train.run(
            records=records,
            checkpoints=tmp_path / "c",
            **toy_training.OPTIONS,
        )


def test_without_a_val_split_the_last_epoch_is_the_best(tmp_path, caplog):
    toy_training.records(tmp_path)
    (tmp_path / "photos" / "val").rename(tmp_path / "elsewhere")
    records = build_records.run(
        dataset=tmp_path / "photos",
        out=tmp_path / "records",
        reader="place_folders",
    )
    checkpoints = train.run(
        records=records,
        checkpoints=tmp_path / "checkpoints",
        **{**toy_training.OPTIONS, "epochs": 1},
    )
    assert "the last epoch counts as the best" in caplog.text
    assert train.read_state(checkpoints)[1]["best"] == "epoch-0001"


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
        records=records, checkpoints=tmp_path / "checkpoints", **options
    )
    _, state = train.read_state(checkpoints)
    assert (state["best"], state["last"]) == ("epoch-0000", "epoch-0002")


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
        "augment": True,
        "halve_every": 0,
    }
    checkpoints = train.run(
        records=records, checkpoints=tmp_path / "checkpoints", **options
    )
    entry = train.read_state(checkpoints)[1]["history"][1]
    assert np.isfinite(entry["loss"])
    # 6 queries of 12: at least half of the negatives remembered are unknown.
    remembered = np.load(checkpoints / "epoch-0001" / "remembered.npy")
    assert (remembered >= 0).all(axis=1).sum() == 6


def test_nothing_was_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sare_tf.train .* first"):
        train.read_state(tmp_path)


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
    found = train.run(records=records, checkpoints=tmp_path / "run", **options)
    _, state = train.read_state(found)
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
        train.run(records=records, checkpoints=tmp_path / "run", **options)

"""Replicas train as one device does; what they cannot do is refused."""

import json
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest
import toy_towns
import toy_workers
from paths import ROOT

from sare_tf import train
from sare_tf.distributed import strategies
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

TWO = SimpleNamespace(num_replicas_in_sync=2)


@pytest.mark.own_process
def test_replicas_train_as_one():
    """20 steps, over tuples and over places: 1e-5. Below, two train as one."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.replicas", "--replicas=4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]


@pytest.mark.own_process
def test_a_run_on_two_replicas_ends_as_on_one(toy_records, tmp_path):
    """5 queries in validation: two replicas do not divide them.

    Over tuples, and over sampled places after that in the same process.
    """
    tuples = {"records": str(toy_records)}
    tuples |= {**toy_workers.OPTIONS, "val_queries": 5, "epochs": 1}
    towns = [
        str(toy_towns.records(tmp_path / f"town{number}", number=number))
        for number in range(3)
    ]
    places = tuples | {
        "records": towns[0],
        "train_records": towns,
        "val_records": towns[:2],
        "sampler": ["cliques", "similar", "regions"],
        "loss": "place_sare_joint",
        "places_per_batch": 12,
        "images_per_place": 2,
        "backbone_rate": 0.3,
        "netvlad_rate": 3.0,
        "l2_to_start": 0.01,
        "interpolation": [0.5],
    }
    runs = {"tuples": tuples, "places": places}
    for name, run in runs.items():
        train.run(TrainingOptions(checkpoints=tmp_path / name, **run))
        run |= {
            "checkpoints": str(tmp_path / f"{name}-of-two"),
            "strategy": "mirrored",
        }
    toy_workers.finish(toy_workers.start_alone(cpus=2, **tuples, then=places))
    for name, run in runs.items():
        toy_workers.assert_same_training(tmp_path / name, run["checkpoints"])
    one, two = (
        read_state(tmp_path / name / "interpolated")[0]["interpolated"]
        for name in ("places", "places-of-two")
    )
    assert one["table"] == two["table"]


def test_a_batch_that_replicas_do_not_divide_is_refused():
    strategies.check_batch(TWO, size=4, what="tuples")
    with pytest.raises(ValueError, match="2 replicas divide. Received: 5 tup"):
        strategies.check_batch(TWO, size=5, what="tuples")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jit_compile": True}, "jit_compile=True"),
        ({"steps_per_execution": 2}, "steps_per_execution=2"),
        (
            {"optimizer": keras.optimizers.SGD(gradient_accumulation_steps=2)},
            "gradient_accumulation_steps=2",
        ),
        ({"optimizer": keras.optimizers.SGD(global_clipnorm=1.0)}, "global_cl"),
        ({"optimizer": keras.optimizers.SGD(clipnorm=1.0)}, "with clipnorm"),
        (
            {
                "optimizer": keras.optimizers.LossScaleOptimizer(
                    keras.optimizers.SGD()
                )
            },
            "Use mixed_bfloat16",
        ),
    ],
)
def test_what_keras_gets_wrong_on_replicas_is_refused(settings, message):
    compiled = {
        "optimizer": keras.optimizers.SGD(),
        "jit_compile": False,
        "steps_per_execution": 1,
    }
    strategies.check_network(
        SimpleNamespace(distribute_strategy=TWO, **compiled)
    )
    network = SimpleNamespace(**(compiled | settings))
    network.distribute_strategy = SimpleNamespace(num_replicas_in_sync=1)
    strategies.check_network(network)
    network.distribute_strategy = TWO
    with pytest.raises(ValueError, match=message):
        strategies.check_network(network)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="multi_worker.*strategy='tpu'"):
        strategies.make("tpu")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        json.dumps({"cluster": {"worker": ["a:1"]}}),
        json.dumps({"task": {"type": "worker", "index": 0}}),
    ],
)
def test_a_missing_or_damaged_tf_config_is_refused(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="cluster of workers and a task"):
        strategies.make("multi_worker")


@pytest.mark.parametrize(("kind", "index"), [("ps", 0), ("worker", 2)])
def test_a_task_that_is_no_worker_is_refused(kind, index, monkeypatch):
    config = {
        "cluster": {"worker": ["a:1", "b:1"]},
        "task": {"type": kind, "index": index},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match="type worker with an index below 2"):
        strategies.make("multi_worker")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_images": 2}, "chunk_images=0 with a loss over tuples"),
        ({"memory_images": 2}, "memory_images=0 with a loss over tuples"),
        (
            {"loss": "place_n_pairs", "memory_images": 2},
            "memory_images=0 with a loss other than",
        ),
        (
            {"loss": "place_n_pairs", "chunk_images": 3},
            "chunk_images=3, 64 images",
        ),
        (
            {"loss": "place_n_pairs", "hardest_negatives": 3},
            "hardest_negatives=3",
        ),
        ({"strategy": "several"}, "strategy='several'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path):
    """Before the records are looked at."""
    with pytest.raises(ValueError, match=message):
        train.run(
            TrainingOptions(
                records=tmp_path / "none",
                checkpoints=tmp_path / "run",
                **options,
            )
        )

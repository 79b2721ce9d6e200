"""Losses over places train by their flags, and resume."""

import keras
import numpy as np
import pytest
import toy_manifest
import toy_training
from absl import flags
from absl.testing import flagsaver
from finished_runs import assert_same_run, events

from sare_tf import train
from sare_tf.records.records import Records
from sare_tf.runtime import flagfiles
from sare_tf.training import (
    bandwidth_schedule,
    compiled_network,
    epoch_loop,
    place_batches,
    positive_weights,
)
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state
from sare_tf.training.tensorboard import TrainingLog
from sare_tf.training.training_data import TrainingData

# One step of all 24 images; 6 places of 4.
OPTIONS = {"places_per_batch": 6, "images_per_place": 4, "aggregation": "gem"}
FLAGS = {
    "place_multi_similarity": {"place_miner": "none"},
    "place_nt_xent": {"temperature": 0.2, "place_miner": "multi_similarity"},
    "place_sup_con": {"temperature": 0.2},
    "place_circle": {"margin": 0.3, "similarity_scale": 16},
    "place_fast_ap": {},
    "place_cosface": {"margin": 0.2, "similarity_scale": 64},
    "place_sare_joint": {
        "inverse_bandwidth": 10,
        "inverse_bandwidth_to": 40,
        "place_miner": "multi_similarity",
    },
}


@pytest.fixture(scope="module")
def opened(toy_records):
    return Records(toy_records)


def options_of_flagfile(path, **given):
    lines = [f"--{name}={value}" for name, value in given.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    with flagsaver.flagsaver():
        flags.FLAGS(flagfiles.insert(["train", f"--flagfile={path}"]))
        return TrainingOptions.from_flags()


@pytest.mark.parametrize("loss", FLAGS)
def test_a_loss_trains_by_its_flags(loss, opened, toy_records, tmp_path):
    """An epoch of one step: its loss is that of the first descriptors."""
    options = options_of_flagfile(
        tmp_path / "mine.flags",
        records=toy_records,
        checkpoints=tmp_path / "run",
        loss=loss,
        **{**toy_training.OPTIONS, **OPTIONS, **FLAGS[loss]},
        jit_compile="false",
    )
    data = TrainingData.of(opened, options)
    assert data.group_sizes == (6,)
    keras.utils.set_random_seed(0)
    network = compiled_network.build(
        data.train, options, group_sizes=data.group_sizes
    )
    given = {
        "place_miner": "miner",
        "similarity_scale": "scale",
        "margin": "margin",
        "temperature": "temperature",
    }
    for flag, setting in given.items():
        if flag in FLAGS[loss]:
            assert getattr(network.loss, setting) == FLAGS[loss][flag]
    plan = data.planned_places(epoch=1)
    assert plan.images.shape == (1, 24)
    log = TrainingLog(tmp_path / "tensorboard", epochs=0)
    log.begin(1)
    before = [keras.ops.convert_to_numpy(w) for w in network.trainable_weights]
    measured, _, _ = epoch_loop.train(
        network, data, 1, remembered=None, log=log, callbacks=[]
    )
    log.end()
    assert np.isfinite(measured["loss"])
    assert measured["loss"] > 0
    moved = [
        (keras.ops.convert_to_numpy(w) != old).any()
        for w, old in zip(network.trainable_weights, before, strict=True)
    ]
    assert all(moved)
    if loss == "place_sare_joint":
        # At the step, which is the first of two.
        assert measured["inverse_bandwidth"] == 10.0
        found = [v for _, tag, v in events(tmp_path) if "bandwidth" in tag]
        assert [float(value) for value in found] == [10.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "place_cosface", "averaging_momentum": 0.5},
        {
            "loss": "place_sare_joint",
            "learned_inverse_bandwidth": True,
            "inverse_bandwidth_limits": [2, 30],
            "place_miner": "multi_similarity",
        },
    ],
    ids=["cosface", "learned"],
)
def test_a_run_resumes_with_the_weights_of_its_loss(
    changes, toy_records, tmp_path
):
    """Bitwise, as if it had not been stopped."""
    options = toy_training.OPTIONS | OPTIONS | changes
    options |= {"records": toy_records, "learning_rate": 0.01}
    whole = toy_training.RecordedRun(tmp_path, **options)
    train.run(TrainingOptions(checkpoints=whole.after[1], **options))
    assert_same_run(whole.after[1], whole.finished)
    _, *epochs = read_state(whole.finished)[1]["history"]
    if "learned_inverse_bandwidth" in changes:
        values = [entry["inverse_bandwidth"] for entry in epochs]
        assert len({10.0, *values}) == 3
        assert all(2 < value < 30 for value in values)
        shown = [
            float(value)
            for _, tag, value in events(whole.finished)
            if tag == "train/inverse_bandwidth"
        ]
        np.testing.assert_allclose(shown, values, rtol=1e-5)
    else:
        assert "inverse_bandwidth" not in epochs[0]


def test_a_bandwidth_follows_its_schedule():
    options = toy_training.options(
        loss="place_sare_joint",
        inverse_bandwidth=10.0,
        inverse_bandwidth_to=40.0,
        epochs=4,
    )
    found = [bandwidth_schedule.at(done, options) for done in (0, 1, 2, 4, 9)]
    np.testing.assert_allclose(found, [10, 10 * 2**0.5, 20, 40, 40])
    options = toy_training.options(
        inverse_bandwidth_to=5.0, inverse_bandwidth_epochs=2, epochs=4
    )
    found = [bandwidth_schedule.at(done, options) for done in (0, 1, 2, 4)]
    np.testing.assert_allclose(found, [10, 10 / 2**0.5, 5, 5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "place_n_pairs", "inverse_bandwidth_to": 3.0},
            "no inverse_bandwidth_to for the loss place_n_pairs",
        ),
        (
            {"loss": "triplet", "learned_inverse_bandwidth": True},
            "no learned_inverse_bandwidth for the loss triplet",
        ),
        (
            {
                "loss": "place_sare_joint",
                "learned_inverse_bandwidth": True,
                "inverse_bandwidth_to": 3.0,
            },
            "learned, or one with a schedule",
        ),
        ({"inverse_bandwidth_to": 0.0}, "positive inverse bandwidths"),
        ({"inverse_bandwidth_limits": (3.0,)}, "lower and an upper limit"),
        (
            {
                "loss": "place_sare_joint",
                "learned_inverse_bandwidth": True,
                "inverse_bandwidth_limits": (20.0, 30.0),
            },
            "between its limits.*inverse_bandwidth=10.0",
        ),
        (
            {"loss": "place_fast_ap", "positive_weights": "distance"},
            "positive_weights='equal' for the loss place_fast_ap",
        ),
        ({"positive_weights": "overlap"}, "for the loss sare_joint"),
        ({"place_miner": "hard"}, "none, multi_similarity"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_training.options(**changes)


def rows_of(*images):
    """Images (place, east, north, heading)."""
    return toy_manifest.make(
        {
            "image_id": str(number),
            "split": "train",
            "role": "database",
            "place_id": place,
            "utm_east_m": east,
            "utm_north_m": north,
            "heading_deg": heading,
        }
        for number, (place, east, north, heading) in enumerate(images)
    )


def grid():
    rng = np.random.default_rng(0)
    return rows_of(
        *[
            (
                str(place),
                500_000 + 1000 * place + rng.uniform(0, 20),
                4_000_000 + rng.uniform(0, 20),
                rng.uniform(0, 360),
            )
            for place in range(6)
            for _ in range(3)
        ]
    )


def plan_of(rows):
    rule = place_batches.PlaceBatchRule(places_per_batch=3, images_per_place=3)
    return place_batches.plan_batches(rows, rule=rule)


@pytest.mark.parametrize("rule", ["distance", "overlap"])
def test_weights_of_positives_follow_the_definition(rule):
    rows = grid()
    plan = plan_of(rows)
    found = positive_weights.of_batches(plan, rule=rule, radius_m=10.0)
    assert found.shape == (2, 9, 3)
    assert found.dtype == np.float32
    for batch, images in enumerate(plan.images):
        for a, image in enumerate(images):
            one = rows.iloc[image]
            for k in range(3):
                other = rows.iloc[images[a // 3 * 3 + k]]
                assert other["place_id"] == one["place_id"]
                squared = (one["utm_east_m"] - other["utm_east_m"]) ** 2
                squared += (one["utm_north_m"] - other["utm_north_m"]) ** 2
                expected = np.exp(-squared / 100)
                if rule == "overlap":
                    turn = abs(one["heading_deg"] - other["heading_deg"])
                    turn = min(turn, 360 - turn)
                    expected *= max(1 - turn / 90, 0)
                assert found[batch, a, k] == pytest.approx(expected, abs=1e-6)
    assert len(np.unique(found)) > 6


def test_equal_positives_have_no_weights():
    rows = rows_of(*[("a", np.nan, np.nan, np.nan)] * 3)
    assert (
        positive_weights.of_batches(plan_of(grid()), rule="equal", radius_m=1.0)
        is None
    )
    positive_weights.check(rows, rule="equal")
    with pytest.raises(ValueError, match="3 of 3 images without a position"):
        positive_weights.check(rows, rule="distance")
    rows = rows_of(*[("a", 1.0, 2.0, np.nan)] * 3)
    positive_weights.check(rows, rule="distance")
    with pytest.raises(ValueError, match="3 of 3 images without a heading"):
        positive_weights.check(rows, rule="overlap")
    with pytest.raises(ValueError, match="positive_weights='area'"):
        positive_weights.check(rows, rule="area")


def test_records_without_positions_have_no_weights(toy_records, tmp_path):
    with pytest.raises(ValueError, match="position of every image, to weight"):
        train.run(
            TrainingOptions(
                records=toy_records,
                checkpoints=tmp_path / "run",
                loss="place_sare_joint",
                positive_weights="distance",
                **toy_training.OPTIONS | OPTIONS,
            )
        )
    assert not (tmp_path / "run").exists()

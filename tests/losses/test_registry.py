import keras
import numpy as np
import pytest
from absl import flags
from toy_descriptors import unit_vectors, value

from sare_tf import losses, train
from sare_tf.losses import registry
from sare_tf.training.options import TrainingOptions

OURS = [name for name in losses.PLACE_LOSSES if name[:10] != "similarity"]


def test_the_flag_offers_every_tuple_loss():
    offered = flags.FLAGS["loss"].parser.enum_values
    assert set(registry.KERNEL_NAMES) == set(losses.KERNELS)
    assert tuple(offered) == losses.TUPLE_LOSSES + losses.PLACE_LOSSES


@pytest.mark.parametrize("name", losses.TUPLE_LOSSES)
def test_tuple_losses_take_tuples(name):
    loss = losses.build(name)
    assert isinstance(loss, keras.losses.Loss)
    assert value(loss, None, unit_vectors(4, 5, 3)).shape == (4,)


@pytest.mark.parametrize("name", OURS)
def test_place_losses_take_labels_and_descriptors(name):
    labels = np.float32([1, 1, 2, 2, 3, 3])
    needed = {"num_places": 4} if name == "place_cosface" else {}
    found = value(losses.build(name, **needed), labels, unit_vectors(6, 3))
    assert found.shape == (6,)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        (
            "sare_joint",
            {
                "kernel": "cauchy",
                "inverse_bandwidth": 3.0,
                "scaling": "negatives",
            },
            losses.SARELoss(
                kernel="cauchy", inverse_bandwidth=3.0, scaling="negatives"
            ),
        ),
        (
            "sare_independent",
            {"kernel": "exponential"},
            losses.SARELoss(form="independent", kernel="exponential"),
        ),
        ("triplet", {}, losses.TripletLoss()),
        ("triplet_unsquared", {}, losses.TripletLoss(squared=False)),
        ("triplet", {"margin": 0.4}, losses.TripletLoss(margin=0.4)),
        # Flagfiles give a kernel to every loss.
        ("n_pair", {"inverse_bandwidth": 10.0}, losses.NPairLoss()),
        (
            "place_sare_independent",
            {"inverse_bandwidth": 10.0, "hardest_negatives": 3},
            losses.PlaceSARELoss(
                form="independent", inverse_bandwidth=10.0, hardest_negatives=3
            ),
        ),
        (
            "place_triplet_hard",
            {"margin": 0.4},
            losses.PlaceTripletHardLoss(margin=0.4),
        ),
        (
            "place_multi_similarity",
            {"miner": "none", "margin": None},
            losses.PlaceMultiSimilarityLoss(miner="none"),
        ),
        (
            "place_nt_xent",
            {"temperature": 0.2, "miner": "multi_similarity"},
            losses.PlaceNTXentLoss(temperature=0.2, miner="multi_similarity"),
        ),
        (
            "place_sup_con",
            {"temperature": 0.2},
            losses.PlaceSupConLoss(temperature=0.2),
        ),
        (
            "place_circle",
            {"margin": 0.3, "scale": 64.0},
            losses.PlaceCircleLoss(margin=0.3, scale=64.0),
        ),
        (
            "place_fast_ap",
            {"kernel": "cauchy", "miner": "none"},
            losses.PlaceFastAPLoss(),
        ),
        (
            "place_cosface",
            {"num_places": 7, "margin": 0.2, "scale": 64.0},
            losses.PlaceCosFaceLoss(num_places=7, margin=0.2, scale=64.0),
        ),
        (
            "place_sare_joint",
            {"miner": "multi_similarity"},
            losses.PlaceSARELoss(miner="multi_similarity"),
        ),
    ],
)
def test_settings_arrive(name, settings, expected):
    built = losses.build(name, **settings)
    assert type(built) is type(expected)
    assert built.get_config() == expected.get_config()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("softmax", {}, "sare_joint, .*place_n_pairs.*name='softmax'"),
        ("angular", {"margin": 0.1}, "angular, which has none.*margin=0.1"),
        ("angular", {"width": 0.1}, r"settings of losses: .*\['width'\]"),
        (
            "place_multi_similarity",
            {"temperature": 0.1},
            "one: place_nt_xent, place_sup_con. .*Leave --temperature out",
        ),
        (
            "place_fast_ap",
            {"miner": "multi_similarity"},
            "place_sare_joint, .*miner='multi_s.*--place_miner out",
        ),
        ("place_cosface", {}, "number of places .*num_places=None"),
        ("place_cosface", {"num_places": 1}, "2 or more.*num_places=1"),
        ("place_n_pairs", {"num_places": 5}, "one: place_cosface. "),
        ("place_circle", {"scale": 0.0}, "positive and finite.*scale=0.0"),
        ("place_circle", {"miner": "hard"}, r"\['none', 'multi_.*'hard'"),
        ("sare_joint", {"margin": 0.1}, "Leave --margin out"),
        ("triplet", {"margin": -1.0}, "positive and finite"),
        (
            "triplet",
            {"scaling": "negatives"},
            "only these have one: sare_joint.*scaling='negatives'",
        ),
        (
            "sare_independent",
            {"scaling": "negatives"},
            "Leave --joint_scaling out",
        ),
        ("sare_joint", {"scaling": "mean"}, "Received: scaling='mean'"),
        (
            "place_n_pairs",
            {"hardest_negatives": 2},
            "one: place_sare_joint, .*hardest_negatives=2",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        losses.build(name, **settings)


def test_training_refuses_them_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match="angular, which has none"):
        train.run(
            TrainingOptions(
                records=tmp_path / "records",
                checkpoints=tmp_path / "checkpoints",
                loss="angular",
                margin=0.1,
            )
        )
    assert not list(tmp_path.iterdir())

"""Labels of places are compared exactly, or refused by a sentence."""

import keras
import numpy as np
import pytest
from keras import ops
from toy_descriptors import unit_vectors, value

from sare_tf import losses
from sare_tf.losses import place_labels

BACKEND = keras.backend.backend()
LOSSES = {
    "sare": losses.PlaceSARELoss,
    "contrastive": losses.PlaceContrastiveLoss,
    "triplet_semihard": losses.PlaceTripletSemiHardLoss,
    "triplet_hard": losses.PlaceTripletHardLoss,
    "lifted_structure": losses.PlaceLiftedStructureLoss,
    "n_pairs": losses.PlaceNPairsLoss,
    "multi_similarity": losses.PlaceMultiSimilarityLoss,
    "fast_ap": losses.PlaceFastAPLoss,
}
FUNCTIONS = [
    losses.place_contrastive,
    losses.place_triplet_semihard,
    losses.place_triplet_hard,
    losses.place_lifted_structure,
    losses.place_n_pairs,
    losses.place_multi_similarity,
    losses.place_nt_xent,
    losses.place_sup_con,
    losses.place_circle,
    losses.place_fast_ap,
]
# Four places of two images.
PLACES = np.array([0, 1, 2, 3, 3, 0, 1, 2])
X = unit_vectors(8, 4).astype(np.float32)
# What a graph raises when it runs.
if BACKEND == "tensorflow":
    import tensorflow as tf

    FAILED = tf.errors.InvalidArgumentError
elif BACKEND == "jax":
    import jax

    FAILED = jax.errors.JaxRuntimeError
else:
    FAILED = ValueError
in_graphs = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras compiles no graph with PyTorch"
)
# Neighbours of a float32, which has 2 ** 24 but not the number after it.
LARGE = 2**24 + np.arange(4)


def evaluated(loss, labels, **compile_settings):
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss=loss, **compile_settings)
    return model.evaluate(X[: len(labels)], labels, verbose=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("eager", [False, True])
def test_neighbours_above_what_float32_holds_stay_apart(name, eager):
    expected = value(LOSSES[name](), PLACES, X).mean()
    labels = LARGE[PLACES]
    assert len(np.unique(labels.astype(np.float32))) < 4
    found = evaluated(LOSSES[name](), labels, run_eagerly=eager)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_calls_with_large_integers_are_exact(name):
    loss = LOSSES[name]()
    expected = value(loss, PLACES, X)
    for labels in (LARGE[PLACES], 2**32 * PLACES, 2**62 + PLACES):
        np.testing.assert_array_equal(value(loss, labels, X), expected)
        np.testing.assert_allclose(
            float(loss(labels, X)), expected.mean(), rtol=1e-6
        )


@pytest.mark.parametrize(
    "labels",
    [
        np.array([200, 201, 255, 0], np.uint8),
        np.array([-128, -127, 127, 0], np.int8),
        np.array([65_535, 65_534, 0, 1], np.uint16),
        np.array([2**32 - 1, 2**32 - 2, 2**24, 0], np.uint32),
        np.array([-1, -(2**31), -(2**31) + 1, 2**31 - 1], np.int64),
        np.array([0.5, 0.25, -1.0, 3.0], np.float32),
        np.array([2047, 2046, 0, -2047], np.float16),
        np.array([2**24 - 1, 2**24 - 2, 1 - 2**24, 0], np.float64),
    ],
    ids=lambda labels: str(labels.dtype),
)
@pytest.mark.parametrize("column", [False, True])
def test_every_type_of_labels_is_compared_exactly(labels, column):
    labels = labels[PLACES]
    labels = labels[:, None] if column else labels
    loss = losses.PlaceSARELoss()
    expected = value(loss, PLACES, X)
    np.testing.assert_array_equal(value(loss, labels, X), expected)
    for found in (
        float(loss(ops.convert_to_tensor(labels), X)),
        evaluated(loss, labels, run_eagerly=True),
    ):
        np.testing.assert_allclose(found, expected.mean(), rtol=1e-6)


def test_two_places_may_be_true_and_false():
    labels = np.array([True, False, True, False])
    loss = losses.PlaceSARELoss()
    expected = value(loss, labels.astype(int), X[:4])
    np.testing.assert_array_equal(value(loss, labels, X[:4]), expected)
    np.testing.assert_allclose(
        evaluated(loss, labels, run_eagerly=True), expected.mean(), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_loss_of_low_precision_keeps_many_places_apart(dtype):
    """1,200 places: more than these types have whole numbers in a row."""
    count = 1200 if dtype == "bfloat16" else 2400
    labels = np.arange(count)
    x = ops.ones((count, 1))
    loss = losses.PlaceContrastiveLoss(dtype=dtype, reduction=None)
    # All descriptors are equal: 1, the margin, for each image of another place.
    found = ops.convert_to_numpy(ops.cast(loss(labels, x), "float32"))
    np.testing.assert_array_equal(found, np.ones(count))


TOO_LARGE = [
    (np.float32([0, 1, 2**24, 3]), "-16777215 to 16777215.*16777216.0.*int64"),
    (np.float32([0, 1, -(2**24), 3]), "Received: -16777216.0"),
    (np.float32([0, np.nan, 2, 3]), "Received: nan"),
    (np.float32([0, np.inf, 2, 3]), "Received: inf"),
    (np.float16([0, 1, 2048, 3]), "-2047 to 2047.*Received: 2048"),
]


@pytest.mark.parametrize(("labels", "message"), TOO_LARGE)
def test_floats_that_may_have_merged_are_refused(labels, message):
    for call in (losses.PlaceSARELoss(), losses.PlaceNPairsLoss().call):
        for given in (labels, labels[:, None], ops.convert_to_tensor(labels)):
            with pytest.raises(ValueError, match=message):
                call(given, X[:4])
    # Keras makes float32 of float16 arrays before a loss sees them.
    if labels.dtype == np.float32:
        with pytest.raises(ValueError, match=message):
            evaluated(losses.PlaceSARELoss(), labels, run_eagerly=True)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_refuse_them_as_well(function):
    with pytest.raises(ValueError, match="Received: 16777216.0"):
        function(LARGE[PLACES].astype(np.float32), ops.convert_to_tensor(X))
    with pytest.raises(ValueError, match="one-hot"):
        function(np.eye(4)[PLACES], ops.convert_to_tensor(X))


@pytest.mark.parametrize(
    "labels",
    [LARGE.astype(np.float64), np.array([0, np.nan, 1, 1])],
    ids=["large", "nan"],
)
@pytest.mark.parametrize("name", ["sare", "n_pairs"])
@in_graphs
def test_a_graph_refuses_them_when_it_runs(name, labels):
    with pytest.raises(FAILED, match="labels of places from -16777215.*int64"):
        evaluated(LOSSES[name](), labels, jit_compile=BACKEND == "jax")


@in_graphs
def test_a_graph_takes_floats_that_are_exact():
    loss = losses.PlaceSARELoss()
    found = evaluated(loss, PLACES.astype(np.float32))
    np.testing.assert_allclose(found, value(loss, PLACES, X).mean(), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="is about TensorFlow")
def test_a_graph_of_xla_cannot_raise_and_warns(caplog):
    loss = losses.PlaceSARELoss()
    expected = value(loss, PLACES, X).mean()
    for labels in (PLACES, LARGE[PLACES]):
        found = evaluated(loss, labels, jit_compile=True)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not caplog.records
    found = evaluated(loss, PLACES.astype(np.float32), jit_compile=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "loss will be NaN in this case: Expected labels" in caplog.text
    found = evaluated(loss, LARGE[PLACES].astype(np.float32), jit_compile=True)
    assert np.isnan(found)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(4)[PLACES], r"labels.shape=\(\w+, 4\).*argmax.*one-hot"),
        (np.zeros((8, 2), int), r"labels.shape=\(\w+, 2\)"),
        (np.zeros((8, 1, 1), int), r"labels.shape=\(\w+, 1, 1\)"),
    ],
)
@pytest.mark.parametrize("eager", [False, True])
def test_labels_of_another_shape_are_refused(labels, message, eager):
    for loss in (losses.PlaceSARELoss(), losses.PlaceNPairsLoss()):
        for call in (loss, loss.call):
            with pytest.raises(ValueError, match=message):
                call(labels, X)
    with pytest.raises(ValueError, match=message):
        evaluated(losses.PlaceSARELoss(), labels, run_eagerly=eager)


@pytest.mark.parametrize("count", [1, 7])
def test_another_number_of_labels_is_refused(count):
    with pytest.raises(ValueError, match=rf"labels.shape=\({count},\)"):
        losses.PlaceSARELoss()(PLACES[:count], X)


def test_names_of_places_are_refused():
    with pytest.raises(ValueError, match="to be numbers.*type <U.*unique"):
        losses.PlaceSARELoss()(PLACES.astype(str), X)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others have no strings")
@pytest.mark.parametrize("eager", [False, True])
def test_fit_refuses_names_of_places(eager):
    with pytest.raises(ValueError, match="to be numbers.*string.*unique"):
        evaluated(
            losses.PlaceSARELoss(),
            tf.constant(PLACES.astype(str)),
            run_eagerly=eager,
        )


def test_numbers_are_those_of_the_first_image_of_a_place():
    labels = ops.convert_to_tensor(np.int64([7, -3, 7, 9, -3]))
    found = place_labels.numbers(labels)
    assert ops.convert_to_numpy(found).tolist() == [0, 1, 0, 3, 1]


def test_digits_come_back():
    numbers = np.arange(0, 2**24, 4321, dtype=np.int32)
    digits = place_labels.to_digits(ops.convert_to_tensor(numbers))
    rounded = {key: ops.cast(x, "bfloat16") for key, x in digits.items()}
    found = ops.convert_to_numpy(place_labels.from_digits(rounded))
    np.testing.assert_array_equal(found, numbers)

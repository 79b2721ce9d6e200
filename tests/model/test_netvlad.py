"""NetVLAD against loops written from the paper."""

import functools

import keras
import layer_contract
import numpy as np
import pytest
from keras import ops
from layer_contract import numpy

from sare_tf.model import NetVLAD
from sare_tf.model.netvlad import netvlad


def unit(x):
    return x / np.sqrt(np.sum(x * x) + 1e-12)


def clamped_unit(x):
    return x / max(np.sqrt(np.sum(x * x)), 1e-12)


def netvlad_of_one_image(features, assignment, centres, bias=0.0, unit=unit):
    """Equations 1 to 4 of the paper, location by location, in float64."""
    features = np.float64(features)
    clusters, channels = centres.shape
    vectors = np.zeros((clusters, channels))
    for row in features:
        for x in row:
            x = unit(x)
            scores = [x @ assignment[:, k] for k in range(clusters)]
            scores = np.array(scores) + bias
            exponentials = np.exp(scores - max(scores))
            shares = exponentials / exponentials.sum()
            for k in range(clusters):
                for c in range(channels):
                    vectors[k, c] += shares[k] * (x[c] - centres[k, c])
    vectors = [unit(v) for v in vectors]  # intra-normalisation
    flat = [vectors[k][c] for k in range(clusters) for c in range(channels)]
    return unit(np.array(flat))


def example(*, batch=2, height=3, width=4, channels=5, clusters=3, seed=0):
    rng = np.random.default_rng(seed)
    features = 7.0 * rng.normal(size=(batch, height, width, channels))
    assignment = 2.0 * rng.normal(size=(channels, clusters))
    centres = 0.5 * rng.normal(size=(clusters, channels))
    return tuple(np.float32(x) for x in (features, assignment, centres))


def layer_with(assignment, centres, **options):
    layer = NetVLAD(num_clusters=len(centres), **options)
    layer.build((None, None, None, centres.shape[1]))
    layer.assignment.assign(assignment)
    layer.centres.assign(centres)
    return layer


@pytest.mark.parametrize("clusters", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (6, 2)])
def test_follows_the_paper(size, clusters):
    height, width = size
    features, *weights = example(height=height, width=width, clusters=clusters)
    expected = [netvlad_of_one_image(f, *weights) for f in features]
    found = numpy(netvlad(*map(ops.convert_to_tensor, (features, *weights))))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    found = numpy(layer_with(*weights)(features))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_cluster_major_by_hand():
    # Two locations, each wholly of one cluster: (2, 0) of 0 and (0, 5) of 1.
    features = np.float32([[[[2, 0], [0, 5]]]])
    assignment = 100.0 * np.eye(2, dtype=np.float32)
    centres = np.float32([[0, 1], [0.4, 0.2]])
    # Residuals (1, -1) and (-.4, .8), each to length 1, both to sqrt(1 / 2).
    expected = [0.5, -0.5, -1 / np.sqrt(10), 2 / np.sqrt(10)]
    found = numpy(layer_with(assignment, centres)(features))
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_length_of_the_features_does_not_matter():
    features, *weights = example()
    layer = layer_with(*weights)
    np.testing.assert_allclose(
        numpy(layer(features)), numpy(layer(1000 * features)), atol=1e-6
    )


def test_order_of_the_locations_does_not_matter():
    features, *weights = example()
    layer = layer_with(*weights)
    turned = features[:, ::-1].transpose(0, 2, 1, 3)
    np.testing.assert_allclose(
        numpy(layer(features)), numpy(layer(turned)), atol=1e-6
    )


def test_features_of_length_0_are_finite():
    features, *weights = example()
    features = np.zeros_like(features)
    found = numpy(layer_with(*weights)(features))
    expected = [netvlad_of_one_image(f, *weights) for f in features]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    features_at_centre = weights[1][None, None]  # residuals may vanish
    assert np.isfinite(
        numpy(layer_with(weights[0], 0 * weights[1])(features_at_centre))
    ).all()


def test_gradient_equals_finite_differences():
    features, *weights = example(batch=1)
    direction = np.random.default_rng(4).normal(size=15)

    def objective(assignment, centres):
        return direction @ netvlad_of_one_image(
            features[0], assignment, centres
        )

    layer = layer_with(*weights)
    model = keras.Sequential([keras.Input((None, None, 5)), layer])
    target = np.float32(direction)[None]
    model.compile(keras.optimizers.SGD(1.0), _Dot())
    model.train_on_batch(features, target)
    for i, variable in enumerate([layer.assignment, layer.centres]):
        found = weights[i] - numpy(variable)
        expected = np.zeros_like(found)
        for where in np.ndindex(*found.shape):
            values = []
            for step in (1e-6, -1e-6):
                moved = [np.float64(w) for w in weights]
                moved[i][where] += step
                values.append(objective(*moved))
            expected[where] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


class _Dot(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.sum(y_true * y_pred, axis=-1)


def with_options(assignment, centres, bias, **options):
    layer = layer_with(
        assignment, centres, use_bias=True, clamped=True, **options
    )
    layer.assignment_bias.assign(bias)
    return layer


def test_short_parts_count_as_in_pytorch():
    """By its bias, the last cluster gets about 1e-9 of each location."""
    features, *weights = example()
    bias = np.float32([0.5, -0.5, -21])
    found = numpy(with_options(*weights, bias)(features))
    for image, row in zip(features, found, strict=True):
        options = {"bias": bias, "unit": clamped_unit}
        expected = netvlad_of_one_image(image, *weights, **options)
        np.testing.assert_allclose(row, expected, atol=2e-6)
        # A third of the whole, where MatConvNet gives it next to nothing.
        assert np.linalg.norm(row[-5:]) == pytest.approx(3**-0.5, abs=1e-5)
        short = netvlad_of_one_image(image, *weights, bias=bias)
        assert np.linalg.norm(short[-5:]) < 0.1


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract_with_all_options(check, tmp_path):
    _, *weights = example()
    bias = np.float32([0.5, -1.0, 0.25])

    def oracle(image):
        return netvlad_of_one_image(
            image, *weights, bias=bias, unit=clamped_unit
        )

    check(functools.partial(with_options, *weights, bias), oracle, tmp_path)


@pytest.mark.parametrize("check", layer_contract.CHECKS)
def test_contract(check, tmp_path):
    _, *weights = example()

    def oracle(image):
        return netvlad_of_one_image(image, *weights)

    check(functools.partial(layer_with, *weights), oracle, tmp_path)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="reads the tensors of a TensorFlow graph",
)
def test_no_tensor_of_locations_times_clusters_times_channels():
    import tensorflow as tf

    sizes = {"height": 8, "width": 8, "channels": 16, "clusters": 12}
    features, *weights = example(**sizes)
    layer = layer_with(*weights)

    @tf.function
    def step(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(layer(features)[:, ::2])
        return tape.gradient(total, [features, *layer.trainable_weights])

    graph = step.get_concrete_function(tf.constant(features)).graph
    largest = max(
        output.shape.num_elements() or 0
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank is not None
    )
    assert largest == features.size  # not features.size * 12


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 2 clusters.*num_clusters=1"):
        NetVLAD(num_clusters=1)
    maps = keras.KerasTensor((None, 7, 5, None))
    with pytest.raises(ValueError, match=r"known C.*\(None, 7, 5, None\)"):
        NetVLAD()(maps)
    _, *weights = example()
    with pytest.raises(ValueError, match="axis -1.* value 5"):
        layer_with(*weights)(np.ones((1, 3, 4, 6), np.float32))

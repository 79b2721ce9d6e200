"""NetVLAD against loops written from the paper."""

import keras
import numpy as np
import pytest
from keras import ops

from sare_tf.model import NetVLAD, netvlad_initial_weights
from sare_tf.model.netvlad import netvlad


def unit(x):
    return x / np.sqrt(np.sum(x * x) + 1e-12)


def netvlad_of_one_image(features, assignment, centres):
    """Equations 1 to 4 of the paper, location by location, in float64."""
    features = np.float64(features)
    clusters, channels = centres.shape
    vectors = np.zeros((clusters, channels))
    for row in features:
        for x in row:
            x = unit(x)
            scores = [x @ assignment[:, k] for k in range(clusters)]
            exponentials = np.exp(np.array(scores) - max(scores))
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


def numpy(x):
    return ops.convert_to_numpy(x)


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


@pytest.mark.parametrize("eager", [False, True])
def test_unknown_sizes_in_eager_and_graph(eager):
    _, *weights = example()
    images = keras.Input((None, None, 5))
    outputs = layer_with(*weights)(images)
    assert outputs.shape == (None, 15)
    model = keras.Model(images, outputs)
    model.compile(run_eagerly=eager)
    for batch, height, width in [(1, 2, 7), (3, 4, 4)]:
        features, *_ = example(batch=batch, height=height, width=width, seed=9)
        expected = [netvlad_of_one_image(f, *weights) for f in features]
        found = model.predict(features, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sums_are_float32_under_mixed_precision():
    features, *weights = example(height=20, width=20)
    layer = layer_with(*weights, dtype="mixed_bfloat16")
    rounded = ops.cast(ops.convert_to_tensor(features), "bfloat16")
    found = layer(rounded)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert layer.assignment.dtype == layer.centres.dtype == "float32"
    symbolic = layer(keras.KerasTensor((None, 4, 4, 5), dtype="bfloat16"))
    assert symbolic.dtype == "float32"
    assert symbolic.shape == (None, 15)
    exact = numpy(ops.cast(rounded, "float32"))
    expected = [netvlad_of_one_image(f, *weights) for f in exact]
    np.testing.assert_allclose(numpy(found), expected, atol=2e-6)


def test_saved_and_loaded(tmp_path):
    features, *weights = example()
    images = keras.Input((None, None, 5))
    layer = layer_with(*weights, name="aggregate")
    model = keras.Model(images, layer(images))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("aggregate").num_clusters == 3
    np.testing.assert_array_equal(
        numpy(again(features)), numpy(model(features))
    )


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


def clouds(*, seed=0, centres=6, each=40, channels=8, spread=0.05):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(centres, channels))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    noise = spread * rng.normal(size=(each, centres, channels))
    lengths = rng.uniform(1, 9, (each, centres, 1))
    descriptors = (directions + noise) * lengths
    return descriptors.reshape(-1, channels).astype(np.float32), directions


def test_initial_centres_are_the_means_of_normalised_clouds():
    descriptors, directions = clouds()
    _, centres = netvlad_initial_weights(descriptors, 6)
    assert centres.shape == (6, 8)
    assert centres.dtype == np.float32
    normalised = descriptors / np.linalg.norm(descriptors, axis=1)[:, None]
    nearest = np.argmax(normalised @ directions.T, axis=1)
    means = [normalised[nearest == k].mean(axis=0) for k in range(6)]
    order = np.argmin(np.linalg.norm(centres[:, None] - means, axis=-1), axis=0)
    np.testing.assert_allclose(centres[order], means, atol=1e-5)


def test_initial_assignment_has_the_wanted_sharpness():
    descriptors, _ = clouds(spread=0.2)
    assignment, centres = netvlad_initial_weights(descriptors, 5)
    assert assignment.shape == (8, 5)
    assert assignment.dtype == np.float32
    lengths = np.linalg.norm(assignment, axis=0)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
    directions = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    np.testing.assert_allclose(assignment.T / lengths[0], directions, atol=1e-5)
    # log of the two largest shares of a softmax: they differ as its scores.
    normalised = descriptors / np.linalg.norm(descriptors, axis=1)[:, None]
    scores = np.sort(normalised @ assignment, axis=1)
    ratio = np.exp(np.mean(scores[:, -2] - scores[:, -1]))
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-4)


def test_initial_weights_depend_on_the_seed_alone():
    descriptors, _ = clouds(spread=0.5)
    first = netvlad_initial_weights(descriptors, 4, seed=1)
    again = netvlad_initial_weights(descriptors, 4, seed=1)
    other = netvlad_initial_weights(descriptors, 4, seed=2)
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("descriptors", "clusters", "message"),
    [
        (np.ones((3, 2, 2)), 2, r"\[M, C\].*shape=\(3, 2, 2\)"),
        (np.eye(4), 1, "at least 2 clusters.*num_clusters=1"),
        (np.eye(4), 5, r"at least 5 distinct.*shape=\(4, 4\)"),
        (np.ones((9, 4)), 2, "at least 2 distinct"),
        ([[1, np.nan], [1, 2], [2, 1]], 2, "finite.* 1 of 3"),
        ([[1, np.inf], [np.inf, 2], [2, 1]], 2, "finite.* 2 of 3"),
    ],
)
def test_descriptors_that_cannot_be_clustered(descriptors, clusters, message):
    with pytest.raises(ValueError, match=message):
        netvlad_initial_weights(np.asarray(descriptors), clusters)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 2 clusters.*num_clusters=1"):
        NetVLAD(num_clusters=1)
    with pytest.raises(ValueError, match=r"\[B, H, W, C\].*\(None, 7, 5\)"):
        NetVLAD().build((None, 7, 5))

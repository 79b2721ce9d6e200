"""The whole network: built, initialised, trained, saved and loaded."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from paths import ROOT

from sare_tf import losses, model
from sare_tf.model import NetVLAD

AGGREGATIONS = ("netvlad", "gem", "mac", "spoc", "rmac")
SIZE = (24, 32)
CHANNELS = 96


def pictures(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, *SIZE, 3)).astype(np.uint8)


def small(aggregation="netvlad", **options):
    keras.utils.set_random_seed(0)
    return model.build_embedder(
        backbone="small", aggregation=aggregation, num_clusters=3, **options
    )


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_images_to_descriptors(aggregation):
    embedder = small(aggregation)
    dimension = 3 * CHANNELS if aggregation == "netvlad" else CHANNELS
    assert embedder.name == "embedder"
    assert embedder.output_shape == (None, dimension)
    images = pictures(3)
    found = embedder.predict(images, verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    # The same as its parts, one after the other, on numbers of any type.
    for kind in (np.uint8, np.int32, np.float32):
        x = embedder.get_layer("preprocessing")(images.astype(np.float32))
        x = embedder.get_layer("backbone")(x)
        x = embedder.get_layer(aggregation)(x)
        again = embedder(images.astype(kind))
        np.testing.assert_allclose(numpy(again), numpy(x), atol=1e-6)
        np.testing.assert_allclose(numpy(again), found, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["netvlad", "rmac"])
def test_sizes_known_late_or_early_give_the_same(aggregation):
    fixed = small(aggregation, image_size=SIZE)
    assert fixed.input_shape == (None, *SIZE, 3)
    free = small(aggregation)
    assert free.input_shape == (None, None, None, 3)
    images = pictures(2)
    np.testing.assert_allclose(
        numpy(fixed(images)), numpy(free(images)), atol=1e-6
    )
    wider = np.concatenate([images, images], axis=2)
    expected = numpy(free(wider))

    # An exported graph takes every size, whatever the model was built for.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def embed(batch):
        return fixed(batch, training=False)

    np.testing.assert_allclose(
        numpy(embed(np.float32(wider))), expected, atol=1e-6
    )


def test_images_do_not_depend_on_their_neighbours_or_the_mode():
    embedder = small()
    images = pictures(4)
    together = numpy(embedder(images, training=True))
    alone = numpy(embedder(images[2:3], training=False))
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


@pytest.mark.parametrize("size", [None, SIZE])
def test_over_tuples_embeds_every_image(size):
    embedder = small(image_size=size)
    network = model.over_tuples(embedder)
    assert network.get_layer("embedder") is embedder
    assert network.output_shape == (None, None, 3 * CHANNELS)
    for batch, count in [(2, 3), (1, 5)]:
        tuples = pictures(batch, count, seed=count)
        found = network.predict(tuples, verbose=0)
        assert found.dtype == np.float32
        for b in range(batch):
            expected = numpy(embedder(tuples[b]))
            np.testing.assert_allclose(found[b], expected, atol=1e-6)


def test_embedder_of_another_name_is_refused():
    images = keras.Input((None, None, 3))
    other = keras.Model(images, model.SPoC()(images), name="other")
    with pytest.raises(ValueError, match="'embedder'.*embedder.name='other'"):
        model.over_tuples(other)


def separable(count=4, size=3):
    """Tuples whose query and positive are dark, and negatives bright."""
    tuples = pictures(count, size) // 4
    tuples[:, 2:] += 150
    return tuples


@pytest.mark.parametrize("has_targets", [True, False])
@pytest.mark.parametrize("source", ["numpy", "tf.data"])
def test_fit_lowers_the_loss(source, has_targets):
    network = model.over_tuples(small())
    network.compile(
        keras.optimizers.SGD(0.1),
        losses.SARELoss(inverse_bandwidth=5.0),
    )
    tuples = separable()
    arrays = (tuples, np.zeros(4, np.float32)) if has_targets else (tuples,)
    before = network.evaluate(*arrays, verbose=0)
    if source == "tf.data":
        dataset = tf.data.Dataset.from_tensor_slices(
            arrays if has_targets else tuples
        ).batch(2)
        # Keras warns of its own default of shuffling.
        history = network.fit(
            dataset, epochs=4, shuffle=False, verbose=0, validation_data=dataset
        )
    else:
        history = network.fit(
            *arrays,
            batch_size=2,
            epochs=4,
            verbose=0,
            validation_data=arrays if has_targets else tuples,
        )
    after = network.evaluate(*arrays, verbose=0)
    assert after < before
    assert history.history["val_loss"][-1] == pytest.approx(after, rel=1e-5)


def test_targets_do_not_matter():
    weights = []
    for targets in ((), (np.ones(4, np.float32),)):
        network = model.over_tuples(small("gem"))
        network.compile(keras.optimizers.SGD(0.1), losses.SARELoss())
        network.fit(
            separable(),
            *targets,
            batch_size=2,
            shuffle=False,
            verbose=0,
        )
        weights.append(network.get_weights())
    for without, given in zip(*weights, strict=True):
        np.testing.assert_array_equal(without, given)


def test_fit_on_places():
    embedder = small("gem")
    embedder.compile(
        keras.optimizers.Adam(1e-3), losses.PlaceSARELoss(inverse_bandwidth=10)
    )
    images = separable().reshape(-1, *SIZE, 3)
    labels = np.tile([0, 0, 1], 4)
    before = embedder.evaluate(images, labels, verbose=0)
    embedder.fit(images, labels, epochs=4, verbose=0)
    assert embedder.evaluate(images, labels, verbose=0) < before


def test_mixed_precision(mixed_bfloat16):
    embedder = small()
    assert embedder.get_layer("backbone").layers[1].compute_dtype == "bfloat16"
    network = model.over_tuples(embedder)
    network.compile("sgd", losses.SARELoss())
    tuples = pictures(2, 3)
    found = network.predict(tuples, verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    images = tuples.reshape(-1, *SIZE, 3)
    np.testing.assert_allclose(
        found.reshape(6, -1), embedder.predict(images, verbose=0), atol=1e-6
    )
    model.initialise_netvlad(embedder, [images])
    history = network.fit(tuples, np.zeros(2), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_mixed_precision_is_close_to_full(mixed_bfloat16):
    images = pictures(2)
    mixed = small("gem")
    keras.config.set_dtype_policy("float32")
    full = small("gem")
    full.set_weights(mixed.get_weights())
    similarity = np.sum(numpy(mixed(images)) * numpy(full(images)), axis=1)
    np.testing.assert_allclose(similarity, 1, atol=1e-3)


def test_initialise_netvlad():
    embedder = small()
    images = pictures(6)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    model.initialise_netvlad(embedder, batches, seed=1)
    # A map of 3 x 4 locations: all are taken, in any order.
    features = numpy(
        embedder.get_layer("backbone")(
            embedder.get_layer("preprocessing")(images)
        )
    )
    layer = embedder.get_layer("netvlad")
    centres, assignment = numpy(layer.centres), numpy(layer.assignment)
    x = features.reshape(-1, CHANNELS)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = np.argmin(
        np.linalg.norm(x[:, None] - centres[None], axis=-1), axis=1
    )
    means = [x[nearest == k].mean(axis=0) for k in range(3)]
    np.testing.assert_allclose(centres, means, atol=1e-4)
    scores = np.sort(x @ assignment, axis=1)
    ratio = np.exp(np.mean(scores[:, -2] - scores[:, -1]))
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-2)

    again = small()
    model.initialise_netvlad(again, batches, seed=1)
    for a, b in zip(embedder.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_initialise_netvlad_from_given_centres():
    centres = np.random.default_rng(3).normal(size=(3, CHANNELS))
    embedder = small()
    images = pictures(4)
    model.initialise_netvlad(embedder, [images], centres=centres)
    layer = embedder.get_layer("netvlad")
    np.testing.assert_array_equal(numpy(layer.centres), np.float32(centres))
    features = keras.Model(embedder.input, layer.input)(images)
    x = numpy(features).reshape(-1, CHANNELS)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = np.sort(x @ numpy(layer.assignment), axis=1)
    ratio = np.exp(np.mean(scores[:, -2] - scores[:, -1]))
    np.testing.assert_allclose(ratio, 0.01, rtol=1e-3)


def test_initialise_netvlad_from_an_array():
    images = pictures(34)  # more than are embedded at a time
    embedders = [small(), small()]
    model.initialise_netvlad(embedders[0], images)
    model.initialise_netvlad(embedders[1], [images[:20], images[20:]])
    for name in ("centres", "assignment"):
        np.testing.assert_allclose(
            *(
                numpy(getattr(each.get_layer("netvlad"), name))
                for each in embedders
            ),
            atol=1e-5,
        )


def test_given_centres_are_checked_before_the_images_are_embedded():
    def images():
        pytest.fail("Expected no image to be read.")
        yield

    with pytest.raises(ValueError, match=r"3 clusters and 96.*\(64, 512\)"):
        model.initialise_netvlad(small(), images(), centres=np.ones((64, 512)))


def test_locations_per_image_limits_the_sample():
    # One location of each of 2 images are fewer descriptors than 3 clusters.
    with pytest.raises(ValueError, match=r"at least 3 distinct.*\(2, 96\)"):
        model.initialise_netvlad(small(), [pictures(2)], locations_per_image=1)


def test_initialisation_without_netvlad_or_images_is_refused():
    with pytest.raises(ValueError, match="one NetVLAD layer.*'gem'"):
        model.initialise_netvlad(small("gem"), [pictures(1)])
    with pytest.raises(ValueError, match="Received: none"):
        model.initialise_netvlad(small(), [])


@pytest.mark.parametrize("aggregation", ["netvlad", "rmac"])
def test_saved_and_loaded(aggregation, tmp_path):
    network = model.over_tuples(small(aggregation, image_size=SIZE))
    network.compile("sgd", losses.SARELoss(kernel="cauchy"))
    tuples = pictures(2, 3)
    network.fit(tuples, np.zeros(2), verbose=0)
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == network.loss.get_config()
    images = tuples[0]
    np.testing.assert_array_equal(
        numpy(again.get_layer("embedder")(images)),
        numpy(network.get_layer("embedder")(images)),
    )
    again.fit(tuples, np.zeros(2), verbose=0)


def test_loaded_model_can_be_initialised_again(tmp_path):
    network = model.over_tuples(small())
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    embedder = again.get_layer("embedder")
    model.initialise_netvlad(embedder, [pictures(2)])
    assert isinstance(embedder.get_layer("netvlad"), NetVLAD)


def test_loaded_in_a_fresh_process(tmp_path):
    embedder = small(image_size=SIZE)
    model.over_tuples(embedder).save(tmp_path / "model.keras")
    images = pictures(2)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "descriptors.npy", numpy(embedder(images)))
    script = """
import sys, keras, numpy as np
import sare_tf
folder = sys.argv[1]
embedder = sare_tf.load_embedder(folder + "/model.keras")
found = embedder(np.load(folder + "/images.npy"))
expected = np.load(folder + "/descriptors.npy")
np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), expected)
"""
    # Some processors add in another order with another number of threads.
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads)},
    )


TWO_REPLICAS = """
import sys, keras, numpy as np, tensorflow as tf
from sare_tf import losses, model
cpu = tf.config.list_physical_devices("CPU")[0]
one = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [one, one])
strategies = [
    tf.distribute.get_strategy(),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
]
rng = np.random.default_rng(0)
tuples = rng.integers(0, 256, (8, 3, 24, 32, 3)).astype(np.float32)
dataset = tf.data.Dataset.from_tensor_slices((tuples, np.zeros(8))).batch(4)
for aggregation in sys.argv[1:]:
    weights = []
    for strategy in strategies:
        keras.utils.set_random_seed(0)
        with strategy.scope():
            network = model.over_tuples(
                model.build_embedder(
                    backbone="small", aggregation=aggregation, num_clusters=3
                )
            )
            start = network.get_weights()
            network.compile(keras.optimizers.SGD(0.1), losses.SARELoss())
        network.fit(dataset, epochs=2, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    pairs = zip(start, weights[0], strict=True)
    moved = max(np.abs(a - b).max() for a, b in pairs)
    assert moved > 1e-3, moved
    for single, mirrored in zip(*weights, strict=True):
        np.testing.assert_allclose(mirrored, single, atol=1e-6, rtol=1e-5)
"""


@pytest.mark.own_process
def test_two_replicas_train_as_one():
    subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS, "netvlad", "gem"],
        check=True,
        cwd=ROOT,
    )


def test_names_of_weights_reach_the_backbone(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        small(weights=tmp_path / "no.h5")
    first = small()
    first.save(tmp_path / "first.keras")
    keras.utils.set_random_seed(1)
    second = model.build_embedder(
        backbone="small", aggregation="mac", weights=tmp_path / "first.keras"
    )
    for a, b in zip(
        first.get_layer("backbone").get_weights(),
        second.get_layer("backbone").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("train_from", ["stage3_conv", "stage3"])
def test_layers_of_the_backbone_by_name(train_from):
    """A block begins with its first layer."""
    embedder = small("gem", cut_layer="stage3_relu", train_from=train_from)
    assert embedder.output_shape == (None, 64)
    trained = [weight.path for weight in embedder.trainable_weights]
    assert [path.split("/")[-2] for path in trained] == [
        "stage3_conv",
        "stage3_norm",
        "stage3_norm",
        "gem",
    ]


def test_a_backbone_that_stays_as_it_is():
    embedder = small("netvlad", train_from="aggregation")
    trained = {
        weight.path.split("/")[0] for weight in embedder.trainable_weights
    }
    assert trained == {"netvlad"}


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'netvlad'.*'rmac'.*'sum'"):
        model.build_embedder(aggregation="sum")
    with pytest.raises(ValueError, match="'small'.*'vgg16'.*'lenet'"):
        model.build_embedder(backbone="lenet")

"""A warning, once, about images that are not in 0..255."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sare_tf import losses, model
from sare_tf.model import image_range
from sare_tf.model.backbones import Preprocessing
from sare_tf.model.data_checks import Embedder
from sare_tf.model.image_range import RangeWarning
from sare_tf.training.place_network import PlaceNetwork

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 40, 3))
EXPECTED = "values from 0 to 255"


def look_at(images):
    warning = RangeWarning()
    warning(images, training=False)
    return warning.has_warned


@pytest.mark.parametrize(
    "images",
    [
        IMAGES / 255,
        IMAGES / 127.5 - 1,
        (IMAGES / 255 - 0.45) / 0.225,
        (IMAGES / 255).astype(np.float16),
        IMAGES - 120,
        (257 * IMAGES).astype(np.uint16),
        (257 * IMAGES).astype(np.int32),
    ],
    ids=["0..1", "-1..1", "imagenet", "half", "centred", "16_bit", "int32"],
)
def test_other_ranges_are_noticed(images):
    assert look_at(images)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.astype(np.uint8),
        IMAGES.astype(np.int32),
        1.1 * IMAGES - 10,
        np.zeros((2, 16, 16, 3)),
        np.ones((2, 16, 16, 3), np.uint8),
        np.eye(16, dtype=np.uint8)[None, :, :, None] * np.ones(3, np.uint8),
        np.zeros((0, 16, 16, 3)),
    ],
    ids=[
        *("float", "uint8", "int32", "interpolated", "black", "nearly black"),
        *("noise", "none"),
    ],
)
def test_images_in_range_are_not(images):
    assert not look_at(images)


@pytest.fixture(scope="module")
def embedder():
    return model.build_embedder(backbone="small", aggregation="gem")


@pytest.fixture(autouse=True)
def _as_new(embedder):
    for layer in embedder.layers:
        if isinstance(layer, Preprocessing):
            layer.warn_of_range.has_warned = False


def test_a_call_warns_once(embedder, caplog):
    embedder(IMAGES.astype(np.uint8))
    embedder(IMAGES)
    assert EXPECTED not in caplog.text
    for _ in range(2):
        embedder(IMAGES / 255)
    assert caplog.text.count(EXPECTED) == 1
    assert "from 0.0" in caplog.text
    assert "Multiply images in 0..1 by 255" in caplog.text


def test_fit_warns_once(embedder, caplog):
    embedder.compile("sgd", losses.PlaceSARELoss())
    embedder.fit(IMAGES / 255, np.array([0, 0, 1, 1]), epochs=2, verbose=0)
    assert caplog.text.count(EXPECTED) == 1


def dataset(images):
    return tf.data.Dataset.from_tensor_slices(images).batch(2)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("predict", "array"), ("evaluate", "dataset"), ("fit", "dataset")],
)
def test_methods_of_keras_warn_once(embedder, caplog, method, kind):
    """Also where XLA compiles, as Keras has it do by default on GPUs."""
    embedder.compile("sgd", losses.PlaceSARELoss(), jit_compile=True)
    call = getattr(embedder, method)

    def run(images):
        data = {"x": images.astype(np.float32), "verbose": 0}
        if kind == "dataset":
            data["x"] = dataset((data["x"], np.array([0, 0, 1, 1])))
        if method == "fit":
            data["shuffle"] = False
        call(**data)

    run(IMAGES)
    assert EXPECTED not in caplog.text
    for _ in range(2):
        run(IMAGES / 255)
    assert caplog.text.count(EXPECTED) == 1


def test_networks_over_tuples_and_places_warn(embedder, caplog):
    small = (IMAGES / 255).astype(np.float32)
    tuples = model.over_tuples(embedder)
    tuples.predict(small[None], verbose=0)
    assert caplog.text.count(EXPECTED) == 1
    embedder.layers[1].warn_of_range.has_warned = False
    places = PlaceNetwork(embedder)
    places.compile("sgd", losses.PlaceSARELoss(), jit_compile=True)
    places.fit({"images": small}["images"], np.array([0, 0, 1, 1]), verbose=0)
    assert caplog.text.count(EXPECTED) == 2


def test_other_data_is_passed_over(embedder):
    """Generators are not begun, nor datasets of integers."""
    begun = []

    def generate():
        begun.append(1)
        yield IMAGES[:1].astype(np.uint8)

    spec = tf.TensorSpec((1, 32, 40, 3), tf.uint8)
    integers = tf.data.Dataset.from_generator(generate, output_signature=spec)
    for data in (generate(), integers, [], None, {}, {"images": integers}):
        image_range.look_at_data(embedder, data)
    assert begun == []


def test_an_embedder_is_saved_and_loaded_as_one(embedder, tmp_path):
    embedder.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras", compile=False)
    assert type(loaded) is type(embedder) is Embedder
    np.testing.assert_array_equal(loaded(IMAGES), embedder(IMAGES))
    assert type(keras.models.clone_model(embedder)) is Embedder


def test_fit_of_images_in_range_does_not(embedder, caplog):
    embedder.compile("sgd", losses.PlaceSARELoss())
    embedder.fit(IMAGES, np.array([0, 0, 1, 1]), verbose=0)
    assert EXPECTED not in caplog.text


def operations(layer, *, training, **settings):
    graph = tf.function(lambda x: layer(x, training=training), **settings)
    spec = tf.TensorSpec((None, 32, 40, 3), tf.float32)
    concrete = graph.get_concrete_function(spec)
    return [op.type for op in concrete.graph.get_operations()]


def test_graphs_for_serving_and_of_xla_contain_nothing_of_it():
    layer = Preprocessing(mean=(1, 2, 3), deviation=(1, 1, 1))
    assert "PyFunc" in operations(layer, training=True)
    served = operations(layer, training=False)
    compiled = operations(layer, training=True, jit_compile=True)
    layer.warn_of_range.has_warned = True
    assert served == compiled == operations(layer, training=True)


def test_it_is_not_in_the_configuration():
    layer = Preprocessing(mean=(1, 2, 3), deviation=(1, 1, 1))
    again = Preprocessing.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="image_data_format='channels_fir"):
            model.build_embedder(backbone="small", aggregation="gem")
    finally:
        keras.config.set_image_data_format("channels_last")

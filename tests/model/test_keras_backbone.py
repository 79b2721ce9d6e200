"""Any Keras model is a backbone: its features, its layers, its refusals."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from sare_tf import losses, model
from sare_tf.model.options import ModelOptions
from sare_tf.training.run_folder import load_embedder

SIZE = (24, 32)


def pictures(*shape, size=SIZE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*shape, *size, 3)).astype(np.uint8)


def convolutional(size=(None, None)):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((*size, 3)),
            layers.Rescaling(1 / 127.5, offset=-1.0),
            layers.Conv2D(6, 3, strides=8, padding="same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.Conv2D(5, 3, padding="same", name="last"),
        ],
        name="own",
    )


def tokens():
    """Like a vision transformer: patches without their order in the image."""
    network = convolutional()
    return keras.Sequential([network, layers.Reshape((-1, 5))])


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(5, 3, strides=8, padding="same")

    def call(self, images):
        return self.conv(images / 255.0)


def unit(rows):
    return rows / np.sqrt(np.sum(np.square(rows), axis=-1, keepdims=True))


@pytest.mark.parametrize("make", [convolutional, tokens, Subclassed])
def test_features_of_the_model_are_aggregated(make):
    backbone = make()
    embedder = model.build_embedder(backbone=backbone, aggregation="spoc")
    assert embedder.input_shape == (None, None, None, 3)
    images = pictures(2)
    features = ops.convert_to_numpy(backbone(np.float32(images)))
    expected = unit(features.reshape(2, -1, 5).mean(axis=1))
    found = embedder.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # In every mode, and without the other images of a batch.
    trained = embedder(images[1:], training=True)
    np.testing.assert_allclose(trained, expected[1:], atol=1e-6)


@pytest.mark.parametrize("aggregation", ["netvlad", "gem", "mac"])
def test_tokens_are_aggregated_as_a_feature_map_is(aggregation):
    images = pictures(2)
    found = [
        model.build_embedder(
            backbone=backbone, aggregation=aggregation, num_clusters=3
        )
        for backbone in (tokens(), convolutional())
    ]
    found[0].set_weights(found[1].get_weights())
    np.testing.assert_allclose(found[0](images), found[1](images), atol=1e-6)


@pytest.mark.parametrize("make", [convolutional, tokens, Subclassed])
def test_saved_and_loaded(make, tmp_path):
    embedder = model.build_embedder(backbone=make(), num_clusters=2)
    network = model.over_tuples(embedder)
    network.compile("sgd", losses.SARELoss())
    tuples = pictures(2, 3)
    network.fit(tuples, verbose=0)
    network.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(tuples[0]), embedder(tuples[0]))


def test_a_file_of_a_model(tmp_path):
    backbone = convolutional()
    backbone.save(tmp_path / "own.keras")
    images = pictures(2)
    made = [
        model.build_embedder(backbone=given, aggregation="gem")(images)
        for given in (backbone, tmp_path / "own.keras")
    ]
    np.testing.assert_array_equal(*made)


def test_a_size_that_the_model_fixes():
    embedder = model.build_embedder(
        backbone=convolutional((16, 16)), aggregation="gem"
    )
    assert embedder.input_shape == (None, 16, 16, 3)
    with pytest.raises(ValueError, match=r"=\(16, 16\).*size=\(24, 32\)"):
        model.build_embedder(backbone=convolutional((16, 16)), image_size=SIZE)


def test_layers_by_name():
    def trained(**options):
        embedder = model.build_embedder(
            backbone=convolutional(), aggregation="gem", **options
        )
        names = [v.path.split("/")[-2] for v in embedder.trainable_variables]
        return embedder.output_shape[-1], list(dict.fromkeys(names))

    assert trained() == (5, ["first", "last", "gem"])
    assert trained(train_from="last") == (5, ["last", "gem"])
    assert trained(train_from="aggregation") == (5, ["gem"])
    assert trained(cut_layer="first") == (6, ["first", "gem"])
    for option in ("train_from", "cut_layer"):
        with pytest.raises(ValueError, match=f"{option} to be.*'no'.*first"):
            trained(**{option: "no"})


def test_frozen_layers_stay_frozen():
    backbone = convolutional()
    backbone.get_layer("first").trainable = False
    embedder = model.build_embedder(backbone=backbone, aggregation="gem")
    paths = [v.path.split("/")[-2] for v in embedder.trainable_variables]
    assert "first" not in paths


def test_other_outputs_are_refused():
    images = keras.Input((None, None, 3))
    features = layers.Conv2D(4, 3)(images)
    pooled = layers.GlobalMaxPooling2D()(features)
    for outputs, message in (
        (pooled, r"feature maps.*shape \(None, 4\). Leave out its pooling"),
        ([features, pooled], "one output. Received: .*1 inputs and 2 outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            model.build_embedder(backbone=keras.Model(images, outputs))
    grey = keras.Input((None, None, 1))
    with pytest.raises(
        ValueError, match=r"RGB images.*\(None, None, None, 1\)"
    ):
        model.build_embedder(
            backbone=keras.Model(grey, layers.Conv2D(4, 3)(grey))
        )
    unknown = keras.Input((None, None, None))
    with pytest.raises(ValueError, match="RGB images"):
        model.build_embedder(backbone=keras.Model(unknown, unknown))


def test_unknown_channels_are_refused():
    class Gathered(layers.Layer):
        def call(self, images):
            return images

        def compute_output_shape(self, shape):
            return (*shape[:3], None)

    images = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="with known C. Received.*None, None"):
        model.build_embedder(backbone=keras.Model(images, Gathered()(images)))


def test_regions_of_tokens_are_refused():
    with pytest.raises(ValueError, match="'rmac'.*tokens of shape"):
        model.build_embedder(backbone=tokens(), aggregation="rmac")


def test_weights_of_a_model_are_its_own():
    with pytest.raises(ValueError, match="weights=None.*'imagenet'"):
        model.build_embedder(backbone=convolutional(), weights="imagenet")


def test_options_take_files_and_refuse_unknown_names():
    assert ModelOptions(backbone="runs/own.keras").backbone.endswith("keras")
    with pytest.raises(ValueError, match="small, vgg16, .*keras file.*'lenet'"):
        ModelOptions(backbone="lenet")


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(ValueError, match="'vgg16'.*keras file.*'lenet'"):
        model.build_embedder(backbone="lenet")
    path = tmp_path / "own.keras"
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        model.build_embedder(backbone=path)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="that Keras can load.*own.keras"):
        model.build_embedder(backbone=path)

"""Backbones: preprocessing, where they are cut, what is trained, weights."""

import urllib.error

import keras
import numpy as np
import pytest
import toy_downloads
from keras import ops

from sare_tf.model import (
    backbones,
    build_embedder,
    over_tuples,
    published_files,
    registry,
)

# Vision transformers, see test_vit.py, are larger. The rest of torchvision's
# networks: tests/model/torchvision.
NAMES = sorted(
    {name for name in registry.BACKBONES if not name.startswith("dinov2_")}
    - {
        "torchvision_vgg16",
        "torchvision_resnet34",
        "torchvision_resnet152",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "efficientnet_b0",
    }
)
# Stride and channels of the feature map.
FEATURES = {
    "small": (8, 96),
    "vgg16": (16, 512),
    "resnet50": (16, 1024),
    "mobilenetv3": (16, 112),
    "efficientnetv2b0": (16, 112),
    "torchvision_resnet18": (16, 256),
    "torchvision_resnet50": (16, 1024),
    "torchvision_resnet101": (16, 1024),
    "mobilenet_v2": (16, 96),
    "convnext_tiny": (16, 384),
}
# First trained layer with weights, in the order of the network.
TRAINED_FROM = {
    "small": "stage1_conv",
    "vgg16": "block5_conv1",
    "resnet50": "conv4_block1_1_conv",
    "mobilenetv3": "conv",
    "efficientnetv2b0": "stem_conv",
    "torchvision_resnet18": "layer3_0_conv1",
    "torchvision_resnet50": "layer3_0_conv1",
    "torchvision_resnet101": "layer3_0_conv1",
    "mobilenet_v2": "features_0_0",
    "convnext_tiny": "features_5_0_block_0",
}


@pytest.fixture(scope="module")
def networks():
    """Each backbone once, with random weights: they are large."""
    return {name: backbones.build(name) for name in NAMES}


def pictures(height=32, width=48, *, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, height, width, 3)).astype(np.uint8)


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("name", NAMES)
def test_size_of_the_feature_map(networks, name):
    preprocessing, network = networks[name]
    stride, channels = FEATURES[name]
    assert network.name == "backbone"
    assert network.output_shape == (None, None, None, channels)
    features = network(preprocessing(pictures(64, 96)))
    assert features.shape == (2, 64 // stride, 96 // stride, channels)


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing(networks, name):
    preprocessing, _ = networks[name]
    images = np.float32(pictures()) + 0.25
    red, green, blue = (images[..., i] for i in range(3))
    expected = {
        "small": (images - 127.5) / 64,
        "vgg16": np.stack(
            [blue - 103.939, green - 116.779, red - 123.68], axis=-1
        ),
        "mobilenetv3": images / 127.5 - 1,
        "efficientnetv2b0": np.stack(
            [
                (red / 255 - 0.485) / 0.229,
                (green / 255 - 0.456) / 0.224,
                (blue / 255 - 0.406) / 0.225,
            ],
            axis=-1,
        ),
    }
    expected["resnet50"] = expected["vgg16"]
    for other in NAMES:
        if registry.BACKBONES[other].published_arrays:
            expected[other] = expected["efficientnetv2b0"]
    np.testing.assert_allclose(
        numpy(preprocessing(images)), expected[name], atol=2e-5
    )


@pytest.mark.parametrize(
    ("name", "module"), [("vgg16", "vgg16"), ("resnet50", "resnet")]
)
def test_preprocessing_is_that_of_keras_applications(networks, name, module):
    preprocessing, _ = networks[name]
    images = np.float32(pictures())
    expected = getattr(keras.applications, module).preprocess_input(
        images.copy()
    )
    np.testing.assert_allclose(
        numpy(preprocessing(images)), expected, atol=2e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_takes_bytes_and_computes_in_float32(name):
    recipe = registry.BACKBONES[name].preprocessing
    layer = backbones.Preprocessing(**recipe, dtype="float32")
    images = pictures()
    found = layer(images)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(
        numpy(found), numpy(layer(np.float32(images)))
    )
    again = backbones.Preprocessing.from_config(layer.get_config())
    np.testing.assert_array_equal(numpy(again(images)), numpy(found))


@pytest.mark.parametrize("name", NAMES)
def test_neither_mode_nor_neighbours_change_the_features(networks, name):
    preprocessing, network = networks[name]
    images = preprocessing(pictures(batch=3))
    together = numpy(network(images, training=True))
    alone = numpy(network(images[:1], training=False))
    scale = np.abs(together).max()
    np.testing.assert_allclose(together[:1], alone, atol=1e-5 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained(networks, name):
    _, network = networks[name]
    layers = [layer for layer in network.layers if layer.weights]
    trained = [layer for layer in layers if layer.trainable]
    assert trained[0].name == TRAINED_FROM[name]
    start = layers.index(trained[0])
    normalisation = keras.layers.BatchNormalization
    for index, layer in enumerate(layers):
        expected = index >= start and not isinstance(layer, normalisation)
        assert layer.trainable == expected, layer.name


def test_vgg16_trains_as_many_weights_as_the_paper(networks):
    _, network = networks["vgg16"]
    sizes = [np.prod(weight.shape) for weight in network.trainable_weights]
    assert sum(sizes) == 7_079_424


def test_small_is_small(networks):
    _, network = networks["small"]
    images = keras.KerasTensor((1, 120, 160, 3))
    operations = 0
    for layer in network.layers[1:]:
        images = layer(images)
        if isinstance(layer, keras.layers.Conv2D):
            operations += (
                2 * np.prod(layer.kernel.shape) * np.prod(images.shape[1:3])
            )
    assert images.shape == (1, 15, 20, 96)
    assert operations < 60e6


@pytest.mark.parametrize(
    ("cut_layer", "stride", "channels"),
    [
        ("conv3_block4_out", 8, 512),
        ("conv4_block6_3_conv", 16, 1024),
        ("conv5_block3_out", 32, 2048),
    ],
)
def test_cut_and_first_trained_layer_by_name(cut_layer, stride, channels):
    preprocessing, network = backbones.build(
        "resnet50", cut_layer=cut_layer, train_from="conv3_block1_1_conv"
    )
    features = network(preprocessing(pictures(64, 96)))
    assert features.shape == (2, 64 // stride, 96 // stride, channels)
    assert network.layers[-1].name == cut_layer
    trained = [layer.name for layer in network.layers if layer.trainable]
    assert trained[0] == "conv3_block1_1_conv"
    assert "conv3_block1_0_conv" in trained  # beside it, not after it
    assert not [name for name in trained if name.startswith("conv2")]


def test_cut_at_a_convolution_leaves_its_activation_out():
    reference = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    _, network = backbones.build(
        "vgg16", cut_layer="block2_conv2", train_from="block1_conv1"
    )
    for layer in network.layers:
        layer.set_weights(
            reference.get_layer(layer.name).get_weights()
            if layer.weights
            else []
        )
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    after = keras.Model(
        reference.input, reference.get_layer("block2_conv2").output
    )(x)
    before = numpy(network(x))
    assert (before < 0).mean() > 0.2
    np.testing.assert_allclose(np.maximum(before, 0), numpy(after), atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"cut_layer": "conv9"}, "cut_layer.*'conv9'.*stage1_conv, .*stage4"),
        (
            {"train_from": "conv9"},
            "train_from.*'aggregation' or .*'conv9'.*stage1_conv, .*stage4",
        ),
        (
            {"cut_layer": "stage1_relu", "train_from": "stage3_conv"},
            "up to its cut, stage1_relu.*'stage3_conv'.* stage1_relu.$",
        ),
    ],
)
def test_unknown_layers_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        backbones.build("small", **layers)


def test_layers_without_feature_maps_are_no_cut():
    with pytest.raises(ValueError, match="gives feature maps.*block5e_add"):
        backbones.build("efficientnetv2b0", cut_layer="block5e_se_squeeze")


def test_frozen_layers_stay_frozen_when_loaded(networks, tmp_path):
    preprocessing, network = networks["mobilenetv3"]
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    trained = [weight.path for weight in network.trainable_weights]
    assert [weight.path for weight in again.trainable_weights] == trained
    images = preprocessing(pictures())
    np.testing.assert_allclose(
        numpy(again(images, training=True)), numpy(network(images)), rtol=1e-5
    )


def test_vgg16_ends_before_its_last_relu(networks, tmp_path):
    # A file of weights as keras.applications has it, with random numbers.
    reference = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    path = tmp_path / "vgg16.weights.h5"
    reference.save_weights(path)
    preprocessing, network = backbones.build("vgg16", weights=path)
    images = pictures()
    after = keras.Model(
        reference.input, reference.get_layer("block5_conv3").output
    )(keras.applications.vgg16.preprocess_input(np.float32(images)))
    before = numpy(network(preprocessing(images)))
    assert (before < 0).mean() > 0.2
    scale = before.max()
    np.testing.assert_allclose(
        np.maximum(before, 0) / scale, numpy(after) / scale, atol=1e-5
    )


def weights_of_small(directory, kind):
    preprocessing, network = backbones.build("small")
    if kind == "network.weights.h5":
        network.save_weights(directory / kind)
    elif kind == "network.keras":
        network.save(directory / kind)
    else:
        embedder = build_embedder(backbone="small", num_clusters=2)
        network = embedder.get_layer("backbone")
        model = embedder if kind == "embedder.keras" else over_tuples(embedder)
        model.save(directory / kind)
    return directory / kind, preprocessing, network


@pytest.mark.parametrize(
    "kind",
    ["network.weights.h5", "network.keras", "embedder.keras", "tuples.keras"],
)
def test_weights_from_a_local_file(kind, tmp_path):
    path, preprocessing, network = weights_of_small(tmp_path, kind)
    _, found = backbones.build("small", weights=str(path))
    images = preprocessing(pictures())
    np.testing.assert_array_equal(numpy(found(images)), numpy(network(images)))


def test_imported_weights_bring_their_preprocessing(tmp_path):
    """One that small does not have: as an imported network may."""
    _, network = backbones.build("small")
    settings = {
        "mean": (1.0, 2.0, 3.0),
        "deviation": (4.0, 5.0, 6.0),
        "blue_first": True,
    }
    layer = backbones.Preprocessing(**settings, name="preprocessing")
    images = keras.Input((None, None, 3))
    embedder = keras.Model(images, network(layer(images)), name="embedder")
    embedder.save(tmp_path / "model.keras")
    preprocessing, _ = backbones.build(
        "small", weights=tmp_path / "model.keras"
    )
    config = preprocessing.get_config()
    assert {name: config[name] for name in settings} == settings


@pytest.mark.parametrize("kind", ["network.weights.h5", "network.keras"])
def test_weights_of_another_architecture_are_refused(kind, tmp_path):
    path, *_ = weights_of_small(tmp_path, kind)
    with pytest.raises(ValueError, match="another architecture or is damaged"):
        backbones.build("mobilenetv3", weights=path)


def test_weights_of_other_shapes_are_refused(tmp_path):
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stage1_conv")(images)
    keras.Model(images, x).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="weights of layer stage1_conv"):
        backbones.build("small", weights=tmp_path / "model.keras")


@pytest.mark.parametrize("kind", ["network.weights.h5", "network.keras"])
def test_damaged_weights_are_refused(kind, tmp_path):
    path, *_ = weights_of_small(tmp_path, kind)
    content = path.read_bytes()
    middle = len(content) // 2
    if kind.endswith(".h5"):
        path.write_bytes(content[:middle])
    else:  # The end stays, by which the kind is known.
        path.write_bytes(
            content[: middle - 2000] + bytes(4000) + content[middle + 2000 :]
        )
    with pytest.raises(ValueError, match="another architecture or is damaged"):
        backbones.build("small", weights=path)


def test_weights_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="'imagenet' or a file.*no.h5"):
        backbones.build("small", weights=tmp_path / "no.h5")


def test_the_name_of_a_published_file_stands_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SARE_TF_CACHE", str(tmp_path / "cache"))
    path, *_ = weights_of_small(tmp_path, "network.weights.h5")
    with toy_downloads.running(content=path.read_bytes()) as server:
        url = f"http://127.0.0.1:{server.server_port}/any.weights.h5"
        published = published_files.PublishedFile(url, server.sha256)
        monkeypatch.setitem(published_files.PUBLISHED, "small", published)
        for _ in range(2):
            _, network = backbones.build("small", weights="small")
        assert len(server.requests) == 1
    expected = backbones.build("small", weights=path)[1].get_weights()
    for own, one in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(own, one)
    assert (tmp_path / "cache/weights/any.weights.h5").is_file()
    monkeypatch.setenv("SARE_TF_CACHE", str(tmp_path / "other"))
    with pytest.raises(ConnectionError, match="Fetch http.* put it at '"):
        backbones.build("small", weights="small")


def test_unknown_kinds_of_weights_are_refused(tmp_path):
    for name in ("weights.pth", "weights.h5", "weights.keras"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ValueError, match=f"Keras, PyTorch, .*{name}', whi"):
            backbones.build("small", weights=tmp_path / name)


@pytest.mark.parametrize("name", ["small", "torchvision_resnet18"])
def test_some_have_no_imagenet_weights(name):
    with pytest.raises(ValueError, match=f"'{name}'.*small trains from scr"):
        backbones.build(name, weights="imagenet")


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    monkeypatch.setattr(
        "keras.src.backend.config.keras_home", lambda: str(tmp_path)
    )
    monkeypatch.setattr(
        "keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path)
    )
    with pytest.raises(
        ValueError, match="weights of mobilenetv3.*no network.*pass its path"
    ):
        backbones.build("mobilenetv3", weights="imagenet")


def test_unknown_backbones_are_refused():
    with pytest.raises(ValueError, match="'resnet50', 'small'.*'alexnet'"):
        backbones.build("alexnet")

"""torchvision's networks give torchvision's outputs, from torchvision's files.

tests/oracles/torchvision.npz holds the outputs; its script says how they were
made.
"""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_torchvision
from paths import ROOT, SHARED

import sare_tf
from sare_tf import import_weights
from sare_tf.model import backbones, registry
from sare_tf.model.pretrained import (
    safetensors_file,
    torch_file,
    weights_file,
)
from sare_tf.model.pretrained.array_ledger import StoredArray
from sare_tf.model.torchvision import parts, published_weights
from sare_tf.model.torchvision.mobilenets import _multiple_of_8
from sare_tf.weights import torchvision as torchvision_format
from sare_tf.weights import weight_files

EXPECTED = np.load(ROOT / "tests/oracles/torchvision.npz")
# Large, and of the same blocks as the others.
DEEP = {f"torchvision_resnet{depth}" for depth in (34, 101, 152)}
SLOW = pytest.mark.skipif(
    "SARE_TF_WEIGHTS" not in os.environ, reason="run by make test-weights"
)
NAMES = [
    pytest.param(name, marks=SLOW) if name in DEEP else name
    for name, recipe in registry.BACKBONES.items()
    if recipe.published_arrays
]
PUBLISHED = SHARED / "data/weights/mobilenet_v2-b0353104.pth"


def network_of(name):
    """The whole network, without weights that mean anything."""
    return backbones._make(registry.BACKBONES[name], None)


def toy_arrays(network):
    """Of the names that we expect; other names would give other numbers."""
    return {
        name: toy_torchvision.array(name, shape)
        for layer in network.layers
        if layer.weights
        for name, shape in published_weights._stored(layer)
    }


def in_memory(arrays):
    return {
        name: StoredArray(array.shape, lambda array=array: array)
        for name, array in arrays.items()
    }


def outputs(network, name):
    """As the oracle stores them: at the cut, and of the last layer."""
    recipe = registry.BACKBONES[name]
    cut = network.get_layer(recipe.cut_layer)
    activation = getattr(cut, "activation", None)
    if activation is not None:
        assert activation is keras.activations.linear
    preprocessing = backbones.Preprocessing(**recipe.preprocessing)
    both = keras.Model(network.input, [cut.output, network.output])
    at_cut, last = both(preprocessing(toy_torchvision.image()))
    return {
        "cut": keras.ops.convert_to_numpy(at_cut)[0, :, :, ::8],
        "last": keras.ops.convert_to_numpy(last)[0].mean(axis=(0, 1)),
    }


def compare(received, name):
    for key, array in received.items():
        expected = EXPECTED[f"{name}/{key}"]
        assert array.shape == expected.shape
        np.testing.assert_allclose(
            array / np.abs(expected).max(),
            expected / np.abs(expected).max(),
            atol=1e-5,
        )


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_torchvisions(name):
    network = network_of(name)
    arrays = toy_arrays(network)
    assert len(arrays) == registry.BACKBONES[name].published_arrays
    assert published_weights.identify(arrays) == name
    extra = {
        "classifier.1.weight": np.ones((2, 2)),
        "fc.bias": np.ones(2),
        "features.0.1.num_batches_tracked": np.int64(7),
    }
    published_weights.assign(
        network, "a.pth", in_memory(arrays | extra), name=name
    )
    compare(outputs(network, name), name)


@pytest.fixture(scope="module")
def small():
    """The smallest network, with its toy arrays."""
    network = network_of("mobilenet_v3_small")
    return network, toy_arrays(network)


def write_npz(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize(
    "write", [torch_file.write, safetensors_file.write, write_npz]
)
def test_files_of_every_kind(tmp_path, small, write):
    """By its content: the file has the name of another kind."""
    _, arrays = small
    write(tmp_path / "weights.h5", arrays)
    _, network = backbones.build(
        "mobilenet_v3_small", weights=tmp_path / "weights.h5"
    )
    kernel = network.get_layer("features_0_0").get_weights()[0]
    np.testing.assert_array_equal(
        kernel, arrays["features.0.0.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.filterwarnings("ignore:.*HDF5 file via")
@pytest.mark.parametrize("kind", ["weights.h5", "keras"])
def test_files_of_keras(tmp_path, small, kind):
    network, arrays = small
    published_weights.assign(
        network, tmp_path, in_memory(arrays), name="mobilenet_v3_small"
    )
    saved = tmp_path / f"saved.{kind}"
    (network.save if kind == "keras" else network.save_weights)(saved)
    other = saved.rename(tmp_path / "weights.pth")
    _, again = backbones.build("mobilenet_v3_small", weights=other)
    for mine, its in zip(
        again.get_layer("features_8_block_1_0").get_weights(),
        network.get_layer("features_8_block_1_0").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, its)


def refused(small, match, *, name="mobilenet_v3_small", changes=(), without=()):
    network, arrays = small
    arrays = {
        key: array
        for key, array in (arrays | dict(changes)).items()
        if key not in without
    }
    with pytest.raises(ValueError, match=match):
        published_weights.assign(network, "a.pth", in_memory(arrays), name=name)


def test_arrays_missing_left_over_or_of_another_shape(small):
    refused(
        small,
        "mobilenet_v3_small once. Received: weights='a.pth' without "
        r"features.0.0.weight, features.9.block.2.fc1.bias; and with, in no "
        "layer of it, head.weight. Get the file again",
        changes={"head.weight": np.ones(2)},
        without=["features.0.0.weight", "features.9.block.2.fc1.bias"],
    )
    refused(
        small,
        r"'features.0.1.bias' to be of shape \(16,\).*shape=\(8,\)",
        changes={"features.0.1.bias": np.ones(8)},
    )


def test_the_file_of_another_network(tmp_path, small):
    _, arrays = small
    torch_file.write(tmp_path / "a.pth", arrays)
    with pytest.raises(
        ValueError,
        match="array of mobilenet_v2 once.*without features.1.conv.*and with, "
        r"in no.*block.*give --backbone=mobilenet_v3_small, or the file of",
    ):
        backbones.build("mobilenet_v2", weights=tmp_path / "a.pth")
    with pytest.raises(
        ValueError,
        match="backbone='small'.*206 arrays, of mobilenet_v3_small. Give "
        "--backbone=mobilenet_v3_small",
    ):
        backbones.build("small", weights=tmp_path / "a.pth")
    torch_file.write(tmp_path / "b.pth", {"a.weight": np.ones(2)})
    with pytest.raises(ValueError, match="of another network. If import_w"):
        backbones.build("small", weights=tmp_path / "b.pth")


def test_networks_are_told_apart_by_their_number_of_arrays():
    numbers = [
        recipe.published_arrays
        for recipe in registry.BACKBONES.values()
        if recipe.published_arrays
    ]
    assert len(set(numbers)) == len(numbers) == 11
    names = [f"block.{number}" for number in range(260)]
    assert published_weights.identify(names) is None
    assert published_weights.identify(["conv1.weight"]) is None


def test_squeezed_channels_are_multiples_of_8():
    """torchvision's: 16 / 4, 72 / 4, 120 / 4, 480 / 4, 672 / 4."""
    assert [_multiple_of_8(channels) for channels in (4, 18, 30, 120, 168)] == [
        8,
        24,
        32,
        120,
        168,
    ]


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (5, 2), (7, 2)])
def test_padding_is_pytorchs(size, stride):
    """The same zeros on all sides, whatever the parity of the image."""
    images = np.random.default_rng(0).normal(size=(1, 6, 9, 2))
    x = keras.Input((None, None, 2))
    network = keras.Model(
        x, parts.convolve(x, 3, size=size, stride=stride, name="conv")
    )
    kernel = np.asarray(network.get_layer("conv").kernel, np.float64)
    half = size // 2
    padded = np.pad(images[0], ((half, half), (half, half), (0, 0)))
    expected = [
        [
            np.tensordot(
                padded[row : row + size, column : column + size], kernel, 3
            )
            for column in range(0, 9, stride)
        ]
        for row in range(0, 6, stride)
    ]
    np.testing.assert_allclose(network(images)[0], expected, atol=1e-5)


def test_a_file_is_imported(tmp_path, small):
    """With its preprocessing, and named by its arrays."""
    network, arrays = small
    torch_file.write(tmp_path / "a", {"model": arrays, "epoch": 3})
    read = weight_files.read(tmp_path / "a")
    assert (read.source, read.backbone) == ("torchvision", "mobilenet_v3_small")
    assert read.preprocessing == registry.TORCHVISION
    published_weights.assign(
        network, "a", in_memory(arrays), name="mobilenet_v3_small"
    )
    embedder = import_weights(tmp_path / "a", aggregation="mac")
    descriptors = keras.ops.convert_to_numpy(embedder(toy_torchvision.image()))
    cut = EXPECTED["mobilenet_v3_small/cut"].max(axis=(0, 1))
    ratio = descriptors[0, ::8] / cut
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    torch_file.write(tmp_path / "b", {"backbone.0.weight": np.ones(2)})
    with pytest.raises(ValueError, match="with 1 arrays, the number of none"):
        torchvision_format.read(
            tmp_path / "b", weights_file.read_arrays(tmp_path / "b")
        )


@SLOW
def test_the_export_equals_the_network(tmp_path, small):
    """Of bytes, in a batch and alone, to 1e-5."""
    _, arrays = small
    torch_file.write(tmp_path / "a", arrays)
    embedder = sare_tf.build_embedder(
        backbone="mobilenet_v3_small",
        weights=tmp_path / "a",
        aggregation="gem",
    )
    size = {"height": toy_torchvision.HEIGHT, "width": toy_torchvision.WIDTH}
    sare_tf.export(embedder, tmp_path / "export", **size)
    images = np.concatenate(
        [toy_torchvision.image(), 255 - toy_torchvision.image()]
    )
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    servable = sare_tf.load_export(tmp_path / "export")
    expected = keras.ops.convert_to_numpy(embedder(images))
    descriptors, valid = servable(encoded)
    assert valid.all()
    np.testing.assert_allclose(descriptors, expected, atol=1e-5)
    alone, _ = servable(encoded[:1])
    np.testing.assert_allclose(alone, expected[:1], atol=1e-5)


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason="the published file is not in the repository"
)
def test_the_published_file_of_mobilenet_v2(tmp_path):
    """From torchvision's weights, torchvision's outputs; and an embedder."""
    assert weights_file.kind_of(PUBLISHED) == "torch"
    network = network_of("mobilenet_v2")
    arrays = weights_file.read_arrays(PUBLISHED)
    published_weights.assign(network, PUBLISHED, arrays, name="mobilenet_v2")
    received = outputs(network, "mobilenet_v2")
    for key, array in received.items():
        np.testing.assert_allclose(
            array, EXPECTED[f"published/{key}"], atol=1e-5
        )
    embedder = sare_tf.build_embedder(
        backbone="mobilenet_v2", weights=PUBLISHED, aggregation="gem"
    )
    descriptors = keras.ops.convert_to_numpy(embedder(toy_torchvision.image()))
    powers = np.maximum(received["cut"], 1e-6) ** 3
    pooled = powers.mean(axis=(0, 1)) ** (1 / 3)
    # Every eighth channel of the descriptor, up to its length.
    ratio = descriptors[0, ::8] / pooled
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)

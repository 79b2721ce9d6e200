"""DINOv2's networks against plain numpy, and against the original's values."""

import dataclasses

import golden_foundation
import keras
import numpy as np
import pytest
import toy_vit
from keras import ops

from sare_tf.model import (
    backbones,
    build_embedder,
    drop_path,
    position_grid,
    vit,
    vit_layers,
    vit_outputs,
    vit_sizes,
)
from sare_tf.model.pretrained.array_ledger import ArrayLedger, StoredArray
from sare_tf.model.registry import BACKBONES
from sare_tf.model.vit_architectures import DINOV2
from sare_tf.weights import dinov2

# Parameters as the original counts them, with the mask token.
PARAMETERS = {
    "dinov2_vits14": 22_056_576,
    "dinov2_vits14_reg": 22_058_112,
    "dinov2_vitb14": 86_580_480,
    "dinov2_vitb14_reg": 86_583_552,
    "dinov2_vitl14": 304_368_640,
    "dinov2_vitl14_reg": 304_372_736,
    "dinov2_vitg14": 1_136_480_768,
    "dinov2_vitg14_reg": 1_136_486_912,
}
VARIANTS = {
    "mlp": {},
    "registers": {"registers": 4},
    "swiglu": {"swiglu": True},
}


# Elsewhere all sizes are known.
IN_GRAPHS = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="has a graph of unknown sizes",
)


def numpy(x):
    return ops.convert_to_numpy(x)


def pictures(height, width, *, batch=1, seed=0):
    rng = np.random.default_rng(seed)
    return np.float32(rng.normal(size=(batch, height, width, 3)))


def layer_weights(state):
    """The weights of each layer, of a state_dict."""
    arrays = ArrayLedger(
        "state",
        {
            name: StoredArray(array.shape, lambda array=array: array)
            for name, array in state.items()
        },
    )
    return dinov2.take("state", state, arrays)[1]


def filled(architecture, state, **options):
    """A network with the weights of a state_dict."""
    network = vit.build(architecture, **options)
    for name, weights in layer_weights(state).items():
        network.get_layer(name).set_weights(weights)
    return network


def until(network, name):
    return keras.Model(network.input, network.get_layer(name).output)


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request):
    """A network of two blocks, and its state_dict."""
    options = VARIANTS[request.param]
    state = toy_vit.state_dict(**options)
    return filled(toy_vit.architecture(**options), state), state


# Positions.


@pytest.mark.parametrize(
    ("size", "antialias", "row", "expected"),
    [  # Rows that PyTorch gives, see tests/toy_vit.py for all of them.
        (23, False, 0, {0: 0.720078, 1: 0.327387, 2: -0.047464}),
        (23, False, 22, {34: -0.085920, 35: 0.542118, 36: 0.543802}),
        (16, False, 15, {34: -0.070167, 35: 0.969214, 36: 0.100952}),
        (46, False, 0, {0: 1.060133, 1: -0.060133}),
        (
            23,
            True,
            0,
            {0: 0.607804, 1: 0.431621, 2: -0.015966, 3: -0.023460},
        ),
    ],
)
def test_rows_of_the_matrices(size, antialias, row, expected):
    found, _ = position_grid.matrices(size, 5, 37, antialias=antialias)
    line = np.zeros(37)
    line[list(expected)] = list(expected.values())
    np.testing.assert_allclose(found[row], line, atol=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [1, 8, 16, 23, 36, 37, 46, 90])
def test_matrices_follow_the_loops(size, antialias):
    expected = toy_vit.axis_weights(size, antialias)
    found, other = position_grid.matrices(size, 40, 37, antialias=antialias)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert other.shape == (40, 37)


@IN_GRAPHS
@pytest.mark.parametrize("antialias", [False, True])
def test_matrices_of_unknown_sizes_follow_the_loops(antialias):
    for size in (1, 16, 36, 37, 90):
        expected = toy_vit.axis_weights(size, antialias)
        unknown = [ops.convert_to_tensor(side) for side in (size, 40)]
        found, _ = position_grid.matrices(*unknown, 37, antialias=antialias)
        np.testing.assert_allclose(numpy(found), expected, atol=1e-7)
    both = [ops.convert_to_tensor(37)] * 2
    for matrix in position_grid.matrices(*both, 37, antialias=antialias):
        np.testing.assert_allclose(numpy(matrix), np.eye(37), atol=1e-7)


def test_the_native_size_keeps_the_grid():
    for matrix in position_grid.matrices(37, 37, 37, antialias=False):
        np.testing.assert_array_equal(matrix, np.eye(37))
    rows, _ = position_grid.matrices(37, 46, 37, antialias=False)
    assert np.abs(rows - np.eye(37)).max() > 1e-2  # by the offset


# Networks.


@pytest.mark.parametrize("size", [(28, 28), (28, 56), (70, 14)])
def test_every_map_follows_the_oracle(tiny, size):
    network, state = tiny
    images = pictures(*size, batch=2)
    maps = dict(
        zip(
            [layer.name for layer in network.layers if is_map(layer)],
            network.outputs,
            strict=True,
        )
    )
    assert len(maps) == 2 * 4 + 1
    found = keras.Model(network.input, maps)(images)
    for index, image in enumerate(images):
        tokens = toy_vit.tokens(state, image)
        sources = {"patches": tokens["norm"]}
        for block in range(2):
            facets = np.split(tokens[f"block{block}_qkv"], 3, axis=-1)
            for facet, values in zip(
                ("query", "key", "value"), facets, strict=True
            ):
                sources[f"block{block}_{facet}"] = values
            sources[f"block{block}_patches"] = tokens[f"block{block}_ls2"]
        assert sources.keys() == maps.keys()
        for name, expected in sources.items():
            patches = numpy(found[name])[index]
            assert patches.shape == (size[0] // 14, size[1] // 14, 128)
            expected = expected[-patches.shape[0] * patches.shape[1] :]
            np.testing.assert_allclose(
                patches.reshape(expected.shape),
                expected,
                atol=1e-5 * np.abs(expected).max(),
                err_msg=name,
            )


def is_map(layer):
    return isinstance(layer, vit_outputs.PatchMap)


def test_class_token_and_registers_come_first(tiny):
    network, state = tiny
    images = pictures(28, 28)
    expected = toy_vit.tokens(state, images[0])["norm"]
    found = numpy(until(network, "norm")(images))[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)
    token = vit_outputs.ClassToken()(found[None])
    np.testing.assert_allclose(numpy(token)[0], expected[0], atol=2e-5)


@pytest.mark.parametrize("ffn", ["mlp", "swiglufused"])
@pytest.mark.parametrize("registers", [0, 4])
def test_equals_the_original(registers, ffn):
    values, state = golden_foundation.read(f"tiny_{registers}_{ffn}")
    architecture = toy_vit.architecture(
        registers=registers, swiglu=ffn != "mlp"
    )
    architecture = dataclasses.replace(
        architecture, dimension=32, hidden=64 if ffn == "mlp" else 48
    )
    network = until(filled(architecture, state), "norm")
    assert len(values) == 4
    for name, expected in values.items():
        images = golden_foundation.pictures(*map(int, name.split("_")[1:]))
        np.testing.assert_allclose(
            numpy(network(images)), expected, atol=1e-5, rtol=0, err_msg=name
        )


@IN_GRAPHS
def test_an_export_serves_every_size(tiny, tmp_path):
    import tensorflow as tf

    network, _ = tiny
    network = until(network, "patches")
    signature = tf.TensorSpec((None, None, None, 3), tf.float32)
    module = tf.Module()
    module.network = network
    module.embed = tf.function(network, input_signature=[signature])
    module.embed_fixed = tf.function(
        network, input_signature=[tf.TensorSpec((None, 42, 28, 3), tf.float32)]
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for size in ((42, 28), (28, 70), (518, 518)):
        images = pictures(*size)
        expected = numpy(network(images))
        found = loaded.embed(images)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(
            found / largest, expected / largest, atol=1e-5, rtol=0
        )
    images = pictures(42, 28)
    np.testing.assert_allclose(
        loaded.embed_fixed(images), numpy(network(images)), atol=1e-5, rtol=0
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"):
        loaded.embed(pictures(42, 30))


def test_a_file_of_keras_comes_back(tiny, tmp_path):
    network, _ = tiny
    network = until(network, "block1_value")
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = pictures(28, 42)
    np.testing.assert_array_equal(numpy(loaded(images)), numpy(network(images)))


def test_layers_come_back_by_their_configuration():
    network = vit.build(
        toy_vit.architecture(registers=4, swiglu=True),
        other_sizes="resize",
    )
    vit.set_drop_path(network, 0.5)
    for layer in network.layers:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("variant", VARIANTS)
def test_mixed_precision(variant):
    options = VARIANTS[variant]
    state = toy_vit.state_dict(**options)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = filled(toy_vit.architecture(**options), state)
    finally:
        keras.config.set_dtype_policy(policy)
    assert {weight.dtype for weight in network.weights} == {"float32"}
    images = pictures(28, 42)
    found = until(network, "norm")(images)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    found = numpy(ops.cast(found, "float32"))[0]
    expected = toy_vit.tokens(state, images[0])["norm"]
    cosines = np.sum(found * expected, axis=-1) / (
        np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    )
    assert cosines.min() > 0.999


def test_neighbours_in_the_batch_do_not_matter(tiny):
    network = until(tiny[0], "patches")
    images = pictures(28, 28, batch=3)
    together = numpy(network(images))
    for index in range(3):
        np.testing.assert_allclose(
            numpy(network(images[index : index + 1]))[0],
            together[index],
            atol=1e-5,
        )
    assert network.predict_on_batch(images[:0]).shape == (0, 2, 2, 128)


def test_aggregating_tokens_join_before_a_block(monkeypatch):
    """Implicit aggregation: the first tokens are the descriptor."""
    state = toy_vit.state_dict(registers=4, depth=3)
    architecture = toy_vit.architecture(
        registers=4,
        depth=3,
        antialias=False,
        num_aggregating=2,
        aggregate_from=1,
    )
    recipe = dataclasses.replace(
        BACKBONES["dinov2_vitb14_reg_implicit"],
        arguments={"architecture": architecture},
        train_from="aggregating",
    )
    monkeypatch.setitem(BACKBONES, "tiny", recipe)
    embedder = build_embedder(backbone="tiny", aggregation="class_token")
    backbone = embedder.get_layer("backbone")
    for name, weights in layer_weights(state).items():
        backbone.get_layer(name).set_weights(weights)
    learned = pictures(2, 128, seed=7)[0, ..., 0]
    backbone.get_layer("aggregating").set_weights([learned])
    images = pictures(28, 42, batch=2)
    maps, descriptors = backbone(images)
    for index, image in enumerate(images):
        expected = toy_vit.tokens(
            state, image, learned=learned, before=1, antialias=False
        )["norm"]
        np.testing.assert_allclose(
            numpy(descriptors)[index], expected[:2].reshape(-1), atol=2e-5
        )
        np.testing.assert_allclose(
            numpy(maps)[index].reshape(-1, 128), expected[7:], atol=2e-5
        )
    assert embedder.output_shape == (None, 2 * 128)


# Stochastic depth.


def test_stochastic_depth_leaves_out_branches_of_images():
    layer = vit_layers.ScaledResidual(0.25, column=1)
    draws = np.random.default_rng(0).uniform(size=(4000, 2))
    tokens, branch = pictures(2, 5, batch=4000, seed=1), np.float32(2.0)
    branch = np.full_like(tokens[..., 0], branch)
    tokens = tokens[..., 1]
    with drop_path.given(draws.astype(np.float32)):
        found = numpy(layer(tokens, branch, training=True)) - tokens
    per_image = found.reshape(4000, -1)
    dropped = np.abs(per_image).max(axis=1) < 1e-6
    np.testing.assert_array_equal(dropped, draws[:, 1] >= 0.75)
    np.testing.assert_allclose(per_image[~dropped], 2.0 / 0.75, rtol=1e-5)
    assert dropped.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(
        numpy(layer(tokens, branch, training=False)), tokens + branch
    )


def test_stochastic_depth_grows_with_the_block():
    architecture = toy_vit.architecture(depth=3)
    network = vit.build(architecture)
    vit.set_drop_path(network, 0.2)
    rates = [
        network.get_layer(f"block{block}_ls{number}").drop_rate
        for block in range(3)
        for number in (1, 2)
    ]
    assert rates == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    images = pictures(28, 28, batch=8)
    network = until(network, "patches")
    with pytest.raises(ValueError, match="path_draws=None. Train on a dataset"):
        network(images, training=True)
    network(images)
    with pytest.raises(ValueError, match="drop_rate=1.0"):
        vit.set_drop_path(network, 1.0)


# Sizes.


def test_other_sizes_are_refused(tiny):
    network, _ = tiny
    message = (
        "multiples of 14, the patch of this network. Received: height=480, "
        "width=640. Give --image_height=476 --image_width=644, or build it "
        "with other_sizes='resize'."
    )
    with pytest.raises(ValueError, match=message):
        network(pictures(480, 640))
    with pytest.raises(ValueError, match=message):
        network(keras.Input((480, 640, 3)))
    with pytest.raises(ValueError, match="height=30.*image_height=28"):
        network(keras.Input((30, None, 3)))
    with pytest.raises(ValueError, match="other_sizes='pad'"):
        vit.build(toy_vit.architecture(), other_sizes="pad")


def test_other_sizes_are_resized_on_request(tiny):
    _, state = tiny
    options = {
        "registers": state.get("register_tokens", np.zeros((1, 0))).shape[1],
        "swiglu": "blocks.0.mlp.w3.weight" in state,
    }
    network = until(
        filled(toy_vit.architecture(**options), state, other_sizes="resize"),
        "patches",
    )
    # 35 is half way from 28 to 42, and goes to the even number of patches.
    for size, rounded in (((30, 50), (28, 56)), ((35, 5), (28, 14))):
        images = pictures(*size)
        resized = numpy(
            ops.image.resize(images, rounded, "bilinear", antialias=True)
        )
        expected = toy_vit.tokens(state, resized[0])["norm"]
        found = numpy(network(images))
        assert found.shape == (1, rounded[0] // 14, rounded[1] // 14, 128)
        np.testing.assert_allclose(
            found.reshape(-1, 128),
            expected[-found.shape[1] * found.shape[2] :],
            atol=3e-5,
        )
        symbolic = network(keras.KerasTensor((None, *size, 3)))
        assert symbolic.shape == (None, *found.shape[1:])
    exact = pictures(28, 42)
    np.testing.assert_allclose(
        numpy(network(exact)),
        numpy(until(tiny[0], "patches")(exact)),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("side", "first", "size"),
    [  # int(round((side - size) / 2)), halves to even.
        (14, 0, 14),
        (15, 0, 14),
        (17, 2, 14),
        (27, 6, 14),
        (33, 2, 28),
        (35, 4, 28),
    ],
)
def test_the_middle_is_cropped_to_patches(side, first, size):
    images = np.arange(side * 30, dtype=np.float32).reshape(1, side, 30, 1)
    layer = vit_sizes.CropToPatches()
    found = numpy(layer(images))
    expected = images[:, first : first + size, 1:29]
    np.testing.assert_array_equal(found, expected)
    symbolic = layer(keras.KerasTensor((None, side, None, 1)))
    assert symbolic.shape == (None, size, None, 1)
    with pytest.raises(ValueError, match=r"14 x 14 pixels.*\(13, 30\)"):
        layer(images[:, :13])


@IN_GRAPHS
@pytest.mark.parametrize("layer", ["ResizeToPatches", "CropToPatches"])
def test_unknown_sizes_are_fitted_alike(layer):
    import tensorflow as tf

    layer = getattr(vit_sizes, layer)()
    traced = tf.function(
        layer, input_signature=[tf.TensorSpec((None, None, None, 3))]
    )
    for size in ((30, 50), (35, 19), (28, 42)):
        images = pictures(*size)
        np.testing.assert_allclose(
            numpy(traced(images)), numpy(layer(images)), atol=1e-6
        )


# In the registry.


def count(architecture):
    """Parameters, the mask token included."""
    length, hidden = architecture.dimension, architecture.hidden
    block = 4 * length + 2 * length  # norms, layer scales
    block += length * 3 * length + 3 * length + length * length + length
    if architecture.swiglu:
        block += 2 * hidden * (length + 1)
    else:
        block += hidden * (length + 1)
    block += length * (hidden + 1)
    embedding = length * (14 * 14 * 3 + 1) + length * (1 + 1370)
    embedding += length * (architecture.num_registers + 1)
    return architecture.depth * block + embedding + 2 * length


def test_the_networks_have_the_published_numbers_of_parameters():
    assert {name: count(a) for name, a in DINOV2.items()} == PARAMETERS
    network = vit.build(toy_vit.architecture(registers=4, swiglu=True))
    expected = count(toy_vit.architecture(registers=4, swiglu=True))
    assert network.count_params() + 128 == expected
    assert {a.dimension // a.num_heads for a in DINOV2.values()} == {64}


def test_registered_networks_train_their_last_four_blocks():
    for name, architecture in DINOV2.items():
        recipe = BACKBONES[name]
        assert recipe.arguments == {"architecture": architecture}
        assert recipe.train_from == f"block{architecture.depth - 4}_norm1"


@pytest.fixture(scope="module")
def small():
    return build_embedder(
        backbone="dinov2_vits14", aggregation="gem", image_size=(28, 42)
    )


def test_an_embedder_over_patches(small):
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 42, 3))
    descriptors = numpy(small(images.astype(np.uint8)))
    assert descriptors.shape == (2, 384)
    np.testing.assert_allclose(
        np.linalg.norm(descriptors, axis=-1), 1, atol=1e-5
    )
    backbone = small.get_layer("backbone")
    assert backbone.count_params() + 384 == PARAMETERS["dinov2_vits14"]
    layers = [layer for layer in backbone.layers if layer.weights]
    trained = [layer.name for layer in layers if layer.trainable]
    assert trained[0] == "block8_norm1"
    assert trained[-1] == "norm"
    assert len(trained) == 4 * 8 + 1
    assert not any(
        layer.trainable for layer in layers if layer.name not in trained
    )


def test_gradients_reach_the_trained_blocks_only(small):
    small.compile(keras.optimizers.SGD(1.0), "mse")
    before = {weight.path: numpy(weight) for weight in small.weights}
    images = np.zeros((1, 28, 42, 3), np.float32)
    small.train_on_batch(images, np.ones((1, 384), np.float32))
    changed = {
        weight.path.split("/")[0]
        for weight in small.weights
        if np.abs(numpy(weight) - before[weight.path]).max() > 0
    }
    backbone = small.get_layer("backbone")
    trained = {
        layer.name
        for layer in backbone.layers
        if layer.weights and layer.trainable
    }
    assert trained <= changed
    assert (
        not {
            layer.name
            for layer in backbone.layers
            if layer.weights and not layer.trainable
        }
        & changed
    )


@pytest.mark.parametrize("name", ["block1_value", "block1_patches"])
def test_other_maps_by_the_name_of_the_cut(name, monkeypatch):
    recipe = dataclasses.replace(
        BACKBONES["dinov2_vits14"],
        arguments={"architecture": toy_vit.architecture(registers=4, depth=3)},
        train_from="block1_norm1",
    )
    monkeypatch.setitem(BACKBONES, "tiny", recipe)
    _, backbone = backbones.build("tiny", cut_layer=name)
    assert backbone.output_shape == (None, None, None, 128)
    blocks = {layer.name.split("_")[0] for layer in backbone.layers}
    assert "block2" not in blocks
    assert ("block1_proj" in {layer.name for layer in backbone.layers}) == (
        name == "block1_patches"
    )
    with pytest.raises(ValueError, match=r"cut_layer.*block2_key"):
        backbones.build("tiny", cut_layer="block3_value")


def test_netvlad_over_patches_is_initialised(monkeypatch):
    from sare_tf.model import initialise_netvlad

    recipe = dataclasses.replace(
        BACKBONES["dinov2_vits14"],
        arguments={"architecture": toy_vit.architecture()},
        train_from="block1_norm1",
    )
    monkeypatch.setitem(BACKBONES, "tiny", recipe)
    embedder = build_embedder(
        backbone="tiny", aggregation="netvlad", num_clusters=3
    )
    images = [127 + 50 * pictures(42, 56, batch=2)]
    initialise_netvlad(embedder, images)
    assert numpy(embedder(images[0])).shape == (2, 3 * 128)

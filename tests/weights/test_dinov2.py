"""DINOv2's files: both namings, whole or refused."""

import dataclasses
import re

import numpy as np
import pytest
import toy_vit

from sare_tf.model import backbones, registry, vit_architectures
from sare_tf.model.pretrained import torch_file
from sare_tf.weights import dinov2, network_building, weight_files


@dataclasses.dataclass
class Array:
    """As `torch_file.Array`, of an array in memory."""

    array: np.ndarray

    @property
    def shape(self):
        return self.array.shape

    def numpy(self):
        return self.array


def arrays(state):
    return {name: Array(array) for name, array in state.items()}


def hugging_face(state):
    """As convert_dinov2_to_hf.py renames them."""
    renamed = {}
    for name, array in state.items():
        for pattern, other in (
            (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
            (r"^pos_embed$", "embeddings.position_embeddings"),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            (r"^blocks", "encoder.layer"),
            (r"attn\.proj", "attention.output.dense"),
            (r"ls([12])\.gamma", r"layer_scale\1.lambda1"),
            (r"mlp\.w12", "mlp.weights_in"),
            (r"mlp\.w3", "mlp.weights_out"),
            (r"^norm\.", "layernorm."),
        ):
            name = re.sub(pattern, other, name)
        if ".attn.qkv." in name:
            for part, values in zip(
                ("query", "key", "value"), np.split(array, 3), strict=True
            ):
                whole = f"attention.attention.{part}"
                renamed[name.replace("attn.qkv", whole)] = values
        else:
            renamed[name] = array
    return renamed


@pytest.fixture(params=[(0, False), (4, True)], ids=["mlp", "registers-swiglu"])
def known(request, monkeypatch):
    """A tiny network that is among the known ones: its state and name."""
    registers, swiglu = request.param
    options = {"registers": registers, "swiglu": swiglu}
    architecture = toy_vit.architecture(**options)
    monkeypatch.setitem(vit_architectures.DINOV2, "tiny", architecture)
    backbone = dataclasses.replace(
        registry.BACKBONES["dinov2_vits14"],
        arguments={"architecture": architecture},
        train_from="block0_norm1",
    )
    monkeypatch.setitem(registry.BACKBONES, "tiny", backbone)
    return toy_vit.state_dict(**options)


def differences(found, state, image):
    _, network = backbones.build(found.backbone)
    network_building._assign(network, found)
    expected = toy_vit.tokens(state, image)["norm"][-2:]
    result = np.asarray(network(image[None]))[0].reshape(2, -1)
    return np.abs(result - expected).max()


@pytest.mark.parametrize(
    "rename",
    [
        dict,
        hugging_face,
        lambda s: {f"dinov2.{k}": v for k, v in hugging_face(s).items()},
        # Chunks of one block.
        lambda s: {
            re.sub(r"^blocks\.(\d+)", r"blocks.\1.\1", k): v
            for k, v in s.items()
        },
        lambda s: {k: v for k, v in s.items() if k != "mask_token"},
    ],
    ids=["original", "hugging-face", "classifier", "chunked", "no-mask"],
)
def test_every_naming_gives_the_network(known, rename):
    image = np.float32(np.random.default_rng(3).normal(size=(14, 28, 3)))
    state = arrays(rename(known))
    assert dinov2.matches(state)
    found = dinov2.read("file.pth", state)
    assert (found.source, found.backbone) == ("dinov2", "tiny")
    assert found.preprocessing == registry.TORCHVISION
    assert differences(found, known, image) < 2e-5


def test_a_file_becomes_an_embedder(known, tmp_path):
    path = tmp_path / "tiny.pth"
    torch_file.write(path, known)
    embedder = network_building.build(
        weight_files.read(path), aggregation="gem"
    )
    assert embedder.output_shape == (None, toy_vit.LENGTH)


def test_a_file_is_the_weights_of_a_backbone(known, tmp_path):
    """By its content, and whole."""
    path = tmp_path / "tiny.h5"
    torch_file.write(path, known)
    image = np.float32(np.random.default_rng(3).normal(size=(14, 28, 3)))
    _, network = backbones.build("tiny", weights=path)
    expected = toy_vit.tokens(known, image)["norm"][-2:]
    result = np.asarray(network(image[None]))[0].reshape(2, -1)
    np.testing.assert_allclose(result, expected, atol=2e-5)
    with pytest.raises(ValueError, match=r"weights of dinov2_vits14\. .*tiny"):
        backbones.build("dinov2_vits14", weights=path)


def test_a_whole_network_is_no_backbone(known, tmp_path):
    path = tmp_path / "salad.ckpt"
    state = {f"backbone.model.{name}": array for name, array in known.items()}
    torch_file.write(path, state)
    with pytest.raises(
        ValueError,
        match=r"weights of tiny, in DINOv2's names.*such as backbone\.model\."
        ".*give the model.keras that it writes",
    ):
        backbones.build("tiny", weights=path)


def test_half_precision_is_read_as_float32(known):
    state = arrays({k: np.float16(v) for k, v in known.items()})
    found = dinov2.read("file.pth", state)
    assert {
        array.dtype for weights in found.layers.values() for array in weights
    } == {np.dtype("float32")}


def test_another_variant_is_named():
    state = arrays(toy_vit.state_dict(registers=4))
    with pytest.raises(
        ValueError,
        match=r"Expected one of dinov2_vits14,.*Received: source='a\.pth' with "
        r"Architecture\(dimension=128, depth=2.*num_registers=4",
    ):
        dinov2.read("a.pth", state)


def test_a_backbone_of_another_name_is_refused(known, monkeypatch):
    with pytest.raises(
        ValueError,
        match=r"Expected weights of dinov2_vits14\. Received: "
        r"source='a\.pth', with weights of tiny: 2 blocks of 128 channels and "
        r"[04] registers\. Give --backbone=tiny",
    ):
        dinov2.read("a.pth", arrays(known), backbone="dinov2_vits14")
    dinov2.read("a.pth", arrays(known), backbone="tiny")


@pytest.mark.parametrize("rename", [dict, hugging_face])
def test_what_is_missing_or_left_over_is_listed(rename):
    state = rename(toy_vit.state_dict(depth=3))
    for name in list(state):
        if re.search(r"\.1\.(norm1|ls2)|layer\.1\.layer_scale2", name):
            del state[name]
    state["head.weight"] = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="each once") as error:
        dinov2.read("a.pth", arrays(state))
    text = str(error.value)
    assert "without" in text
    assert "1.norm1.bias" in text
    assert "1.norm1.weight" in text
    assert "ls2.gamma" in text or "layer_scale2.lambda1" in text
    assert "in no layer of it, head.weight" in text


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "patch_embed.proj.weight",
            (128, 3, 16, 16),
            r"patches of 14 pixels.*\(128, 3, 16, 16\)",
        ),
        ("pos_embed", (1, 257, 128), r"pos_embed.*shape \(1, 1370, 128\)"),
        ("blocks.1.attn.qkv.weight", (9, 128), r"qkv.*\(384, 128\)"),
    ],
)
def test_other_shapes_are_refused(name, shape, message):
    state = toy_vit.state_dict()
    state[name] = np.ones(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        dinov2.read("a.pth", arrays(state))


@pytest.mark.parametrize("rename", [dict, hugging_face])
def test_a_network_without_blocks_is_refused(rename):
    state = {
        name: array
        for name, array in rename(toy_vit.state_dict()).items()
        if not name.startswith(("blocks.", "encoder."))
    }
    with pytest.raises(ValueError, match="Received: source='a.pth' without"):
        dinov2.read("a.pth", arrays(state))

"""DINOv2: the published backbones, in its own names and in Hugging Face's.

    cls_token, pos_embed, register_tokens, mask_token
    patch_embed.proj.{weight,bias}
    blocks.{i}.{norm1,attn.qkv,attn.proj,norm2,mlp.*}.{weight,bias}
    blocks.{i}.{ls1,ls2}.gamma              blocks.{chunk}.{i} in trainings
    norm.{weight,bias}

Hugging Face has queries, keys and values apart, and `dinov2.` before all names
of a classifier. The mask token is for training DINOv2 itself, and dropped.

Source: github.com/facebookresearch/dinov2, hub/backbones.py;
github.com/huggingface/transformers, models/dinov2/convert_dinov2_to_hf.py.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from sare_tf.model.pretrained.array_ledger import Array, ArrayLedger
from sare_tf.model.vit_architectures import (
    DINOV2,
    GRID,
    PATCH,
    STARTS_FROM,
    Architecture,
)

# Length of the slice of a head: all of DINOv2's networks.
_HEAD = 64
_HUGGING_FACE = "embeddings.cls_token"
_MASK = "mask_token"
# What precedes all names.
_PREFIXES = ("", "dinov2.")
# Name of a layer here -> of a block's part in both namings.
_BLOCK_PARTS = {
    "norm1": ("norm1", "norm1"),
    "qkv": ("attn.qkv", "attention.attention"),
    "proj": ("attn.proj", "attention.output.dense"),
    "ls1": ("ls1.gamma", "layer_scale1.lambda1"),
    "norm2": ("norm2", "norm2"),
    "fc1": ("mlp.fc1", "mlp.fc1"),
    "fc2": ("mlp.fc2", "mlp.fc2"),
    "w12": ("mlp.w12", "mlp.weights_in"),
    "w3": ("mlp.w3", "mlp.weights_out"),
    "ls2": ("ls2.gamma", "layer_scale2.lambda1"),
}


def matches(state: Mapping[str, Array]) -> bool:
    """Returns whether the names are DINOv2's, in either naming."""
    return prefix_of(state) is not None


def read_backbone(
    source: Path, state: Mapping[str, Array], *, backbone: str | None = None
) -> tuple[str, dict[str, list[np.ndarray]]]:
    """Reads a state_dict that holds only a backbone.

    Args:
        source: the file, for messages.
        state: its tensors.
        backbone: the name that it must have in the registry; None: any.

    Returns:
        The name in the registry, and the weights of each layer.

    Raises:
        ValueError: arrays are missing, left over or of another shape; or it is
            another network.
    """
    arrays = ArrayLedger(source, state)
    architecture, layers = take(source, state, arrays)
    arrays.finish()
    names = [name for name, known in DINOV2.items() if known == architecture]
    if not names:
        raise ValueError(
            f"Expected one of {', '.join(DINOV2)}. Received: "
            f"source={str(source)!r} with {architecture}."
        )
    if backbone not in (None, names[0]):
        raise ValueError(
            f"Expected weights of {backbone}. Received: "
            f"source={str(source)!r}, with weights of {names[0]}: "
            f"{architecture.depth} blocks of {architecture.dimension} channels "
            f"and {architecture.num_registers} registers. Give "
            f"--backbone={names[0]}, or the file of {backbone}."
        )
    return names[0], layers


def assign(
    network: keras.Model, path: Path, arrays: Mapping[str, Array], *, name: str
) -> None:
    """Assigns the arrays of a file to a network of `model.vit`.

    Args:
        network: the whole network.
        path: the file, for messages.
        arrays: its arrays by name.
        name: the network's name in `registry.BACKBONES`.

    Raises:
        ValueError: the file is of another network, or not whole.
    """
    if not matches(arrays):
        raise ValueError(
            f"Expected weights of {name}, in DINOv2's names or Hugging Face's. "
            f"Received: weights={str(path)!r} with {len(arrays)} arrays, such "
            f"as {', '.join(sorted(arrays)[:3])}. If import_weights reads it, "
            "give the model.keras that it writes."
        )
    published = STARTS_FROM.get(name, name)
    _, layers = read_backbone(path, arrays, backbone=published)
    for layer, weights in layers.items():
        network.get_layer(layer).set_weights(weights)


def take(
    source: Path,
    state: Mapping[str, Array],
    arrays: ArrayLedger,
    *,
    prefix: str | None = None,
    norm: bool = True,
) -> tuple[Architecture, dict[str, list[np.ndarray]]]:
    """Takes a backbone out of a state_dict that may hold more.

    Args:
        source: the file, for messages.
        state: its tensors, of which names and shapes are read.
        arrays: the same tensors; those of the backbone are taken.
        prefix: what precedes the names of the backbone; None: found out.
        norm: whether its last normalisation is taken. Else the file may have
            it or not.

    Returns:
        Its architecture, as far as its arrays say it; and the weights of each
        layer of `model.vit`. Heads are of 64 channels.

    Raises:
        ValueError: arrays are missing, left over or of another shape.
    """
    if prefix is None:
        prefix = prefix_of(state) or ""
    shapes = {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    unused = {name for name in shapes if name.rpartition(".")[2] == _MASK}
    hugging_face = _HUGGING_FACE in shapes
    blocks = _blocks(shapes, hugging_face)
    architecture = _architecture(source, prefix, shapes, blocks, hugging_face)
    plan = dict(_plan(architecture, blocks, hugging_face))
    if not norm:
        unused |= {name for names, _ in plan.pop("norm") for name in names}
    _check(source, shapes.keys() - unused, plan, prefix)
    layers = {}
    for layer, groups in plan.items():
        layers[layer] = [
            _in_keras_layout(
                np.concatenate(
                    [arrays.take(prefix + name, shape) for name in names]
                )
            )
            for names, shape in groups
        ]
    for name in unused:
        arrays.drop(prefix + name)
    return architecture, layers


def prefix_of(state: Mapping[str, Array]) -> str | None:
    """Returns what precedes all names of a backbone; None: it is none."""
    for prefix in _PREFIXES:
        for name in ("cls_token", _HUGGING_FACE):
            if prefix + name in state:
                return prefix
    return None


def _blocks(shapes, hugging_face) -> dict[int, str]:
    """Index of a block -> its name."""
    pattern = r"blocks\.(?:\d+\.)?(\d+)(?=\.)"
    if hugging_face:
        pattern = r"encoder\.layer\.(\d+)(?=\.)"
    found = [match for match in map(re.compile(pattern).match, shapes) if match]
    return {int(match[1]): match[0] for match in found}


def _architecture(source, prefix, shapes, blocks, hugging_face) -> Architecture:
    def shape(original, other):
        name = other if hugging_face else original
        if name not in shapes:
            raise ValueError(
                f"Expected DINOv2's arrays. Received: source={str(source)!r} "
                f"without {prefix}{name}. Get the file again."
            )
        return shapes[name]

    dimension = shape("cls_token", _HUGGING_FACE)[-1]
    kernel = shape(
        "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.weight",
    )
    if kernel[2:] != (PATCH, PATCH):
        raise ValueError(
            f"Expected patches of {PATCH} pixels, which DINOv2 has. Received: "
            f"source={str(source)!r} with a kernel of shape {kernel}. It is "
            "another vision transformer, which is not supported."
        )
    first = blocks.get(0, "")
    mlp = 1 if hugging_face else 0
    gated = f"{first}.{_BLOCK_PARTS['w3'][mlp]}.weight"
    plain = f"{first}.{_BLOCK_PARTS['fc2'][mlp]}.weight"
    hidden = shapes.get(gated) or shape(plain, plain)
    registers = shapes.get(
        "embeddings.register_tokens" if hugging_face else "register_tokens",
        (1, 0, dimension),
    )[1]
    return Architecture(
        dimension=dimension,
        depth=max(blocks, default=-1) + 1,
        num_heads=dimension // _HEAD,
        hidden=hidden[-1],
        swiglu=gated in shapes,
        num_registers=registers,
        antialias=registers > 0,
    )


def _plan(
    architecture, blocks, hugging_face
) -> Iterator[tuple[str, list[tuple[tuple[str, ...], tuple[int, ...]]]]]:
    """Each layer with its weights: names to concatenate, and their shape."""
    length = architecture.dimension
    naming = 1 if hugging_face else 0
    projection, tokens, norm = (
        ("patch_embed.proj", "", "norm"),
        ("embeddings.patch_embeddings.projection", "embeddings.", "layernorm"),
    )[naming]
    positions = ("pos_embed", "position_embeddings")[naming]
    embedding = [
        ((f"{projection}.weight",), (length, 3, PATCH, PATCH)),
        ((f"{projection}.bias",), (length,)),
        ((f"{tokens}cls_token",), (1, 1, length)),
        ((f"{tokens}{positions}",), (1, 1 + GRID**2, length)),
    ]
    if architecture.num_registers:
        shape = (1, architecture.num_registers, length)
        embedding.append(((f"{tokens}register_tokens",), shape))
    yield "embedding", embedding
    for index in range(architecture.depth):
        # A missing block keeps a name, by which it is reported.
        default = ("blocks.{}", "encoder.layer.{}")[naming].format(index)
        block = blocks.get(index, default)
        for part, (outputs, inputs) in _sizes(architecture).items():
            name = f"{block}.{_BLOCK_PARTS[part][naming]}"
            names = (name,)
            if part == "qkv" and hugging_face:
                names = tuple(f"{name}.{x}" for x in ("query", "key", "value"))
                outputs //= 3
            if part in ("ls1", "ls2"):
                groups = [(names, (outputs,))]
            else:
                kernel = (outputs, inputs) if inputs else (outputs,)
                groups = [
                    (tuple(f"{x}.weight" for x in names), kernel),
                    (tuple(f"{x}.bias" for x in names), (outputs,)),
                ]
            yield f"block{index}_{part}", groups
    yield (
        "norm",
        [((f"{norm}.{x}",), (length,)) for x in ("weight", "bias")],
    )


def _sizes(architecture) -> dict[str, tuple[int, int | None]]:
    """Outputs and inputs of a block's layers; None: one number a channel."""
    length, hidden = architecture.dimension, architecture.hidden
    mlp = {"fc1": (hidden, length), "fc2": (length, hidden)}
    if architecture.swiglu:
        mlp = {"w12": (2 * hidden, length), "w3": (length, hidden)}
    return {
        "norm1": (length, None),
        "qkv": (3 * length, length),
        "proj": (length, length),
        "ls1": (length, None),
        "norm2": (length, None),
        **mlp,
        "ls2": (length, None),
    }


def _check(source, present, plan, prefix) -> None:
    """Refuses a file that is not whole, or has arrays without a place."""
    expected = {
        name
        for groups in plan.values()
        for names, _ in groups
        for name in names
    }
    problems = [
        f"{word} {_listed(prefix + name for name in names)}"
        for word, names in (
            ("without", expected - present),
            ("with, in no layer of it,", present - expected),
        )
        if names
    ]
    if problems:
        raise ValueError(
            "Expected the arrays of one of DINOv2's backbones, each once. "
            f"Received: source={str(source)!r} {'; and '.join(problems)}. Get "
            "the file again, or save the backbone's state_dict()."
        )


def _listed(names) -> str:
    names = sorted(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _in_keras_layout(array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:  # convolution
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 3:  # tokens
        return array.squeeze()
    return array.T

"""Computes every layer and loss with the backend of Keras that runs.

    KERAS_BACKEND=jax python tests/backends/exchange.py FOLDER

writes FOLDER/jax.npz, with values and gradients by name, and FOLDER/jax.keras,
a network over tuples. `test_backends.py` compares what the backends wrote.
"""

import functools
import inspect
import itertools
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import sare_tf.losses
from sare_tf import model
from sare_tf.model import (
    augmentation,
    backbones,
    embedder,
    heads,
    vit_layers,
    vit_outputs,
    vit_sizes,
)
from sare_tf.model.torchvision import convnext

BACKEND = keras.backend.backend()
VARIANTS = {
    "form": ("joint", "independent"),
    "kernel": tuple(sare_tf.losses.KERNELS),
}


def registered(kind):
    """Classes of the package that Keras can load, by name."""
    return {
        name.removeprefix("sare_tf>"): registered
        for name, registered in keras.saving.get_custom_objects().items()
        if name.startswith("sare_tf>") and issubclass(registered, kind)
    }


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (2, 4, 24, 32, 3)).astype(np.float32)


def layers():
    """A layer of each class, and its inputs."""
    maps = random(2, 6, 9, 5)
    tuples = pictures()
    descriptors = random(8, 7)
    tokens = random(2, 8, 12)  # a class token, a register, and 2 x 3 patches
    pixels = 0.01 * random(2, 28, 42, 3)
    preprocessing = backbones.Preprocessing(
        mean=(100.0, 110.0, 120.0),
        deviation=(50.0, 60.0, 70.0),
        blue_first=True,
    )
    return {
        "ChannelScale": (convnext.ChannelScale(), [maps]),
        "ClassToken": (vit_outputs.ClassToken(), [tokens]),
        "CropToPatches": (vit_sizes.CropToPatches(), [random(2, 31, 19, 3)]),
        "InverseBandwidth": (
            sare_tf.losses.InverseBandwidth(10.0),
            [random(4, 4) ** 2],
        ),
        "GeM": (model.GeM(), [maps]),
        "GeM-imported": (model.GeM(unit_locations=True), [maps]),
        "MAC": (model.MAC(), [maps]),
        "MergeTuples": (embedder.MergeTuples(), [tuples]),
        "NetVLAD": (model.NetVLAD(num_clusters=3), [maps]),
        "NetVLAD-imported": (
            model.NetVLAD(num_clusters=3, use_bias=True, clamped=True),
            [maps],
        ),
        "PlaceClassifier": (
            sare_tf.losses.PlaceClassifier(6),
            [descriptors],
        ),
        "PatchMap": (
            vit_outputs.PatchMap(2, part=1, num_parts=3),
            [tokens, pixels],
        ),
        "Preprocessing": (preprocessing, [tuples[0]]),
        "PrependedTokens": (vit_layers.PrependedTokens(2), [tokens]),
        "RMAC": (model.RMAC(), [maps]),
        "ResizeToPatches": (vit_sizes.ResizeToPatches(), [maps]),
        "SPoC": (model.SPoC(), [maps]),
        "ScaledResidual": (
            vit_layers.ScaledResidual(),
            [tokens, random(2, 8, 12, seed=3)],
        ),
        "SelfAttention": (vit_layers.SelfAttention(2), [tokens]),
        "SplitTuples": (embedder.SplitTuples(), [descriptors, tuples]),
        "SwiGLU": (vit_layers.SwiGLU(), [tokens]),
        "TokenEmbedding": (vit_layers.TokenEmbedding(4), [pixels]),
        "TokenEmbedding-registers": (
            vit_layers.TokenEmbedding(4, num_registers=3, antialias=True),
            [pixels],
        ),
        "Whitening": (model.Whitening(3), [descriptors]),
    }


def current_heads():
    """A layer of each head, and its inputs."""
    maps, tokens = random(2, 6, 9, 5), random(2, 5, seed=3)
    options = {"cluster_length": 4, "token_length": 6, "hidden": 7}
    salad = heads.salad.SALAD(3, **options)
    shortened = heads.salad_linear.SALADLinear(5, num_clusters=3, **options)
    return {
        "BoQ": (
            heads.boq.BoQ(64, num_queries=3, num_blocks=2, rows=2),
            [0.1 * maps],
        ),
        "ConvAP": (heads.convap.ConvAP(3), [maps]),
        "GeMLinear": (heads.gem_linear.GeMLinear(4), [maps]),
        "HardVLAD": (heads.hard_vlad.HardVLAD(3), [maps]),
        "MixVPR": (
            heads.mixvpr.MixVPR(channels=3, rows=2, num_mixers=2),
            [0.1 * maps],
        ),
        "NetVLADLinear": (
            heads.netvlad_linear.NetVLADLinear(3, cluster_length=2),
            [maps],
        ),
        "SALAD": (salad, [0.1 * maps]),
        "SALADLinear": (shortened, [0.1 * maps]),
        "SuperVLAD": (heads.supervlad.SuperVLAD(3), [maps]),
        "UnitClassToken": (
            heads.class_token.UnitClassToken(),
            [maps, tokens],
        ),
    }


def losses():
    """Every loss that needs no argument, in every form and kernel it has."""
    for name in sare_tf.losses.__all__:
        getattr(sare_tf.losses, name)  # imported when it is first used
    for name, loss in sorted(registered(keras.losses.Loss).items()):
        parameters = inspect.signature(loss).parameters
        if any(p.default is p.empty for p in parameters.values()):
            continue
        options = [key for key in VARIANTS if key in parameters]
        for values in itertools.product(*(VARIANTS[key] for key in options)):
            settings = dict(zip(options, values, strict=True))
            yield "-".join([name, *values]), loss(**settings)


def calculations():
    """Functions of tensors, and the arrays to give them, by name."""
    found = {}
    for name, (layer, inputs) in (layers() | current_heads()).items():
        layer(*(ops.convert_to_tensor(x) for x in inputs))  # builds it
        # Weights that no random initialiser makes, for they differ.
        rng = np.random.default_rng(1)
        weights = [rng.uniform(0.5, 2.5, w.shape) for w in layer.weights]
        if name == "BoQ":  # products of attention that are not all or nothing
            weights = [0.05 * w if w.ndim > 1 else w for w in weights]
        arrays = [*inputs, *(np.float32(w) for w in weights)]
        found[name] = functools.partial(_call, layer), arrays
    # Small, and of pixels in 0..1: positions, which are rounded, weigh less.
    pixels = pictures()[0, :, :9, :12] / 255.0
    found["Augmentation"] = _vary, [pixels]
    # A classification, whose labels are numbers of places.
    found["PlaceCosFaceLoss"] = (
        functools.partial(
            sare_tf.losses.place_cosface, np.array([3, 0, 1, 3, 5, 1])
        ),
        [np.tanh(random(6, 7))],
    )
    for name, loss in losses():
        # A loss is over tuples, or over images with labels; it refuses the
        # other.
        for shape in ((2, 5, 8), (6, 8)):
            descriptors = random(*shape)
            descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
            try:
                _lose(loss, ops.convert_to_tensor(descriptors))
            except ValueError:
                continue
            found[name] = functools.partial(_lose, loss), [descriptors]
    return found


def _vary(images):
    draws = np.random.default_rng(3).uniform(
        size=(len(images), sum(augmentation.AUGMENTATION_DRAWS.values()))
    )
    return augmentation.augment(
        images,
        ops.convert_to_tensor(draws.astype(np.float32)),
        effects=augmentation.AUGMENTATION_DRAWS,
    )


def _call(layer, *tensors):
    """A layer with the weights that follow its inputs."""
    count = len(tensors) - len(layer.weights)
    inputs, weights = tensors[:count], list(tensors[count:])
    trained = len(layer.trainable_weights)
    return layer.stateless_call(weights[:trained], weights[trained:], *inputs)[
        0
    ]


def _lose(loss, descriptors):
    labels = np.float32([3, 8, 3, 5, 8, 3])
    return loss.call(ops.convert_to_tensor(labels), descriptors)


def value_and_gradients(function, arrays):
    """The value, and the gradients of a weighted sum of its elements."""
    value = function(*(ops.convert_to_tensor(a) for a in arrays))
    value = ops.convert_to_numpy(value)
    weights = random(*value.shape, seed=2)

    def objective(*tensors):
        return ops.sum(function(*tensors) * ops.convert_to_tensor(weights))

    return value, _GRADIENTS[BACKEND](objective, arrays)


def _tensorflow(objective, arrays):
    import tensorflow as tf

    tensors = [tf.constant(a) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = objective(*tensors)
    return tape.gradient(result, tensors, unconnected_gradients="zero")


def _jax(objective, arrays):
    import jax

    return jax.grad(objective, argnums=tuple(range(len(arrays))))(*arrays)


def _torch(objective, arrays):
    import torch

    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    gradients = torch.autograd.grad(
        objective(*tensors), tensors, allow_unused=True, materialize_grads=True
    )
    return gradients


_GRADIENTS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def network():
    keras.utils.set_random_seed(0)
    return model.over_tuples(
        model.build_embedder(backbone="small", num_clusters=3)
    )


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, calculation in calculations().items():
        value, gradients = value_and_gradients(*calculation)
        arrays[f"{name}/value"] = value
        for index, gradient in enumerate(gradients):
            arrays[f"{name}/gradient{index}"] = ops.convert_to_numpy(gradient)
    made = network()
    arrays["network/value"] = made.predict(pictures(), verbose=0)
    made.save(folder / f"{BACKEND}.keras")
    np.savez(folder / f"{BACKEND}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

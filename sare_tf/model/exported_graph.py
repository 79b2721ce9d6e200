"""The graph that is exported: encoded images in, descriptors out.

Two signatures, for any number B of images, none included:

    serving_default   image_bytes, JPEG or PNG, string [B]
                      -> descriptor, float32 [B, D], valid, bool [B], and
                      fingerprint, string [B]
    embed_tensor      images, RGB 0..255, float32 [B, H, W, 3] of any one size
                      -> descriptor, float32 [B, D]

Descriptors are of unit length. An image that cannot be decoded is not valid
and has a descriptor of zeros; the other images of its batch are not affected.
The fingerprint names the model, with everything that its descriptors depend on:
it is returned with every image, so that a client of a server knows the model.
The graph holds preprocessing and whitening, no Python function and no custom
op.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sare_tf import __version__
from sare_tf.dataset import image_decoding
from sare_tf.dataset.interpolation import BILINEAR, Interpolation
from sare_tf.model import image_sizes, inference_network
from sare_tf.model.aggregation import unit_length
from sare_tf.model.embedder import float32_copy
from sare_tf.model.precision import precision_of
from sare_tf.model.whitening import Whitening

# Of the length of a descriptor from 1; float32 needs less.
_UNIT_TOLERANCE = 1e-3
# Inputs of the two signatures.
_ENCODED = tf.TensorSpec([None], tf.string, "image_bytes")
_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, "images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """What an export computes, fixed when the object is made.

    Attributes:
        embedder: [B, H, W, 3] -> float32 [B, C], without a whitening of its
            own: see `split_whitening`.
        height: rows that encoded images are resized to.
        width: columns that encoded images are resized to.
        scales: sizes relative to these, whose descriptors are averaged.
        whitening: applied to the average; None for no whitening.
        truncate_dimension: numbers of a descriptor that are kept, after
            whitening, and brought to unit length again; 0 for all.

    Raises:
        ValueError: scales that are not positive, a whitening of descriptors of
            another length, or more numbers to keep than a descriptor has.
    """

    embedder: keras.Model
    height: int
    width: int
    scales: tuple[float, ...] = (1.0,)
    whitening: Whitening | None = None
    truncate_dimension: int = 0

    def __post_init__(self):
        object.__setattr__(self, "scales", tuple(map(float, self.scales)))
        _check_scales(self.scales)
        _check_size(self)
        if self.whitening is not None:
            _check_whitening(self.whitening, self.embedder.output_shape[-1])
        check_truncation(self.truncate_dimension, self.untruncated_dimension)

    @property
    def untruncated_dimension(self) -> int:
        """The length of a descriptor before it is truncated."""
        if self.whitening is not None:
            return self.whitening.dimension
        return self.embedder.output_shape[-1]

    @property
    def dimension(self) -> int:
        """The length D of a descriptor."""
        return self.truncate_dimension or self.untruncated_dimension

    @property
    def interpolation(self) -> Interpolation:
        """How images get their size: as the network says it."""
        preprocessing = image_sizes.preprocessing_of(self.embedder)
        return preprocessing.interpolation if preprocessing else BILINEAR

    @property
    def precision(self) -> str:
        """What the backbone computes in: a name in `registry.PRECISIONS`."""
        return precision_of(self.embedder)

    @functools.cached_property
    def network(self) -> keras.Model:
        """The embedder in the form that is exported."""
        # Weights are folded here and now, also while a graph is traced.
        with tf.init_scope():
            return inference_network.of(self.embedder)

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything that descriptors depend on.

        A model that is exported again by the same sare_tf has the same one.
        """
        settings = [
            __version__,
            self.height,
            self.width,
            list(self.scales),
            self.truncate_dimension,
            self.embedder.to_json(),
        ]
        digest = hashlib.sha256(json.dumps(settings).encode())
        weights = list(self.embedder.weights)
        if self.whitening is not None:
            weights += self.whitening.weights
        for weight in weights:
            values = keras.ops.convert_to_numpy(weight)
            digest.update(f"{values.dtype} {values.shape}\0".encode())
            digest.update(np.ascontiguousarray(values).view(np.uint8))
        return digest.hexdigest()

    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the signature `serving_default`, without the fingerprint."""
        batch, valid = image_decoding.load_batch(
            image_bytes,
            height=self.height,
            width=self.width,
            interpolation=self.interpolation,
        )
        descriptors = self.embed(batch)["descriptor"]
        # Not a product, so that no image can make a NaN.
        descriptors = tf.where(valid[:, None], descriptors, 0.0)
        return {"descriptor": descriptors, "valid": valid}

    def embed(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the signature `embed_tensor`."""
        count = tf.shape(batch)[0]
        # Convolutions refuse an empty batch: give them an image, then drop it.
        # After it the graph knows no sizes, so that a network which was built
        # for one takes others.
        missing = tf.cast(count == 0, tf.int32)
        batch = tf.pad(batch, [[0, missing], [0, 0], [0, 0], [0, 0]])
        descriptors = tf.add_n(
            [
                self.network(self._scaled(batch, scale), training=False)
                for scale in self.scales
            ]
        )
        if len(self.scales) > 1:
            descriptors = unit_length(descriptors)
        if self.whitening is not None:
            descriptors = self.whitening(descriptors)
        if self.truncate_dimension:
            descriptors = unit_length(descriptors[:, : self.truncate_dimension])
        return {"descriptor": descriptors[:count]}

    def _scaled(self, batch: tf.Tensor, scale: float) -> tf.Tensor:
        if scale == 1:
            return batch
        size = tf.cast(tf.shape(batch)[1:3], tf.float32) * scale
        size = tf.cast(tf.maximum(tf.round(size), 1), tf.int32)
        height, width = tf.unstack(size)
        return image_decoding.resize(
            batch,
            height=height,
            width=width,
            interpolation=self.interpolation,
        )

    @functools.cached_property
    def embed_function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """`embed` as a function to call in this process, traced once."""
        return tf.function(self.embed, input_signature=[_IMAGES])

    def function(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns `serve` as a function to call in this process."""
        return tf.function(self.serve, input_signature=[_ENCODED])

    def write(self, folder: Path) -> str:
        """Writes the SavedModel into a folder, and returns its fingerprint."""
        fingerprint = self.fingerprint

        def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            named = tf.fill(tf.shape(image_bytes), fingerprint)
            return {**self.serve(image_bytes), "fingerprint": named}

        # Finds the variables of endpoints by itself; `track`, which it also
        # offers, walks through all objects of a network for lookup tables.
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", serve, [_ENCODED])
        self.embed_function.get_concrete_function()
        archive.add_endpoint("embed_tensor", self.embed_function)
        archive.write_out(str(folder), verbose=False)
        return fingerprint

    def card(self) -> dict[str, Any]:
        """Returns the properties of the graph that `sare_tf.json` states."""
        return {
            "dimension": self.dimension,
            "image_height": self.height,
            "image_width": self.width,
            "image_size_step": image_sizes.step(self.embedder),
            "preprocessing": "decode; turn upright by the EXIF header of a "
            f"JPEG; resize to the size above, {self.interpolation}; RGB 0..255",
            "scales": list(self.scales),
            "precision": self.precision,
            "truncated_from": self.untruncated_dimension
            if self.truncate_dimension
            else None,
            "versions": {
                "sare_tf": __version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }


def of_embedder(
    embedder: keras.Model,
    *,
    height: int | None,
    width: int | None,
    scales: Sequence[float] = (1.0,),
    whitening: Whitening | None = None,
    truncate_dimension: int = 0,
) -> ExportedGraph:
    """Returns the graph of any model of images to descriptors.

    The arguments are those of `sare_tf.export`.

    Raises:
        ValueError: see `sare_tf.export`.
    """
    _check_embedder(embedder)
    height, width = image_sizes.chosen(embedder, height, width)
    if precision_of(embedder) == "float32":
        embedder = float32_copy(embedder)
    embedder, imported = split_whitening(embedder)
    if whitening is not None and imported is not None:
        raise ValueError(
            "Expected whitening=None for an embedder that ends in a whitening. "
            f"Received: whitening={whitening}."
        )
    graph = ExportedGraph(
        embedder=embedder,
        height=height,
        width=width,
        scales=tuple(scales),
        whitening=imported if whitening is None else whitening,
        truncate_dimension=truncate_dimension,
    )
    _check_norm(graph)
    return graph


def split_whitening(
    embedder: keras.Model,
) -> tuple[keras.Model, Whitening | None]:
    """Splits an embedder into one without whitening, and its whitening.

    The exported graph applies whitening after it has averaged several scales,
    also if the whitening came with an imported network.

    Args:
        embedder: [B, H, W, 3] -> float32 [B, D].

    Returns:
        The embedder up to its whitening, with the same weights, and the
        whitening; or the embedder itself and None if its last layer is none.
    """
    last = embedder.layers[-1]
    if not isinstance(last, Whitening):
        return embedder, None
    return keras.Model(embedder.input, last.input, name=embedder.name), last


def check_truncation(truncate_dimension: int, length: int) -> None:
    """Refuses to keep more numbers of a descriptor than it has.

    Raises:
        ValueError: less than 0, or more than `length`.
    """
    if not 0 <= truncate_dimension <= length:
        raise ValueError(
            f"Expected to keep 1 to {length} numbers, the length of a "
            "descriptor, or 0 for all. Received: truncate_dimension="
            f"{truncate_dimension}."
        )


def _check_scales(scales: tuple[float, ...]) -> None:
    if not scales or not all(0 < scale < np.inf for scale in scales):
        raise ValueError(
            "Expected at least one scale, each above 0; 1 is the network's "
            f"input size. Received: scales={list(scales)}."
        )


def _check_size(graph: ExportedGraph) -> None:
    """Refuses sizes that the embedder or its backbone does not take."""
    size = (graph.height, graph.width)
    if min(size) < 1:
        raise ValueError(
            "Expected a height and a width in pixels, each at least 1. "
            f"Received: height={graph.height}, width={graph.width}."
        )
    fixed = tuple(graph.embedder.input_shape[1:3])
    if any(
        own not in (None, asked) for own, asked in zip(fixed, size, strict=True)
    ):
        raise ValueError(
            f"Expected height={fixed[0]}, width={fixed[1]}, the only size that "
            f"the embedder takes. Received: height={graph.height}, "
            f"width={graph.width}. Build it with image_size=None for any size."
        )
    for layer in graph.embedder.layers:
        if layer.name == "backbone" and None not in layer.input_shape[1:3]:
            if set(graph.scales) != {1.0}:
                raise ValueError(
                    "Expected scales=(1,) for a backbone of one size, "
                    f"{tuple(layer.input_shape[1:3])}. Received: "
                    f"scales={graph.scales}."
                )


def _check_embedder(embedder: keras.Model) -> None:
    """Refuses a model that does not take images and return descriptors."""
    shapes = [
        getattr(embedder, name, None)
        for name in ("input_shape", "output_shape")
    ]
    if [isinstance(shape, tuple) and len(shape) for shape in shapes] != [4, 2]:
        raise ValueError(
            "Expected an embedder, images [B, H, W, 3] -> descriptors [B, D]. "
            f"Received: a model of {shapes[0]} -> {shapes[1]}. Of a model of "
            "over_tuples or a PlaceNetwork, export get_layer('embedder')."
        )


def _check_norm(graph: ExportedGraph) -> None:
    """Refuses an embedder whose descriptors are not of unit length."""
    rng = np.random.default_rng(0)
    size = (1, graph.height, graph.width, 3)
    noise = rng.integers(0, 256, size).astype(np.float32)
    norm = float(np.linalg.norm(graph.embed_function(noise)["descriptor"]))
    if not abs(norm - 1) <= _UNIT_TOLERANCE:
        raise ValueError(
            "Expected descriptors of length 1. Received: an embedder whose "
            f"descriptor of random pixels has length {norm:.6g}. Let it end in "
            "keras.layers.UnitNormalization(), or train it again if it is NaN."
        )


def _check_whitening(whitening: Whitening, length: int) -> None:
    if not whitening.built or whitening.projection.shape[0] != length:
        fitted_to = whitening.projection.shape[0] if whitening.built else None
        raise ValueError(
            f"Expected whitening that was fitted to descriptors of {length} "
            f"numbers. Received: whitening fitted to {fitted_to}. Fit it to "
            "descriptors of this embedder with fit_whitening."
        )

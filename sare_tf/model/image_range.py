"""A warning about images that are not in 0..255.

Images in 0..1 or -1..1 are nearly black to a network for 0..255, and all
descriptors become nearly equal, without an error.
"""

import keras
import numpy as np
from absl import logging
from keras import ops

from sare_tf.runtime import symbolic_tensors

# One of so many rows and columns of the first image is looked at.
_STRIDE = 8
# Images from -1 to 1, or normalised by ImageNet's deviations.
_LARGEST_NORMALISED = 4.0
# Interpolation may exceed 0..255 so far, images of 16 bits exceed it further.
_LOWEST, _HIGHEST = -64.0, 320.0


class RangeWarning:
    """Warns once if images look as if they were not in 0..255.

    It looks at a few values of the first image of a batch: in eager calls, and
    in graphs of TensorFlow that train. Graphs that do not train, such as
    exported ones, and graphs that XLA or JAX compile contain nothing of it; see
    `look_at_data` for these.
    """

    def __init__(self):
        self.has_warned = False

    def __call__(self, images, *, training: bool | None) -> None:
        """Looks at a batch.

        Args:
            images: [B, H, W, 3].
            training: whether the images are trained on.
        """
        if self.has_warned:
            return
        if symbolic_tensors.has_values(images):
            self._look_at(ops.convert_to_numpy(_sample(images)))
        elif training and symbolic_tensors.graph_can_run_python():
            import tensorflow as tf

            sample = tf.cast(_sample(images), "float32")
            tf.numpy_function(self._look_at, [sample], [])

    def _look_at(self, sample: np.ndarray) -> None:
        if self.has_warned or not sample.size:
            return
        sample = sample.astype(np.float32)
        lowest, highest = sample.min(), sample.max()
        normalised = (
            max(-lowest, highest) <= _LARGEST_NORMALISED
            and (sample != np.round(sample)).any()
        )
        if normalised or lowest < _LOWEST or highest > _HIGHEST:
            self.has_warned = True
            logging.warning(
                "Expected images with values from 0 to 255. Received: values "
                "from %.4g to %.4g. Descriptors of such images are wrong. "
                "Multiply images in 0..1 by 255; the network contains its own "
                "preprocessing.",
                lowest,
                highest,
            )


def look_at_data(network: keras.Model, data) -> None:
    """Has the layers of a network that warn look at the first image of data.

    Args:
        network: a model of images.
        data: what it is given: images [..., H, W, 3], a dictionary with
            "images", or a tf.data.Dataset of these, with targets or without.
            Datasets of integers, which cost time to look at, and data of other
            kinds are passed over.
    """
    warnings = [
        layer.warn_of_range
        for layer in network._flatten_layers()
        if hasattr(layer, "warn_of_range")
    ]
    if all(warning.has_warned for warning in warnings):
        return
    images = _first_images(data)
    if images is not None:
        for warning in warnings:
            warning(images, training=False)


def _first_images(data):
    """Returns the first images of data, [1, H, W, 3], or None."""
    if hasattr(data, "element_spec"):
        spec = _images_of(data.element_spec)
        if not getattr(getattr(spec, "dtype", None), "is_floating", False):
            return None
        data = next(iter(data.take(1)), None)
    images = _images_of(data)
    rank = len(getattr(images, "shape", ()))
    if rank < 4 or not all(images.shape):
        return None
    first = images[(0,) * (rank - 4)]
    return first[:1]


def _images_of(element):
    """Returns the images of an element of data."""
    if isinstance(element, tuple | list) and element:
        element = element[0]
    return element.get("images") if isinstance(element, dict) else element


def _sample(images):
    return images[:1, ::_STRIDE, ::_STRIDE]

"""Requests that TF Serving replays when it loads an export.

Without them the first callers wait while memory is allocated and kernels are
chosen. The file is a TFRecord of `PredictionLog` messages. They are encoded
here by hand, because the package that has their classes,
tensorflow-serving-api, fixes the version of TensorFlow. That is short, because
all fields down to the images are length-delimited.

Source: saved_model_warmup.md, prediction_log.proto, predict.proto and
model.proto of tensorflow/serving.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

# Where TF Serving looks for the file in a SavedModel.
PATH = Path("assets.extra") / "tf_serving_warmup_requests"
# A single photograph, and a batch.
_BATCH_SIZES = (1, 8)


def write(folder: Path, *, height: int, width: int) -> None:
    """Writes requests with photographs of one size into a SavedModel.

    Args:
        folder: the SavedModel.
        height: rows of a photograph.
        width: columns of a photograph.
    """
    # Noise in blocks of 8 x 8, which compresses about as a photograph does.
    coarse = np.random.default_rng(0).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    encoded = tf.io.encode_jpeg(pixels).numpy()
    path = folder / PATH
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in _BATCH_SIZES:
            writer.write(prediction_log(size * [encoded]))


def prediction_log(image_bytes: Sequence[bytes]) -> bytes:
    """Returns a call of `serving_default` as a serialised PredictionLog.

    Args:
        image_bytes: B encoded images.
    """
    tensor = tf.make_tensor_proto(list(image_bytes), tf.string)
    model_spec = _field(3, b"serving_default")  # signature_name
    # A map is a list of entries, each of a key (1) and a value (2).
    entry = _field(1, b"image_bytes") + _field(2, tensor.SerializeToString())
    request = _field(1, model_spec) + _field(2, entry)  # model_spec, inputs
    return _field(6, _field(1, request))  # predict_log, request


def _field(number: int, payload: bytes) -> bytes:
    """Encodes a length-delimited field: number and type, length, payload."""
    length, encoded = len(payload), bytearray([number << 3 | 2])
    while length > 0x7F:  # seven bits at a time, the lowest first
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + payload

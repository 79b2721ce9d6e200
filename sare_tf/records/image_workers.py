"""What a worker process of the tf.data service does for a training.

The graph that the service runs comes from the training. It cannot hold Python
functions, but it can name those of the worker: TensorFlow gives them the tokens
of `READ` and `DESCRIBE`, the first two of a process, and `register` makes sure
of it. So a worker reads records with the same code as a training that reads by
itself, also from object storage, and compares each image with its digest.
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from sare_tf import __version__
from sare_tf.records import frames, range_reading
from sare_tf.records.image_places import ImagePlaces
from sare_tf.runtime import remote_files
from sare_tf.runtime.cores import CORES

READ, DESCRIBE = "pyfunc_0", "pyfunc_1"
# A training and its workers must have the same.
VERSIONS = f"sare_tf {__version__}, TensorFlow {tf.__version__}"
DAMAGED = "the image is not the one that was built"
_REGISTERED = []


def register() -> None:
    """Makes the functions of this process known to graphs.

    Raises:
        RuntimeError: other functions were made known before.
    """
    with tf.Graph().as_default() as graph:
        text, numbers = tf.constant([""]), tf.constant([0], tf.int64)
        made = [
            tf.numpy_function(
                _read, [text[0], text, *[numbers] * 4], tf.string
            ),
            tf.numpy_function(_describe, [text], tf.string),
        ]
    tokens = [tensor.op.get_attr("token").decode() for tensor in made]
    if tokens != [READ, DESCRIBE]:
        raise RuntimeError(
            "Expected a process that has made no graph yet. Received: "
            f"functions with the tokens {tokens}. Start workers by python -m "
            "sare_tf.data_service."
        )
    # The functions live as long as the graph.
    _REGISTERED.append(graph)


def read_images(places: ImagePlaces) -> list[bytes]:
    """Reads a few encoded images.

    Raises:
        OSError: a file cannot be read.
        ValueError: an image is not that of its digest.
    """
    if any(map(remote_files.is_remote, places.paths)):
        images = range_reading.read_now(places)
    else:
        images = list(map(_local_image, *_columns(places)))
    if None in images:
        raise ValueError(DAMAGED)
    return images


def _columns(places: ImagePlaces) -> tuple[Sequence, ...]:
    paths = [places.paths[number] for number in places.file]
    return paths, places.offset, places.length, places.digest


def _local_image(
    path: str, offset: int, length: int, digest: np.int64
) -> bytes | None:
    with open(path, "rb") as file:
        file.seek(offset)
        return frames.encoded_image(file.read(length), digest)


def _read(
    versions: bytes,
    paths: np.ndarray,
    file: np.ndarray,
    offset: np.ndarray,
    length: np.ndarray,
    digest: np.ndarray,
) -> np.ndarray:
    """Reads images for a graph, which has the columns of `ImagePlaces`."""
    try:
        if versions.decode() != VERSIONS:
            raise OSError(
                f"it has {VERSIONS}, and the training {versions.decode()}"
            )
        names = [path.decode() for path in paths]
        images = read_images(ImagePlaces(names, file, offset, length, digest))
    except OSError as error:
        # Not the fault of an image. TensorFlow keeps the message only.
        raise RuntimeError(f"worker {socket.gethostname()}: {error}") from error
    return np.array(images, object)


def _describe(folders: np.ndarray) -> bytes:
    """Describes this process, and records that it finds, as JSON."""
    return json.dumps(
        {
            "worker": f"{socket.gethostname()}, process {os.getpid()}",
            "versions": VERSIONS,
            "cores": CORES,
            "records": [_fingerprint(folder.decode()) for folder in folders],
        }
    ).encode()


def _fingerprint(folder: str) -> str:
    """Returns the fingerprint of records, or why they cannot be read."""
    try:
        if remote_files.is_remote(folder):
            text = remote_files.read(f"{folder}/records.json")
        else:
            text = (Path(folder) / "records.json").read_bytes()
        return str(json.loads(text)["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"

"""Images that other processes read and decode, by the service of tf.data.

    sare-tf data_service --service_port=5050
    sare-tf data_service --dispatcher=grpc://a:5050     # as often as you like
    sare-tf train --flagfile=... --data_service=grpc://a:5050

The training decides which images come in which order, and asks for them by
number: a chunk is up to 1 MiB of decoded images. Workers take the next chunks
as fast as they can (`ShardingPolicy.DYNAMIC`). That service gives each chunk at
most once, in no order, and a chunk that a killed worker had is lost. So chunks
come with their numbers. The training puts them in order, and reads those itself
that do not come although later ones have. So batches are bit for bit those of a
training without the service, whatever happens to workers.

If nothing comes for `SILENCE_S`, the training ends with an error, and resumes
after its last epoch when it is started again.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging

from sare_tf.dataset import image_decoding
from sare_tf.records import image_workers
from sare_tf.records.image_places import ImagePlaces
from sare_tf.records.records import Records
from sare_tf.runtime import (
    dataset_errors,
    network_address,
    remote_files,
    tfdata_threads,
)
from sare_tf.training import service_stream
from sare_tf.training.arrivals import Arrivals

# Ours. Seconds without anything from a service that should send something.
SILENCE_S = 60.0
_CHUNK_BYTES = 1 << 20
MOST_IMAGES = 32
# Chunks that wait for earlier ones.
_WAITING_BYTES = 1 << 29
# Threads of a worker, at least, where most of them wait for storage.
_STORAGE_THREADS = 16
# Wait for further workers after the first has described itself.
_GREETING_S = 1.0
_ADVICE = (
    "Start workers by python -m sare_tf.data_service --dispatcher={}, and this "
    "command again: it resumes after the last epoch. Without --data_service it "
    "needs none."
)
_POLICY = tf.data.experimental.service.ShardingPolicy


class ServedImages:
    """Images of records that a service reads: a source of datasets.

    Args:
        service: the service.
        records: opened records.

    Attributes:
        manifest: manifest of the records.
    """

    def __init__(self, service: "ImageService", records: Records):
        self.manifest = records.manifest
        self._service = service
        self._records = records

    def of(self, records: Records) -> "ServedImages":
        """Returns images of other records of the same training."""
        return self._service.of(records)

    def decoded_dataset(
        self, rows: pd.DataFrame, *, height: int, width: int
    ) -> tf.data.Dataset:
        """Makes a dataset of the images of manifest rows, in their order.

        Args:
            rows: B rows of `manifest`.
            height: rows of an image.
            width: columns of an image.

        Returns:
            Dataset of B images, uint8 [height, width, 3].
        """
        places = self._records.places(rows)
        places = dataclasses.replace(
            places, paths=[_whole(path) for path in places.paths]
        )
        chunks = _Chunks(self._service, places, height, width)
        return tfdata_threads.fixed(
            dataset_errors.generated(chunks.in_order, chunks.element)
            .unbatch()
            .apply(tf.data.experimental.assert_cardinality(len(rows)))
        )


@dataclasses.dataclass(frozen=True)
class ImageService:
    """A service whose workers were found to be right for a training.

    Attributes:
        address: address of its dispatcher.
        threads: threads of one worker.
    """

    address: str
    threads: int

    def of(self, records: Records) -> ServedImages:
        """Returns the images of records, read by the service."""
        return ServedImages(self, records)


def connect(address: str, folders: Sequence[Records]) -> ImageService:
    """Finds the workers of a service, and compares them with this training.

    Args:
        address: address of the dispatcher.
        folders: opened records that the training reads.

    Raises:
        ConnectionError: nothing listens there, or there is no worker.
        ValueError: a worker has another version, or other records.
    """
    network_address.check_answers(
        address,
        advice="Start the service: python -m sare_tf.data_service "
        "--service_port=..., or leave --data_service out.",
    )
    paths = [_whole(records.path) for records in folders]
    workers = [
        json.loads(text) for text in _greetings(address, tf.constant(paths))
    ]
    for worker in workers:
        _check(worker, paths, folders)
    logging.info(
        "Images are read by %d workers of %s: %s.",
        len(workers),
        address,
        "; ".join(worker["worker"] for worker in workers),
    )
    cores = max(worker["cores"] for worker in workers)
    # Many wait for storage.
    threads = max(
        2 * cores, 16 if any(map(remote_files.is_remote, paths)) else 0
    )
    return ImageService(address, threads)


def _check(
    worker: dict, paths: Sequence[str], folders: Sequence[Records]
) -> None:
    """Refuses a worker that is not right for the training."""
    if worker["versions"] != image_workers.VERSIONS:
        raise ValueError(
            "Expected workers with the same versions as the training, "
            f"{image_workers.VERSIONS}. Received: {worker['versions']} of the "
            f"worker {worker['worker']}. Install the same, and start it again."
        )
    for path, records, found in zip(
        paths, folders, worker["records"], strict=True
    ):
        if found != records.fingerprint:
            raise ValueError(
                "Expected workers with the same records as the training, of "
                f"the fingerprint {records.fingerprint:.16}. Received: records="
                f"{path!r} on the worker {worker['worker']} with {found}. Give "
                "--records under a path or address that leads to the same "
                "records on all machines."
            )


def _greetings(address: str, paths: tf.Tensor) -> Iterator[str]:
    """Yields what each worker says of itself."""

    def describe(_: tf.Tensor) -> tf.Tensor:
        (text,) = tf.raw_ops.PyFunc(
            input=[paths], token=image_workers.DESCRIBE, Tout=[tf.string]
        )
        return tf.ensure_shape(text, [])

    dataset = tf.data.Dataset.range(1).map(describe)
    greetings = service_stream.elements_and_ticks(
        address,
        dataset,
        tf.TensorSpec([], tf.string),
        policy=_POLICY.OFF,
    )
    count, begin = 0, time.monotonic()
    try:
        with contextlib.closing(greetings):
            for is_tick, text in greetings:
                if not is_tick:
                    if not count:
                        begin = time.monotonic()
                    count += 1
                    yield text.numpy().decode()
                limit = _GREETING_S if count else SILENCE_S
                if time.monotonic() - begin > limit:
                    break
    except tf.errors.OpError as error:
        raise _failed(error, address) from error
    if not count:
        raise ConnectionError(
            f"Expected workers of the service {address}. Received: none within "
            f"{SILENCE_S:.0f} s. " + _ADVICE.format(address)
        )


class _Chunks:
    """The chunks of a dataset of images.

    Args:
        service: the service.
        places: where the images lie.
        height: rows of an image.
        width: columns of an image.

    Attributes:
        element: specification of a chunk.
    """

    def __init__(
        self,
        service: ImageService,
        places: ImagePlaces,
        height: int,
        width: int,
    ):
        self._service = service
        self._places = places
        self._size = height, width
        self._images = _CHUNK_BYTES // (height * width * 3)
        self._images = min(max(self._images, 1), MOST_IMAGES)
        self._chunk_bytes = self._images * height * width * 3
        self._count = -(-len(places) // self._images)
        self.element = tf.TensorSpec((None, height, width, 3), tf.uint8)

    def in_order(self) -> Iterator[tf.Tensor]:
        """Yields chunks in order, each once."""
        address = self._service.address
        arrivals = Arrivals(
            self._count,
            waiting=max(_WAITING_BYTES // self._chunk_bytes, MOST_IMAGES),
            in_flight=4 * self._service.threads,
        )
        element = (tf.TensorSpec([], tf.int64), self.element)
        stream = service_stream.elements_and_ticks(
            address,
            self._dataset(),
            element,
            policy=_POLICY.DYNAMIC,
        )
        read_here = 0
        # Also after an error, whose traceback would keep it.
        with contextlib.closing(stream):
            for wanted in range(self._count):
                while not arrivals.has(wanted):
                    if arrivals.is_lost(wanted):
                        read_here += 1
                        arrivals.fill(wanted, self._read_here(wanted))
                        continue
                    self._check_silence(arrivals)
                    begin = time.monotonic()
                    is_tick, number, images = self._next(stream)
                    arrivals.waited(time.monotonic() - begin)
                    if not is_tick:
                        arrivals.add(int(number), images)
                yield arrivals.take(wanted)
        if read_here:
            logging.warning(
                "%d of %d chunks of images did not come from %s, and were read "
                "here: a worker is gone, or much slower than others.",
                read_here,
                self._count,
                address,
            )

    def _check_silence(self, arrivals: Arrivals) -> None:
        if arrivals.silent_s > SILENCE_S:
            address = self._service.address
            raise ConnectionError(
                f"Expected images from the service {address}. Received: "
                f"nothing for {SILENCE_S:.0f} s. " + _ADVICE.format(address)
            )

    def _next(self, stream: Iterator[tuple]) -> tuple:
        try:
            # Without an end: ticks go on.
            return next(stream)
        except tf.errors.OpError as error:
            raise _failed(error, self._service.address) from error

    def _dataset(self) -> tf.data.Dataset:
        """Returns the numbered chunks, in the graph that workers run."""
        starts = np.arange(self._count, dtype=np.int64) * self._images
        places, images = self._places, self._images
        columns = (places.file, places.offset, places.length, places.digest)
        # One row for each chunk; the last one may be shorter.
        padded = [
            np.pad(column, (0, self._count * images - len(places))).reshape(
                self._count, images
            )
            for column in columns
        ]
        counts = np.minimum(len(places) - starts, images)
        paths = tf.constant(places.paths)
        versions = tf.constant(image_workers.VERSIONS)

        @tf.autograph.experimental.do_not_convert
        def load(number: tf.Tensor, count: tf.Tensor, *row: tf.Tensor) -> tuple:
            (encoded,) = tf.raw_ops.PyFunc(
                input=[versions, paths, *(column[:count] for column in row)],
                token=image_workers.READ,
                Tout=[tf.string],
            )
            decoded = tf.map_fn(
                self._decode,
                tf.ensure_shape(encoded, [None]),
                fn_output_signature=tf.TensorSpec((*self._size, 3), tf.uint8),
                parallel_iterations=1,
            )
            return number, decoded

        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = self._service.threads
        return (
            tf.data.Dataset.from_tensor_slices(
                (np.arange(self._count), counts, *padded)
            )
            .map(load, num_parallel_calls=self._service.threads)
            .with_options(options)
        )

    def _decode(self, encoded: tf.Tensor) -> tf.Tensor:
        height, width = self._size
        return image_decoding.load(encoded, height=height, width=width)

    def _read_here(self, number: int) -> tf.Tensor:
        """Reads a chunk as a worker does."""
        start = number * self._images
        rows = np.arange(start, min(start + self._images, len(self._places)))
        try:
            encoded = image_workers.read_images(self._places[rows])
        except ValueError as error:
            raise tf.errors.InvalidArgumentError(
                None, None, str(error)
            ) from error
        return tf.stack([self._decode(tf.constant(image)) for image in encoded])


def _whole(path: object) -> str:
    """Returns a path that does not depend on the current folder."""
    if remote_files.is_remote(path):
        return str(path)
    return os.path.abspath(str(path))


def _failed(error: tf.errors.OpError, address: str) -> Exception:
    """Makes the error for what a service raised."""
    if isinstance(
        error,
        tf.errors.DataLossError
        | tf.errors.FailedPreconditionError
        | tf.errors.InvalidArgumentError,
    ):
        return error  # of an image
    reason = next(
        (line for line in str(error).splitlines() if "worker" in line),
        str(error).splitlines()[0],
    )
    return ConnectionError(
        f"Expected images from the service {address}. Received: {reason}. "
        + _ADVICE.format(address)
    )

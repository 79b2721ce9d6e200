"""A model on a TF Serving as a callable, like `Servable` in this process.

An export answers every image with the fingerprint of its model. So the client
knows which model it speaks to without another request, and notices when another
model answers: a new version in the middle of a run, or servers behind one
address that do not agree.

A call is cut into requests of a few images, and several requests are sent at a
time; a server with batching merges them. A request is sent again, after a pause
that doubles, if the server is down or overloaded, and never after any other
failure. Time limits hold for each request, and for a call with all its requests
and pauses.
"""

import concurrent.futures
import random
import time
from collections.abc import Iterator, Sequence

import numpy as np

from sare_tf.serving import grpc_and_rest
from sare_tf.serving.file_embedding import EmbedsFiles
from sare_tf.serving.server import Server, connect

_OUTPUTS = ("descriptor", "fingerprint", "valid")


class RemoteServable(EmbedsFiles):
    """The model of a TF Serving.

    Call arguments:
        image_bytes: JPEG or PNG bytes of B images; B may be 0.

    Output:
        Float32 [B, dimension], rows of unit length, and bool [B], whether each
        image could be decoded. The row of an image that could not is all zeros.

    Attributes:
        path: the address of the server.
        source: the server, for `load` on other machines.
        dimension: the descriptor length.
        fingerprint: hex digest of the model.

    Args:
        server: the server.

    Raises:
        ImportError: gRPC, and tensorflow-serving-api is not installed.
        FileNotFoundError: a certificate is absent.
        ConnectionError: the server is down, or stays overloaded.
        TimeoutError: no answer in time.
        ValueError: an address that cannot be read, a server that refuses,
            answers nonsense, or serves another model.
    """

    def __init__(self, server: Server):
        self.path = server.address
        self.source = server
        self._client = connect(server)
        self.dimension = None
        self.fingerprint = None
        # No image: every export answers it with zeros.
        answer = self._ask([b""], time.monotonic() + server.timeout_s)
        self.dimension = answer["descriptor"].shape[1]
        self.fingerprint = answer["fingerprint"][0]
        if server.fingerprint not in (None, self.fingerprint):
            raise ValueError(
                "Expected the model of --export, with fingerprint "
                f"{server.fingerprint[:12]}. Received: server={self.path!r} "
                f"with {self.fingerprint[:12]}. Name the version that is "
                "served, or give --export= to leave it out."
            )

    def __call__(
        self, image_bytes: Sequence[bytes]
    ) -> tuple[np.ndarray, np.ndarray]:
        deadline = time.monotonic() + self.source.timeout_s
        requests = list(self._requests(image_bytes))
        descriptors = np.zeros((len(image_bytes), self.dimension), np.float32)
        valid = np.zeros(len(image_bytes), bool)
        with concurrent.futures.ThreadPoolExecutor(
            self.source.requests_in_flight
        ) as pool:
            answers = pool.map(
                lambda rows: self._ask(image_bytes[rows], deadline), requests
            )
            # An error cancels the requests that have not begun.
            for rows, answer in zip(requests, answers, strict=True):
                descriptors[rows] = answer["descriptor"]
                valid[rows] = answer["valid"]
        return descriptors, valid

    def _requests(self, image_bytes: Sequence[bytes]) -> Iterator[slice]:
        """Yields the images of each request of a call."""
        most = self.source.mebibytes_per_request * (1 << 20)
        start = size = 0
        for row, image in enumerate(image_bytes):
            full = row - start == self.source.images_per_request
            if row > start and (full or size + len(image) > most):
                yield slice(start, row)
                start, size = row, 0
            size += len(image)
        if start < len(image_bytes):
            yield slice(start, len(image_bytes))

    def _ask(
        self, image_bytes: Sequence[bytes], deadline: float
    ) -> dict[str, np.ndarray]:
        """Sends a request, again if the failure may pass."""
        server = self.source
        for attempt in range(server.attempts):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(f"{server.timeout_s:g} s for all requests")
            timeout_s = min(left, server.request_timeout_s)
            try:
                answer = self._client.predict(image_bytes, timeout_s)
            except grpc_and_rest.Unavailable as error:
                refused = error
            except TimeoutError as error:
                raise self._late(f"{timeout_s:.3g} s ({error})") from error
            except ConnectionError as error:
                raise ConnectionError(
                    f"Expected a secure connection to {self.path!r}. "
                    f"Received: {error}. Check the certificates."
                ) from error
            except ValueError as error:
                raise ValueError(
                    f"Expected an answer of an export of sare_tf. Received: "
                    f"{error} of server={self.path!r}. Check the address, the "
                    "model's name and version, and what is served there."
                ) from error
            else:
                return self._check(answer, len(image_bytes))
            # At random, so that clients do not come back all at once.
            pause = server.backoff_s * 2**attempt * random.uniform(0.5, 1)
            if attempt + 1 < server.attempts:
                time.sleep(max(0, min(pause, deadline - time.monotonic())))
        raise ConnectionError(
            f"Expected a TF Serving at server={self.path!r}. Received: "
            f"{refused}, {server.attempts} times. Check that it runs, is done "
            "loading and is not overloaded."
        ) from refused

    def _late(self, limit: str) -> TimeoutError:
        return TimeoutError(
            f"Expected an answer of server={self.path!r} in time. Received: "
            f"none within {limit}. Give it more (--server_request_timeout_s, "
            "--server_timeout_s), or send it fewer images at a time "
            "(--server_images_per_request)."
        )

    def _check(
        self, answer: dict[str, np.ndarray], count: int
    ) -> dict[str, np.ndarray]:
        """Refuses an answer that no export gives, or that of another model.

        Returns:
            descriptor, float32 [B, D]; valid, bool [B]; fingerprint, B texts.
        """
        if sorted(answer) != list(_OUTPUTS):
            raise self._nonsense(
                f"the outputs {', '.join(_OUTPUTS)}",
                ", ".join(sorted(answer)) or "none",
            )
        descriptors = answer["descriptor"]
        shape = (count, self.dimension)
        if self.dimension is None and descriptors.ndim == 2:
            shape = (count, max(1, descriptors.shape[1]))
        # REST knows no types: numbers are float64, or integers if all are.
        if descriptors.shape != shape or descriptors.dtype.kind not in "fi":
            raise self._nonsense(
                f"descriptors, numbers {list(shape)}",
                f"{descriptors.dtype} {list(descriptors.shape)}",
            )
        with np.errstate(over="ignore"):
            descriptors = descriptors.astype(np.float32)
        if not np.isfinite(descriptors).all():
            raise self._nonsense("finite descriptors", "NaN or infinity")
        valid = answer["valid"]
        if valid.shape != (count,) or valid.dtype != bool:
            raise self._nonsense(
                f"valid, bool [{count}]", f"{valid.dtype} {list(valid.shape)}"
            )
        # Bytes over gRPC, words over REST.
        names = [
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name
            for name in answer["fingerprint"].reshape(-1).tolist()
        ]
        if len(names) != count or not all(
            isinstance(name, str) and name for name in names
        ):
            raise self._nonsense(f"{count} fingerprints", repr(names)[:80])
        first = self.fingerprint or names[0]
        others = set(names) - {first}
        if others:
            raise ValueError(
                "Expected answers of one model, with fingerprint "
                f"{first[:12]}. Received: {min(others)[:12]} of "
                f"server={self.path!r}, which changed its version meanwhile. "
                "Start again, or name a version at the end of the address, "
                "/v1/models/NAME/versions/N."
            )
        return {
            "descriptor": descriptors,
            "fingerprint": names,
            "valid": valid,
        }

    def _nonsense(self, expected: str, received: str) -> ValueError:
        return ValueError(
            f"Expected {expected}. Received: {received} of "
            f"server={self.path!r}. Serve an export of sare_tf there."
        )

"""A model on a TF Serving as a callable, as `serving.Servable` is one.

An export answers every image with the fingerprint of its model. So the client
knows without asking for more which model it speaks to, and notices when
another one answers: a new version in the middle of a run, or servers behind
one address that do not agree.

A call is cut into requests of a few images, of which several are under way at
a time; a server with batching merges them. A request is tried again, after a
pause that doubles, where the server is down or has too much to do; never after
any other failure. Times are limits of a request and of a call with all its
requests and pauses.
"""

import concurrent.futures
import dataclasses
import random
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sare_tf.serving import grpc_and_rest

_SCHEMES = ("grpc", "grpcs", "http", "https")
_OUTPUTS = ("descriptor", "fingerprint", "valid")
_DEFAULT_MODEL = "sare_tf"
# The path is that of the REST API; a proxy's own may stand before it.
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?P<host>[^/?#@\s]+)"
    r"((?P<prefix>/[^:?#\s]*?)?/v1/models/(?P<model>[^/:?#\s]+)"
    r"(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:?#\s]+))?)?/?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A TF Serving and how to speak to it.

    Attributes:
        address: `grpc://host:8500` or `http://host:8501`, with TLS `grpcs://`
            or `https://`. The model is `sare_tf` unless the address ends as
            the REST API's do: `/v1/models/NAME`, and `/versions/2` or
            `/labels/stable` after it, for gRPC as well.
        root_certificates: PEM file, for TLS; None: the usual ones.
        certificate: PEM file, where the server asks who the client is.
        private_key: PEM file, of that certificate.
        images_per_request: at most; not above the server's `max_batch_size`.
        mebibytes_per_request: at most, of encoded images; a larger image goes
            alone.
        requests_in_flight: of a call, at a time.
        request_timeout_s: seconds until the answer of a request.
        timeout_s: seconds until that of a call.
        attempts: of a request.
        backoff_s: longest pause before the second attempt; each later one
            doubles it.
        fingerprint: of the model that is expected there; None: any.
    """

    address: str
    root_certificates: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None
    images_per_request: int = 8
    mebibytes_per_request: float = 8.0
    requests_in_flight: int = 4
    request_timeout_s: float = 60.0
    timeout_s: float = 300.0
    attempts: int = 6
    backoff_s: float = 0.5
    fingerprint: str | None = None

    def __post_init__(self):
        for field in (
            "images_per_request",
            "mebibytes_per_request",
            "requests_in_flight",
            "request_timeout_s",
            "timeout_s",
            "attempts",
        ):
            if not getattr(self, field) > 0:
                raise ValueError(
                    f"Expected a {field} above 0. Received: {field}="
                    f"{getattr(self, field)}."
                )


class RemoteServable:
    """The model of a server.

    Call arguments:
        image_bytes: JPEG or PNG bytes of B images; B may be 0.

    Output:
        As of `serving.Servable`: float32 [B, dimension], rows of unit length,
        and bool [B], whether an image could be decoded. Where it could not its
        row is all zeros.

    Attributes:
        source: `server`.

    Args:
        server: which, and how.

    Raises:
        ImportError: gRPC, and tensorflow-serving-api is not installed.
        FileNotFoundError: no such certificate.
        ConnectionError: the server is down, or has too much to do for long.
        TimeoutError: no answer in time.
        ValueError: an address that cannot be understood, a server that
            refuses, answers nonsense, or serves another model.
    """

    def __init__(self, server: Server):
        self.path = server.address
        self.source = server
        self._transport = _transport(server)
        self.dimension = None
        self.fingerprint = None
        # Not an image, which every export answers with zeros.
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
            # After an error those that have not begun are given up.
            for rows, answer in zip(requests, answers, strict=True):
                descriptors[rows] = answer["descriptor"]
                valid[rows] = answer["valid"]
        return descriptors, valid

    def _requests(self, image_bytes: Sequence[bytes]) -> Iterator[slice]:
        """Cuts a call into requests."""
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
        """One request, tried again where that may help."""
        server = self.source
        for attempt in range(server.attempts):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(f"{server.timeout_s:g} s for all requests")
            timeout_s = min(left, server.request_timeout_s)
            try:
                answer = self._transport.predict(image_bytes, timeout_s)
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
        """Refuses an answer that is not an export's, or another model's."""
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


def _transport(server: Server) -> grpc_and_rest.Grpc | grpc_and_rest.Rest:
    """Reads the address and the certificates."""
    found = _ADDRESS.fullmatch(server.address)
    parts = found.groupdict() if found else {}
    scheme, prefix = parts.get("scheme"), parts.get("prefix") or ""
    over_grpc = scheme in ("grpc", "grpcs")
    if scheme not in _SCHEMES or (
        over_grpc and (prefix or ":" not in parts["host"])
    ):
        raise ValueError(
            "Expected the address of a TF Serving: grpc://host:8500 or "
            "http://host:8501, with TLS grpcs:// or https://, and if need be "
            "/v1/models/NAME, /versions/N or /labels/LABEL after it. "
            f"Received: server={server.address!r}."
        )
    tls = _tls(server, secure=scheme in ("grpcs", "https"))
    model = parts["model"] or _DEFAULT_MODEL
    version = parts["version"] and int(parts["version"])
    if over_grpc:
        return grpc_and_rest.Grpc(
            parts["host"],
            model=model,
            version=version,
            label=parts["label"],
            tls=tls,
        )
    url = f"{scheme}://{parts['host']}{prefix}/v1/models/{model}"
    if version is not None:
        url += f"/versions/{version}"
    elif parts["label"]:
        url += f"/labels/{parts['label']}"
    return grpc_and_rest.Rest(
        url, tls=tls, connections=server.requests_in_flight
    )


def _tls(server: Server, *, secure: bool) -> list[Path | None] | None:
    given = {
        name: getattr(server, name)
        for name in ("root_certificates", "certificate", "private_key")
    }
    if not secure:
        for name, path in given.items():
            if path:
                raise ValueError(
                    "Expected an address with TLS, grpcs:// or https://, for "
                    f"certificates. Received: server={server.address!r} and "
                    f"{name}={str(path)!r}."
                )
        return None
    if bool(given["certificate"]) != bool(given["private_key"]):
        raise ValueError(
            "Expected a client certificate and its private key, or neither. "
            f"Received: certificate={server.certificate!r}, private_key="
            f"{server.private_key!r}."
        )
    paths = [path and Path(path) for path in given.values()]
    for name, path in zip(given, paths, strict=True):
        if path and not path.is_file():
            raise FileNotFoundError(
                f"Expected a PEM file. Received: {name}={str(path)!r}, which "
                "does not exist."
            )
    _check_certificates(*paths)
    return paths


def _check_certificates(
    root: Path | None, certificate: Path | None, private_key: Path | None
) -> None:
    try:
        context = ssl.create_default_context(cafile=root)
        if certificate:
            # An empty password, or OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate, private_key, password="")
    except ssl.SSLError as error:
        raise ValueError(
            "Expected certificates and a key without password, in PEM files. "
            f"Received: {root}, {certificate}, {private_key} ({error})."
        ) from error

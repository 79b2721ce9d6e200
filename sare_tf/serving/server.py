"""The address of a TF Serving, and how to connect to it."""

import dataclasses
import re
import ssl
from pathlib import Path

from sare_tf.serving import grpc_and_rest

_SCHEMES = ("grpc", "grpcs", "http", "https")
DEFAULT_MODEL = "sare_tf"
# The path is that of the REST API; a proxy's own path may stand before it.
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?P<host>[^/?#@\s]+)"
    r"((?P<prefix>/[^:?#\s]*?)?/v1/models/(?P<model>[^/:?#\s]+)"
    r"(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:?#\s]+))?)?/?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A TF Serving, and the limits of requests to it.

    Attributes:
        address: `grpc://host:8500` or `http://host:8501`, with TLS `grpcs://`
            or `https://`. The model is `sare_tf` unless the address ends as
            addresses of the REST API do: `/v1/models/NAME`, then `/versions/2`
            or `/labels/stable`, for gRPC as well.
        root_certificates: PEM file, for TLS; None: those of the system.
        certificate: PEM file of the client, if the server asks for one.
        private_key: PEM file, the key of that certificate.
        images_per_request: most images of a request; not above the server's
            `max_batch_size`.
        mebibytes_per_request: most encoded images of a request; a larger image
            has a request of its own.
        requests_in_flight: requests of a call at a time.
        request_timeout_s: seconds until the answer of a request.
        timeout_s: seconds until the answer of a call.
        attempts: how often a request is sent at most.
        backoff_s: longest pause before the second attempt; each later pause
            doubles it.
        fingerprint: of the model that is expected there; None: any.

    Raises:
        ValueError: a limit is not above 0.
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


def connect(server: Server) -> grpc_and_rest.Grpc | grpc_and_rest.Rest:
    """Makes the client of a server; nothing is sent yet.

    Raises:
        FileNotFoundError: a certificate is absent.
        ImportError: gRPC, and tensorflow-serving-api is not installed.
        ValueError: an address or certificates that cannot be used.
    """
    match = _ADDRESS.fullmatch(server.address)
    parts = match.groupdict() if match else {}
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
    model = parts["model"] or DEFAULT_MODEL
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
    """Returns the PEM files as `Grpc` takes them, after checking them."""
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

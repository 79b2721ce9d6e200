"""A TF Serving in the test's process, as far as a client can tell.

Stock TensorFlow below (the version 1 loader with the tag `serve`, a session,
as ModelServer loads a model), the official messages and services of
tensorflow-serving-api above. What the binary does with a request, after
predict_util.cc, batching_session.cc and api_rest.md of tensorflow/serving.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.server
import json
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip(
    "tensorflow_serving", reason="needs pip install 'sare_tf[serving]'"
)
import grpc  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_service_pb2_grpc,
)

_THREADS = 16
NAMES = ("sare_tf", "places")
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Refusal(Exception):
    """A gRPC code and its words."""

    def __init__(self, code: str, words: str):
        super().__init__(code, words)
        self.code = code
        self.words = words


class Version:
    """A SavedModel in a session."""

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        meta = tf.compat.v1.saved_model.load(
            self._session, ["serve"], str(folder)
        )
        self._signatures = meta.signature_def

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict:
        name = name or "serving_default"
        if name not in self._signatures:
            raise Refusal(
                "FAILED_PRECONDITION",
                f'Serving signature key "{name}" not found.',
            )
        signature = self._signatures[name]
        if inputs.keys() != signature.inputs.keys():
            raise Refusal(
                "INVALID_ARGUMENT", "input size does not match signature"
            )
        feed = {signature.inputs[k].name: v for k, v in inputs.items()}
        fetch = {k: v.name for k, v in signature.outputs.items()}
        return self._session.run(fetch, feed)


class Batcher:
    """Merges requests along their first axis, and splits what comes out.

    Waits for `wait_for` rows, at most a second. A batch is padded to one of
    the allowed sizes with its first row.
    """

    def __init__(self, run: Callable, *, allowed_sizes: list[int]):
        self.wait_for = 1
        self.merged = []  # requests and rows of each batch, padding included
        self._run = run
        self._allowed_sizes = allowed_sizes
        self._queue = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if len(images) > self._allowed_sizes[-1]:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Batch size {len(images)} is larger than max_batch_size",
            )
        future = concurrent.futures.Future()
        self._queue.put((images, future))
        return future.result()

    def _work(self) -> None:
        while True:
            taken = [self._queue.get()]
            rows = len(taken[0][0])
            until = time.monotonic() + 1
            while rows < self.wait_for:
                try:
                    left = max(0, until - time.monotonic())
                    taken.append(self._queue.get(timeout=left))
                except queue.Empty:
                    break
                rows += len(taken[-1][0])
            size = min(size for size in self._allowed_sizes if size >= rows)
            batch = np.concatenate([images for images, _ in taken])
            padded = np.concatenate([batch, [batch[0]] * (size - rows)])
            self.merged.append((len(taken), size))
            outputs = self._run(padded.astype(object))
            start = 0
            for images, future in taken:
                part = slice(start, start + len(images))
                future.set_result({k: v[part] for k, v in outputs.items()})
                start = part.stop


@dataclasses.dataclass
class Toy:
    """What a test looks at and meddles with.

    Attributes:
        grpc, rest: the addresses.
        requests: rows of each request that came, refused ones included.
        refusals: gRPC codes with which the next requests are refused.
        alter: what happens to the outputs of the others.
        before: what happens before a request is looked at.
        latest: version that is served where none is asked for.
        batcher: if requests are merged.
    """

    versions: dict[int, Version]
    labels: dict[str, int]
    grpc: str = ""
    rest: str = ""
    requests: list[int] = dataclasses.field(default_factory=list)
    refusals: list[str] = dataclasses.field(default_factory=list)
    alter: Callable[[dict], dict] = staticmethod(lambda outputs: outputs)
    before: Callable[[], None] = staticmethod(lambda: None)
    latest: int = 1
    batcher: Batcher | None = None
    _busy: threading.Semaphore = dataclasses.field(
        default_factory=lambda: threading.Semaphore(_THREADS)
    )

    def rest_of_requests(self) -> None:
        """Waits for requests that their clients have given up."""
        for _ in range(_THREADS):
            self._busy.acquire()
        self._busy.release(_THREADS)

    def predict(self, *, name, version, label, signature, inputs):
        """The outputs, and the number of the version."""
        self.requests.append(len(next(iter(inputs.values()))))
        if self.refusals:
            raise Refusal(self.refusals.pop(0), "as the test wants it")
        with self._busy:
            self.before()
        number = self.labels.get(label) if label else version or self.latest
        if name not in NAMES or number not in self.versions:
            raise Refusal(
                "NOT_FOUND", f"Servable not found for request: Latest({name})"
            )
        if self.batcher:
            outputs = self.batcher(inputs["image_bytes"])
        else:
            outputs = self.versions[number].run(signature, inputs)
        return self.alter(dict(outputs)), number


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, toy: Toy):
        self._toy = toy

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            outputs, number = self._toy.predict(
                name=spec.name,
                version=spec.version.value,
                label=spec.version_label,
                signature=spec.signature_name,
                inputs={
                    name: tf.make_ndarray(tensor)
                    for name, tensor in request.inputs.items()
                },
            )
        except Refusal as refusal:
            context.abort(getattr(grpc.StatusCode, refusal.code), refusal.words)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        for name, values in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


def _rest(toy: Toy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            state = {"version": str(toy.latest), "state": "AVAILABLE"}
            self.answer(200, {"model_version_status": [state]}, end=b"\n")

        def do_POST(self):
            body = json.loads(
                self.rfile.read(int(self.headers["Content-Length"]))
            )
            path, _, verb = self.path.partition(":")
            words = path.strip("/").split("/")
            words = words[words.index("v1") :]
            assert (words[:2], verb) == (["v1", "models"], "predict")
            named = dict([words[3:5]]) if len(words) > 3 else {}
            images = [
                base64.b64decode(row["image_bytes"]["b64"], validate=True)
                for row in body["instances"]
            ]
            try:
                outputs, _ = toy.predict(
                    name=words[2],
                    version=int(named.get("versions", 0)),
                    label=named.get("labels"),
                    signature=body.get("signature_name"),
                    inputs={"image_bytes": np.array(images, object)},
                )
            except Refusal as refusal:
                status = HTTP_STATUS[refusal.code]
                self.answer(status, {"error": refusal.words})
                return
            columns = {
                name: [
                    row.decode() if isinstance(row, bytes) else row
                    for row in values.tolist()
                ]
                for name, values in outputs.items()
            }
            rows = [
                dict(zip(columns, row, strict=True))
                for row in zip(*columns.values(), strict=False)
            ]
            self.answer(200, {"predictions": rows})

        def answer(self, status, value, *, end=b""):
            encoded = json.dumps(value).encode() + end
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_):
            pass

    return Handler


@contextlib.contextmanager
def http_server(handler, context: ssl.SSLContext | None) -> Iterator[int]:
    """Serves on a port of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    # A client that gives up is no error here.
    server.handle_error = lambda *_: None
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serve(
    *folders: Path,
    labels: dict[str, int] | None = None,
    allowed_sizes: list[int] | None = None,
    certificates: tuple[Path, Path, Path] | None = None,
) -> Iterator[Toy]:
    """Serves SavedModels as the versions 1, 2 and so on.

    Args:
        folders: of the versions.
        labels: name to version.
        allowed_sizes: of merged requests; None: requests are not merged.
        certificates: with TLS: PEM files of the server's certificate, its key
            and what clients must be signed by.
    """
    versions = {i: Version(folder) for i, folder in enumerate(folders, 1)}
    toy = Toy(versions, labels or {})
    if allowed_sizes:
        toy.batcher = Batcher(
            lambda images: versions[1].run("", {"image_bytes": images}),
            allowed_sizes=allowed_sizes,
        )
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    # As ModelServer: messages of any size.
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(pool, options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Grpc(toy), server
    )
    context = None
    if certificates:
        certificate, key, clients = certificates
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            clients.read_bytes(),
            require_client_auth=True,
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=clients
        )
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    secure = "s" if certificates else ""
    toy.grpc = f"grpc{secure}://localhost:{port}"
    server.start()
    try:
        with http_server(_rest(toy), context) as port:
            toy.rest = f"http{secure}://localhost:{port}"
            yield toy
    finally:
        server.stop(None).wait()
        pool.shutdown()

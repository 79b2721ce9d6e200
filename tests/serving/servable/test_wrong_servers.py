"""Answers, addresses and settings that cannot be."""

import http.server
import json
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import toy_server
from toy_client import BOTH, QUICK, connect, photographs

from sare_tf import serving
from sare_tf.serving import http_client


def _first_row_nan(outputs):
    outputs["descriptor"][0] = np.nan
    return outputs


@BOTH
@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (
            lambda o: {**o, "descriptor": o["descriptor"][:, 1:]},
            r"numbers \[8, 48\]. Received: float.* \[8, 47\]",
        ),
        (
            lambda o: {name: values[1:] for name, values in o.items()},
            r"numbers \[8, 48\]. Received: float.* \[7, 48\]",
        ),
        (
            lambda o: {**o, "descriptor": o["descriptor"].astype(str)},
            r"numbers \[8, 48\]. Received: [a-zO<U0-9]+ \[8, 48\]",
        ),
        (_first_row_nan, "finite descriptors. Received: NaN"),
        (
            lambda o: {**o, "valid": o["valid"].astype(int)},
            r"valid, bool \[8\]. Received: int",
        ),
        (
            lambda o: {**o, "score": o["valid"]},
            "outputs descriptor, fingerprint, valid. Received: .*score",
        ),
        (
            lambda o: {**o, "fingerprint": o["valid"]},
            r"8 fingerprints. Received: \[True",
        ),
    ],
    ids=["short", "rows", "words", "nan", "valid", "outputs", "fingerprint"],
)
def test_nonsense_is_refused(toy, protocol, alter, words):
    remote = connect(toy, protocol)
    toy.alter = alter
    with pytest.raises(ValueError, match=words) as caught:
        remote(photographs())
    assert "Serve an export of sare_tf" in str(caught.value)
    assert getattr(toy, protocol) in str(caught.value)


@BOTH
def test_a_model_that_is_no_export(toy, protocol):
    toy.alter = lambda outputs: {"probabilities": outputs["descriptor"]}
    with pytest.raises(ValueError, match="outputs .*Received: probabilities"):
        connect(toy, protocol)


@BOTH
def test_a_model_that_changes_meanwhile(toy, protocol, export, other):
    remote = connect(toy, protocol)
    toy.latest = 2
    names = [serving.load(path).fingerprint[:12] for path in (export, other)]
    with pytest.raises(ValueError, match=".*Received: ".join(names)):
        remote(photographs())
    # One that names its version does not notice.
    pinned = connect(toy, protocol, "/v1/models/sare_tf/versions/1")
    assert pinned(photographs())[1].sum() == 7


@BOTH
def test_servers_that_do_not_agree(toy, protocol):
    remote = connect(toy, protocol)

    def half(outputs):
        outputs["fingerprint"][4:] = b"another"
        return outputs

    toy.alter = half
    with pytest.raises(ValueError, match="answers of one model.*another of"):
        remote(photographs())


def _handler(status, body, *, pause_s=0.0):
    """Answers everything with the same bytes, one every so often."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "http://localhost:1/elsewhere")
            self.end_headers()
            if not pause_s:
                self.wfile.write(body)
            for byte in body if pause_s else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(pause_s)

        def log_message(self, *_):
            pass

    return Handler


def _row(descriptor, fingerprint, valid):
    row = {"descriptor": descriptor, "fingerprint": fingerprint, "valid": valid}
    return json.dumps({"predictions": [row]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>Welcome</html>", "no JSON of tensors, <html>Welcome"),
        (200, b"", "no JSON of tensors"),
        (200, b"[" * 99999, "no JSON of tensors"),
        (200, _row([[1], [1, 2]], "a", True), "no JSON of tensors"),
        (200, _row([1e300], "a", True), "NaN or infinity"),
        (200, _row([10**99], "a", True), r"numbers \[1, 1\]. Received: object"),
        (200, _row([], "a", True), r"numbers \[1, 1\]. Received: .*\[1, 0\]"),
        (200, _row([1], {"a": 1}, True), r"fingerprints. Received: \[{'a'"),
        (200, _row([1], "", True), r"fingerprints. Received: \[''"),
        (200, _row([1], "a", None), r"valid, bool \[1\]. Received: object"),
        (200, b'{"predictions": []}', "without predictions"),
        (200, b'{"predictions": [1]}', "without predictions"),
        (200, b'{"predictions": [[1, 2]]}', "without predictions"),
        (200, b'{"predictions": [{"b": 1}, {"c": 1}]}', "without predictions"),
        (200, b"[]", "without predictions"),
        (302, b"", "HTTP 302"),
        (401, b'{"error": "who are\\nyou"}', "HTTP 401: who are you"),
        (500, b"\xff" * 9999, "HTTP 500"),
    ],
)
def test_http_servers_of_another_kind(status, body, words):
    with toy_server.http_server(_handler(status, body), None) as port:
        with pytest.raises(ValueError, match=words) as caught:
            serving.load(f"http://localhost:{port}")
    assert len(str(caught.value)) < 600


def test_a_server_that_never_comes_to_an_end(monkeypatch):
    # 1,000 bytes in 20 s, of which the client waits for 0.3 s.
    handler = _handler(200, 1000 * b" ", pause_s=0.02)
    with toy_server.http_server(handler, None) as port:
        server = serving.Server(
            address=f"http://localhost:{port}", request_timeout_s=0.3
        )
        with pytest.raises(TimeoutError, match="half an answer"):
            serving.load(server)
    monkeypatch.setattr(http_client, "ANSWER_BYTES", 99)
    with toy_server.http_server(_handler(200, 1000 * b" "), None) as port:
        with pytest.raises(ValueError, match="more than 99 bytes"):
            serving.load(f"http://localhost:{port}")


def test_a_server_that_hangs_up():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.close_connection = True

    with toy_server.http_server(Handler, None) as port:
        address = f"http://localhost:{port}"
        with pytest.raises(ConnectionError, match="6 times"):
            serving.load(serving.Server(address=address, **QUICK))


def test_a_grpc_tensor_that_is_none(toy, monkeypatch):
    remote = connect(toy, "grpc")

    def broken(values):
        tensor = tf.compat.v1.make_tensor_proto(np.zeros(3, np.float32))
        tensor.tensor_shape.dim[0].size = 5
        tensor.tensor_content = b"123"
        return tensor

    class Tensors:
        make_tensor_proto = staticmethod(broken)
        make_ndarray = tf.make_ndarray

    monkeypatch.setattr(toy_server, "tf", Tensors)
    with pytest.raises(ValueError, match="an output that is no tensor"):
        remote(photographs())


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/export",
        "grpc://localhost",
        "grpc://localhost:1/prefix/v1/models/x",
        "http://",
        "http://name:secret@localhost:1",
        "http://localhost:1/x",
        "http://localhost:1/v1/models/x:predict",
        "http://localhost:1/v1/models/x/versions/one",
        "http://localhost:1/v1/models/x?y=1",
    ],
)
def test_addresses_that_cannot_be_understood(address):
    with pytest.raises(ValueError, match="address of a TF Serving: .*server="):
        serving.load(address)


@pytest.mark.parametrize(
    "name", ["attempts", "timeout_s", "images_per_request"]
)
def test_settings_that_cannot_be(name):
    with pytest.raises(ValueError, match=f"{name} above 0. Received: {name}=0"):
        serving.Server(address="grpc://localhost:1", **{name: 0})


def test_grpc_needs_the_stubs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"sare_tf\[serving\]"):
        serving.load("grpc://localhost:1")

"""The client against a server of the official messages over the toy export."""

import concurrent.futures
import contextlib
import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_executor
import toy_search
from absl import flags
from absl.testing import flagsaver
from paths import ROOT

from sare_tf import evaluate, export_vectors, index, locate, serving
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions
from sare_tf.serving import http_client, warmup_requests
from sare_tf.serving import remote as remote_servable
from sare_tf.serving.options import ServableOptions

pytest.importorskip(
    "tensorflow_serving", reason="needs pip install 'sare_tf[serving]'"
)
import toy_server  # noqa: E402

FLAGS = flags.FLAGS
PROTOCOLS = ("grpc", "rest")
# Tests do not wait.
QUICK = {"backoff_s": 0.001}
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return toy_search.export(tmp_path_factory.mktemp("toy") / "export")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "other"
    return toy_search.export(folder, length=1.00001)


@pytest.fixture(scope="module")
def shared(export, other):
    """A server for all, version 2 being another model."""
    folders = (export / "1", other / "1")
    with toy_server.serve(*folders, labels={"stable": 2}) as toy:
        yield toy


@pytest.fixture
def toy(shared):
    """The server as it was at first."""
    yield shared
    shared.rest_of_requests()
    fresh = toy_server.Toy(shared.versions, shared.labels)
    for name in ("requests", "refusals", "alter", "before", "latest"):
        setattr(shared, name, getattr(fresh, name))


def connect(toy, protocol, path="", **options):
    address = getattr(toy, protocol) + path
    options = {**QUICK, **options}
    return serving.load(serving.Server(address=address, **options))


def photographs(count=7):
    """Encoded images of which number 2 is not one."""
    encoded = [toy_search.jpeg(place, 0) for place in range(count)]
    return [*encoded[:2], b"no image", *encoded[2:]]


@BOTH
def test_answers_as_the_local_export_does(toy, export, protocol):
    local = serving.load(export)
    remote = serving.load(getattr(toy, protocol))
    assert remote.dimension == local.dimension == toy_search.DIMENSION
    assert remote.fingerprint == local.fingerprint
    assert remote.path == getattr(toy, protocol)
    descriptors, valid = remote(photographs(30))
    expected, expected_valid = local(photographs(30))
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    np.testing.assert_array_equal(valid, expected_valid)
    assert valid.tolist() == [True, True, False, *28 * [True]]
    # One at first, to learn what it is.
    assert sorted(toy.requests) == sorted([1, 8, 8, 8, 7])


@BOTH
def test_no_images(toy, protocol):
    remote = connect(toy, protocol)
    descriptors, valid = remote([])
    assert (descriptors.shape, valid.shape) == ((0, toy_search.DIMENSION), (0,))
    assert toy.requests == [1]


@BOTH
def test_requests_are_limited_in_images_and_bytes(toy, protocol):
    encoded = photographs(9)
    remote = connect(toy, protocol, images_per_request=4, requests_in_flight=1)
    expected, _ = remote(encoded)
    assert toy.requests == [1, 4, 4, 2]
    # Room for two photographs, and one that is larger than a request.
    limit = 2.5 * len(encoded[0]) / (1 << 20)
    remote = connect(
        toy, protocol, mebibytes_per_request=limit, requests_in_flight=1
    )
    toy.requests.clear()
    large = encoded[0] + bytes(3 * len(encoded[0]))
    found, valid = remote([large, *encoded[3:]])
    assert toy.requests == [1, 2, 2, 2, 1]
    assert valid.all()
    np.testing.assert_allclose(found[1:], expected[3:], atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/v1/models/places", 1),
        ("/v1/models/places/", 1),
        ("/v1/models/sare_tf/versions/2", 2),
        ("/v1/models/sare_tf/labels/stable", 2),
    ],
)
def test_models_and_their_versions(toy, protocol, path, version, export, other):
    expected = serving.load((export, other)[version - 1]).fingerprint
    assert connect(toy, protocol, path).fingerprint == expected


def test_a_proxy_may_add_to_the_path(toy, export):
    remote = connect(toy, "rest", "/behind/a/proxy/v1/models/places")
    assert remote.fingerprint == serving.load(export).fingerprint


@BOTH
@pytest.mark.parametrize("path", ["/v1/models/x", "/v1/models/places/labels/x"])
def test_a_model_that_is_not_there(toy, protocol, path):
    with pytest.raises(ValueError, match="Servable not found.*model's name"):
        connect(toy, protocol, path)
    assert len(toy.requests) == 1


@BOTH
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_may_pass_is_tried_again(toy, export, protocol, code):
    remote = connect(toy, protocol, requests_in_flight=1, images_per_request=4)
    toy.refusals.extend([code, code])
    descriptors, _ = remote(photographs())
    expected, _ = serving.load(export)(photographs())
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    assert toy.requests == [1, 4, 4, 4, 4]


@BOTH
@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT"])
def test_other_failures_are_not_tried_again(toy, protocol, code):
    toy.refusals.append(code)
    with pytest.raises(ValueError, match="Received: .*as the test wants it"):
        connect(toy, protocol)
    assert len(toy.requests) == 1


@BOTH
def test_attempts_come_to_an_end(toy, protocol):
    toy.refusals.extend(9 * ["UNAVAILABLE"])
    with pytest.raises(ConnectionError, match="as the test wants it, 4 times"):
        connect(toy, protocol, attempts=4)
    assert len(toy.requests) == 4


def test_pauses_double_at_random(toy, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    toy.refusals.extend(5 * ["UNAVAILABLE"])
    connect(toy, "rest", backoff_s=1.0)
    for number, pause in enumerate(pauses):
        assert 0.5 * 2**number <= pause <= 2**number
    assert len(pauses) == 5
    assert len({pause / 2**number for number, pause in enumerate(pauses)}) > 1


@BOTH
def test_a_server_that_is_down(export, protocol):
    with toy_server.serve(export / "1") as gone:
        pass
    with pytest.raises(ConnectionError, match="Check that it runs") as caught:
        connect(gone, protocol, attempts=2)
    assert "2 times" in str(caught.value)


@contextlib.contextmanager
def no_answers(toy):
    """The server gets requests, and answers none of them meanwhile."""
    released = threading.Event()
    toy.before = released.wait
    try:
        yield
    finally:
        released.set()


def limit(remote, **limits):
    """Limits that connecting should not have, on a machine that is busy."""
    remote.source = dataclasses.replace(remote.source, **limits)


@BOTH
def test_a_server_that_is_slow(toy, protocol):
    remote = connect(toy, protocol)
    limit(remote, request_timeout_s=0.1)
    with (
        no_answers(toy),
        pytest.raises(TimeoutError, match="none within 0.1 s"),
    ):
        remote(photographs())


@BOTH
def test_a_server_that_finds_itself_slow(toy, protocol):
    toy.refusals.append("DEADLINE_EXCEEDED")
    with pytest.raises(TimeoutError, match="none within .*the test wants it"):
        connect(toy, protocol)
    assert len(toy.requests) == 1


@BOTH
def test_a_call_has_a_limit_beside_its_requests(toy, protocol):
    remote = connect(toy, protocol, images_per_request=1, requests_in_flight=1)
    limit(remote, timeout_s=0.1)
    toy.requests.clear()
    with no_answers(toy), pytest.raises(TimeoutError, match="within"):
        remote(photographs(20))
    # Of 21: after one that is late no other is sent.
    assert len(toy.requests) <= 1


class Clock:
    """Stands for the module `time`: only pauses take time."""

    def __init__(self):
        self._now = 0.0

    def monotonic(self):
        return self._now

    def sleep(self, seconds):
        self._now += seconds


def test_pauses_count_for_the_limit_of_a_call(toy, monkeypatch):
    remote = connect(toy, "grpc", timeout_s=60.0, backoff_s=1000.0)
    monkeypatch.setattr(remote_servable, "time", Clock())
    toy.refusals.append("UNAVAILABLE")
    with pytest.raises(TimeoutError, match="60 s for all requests"):
        remote(photographs())


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


# With TLS: the server's certificate, and one that it asks clients for.


@pytest.fixture(scope="module")
def tls(export, tmp_path_factory):
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    paths = {"root_certificates": folder / "root.pem"}
    authority.cert_pem.write_to_path(str(paths["root_certificates"]))
    for name, host in (("server", "localhost"), ("client", "client.test")):
        issued = authority.issue_cert(host)
        issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    stranger = folder / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    paths["certificate"] = folder / "client.pem"
    paths["private_key"] = folder / "client.key"
    certificates = (
        folder / "server.pem",
        folder / "server.key",
        paths["root_certificates"],
    )
    with toy_server.serve(export / "1", certificates=certificates) as toy:
        yield toy, paths, stranger


@BOTH
def test_tls(tls, export, protocol):
    toy, paths, _ = tls
    assert "s://" in getattr(toy, protocol)
    remote = connect(toy, protocol, **paths)
    expected, _ = serving.load(export)(photographs())
    np.testing.assert_allclose(remote(photographs())[0], expected, atol=1e-6)


@BOTH
def test_tls_that_fails(tls, protocol):
    toy, paths, stranger = tls
    options = {"attempts": 2, "request_timeout_s": 5.0}
    root = {"root_certificates": paths["root_certificates"]}
    toy.requests.clear()
    for certificates in ({**paths, "root_certificates": stranger}, root, {}):
        with pytest.raises(ConnectionError, match="Expected .*localhost"):
            connect(toy, protocol, **certificates, **options)
    assert not toy.requests


def test_certificates_that_cannot_be(tls):
    toy, paths, _ = tls

    def load(scheme="grpcs", **options):
        address = f"{scheme}://localhost:1"
        return serving.load(serving.Server(address=address, **options))

    with pytest.raises(ValueError, match="address with TLS.*private_key="):
        load("http", private_key=paths["private_key"])
    with pytest.raises(ValueError, match="and its private key, or neither"):
        load(certificate=paths["certificate"])
    nothing = paths["certificate"].with_name("nothing.pem")
    with pytest.raises(FileNotFoundError, match="root_certificates=.*nothing"):
        load(root_certificates=nothing)
    key = paths["private_key"]
    with pytest.raises(ValueError, match="certificates and a key .* in PEM"):
        load(root_certificates=key)
    with pytest.raises(ValueError, match="certificates and a key .* in PEM"):
        load(certificate=key, private_key=key)


# As the server does it: requests merged, and replayed before the first.


@BOTH
def test_requests_that_are_merged_do_not_notice(export, protocol):
    local = serving.load(export)
    with toy_server.serve(export / "1", allowed_sizes=[8, 16, 32]) as toy:
        remotes = [connect(toy, protocol) for _ in range(4)]
        toy.batcher.merged.clear()
        toy.batcher.wait_for = 20
        calls = [
            [b"none", *(toy_search.jpeg(place, client) for place in range(4))]
            for client in range(4)
        ]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda r, c: r(c), remotes, calls))
    assert toy.batcher.merged == [(4, 32)]
    for call, (descriptors, valid) in zip(calls, answers, strict=True):
        expected, expected_valid = local(call)
        np.testing.assert_allclose(descriptors, expected, atol=2e-6)
        np.testing.assert_array_equal(valid, expected_valid)


@BOTH
def test_a_request_that_is_larger_than_the_servers_batches(export, protocol):
    with toy_server.serve(export / "1", allowed_sizes=[2, 4]) as toy:
        remote = connect(toy, protocol)
        with pytest.raises(ValueError, match="larger than max_batch_size"):
            remote(photographs())
        remote = connect(toy, protocol, images_per_request=4)
        assert remote(photographs())[1].sum() == 7


def test_requests_to_warm_up_with_are_replayed(export, tmp_path):
    """ModelServer reads a TFRecord of PredictionLog and runs each."""
    from tensorflow_serving.apis import prediction_log_pb2

    folder = tmp_path / "1"
    shutil.copytree(export / "1", folder)
    warmup_requests.write(folder, height=48, width=64)
    version = toy_server.Version(folder)
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    sizes = []
    for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        # Nothing in it that those messages do not know.
        assert log.SerializeToString(deterministic=True) == record
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        outputs = version.run(request.model_spec.signature_name, inputs)
        assert outputs["valid"].all()
        sizes.append(len(outputs["descriptor"]))
    assert sizes == [1, 8]


# The stages, with --server.


@pytest.fixture(scope="module")
def stages(export, tmp_path_factory):
    root = tmp_path_factory.mktemp("stages")
    records = toy_search.records(root)
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    if not FLAGS.is_parsed():
        FLAGS.mark_as_parsed()
    return {"root": root, "records": records, "index": root / "index"}


@BOTH
def test_stages_give_the_same_by_a_server(
    toy, stages, export, protocol, tmp_path, capsys
):
    local = Index.open(stages["index"])
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(toy_search.jpeg(2, 99))
    with flagsaver.as_parsed(
        server=getattr(toy, protocol),
        records=str(stages["records"]),
        index=str(tmp_path / "index"),
        evaluation=str(tmp_path / "evaluation"),
        server_images_per_request="3",
        out=str(tmp_path / "vectors"),
        layout="numpy",
        k="3",
    ):
        index.main(["index"])
        evaluate.main(["evaluate"])
        locate.main(["locate", str(photo)])
        export_vectors.main(["export_vectors"])
    remote = Index.open(tmp_path / "index")
    np.testing.assert_allclose(remote.descriptors, local.descriptors, atol=1e-6)
    # Digests differ as the last bits of the descriptors do.
    for opened in (remote, local):
        del opened.metadata["segments"][0]["digests"]
    assert remote.metadata == local.metadata
    assert (tmp_path / "evaluation" / "report.html").is_file()
    opened = Records(stages["records"])
    images = opened.read_images(opened.rows("test", "query"))
    np.testing.assert_allclose(
        np.load(tmp_path / "vectors" / "queries.npy"),
        serving.load(export)(list(images))[0],
        atol=1e-6,
    )
    assert capsys.readouterr().out.count("@5002") == 3
    assert max(toy.requests) == 3
    # Either index is up to date for the other: one model.
    modified = (tmp_path / "index" / "index.json").stat().st_mtime_ns
    index.run(
        IndexOptions(
            records=stages["records"], export=export, index=tmp_path / "index"
        )
    )
    assert (tmp_path / "index" / "index.json").stat().st_mtime_ns == modified


@BOTH
def test_workers_embed_parts_by_a_server(toy, stages, protocol, tmp_path):
    index.run(
        IndexOptions(
            records=stages["records"],
            server=getattr(toy, protocol),
            index=tmp_path / "index",
        ),
        executor=toy_executor.PicklingExecutor(),
    )
    remote = Index.open(tmp_path / "index")
    local = Index.open(stages["index"])
    np.testing.assert_allclose(remote.descriptors, local.descriptors, atol=1e-6)
    # Digests differ as the last bits of the descriptors do.
    for opened in (remote, local):
        del opened.metadata["segments"][0]["digests"]
    assert remote.metadata == local.metadata


@BOTH
def test_an_index_of_another_model_is_refused(toy, stages, protocol):
    address = getattr(toy, protocol) + "/v1/models/sare_tf/versions/2"
    with pytest.raises(ValueError, match="export that built.*versions/2"):
        evaluate.run(
            EvaluationOptions(
                index=stages["index"],
                records=stages["records"],
                export=address,
                evaluation=stages["root"] / "evaluation",
            )
        )


def test_the_server_goes_before_an_export_of_the_same_model(
    toy, export, other, tmp_path
):
    def load(**values):
        with flagsaver.as_parsed(**values):
            return serving.load(serving.named(ServableOptions.from_flags()))

    assert load(export=str(export)).path == export / "1"
    server = {"server": toy.grpc}
    assert load(**server, export=str(export)).path == toy.grpc
    assert load(**server, export=str(tmp_path / "nothing")).path == toy.grpc
    assert load(**server, export="").path == toy.grpc
    with pytest.raises(ValueError, match="model of --export.*give --export= "):
        load(**server, export=str(other))
    with (
        flagsaver.flagsaver(server=None, export=None),
        pytest.raises(ValueError, match="Received no value for: --export"),
    ):
        ServableOptions.from_flags().require_model()


def _documented(toy, language):
    """The examples, with this server's addresses."""
    for name in ("docs/serving.md", "configs/serving/README.md"):
        text = (ROOT / name).read_text("utf-8")
        for block in text.split("```")[1::2]:
            named, _, code = block.partition("\n")
            if named == language and "localhost:850" in code:
                code = code.replace("grpc://localhost:8500", toy.grpc)
                yield code.replace("http://localhost:8501", toy.rest)


def test_python_examples_of_the_documentation(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        Path(name).write_bytes(toy_search.jpeg(0, 0))
    examples = list(_documented(toy, "python"))
    assert len(examples) == 2
    for code in examples:
        names = {}
        exec(compile(code, "an example", "exec"), names)
        assert names["errors"] == {}
        assert names["descriptors"].shape == (2, toy_search.DIMENSION)
    assert len(toy.requests) == 4


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_example_of_the_documentation(toy, export, tmp_path):
    (tmp_path / "PHOTO.jpg").write_bytes(toy_search.jpeg(0, 0))
    (code,) = [c for c in _documented(toy, "") if "base64" in c]
    done = subprocess.run(
        ["bash", "-ec", code], cwd=tmp_path, capture_output=True, check=True
    )
    status, _, answer = done.stdout.decode().partition("\n")
    assert json.loads(status)["model_version_status"][0]["state"] == "AVAILABLE"
    (row,) = json.loads(answer)["predictions"]
    expected, _ = serving.load(export)([toy_search.jpeg(0, 0)])
    np.testing.assert_allclose(row["descriptor"], expected[0], atol=1e-6)
    assert row["valid"]


@pytest.mark.skipif(
    "SARE_TF_SERVER" not in os.environ,
    reason="SARE_TF_SERVER is no address of a TF Serving to talk to",
)
def test_a_server_that_runs():
    """SARE_TF_SERVER_EXPORT, if given, is the export that it serves."""
    remote = serving.load(os.environ["SARE_TF_SERVER"])
    encoded = photographs(20)
    descriptors, valid = remote(encoded)
    assert valid.tolist() == [True, True, False, *18 * [True]]
    norms = np.linalg.norm(descriptors, axis=1)
    np.testing.assert_allclose(norms[valid], 1, atol=1e-4)
    np.testing.assert_array_equal(descriptors[~valid], 0)
    if export := os.environ.get("SARE_TF_SERVER_EXPORT"):
        local = serving.load(export)
        assert remote.fingerprint == local.fingerprint
        # The server's kernels are those of another build.
        np.testing.assert_allclose(descriptors, local(encoded)[0], atol=1e-4)

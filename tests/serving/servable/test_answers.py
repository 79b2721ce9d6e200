"""Answers of a server of the official messages over the toy export."""

import concurrent.futures
import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
import toy_search
import toy_server
from toy_client import BOTH, connect, photographs

from sare_tf import serving
from sare_tf.serving import warmup_requests


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

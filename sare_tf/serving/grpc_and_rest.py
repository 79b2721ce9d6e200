"""Clients of a TF Serving, by gRPC and by REST, one request at a time.

Both take the bytes of images and return all outputs of the signature
`serving_default` as arrays. Both raise one of

    Unavailable    the server is down or overloaded (UNAVAILABLE,
                   RESOURCE_EXHAUSTED, 429, 503): worth another attempt
    TimeoutError   no answer in time
    ValueError     the server refused, or its answer cannot be understood

Source: predict.proto, prediction_service.proto and api_rest.md of
tensorflow/serving.
"""

import base64
import http
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from sare_tf.serving import http_client
from sare_tf.serving.http_client import Unavailable

_SIGNATURE = "serving_default"
# gRPC pauses longer and longer before it connects again. Ours: no longer than
# the pauses of `RemoteServable`.
_RECONNECT_MS = {"initial": 100, "min": 100, "max": 2000}


class Grpc:
    """The PredictionService over gRPC.

    Args:
        target: host and port.
        model: name of the model.
        version: number of the version; None: the server chooses.
        label: label of the version, instead of a number.
        tls: None for plain text, else PEM files of root certificates, client
            certificate and private key, each of which may be None.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: int | None,
        label: str | None,
        tls: Sequence[Path | None] | None,
    ):
        try:
            import grpc
            from tensorflow_serving.apis import (
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ImportError(
                "Expected the package tensorflow-serving-api for gRPC. "
                f"Received: {error}. Run pip install 'sare_tf[serving]', or "
                "use the server's REST address, http://."
            ) from error
        options = [
            # The caller tries again; gRPC would do so as well.
            ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", http_client.ANSWER_BYTES),
            *(
                (f"grpc.{name}_reconnect_backoff_ms", milliseconds)
                for name, milliseconds in _RECONNECT_MS.items()
            ),
        ]
        if tls is None:
            channel = grpc.insecure_channel(target, options)
        else:
            root, certificate, key = (
                path and path.read_bytes() for path in tls
            )
            credentials = grpc.ssl_channel_credentials(root, key, certificate)
            channel = grpc.secure_channel(target, credentials, options)
        self._grpc = grpc
        self._request = predict_pb2.PredictRequest
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._predict = service.Predict
        self._spec = {"name": model, "signature_name": _SIGNATURE}
        if version is not None:
            self._spec["version"] = {"value": version}
        elif label is not None:
            self._spec["version_label"] = label

    def predict(
        self, image_bytes: Sequence[bytes], timeout_s: float
    ) -> dict[str, np.ndarray]:
        """Sends one request.

        Args:
            image_bytes: B encoded images, at least one.
            timeout_s: seconds until an answer.

        Returns:
            The outputs by name.

        Raises:
            Unavailable, TimeoutError, ValueError: see the module.
        """
        images = tf.make_tensor_proto(list(image_bytes), tf.string)
        request = self._request(
            model_spec=self._spec, inputs={"image_bytes": images}
        )
        codes = self._grpc.StatusCode
        try:
            response = self._predict(request, timeout=timeout_s)
        except self._grpc.RpcError as error:
            said = f"{error.code().name}: {error.details()}"[
                : http_client.MESSAGE_LETTERS
            ]
            if error.code() in (codes.UNAVAILABLE, codes.RESOURCE_EXHAUSTED):
                raise Unavailable(said) from error
            if error.code() == codes.DEADLINE_EXCEEDED:
                raise TimeoutError(said) from error
            raise ValueError(said) from error
        try:
            return {
                name: tf.make_ndarray(output)
                for name, output in response.outputs.items()
            }
        except (TypeError, ValueError) as error:
            raise ValueError(f"an output that is no tensor, {error}") from error


class Rest:
    """The REST API, over HTTP or HTTPS.

    Args:
        url: the URL up to the model's name, its version or label.
        tls: as `Grpc` takes it.
        connections: connections that are kept open.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: Sequence[Path | None] | None,
        connections: int,
    ):
        self._url = f"{url}:predict"
        self._client = http_client.HttpClient(connections=connections, tls=tls)

    def predict(
        self, image_bytes: Sequence[bytes], timeout_s: float
    ) -> dict[str, np.ndarray]:
        """Sends one request, see `Grpc`. Numbers are sent as decimals."""
        body = {
            "signature_name": _SIGNATURE,
            "instances": [
                {"image_bytes": {"b64": base64.b64encode(image).decode()}}
                for image in image_bytes
            ],
        }
        status, answer = self._client.request(
            "POST",
            self._url,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            timeout_s=timeout_s,
        )
        said = http_client.readable(answer)
        if status in (
            http.HTTPStatus.TOO_MANY_REQUESTS,
            http.HTTPStatus.SERVICE_UNAVAILABLE,
        ):
            raise Unavailable(f"HTTP {status}: {said}")
        if status == http.HTTPStatus.GATEWAY_TIMEOUT:
            raise TimeoutError(f"HTTP {status}: {said}")
        if status != http.HTTPStatus.OK:
            raise ValueError(f"HTTP {status}: {said}")
        try:
            rows = json.loads(answer)["predictions"]
            names = sorted(rows[0])
            return {
                name: np.asarray([row[name] for row in rows]) for name in names
            }
        except (LookupError, TypeError) as error:
            raise ValueError(f"JSON without predictions, {said}") from error
        except (RecursionError, ValueError) as error:
            raise ValueError(f"no JSON of tensors, {said}") from error

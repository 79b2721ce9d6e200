"""Requests to HTTP servers, within a time and up to a size.

A failure is one of

    Unavailable      the server is down, or closed the connection
    TimeoutError     no whole answer in time
    ConnectionError  no secure connection
    ValueError       an answer that is too long
"""

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import urllib3
from urllib3 import exceptions

# Letters of an error that are shown. Ours.
MESSAGE_LETTERS = 300
# A longer answer is not read to its end. Ours.
ANSWER_BYTES = 1 << 28
_CHUNK_BYTES = 1 << 16


class Unavailable(Exception):
    """A failure that may pass."""


class HttpClient:
    """Sends requests over connections that stay open.

    Args:
        tls: PEM files of root certificates, client certificate and private key,
            each of which may be None; None: those of the system.
        connections: connections to a server that are kept open.
    """

    def __init__(
        self,
        *,
        connections: int,
        tls: Sequence[Path | None] | None = None,
    ):
        options = {"maxsize": connections, "retries": False}
        if tls is not None:
            root, certificate, key = tls
            context = ssl.create_default_context(cafile=root)
            if certificate:
                context.load_cert_chain(certificate, key)
            options["ssl_context"] = context
        self._pool = urllib3.PoolManager(**options)

    def request(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Returns the status and the whole body of the answer.

        Args:
            method: GET or POST.
            url: the address, with its query.
            timeout_s: seconds until the end of the answer.
            body: of the request.
            headers: of the request.

        Raises:
            Unavailable, TimeoutError, ConnectionError, ValueError: see the
                module.
        """
        deadline = time.monotonic() + timeout_s
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout_s),
                redirect=False,
                preload_content=False,
            )
            answer = bytearray()
            # The timeout of the connection does not stop a server that sends
            # byte after byte.
            while chunk := response.read1(_CHUNK_BYTES):
                answer += chunk
                if time.monotonic() > deadline:
                    response.close()
                    raise TimeoutError("half an answer")
                if len(answer) > ANSWER_BYTES:
                    response.close()
                    raise ValueError(f"more than {ANSWER_BYTES} bytes")
            response.release_conn()
        except exceptions.SSLError as error:
            raise ConnectionError(_said(error)) from error
        except exceptions.NewConnectionError as error:
            raise Unavailable(_said(error)) from error
        except exceptions.TimeoutError as error:
            raise TimeoutError(_said(error)) from error
        except exceptions.HTTPError as error:
            # Closed or reset. Sending the same again does no harm.
            raise Unavailable(_said(error)) from error
        return response.status, bytes(answer)


def _said(error: Exception) -> str:
    return str(error)[:MESSAGE_LETTERS]


def readable(answer: bytes) -> str:
    """Returns the start of a server's answer, or of its `error` if any."""
    text = answer[: 10 * MESSAGE_LETTERS].decode("utf-8", "replace")
    try:
        text = str(json.loads(text)["error"])
    except (KeyError, RecursionError, TypeError, ValueError):
        pass
    return " ".join(text.split())[:MESSAGE_LETTERS]

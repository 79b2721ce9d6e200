"""A part of an index, served by threads of the test's process."""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator

from werkzeug import serving

from sare_tf.pages import locate_server
from sare_tf.search.opened_index import Index


class _Quiet(serving.WSGIRequestHandler):
    def log_request(self, *_):
        pass


class NoPictures:
    """Records whose images are gone."""

    def read(self, names):
        return [None] * len(names)

    def queries(self, count):
        return []


class Part:
    """What a test looks at and meddles with.

    Attributes:
        url: its address.
        server: the server of `locate --serve`.
        paths: of the requests that came.
        alter: takes the path of a request; returns status and body of another
            answer, or None.
    """

    def __init__(self, index: Index, gallery):
        self.url = ""
        self.server = locate_server.LocateServer(
            types.SimpleNamespace(index=index, servable=None), gallery
        )
        self.paths: list[str] = []
        self.alter: Callable = lambda path: None

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        self.paths.append(path)
        other = self.alter(path)
        if other is None:
            return self.server.app(environ, start_response)
        # Whoever does not read a body closes the connection.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, body = other
        start_response(f"{status} as the test wants it", [])
        return [body]


@contextlib.contextmanager
def serve(index: Index, gallery=None, *, port: int = 0) -> Iterator[Part]:
    """Serves an index until the end of the block."""
    part = Part(index, gallery or NoPictures())
    server = serving.make_server(
        "127.0.0.1", port, part, threaded=True, request_handler=_Quiet
    )
    server.daemon_threads = True
    part.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield part
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

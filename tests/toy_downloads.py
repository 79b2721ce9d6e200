"""A server of one file, which can also go wrong in the ways servers do."""

import contextlib
import hashlib
import http.server
import threading

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path, as the servers that are imitated do."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
        elif self.path == "/absent":
            self.send_error(404)
        elif self.path == "/silent":
            self.server.released.wait(10)
        elif self.path == "/chunked":
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n5\r\nhal"
            )
        else:
            content = self.server.content
            if self.path == "/portal":
                content = b"<html>Sign in"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.path == "/broken":
                content = content[:70_000]
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running(*, content=CONTENT):
    """Yields a server of `content`, with a list of its requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content = content
        server.sha256 = hashlib.sha256(content).hexdigest()
        server.requests = []
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()

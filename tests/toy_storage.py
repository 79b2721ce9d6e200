"""A server of a folder that answers ranges of bytes, slowly, as storage does.

    python tests/toy_storage.py FOLDER 0.02

prints its address, and serves until it is ended. Each request waits for the
latency by itself; connections stay open, and any number of requests waits at
the same time. A file's ETag is made of its size and time.
"""

import asyncio
import collections
import re
import sys
import threading
from pathlib import Path
from urllib.parse import unquote


class SlowStorage:
    """A server in a thread, which can also go wrong in the ways servers do.

    Args:
        folder: the folder that it serves.
        latency_s: seconds before each answer.

    Attributes:
        address: its address.
        requests: method, path and range of each request.
        faults: what the next requests for a range get, one for each: "503",
            "broken" (half of the bytes), "damaged" (other bytes), "whole" (no
            range) or "fine". When it is empty, all are fine.
        latency_s: seconds before each answer.
        most_at_once: most requests that waited at the same time.
    """

    def __init__(self, folder: str | Path, *, latency_s: float = 0.0):
        self.latency_s = latency_s
        self.requests = []
        self.most_at_once = self._waiting = 0
        self.faults = collections.deque()
        self._folder = Path(folder)
        self._loop = asyncio.new_event_loop()
        self._server = None
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "SlowStorage":
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = started.result()
        host, port = self._server.sockets[0].getsockname()
        self.address = f"http://{host}:{port}"
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self._waiting += 1
                self.most_at_once = max(self.most_at_once, self._waiting)
                await asyncio.sleep(self.latency_s)
                self._waiting -= 1
                if not await self._answer(head.decode("latin-1"), writer):
                    break
        except (
            asyncio.CancelledError,
            asyncio.IncompleteReadError,
            ConnectionError,
        ):
            pass  # the client has gone, or the server ends
        finally:
            writer.close()

    async def _answer(self, head: str, writer) -> bool:
        """Answers a request; returns whether the connection stays open."""
        method, target, _ = head.split(maxsplit=2)
        asked = re.search(r"^range: bytes=(\d+)-(\d+)", head, re.I | re.M)
        self.requests.append((method, target, asked and asked.groups()))
        path = self._folder / unquote(target).lstrip("/")
        if not path.is_file():
            writer.write(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")
            return True
        fault = self.faults.popleft() if asked and self.faults else "fine"
        if fault == "503":
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return True
        size = path.stat().st_size
        start, end = 0, size
        if asked and fault != "whole":
            start, end = int(asked[1]), min(int(asked[2]) + 1, size)
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start) if method == "GET" else b""
        is_part = bool(asked) and fault != "whole"
        writer.write(self._head(path, start, end, is_part=is_part))
        if fault == "damaged":
            content = content[:-20] + bytes(20)
        if fault == "broken":
            writer.write(content[: len(content) // 2])
            return False
        writer.write(content)
        await writer.drain()
        return True

    @staticmethod
    def _head(path: Path, start: int, end: int, *, is_part: bool) -> bytes:
        about = path.stat()
        size = about.st_size
        lines = [
            "HTTP/1.1 206 Partial Content" if is_part else "HTTP/1.1 200 OK",
            f"Content-Length: {end - start}",
            f'ETag: "{size}-{about.st_mtime_ns}"',
        ]
        if is_part:
            lines.append(f"Content-Range: bytes {start}-{end - 1}/{size}")
        return "\r\n".join([*lines, "", ""]).encode()


def main() -> None:
    """Serves a folder."""
    folder, latency_s = sys.argv[1:]
    with SlowStorage(folder, latency_s=float(latency_s)) as storage:
        sys.stdout.write(storage.address + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()

"""HTTP servers on 127.0.0.1 that serve files from memory and misbehave on request."""

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate


@dataclass
class Manners:
    """How one path is served; what is not set is done as it should be."""

    body: bytes = b""
    etag: str = '"one"'
    last_modified: str = ""
    ranges: bool = True
    length: bool = True  # whether the length of the whole is told
    kind: str = "application/octet-stream"
    status: list[int] = field(default_factory=list)  # answers before the first good one
    always: int = 0  # the status of every answer
    retry_after: str = ""
    cuts: list[int] = field(default_factory=list)  # bytes of the file after which the connection breaks, each once
    cut_after: int = 0  # bytes of every answer after which the connection breaks
    stall_after: list[int] = field(default_factory=list)  # bytes of the file after which nothing more comes, each once
    location: str = ""  # where every request is sent on to
    told_length: int | None = None  # instead of the true one
    bytes_per_s: float = 0.0
    changes: list["Manners"] = field(default_factory=list)  # what it becomes after each answer


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    range: str
    if_range: str
    at: float


class Server:
    """A server whose paths have manners, and what it was asked for."""

    def __init__(self) -> None:
        self.paths: dict[str, Manners] = {}
        self.asked: list[Asked] = []
        self.sent = 0
        self.stopping = threading.Event()
        owner = self

        class Handler(_Handler):
            server_of_test = owner

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def root(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self, name: str, body: bytes = b"", **manners: object) -> str:
        """Serves a file under `name`; returns its address."""
        self.paths[f"/{name}"] = Manners(body=body, **manners)  # type: ignore[arg-type]
        return f"{self.root}/{name}"

    def ranges(self, name: str = "") -> list[str]:
        """The ranges that were asked for with GET, in order; "" for the whole."""
        return [asked.range for asked in self.asked if asked.method == "GET" and name in asked.path]

    def close(self) -> None:
        """Ends it and all its threads."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def server() -> Iterator[Server]:
    """A server for the length of the block."""
    running = Server()
    try:
        yield running
    finally:
        running.close()


def dead_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/dead"


class _Handler(http.server.BaseHTTPRequestHandler):
    server_of_test: Server
    protocol_version = "HTTP/1.1"
    timeout = 5

    def log_message(self, format: str, *args: object) -> None:
        pass

    def end_headers(self) -> None:
        # Each connection ends after its answer; a client that is not told may ask once more on it in the moment before.
        self.send_header("Connection", "close")
        super().end_headers()

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        owner, name = self.server_of_test, self.path.partition("?")[0]
        asked = self.headers.get("Range", "")
        owner.asked.append(Asked(self.command, name, asked, self.headers.get("If-Range", ""), time.monotonic()))
        manners = owner.paths.get(name)
        if manners is None:
            return self._refuse(404)
        if manners.location:
            return self._refuse(302, Location=manners.location)
        if manners.always or manners.status:
            retry = {"Retry-After": manners.retry_after} if manners.retry_after else {}
            return self._refuse(manners.always or manners.status.pop(0), **retry)
        self._send(manners, asked, with_body=with_body)
        if manners.changes and with_body:
            owner.paths[name] = manners.changes[0]

    def _refuse(self, status: int, **headers: str) -> None:
        body = f"<html><title>{status}</title></html>".encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _send(self, manners: Manners, asked: str, *, with_body: bool) -> None:
        first, end = 0, len(manners.body)
        marks = {manners.etag, manners.last_modified}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        ranged = bool(found) and manners.ranges and self.headers.get("If-Range", next(iter(marks))) in marks
        if found and ranged:
            first, end = int(found[1]), int(found[2]) + 1 if found[2] else end
            if first >= len(manners.body):
                return self._refuse(416)
            end = min(end, len(manners.body))
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Type", manners.kind)
        if manners.etag:
            self.send_header("ETag", manners.etag)
        if manners.last_modified:
            self.send_header("Last-Modified", manners.last_modified)
        if ranged:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(manners.body)}")
        if manners.length:
            self.send_header("Content-Length", str(end - first if manners.told_length is None else manners.told_length))
        self.end_headers()
        if with_body:
            self._pour(manners, first, end)

    def _pour(self, manners: Manners, first: int, end: int) -> None:
        stop = min([end, *(cut for cut in manners.cuts if first < cut <= end)])
        if manners.cut_after:
            stop = min(stop, first + manners.cut_after)
        stalls = [stall for stall in manners.stall_after if first < stall < end]
        stop = min([stop, *stalls])
        step = max(1, int(manners.bytes_per_s / 100)) if manners.bytes_per_s else 1 << 16
        try:
            for at in range(first, stop, step):
                if self.server_of_test.stopping.is_set():
                    return
                self.wfile.write(manners.body[at : min(stop, at + step)])
                self.server_of_test.sent += min(stop, at + step) - at
                if manners.bytes_per_s:
                    time.sleep(0.01)
            if stop in stalls:
                manners.stall_after.remove(stop)
                self.wfile.flush()
                self.server_of_test.stopping.wait(3)
            elif stop in manners.cuts:
                manners.cuts.remove(stop)
        except OSError:
            pass  # the other side had enough


def date(seconds: float) -> str:
    """A date as HTTP writes it, so many seconds from now."""
    return formatdate(time.time() + seconds, usegmt=True)

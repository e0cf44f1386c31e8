"""One request for a stretch of a remote file, and what an address may answer."""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType

import requests
import urllib3

BLOCK = 1 << 18  # bytes; more is read less often, and lost when a connection breaks
MAX_REDIRECTS = 10
# Asked too early, too often, or the server is overloaded: another time it may answer.
PASSING = frozenset({408, 425, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for an answer (seconds), and how often to ask again when nothing at all came."""

    connect_s: float = 10.0
    read_s: float = 60.0
    tries: int = 6
    first_pause_s: float = 1.0  # doubled after each try
    longest_pause_s: float = 60.0
    longest_asked_s: float = 600.0  # a server that asks to be left alone for longer is not waited for


class AddressError(Exception):
    """An address that did not give what it was asked for; caught here below, so never seen by a user as it is.

    `passing` says that it may at another time, in `wait_s` seconds at the earliest.
    """

    def __init__(self, reason: str, *, passing: bool, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.wait_s = wait_s


class RangesIgnoredError(AddressError):
    """An address that sends the whole file where a stretch of it was asked for."""

    def __init__(self) -> None:
        super().__init__("expected a stretch of the file (206), found the whole of it (200)", passing=False)


class BeyondEndError(AddressError):
    """An address whose file ends before the stretch that it was asked for."""

    def __init__(self) -> None:
        super().__init__("expected more bytes, found the end of the file (416)", passing=True)


class StoppedError(Exception):
    """The fetching of everything was called off."""


class Answer:
    """The head of an answer, and its body in blocks, as they were sent."""

    def __init__(self, response: requests.Response, stop: threading.Event) -> None:
        head = response.headers
        self.partial = response.status_code == HTTPStatus.PARTIAL_CONTENT
        self.etag = head.get("ETag", "")
        self.last_modified = head.get("Last-Modified", "")
        self.kind = head.get("Content-Type", "").partition(";")[0].strip().lower()
        self.first, self.total = 0, _number(head.get("Content-Length"))
        if self.partial:
            self.first, self.total = _content_range(head.get("Content-Range", ""))
        self._raw = response.raw
        self._stop = stop

    def blocks(self) -> Iterator[bytes]:
        """The body; what the server says of its encoding is left alone, for it calls a .tar.gz encoded in gzip.

        Raises:
            AddressError: the connection broke or stalled.
        """
        while True:
            if self._stop.is_set():
                raise StoppedError
            try:
                block: bytes = self._raw.read1(BLOCK, decode_content=False)
            except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
                reason = f"expected more bytes, found the connection broken ({_cause(error)})"
                raise AddressError(reason, passing=True) from None
            if not block:
                return
            yield block


class Web:
    """Connections to addresses, for one thread; `stop` may be set, and hang_up called, by any other."""

    def __init__(self, patience: Patience, stop: threading.Event) -> None:
        self.patience = patience
        self.stop = stop
        self._session = requests.Session()
        self._session.max_redirects = MAX_REDIRECTS
        self._session.headers.update({"User-Agent": "audio-denoising-rnn", "Accept-Encoding": "identity"})
        self._open: requests.Response | None = None

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session.close()

    @contextmanager
    def answer(self, address: str, stretch: str = "", validator: str = "", method: str = "GET") -> Iterator[Answer]:
        """Asks for the file at `address`, or for the `stretch` of it ("0-99", "100-" or "-50"), and yields the answer.

        With a `validator`, an ETag or a date, the whole file comes when it is no longer the one so marked.

        Raises:
            AddressError: there is no answer, or another than 200 and 206.
        """
        headers = {"Range": f"bytes={stretch}"} if stretch else {}
        if stretch and validator:
            headers["If-Range"] = validator
        timeout = (self.patience.connect_s, self.patience.read_s)
        try:
            response = self._session.request(method, address, headers=headers, timeout=timeout, stream=True)
        except requests.TooManyRedirects:
            raise AddressError(f"expected the file, found more than {MAX_REDIRECTS} redirections", passing=False) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise AddressError(f"expected an answer, found none ({_cause(error)})", passing=True) from None
        except (requests.RequestException, ValueError) as error:
            raise AddressError(f"expected an address that can be asked, found none ({error})", passing=False) from None
        with response:
            self._check_status(response)
            self._open = response
            try:
                yield Answer(response, self.stop)
            finally:
                self._open = None

    def hang_up(self) -> None:
        """Breaks the connection that is being read, so that the thread that reads it does not wait for more."""
        response = self._open
        if response is not None:
            # The other thread may have ended it just now.
            with suppress(RuntimeError, ValueError, OSError):
                response.raw.shutdown()

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise BeyondEndError
        reason = f"expected the file, found {status} {response.reason}"
        wait_s = _retry_after(response.headers.get("Retry-After", ""))
        if wait_s > self.patience.longest_asked_s:
            raise AddressError(f"{reason} and the wish to be asked again in {wait_s:.0f} s", passing=False)
        raise AddressError(reason, passing=status in PASSING, wait_s=wait_s)


def _retry_after(value: str) -> float:
    """Seconds from now, given as such or as a date; 0 where it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _content_range(value: str) -> tuple[int, int | None]:
    """First byte and size of the file, from "bytes 0-99/1234"; the size is None where it is given as '*'."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value.strip())
    if not found:
        raise AddressError(f"expected a Content-Range, found '{value}'", passing=False)
    return int(found[1]), _number(found[2])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _cause(error: BaseException) -> str:
    """The innermost cause in short: 'Connection refused' rather than the four errors wrapped around it."""
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, BaseException)), None)
        error = inner if inner is not None else error
    if isinstance(error, urllib3.exceptions.IncompleteRead | http.client.IncompleteRead):
        return "cut off"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__

"""A file that is being fetched: what has come of it so far, and from where, kept for the next run."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from stages.core.files import WriteError, write_json

Stretch = tuple[int, int]  # first byte, and the byte after the last


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the bytes of a partial file came from, and by what it is known that the file there is still the same."""

    address: str
    etag: str = ""
    last_modified: str = ""
    total: int | None = None  # bytes of the whole file there
    stretches: tuple[Stretch, ...] = ()  # which parts of it are wanted, ascending; empty for all of it

    @property
    def validator(self) -> str:
        """What If-Range takes: an ETag unless it is a weak one, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    @property
    def length(self) -> int | None:
        """The bytes that are wanted of it."""
        return sum(end - first for first, end in self.stretches) if self.stretches else self.total

    def differs(self, other: "Origin") -> bool:
        """Whether the file here and there cannot be the same one."""
        pairs: list[tuple[object, object]] = [(self.total, other.total)]
        if self.address == other.address:  # mirrors mark the same bytes differently
            pairs += [(self.etag, other.etag), (self.last_modified, other.last_modified)]
        # What is left unsaid tells nothing: a 206 need not repeat the date.
        return any(here and there and here != there for here, there in pairs)


class Partial:
    """The wanted stretches of a remote file, one after the other in a local one, which only ever grows or is dropped.

    A kill at any moment leaves a state that the next run continues from: what is appended is good, and the origin is
    written down before the first byte from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")
        self.origin: Origin | None = self._read_note()
        if self.origin is None:
            self.drop()

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, origin: Origin) -> None:
        """Drops what is there and notes where the next bytes come from."""
        self.drop()
        self.note(origin)

    def note(self, origin: Origin) -> None:
        """Writes down what is now known of the origin."""
        write_json(self._note, asdict(origin))
        self.origin = origin

    def drop(self) -> None:
        """Removes the bytes first, so that no note ever stands for bytes that it does not describe."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.origin = None

    @contextmanager
    def growing(self) -> Iterator[BinaryIO]:
        """The file, open to be appended to; on the disk when the block has ended."""
        try:
            with self.path.open("ab") as file:
                try:
                    yield file
                finally:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written ({error.strerror}); is the disk full?") from None

    def _read_note(self) -> Origin | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            stretches = tuple((int(first), int(end)) for first, end in note.pop("stretches"))
            return Origin(**note, stretches=stretches)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

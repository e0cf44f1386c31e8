"""Members of a zip that lies elsewhere: which stretches of it they take, and a zip of them alone.

The zip module of Python reads the remote directory (zip64 too) and checks every member by its CRC; here is only what
lets it read a file of which it has parts. The package remotezip does the former, but neither marks the file, so that a
change between two requests shows, nor goes on after a broken connection.
"""

import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copyfileobj

from stages.core.corpora.partial import Stretch

AHEAD = 1 << 16  # bytes; read at least, enough for most directories and for the longest comment
MERGE = 1 << 16  # bytes; a gap smaller than this costs less than another request
_BLOCK = 1 << 20
Read = Callable[[int, int], bytes]


class ZipError(Exception):
    """A zip that is none, is broken, or lacks what is looked for; the fetching says so of its address."""


class Parts(io.RawIOBase):
    """A file of `size` bytes, read by `read(first, end)`, with a block of what was read last."""

    def __init__(self, size: int, read: Read) -> None:
        super().__init__()
        self._size, self._read = size, read
        self._position = 0
        self._first, self._block = 0, b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read anywhere."""
        return True

    def tell(self) -> int:
        """The byte that is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves to a byte, counted from the start, from here or from the end."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError("before the start of the file")
        self._position = position
        return position

    def read(self, n_bytes: int = -1, /) -> bytes:
        """The next `n_bytes`, fewer only at the end of the file."""
        first = min(self._position, self._size)
        end = self._size if n_bytes < 0 else min(first + n_bytes, self._size)
        if not self._first <= first <= end <= self._first + len(self._block):
            # Directories are at the end and are read from there, so what comes before is as likely to be wanted.
            self._first = max(0, min(first, end - AHEAD))
            self._block = self._read(self._first, end)
        self._position = end
        return self._block[first - self._first : end - self._first]


def wanted(size: int, read: Read, pattern: str) -> tuple[tuple[Stretch, ...], int]:
    """The stretches of a zip of `size` bytes that hold its directory and the members whose path matches `pattern`.

    Beside them the bytes of these members, unpacked.

    Raises:
        ZipError: it is no zip, or no member matches, or one is encrypted.
    """
    with _opened(Parts(size, read)) as file:
        starts = sorted({info.header_offset for info in file.infolist()} | {file.start_dir})
        following = dict(itertools.pairwise(starts))
        stretches = []
        members = matching(file, pattern)
        for info in members:
            end = following.get(info.header_offset, 0)
            if end - info.header_offset <= info.compress_size:
                raise ZipError(f"the directory gives {info.filename} no room for its {info.compress_size} bytes")
            stretches.append((info.header_offset, end))
        return _merged([*stretches, (file.start_dir, size)]), sum(info.file_size for info in members)


def matching(file: zipfile.ZipFile, pattern: str) -> list[zipfile.ZipInfo]:
    """The members, in the order of the file, whose whole path matches `pattern`; of several of one name, the last.

    Raises:
        ZipError: none matches, or one is encrypted.
    """
    found = [info for info in file.NameToInfo.values() if not info.is_dir() and re.fullmatch(pattern, info.filename)]
    if not found:
        raise ZipError(f"expected members that match '{pattern}', found none among {len(file.infolist())}")
    for info in found:
        if info.flag_bits & 0x1:
            raise ZipError(f"expected members that can be read, found {info.filename} encrypted")
    return sorted(found, key=lambda info: info.header_offset)


def pick(source: Path, stretches: Sequence[Stretch], pattern: str, target: Path) -> None:
    """Writes the members of a zip that match `pattern` to the new zip `target`, uncompressed, each checked by its CRC.

    `source` holds the `stretches` of the zip, one after the other, or all of it where there are none.

    Raises:
        ZipError: a member is broken or missing.
    """
    stretches = stretches or ((0, source.stat().st_size),)
    with (
        source.open("rb") as parts,
        _opened(Parts(stretches[-1][1], _placed(parts, stretches))) as file,
        zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new,
    ):
        for info in matching(file, pattern):
            _copy(file, info, new)


def _copy(file: zipfile.ZipFile, info: zipfile.ZipInfo, new: zipfile.ZipFile) -> None:
    copy = zipfile.ZipInfo(info.filename, info.date_time)
    copy.file_size = info.file_size  # tells whether zip64 is needed
    try:
        with file.open(info) as member, new.open(copy, "w") as written:
            copyfileobj(member, written, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ZipError(f"expected {info.filename} whole, found it broken ({error})") from None
    if copy.CRC != info.CRC or copy.file_size != info.file_size:
        raise ZipError(f"expected {info.filename} with {info.file_size} bytes, found {copy.file_size}")


def _opened(file: io.RawIOBase) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ZipError(f"expected a zip, found none ({error})") from None


def _merged(stretches: list[Stretch]) -> tuple[Stretch, ...]:
    merged: list[Stretch] = []
    for first, end in sorted(stretches):
        if merged and first - merged[-1][1] <= MERGE:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return tuple(merged)


def _placed(parts: io.BufferedReader, stretches: Sequence[Stretch]) -> Read:
    """Reads bytes of the whole file from a file of some stretches of it; zeros stand for the others."""

    def read(first: int, end: int) -> bytes:
        block, before = bytearray(end - first), 0
        for start, stop in stretches:
            low, high = max(first, start), min(end, stop)
            if low < high:
                parts.seek(before + low - start)
                block[low - first : high - first] = parts.read(high - low)
            before += stop - start
        return bytes(block)

    return read

"""What lies in an archive of somebody else's: read one member after the other, and nothing of it trusted.

Nothing here writes, so no member can reach beyond its folder; what is strange is named and passed over, and what would
exhaust memory or disk ends the reading.
"""

import errno
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stages.core.errors import DenoisingError
from stages.core.files import shown

# Audio hardly shrinks: the WAV files of published archives to half, silence aside. A bomb shrinks a thousandfold.
_MOST_EXPANSION = 20
_ALWAYS_ALLOWED = 64 * 10**6
# An hour of 48 kHz, 24 bits and two channels is 1 GB.
_MOST_BYTES = 10**9
_MOST_MEMBERS = 2_000_000
# What the readers of archives raise when the bytes are not what they should be.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    struct.error,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def is_broken(error: BaseException) -> bool:
    """Whether an error says that the bytes of an archive are wrong, and not that they cannot be read from the disk."""
    return isinstance(error, BROKEN) or (isinstance(error, OSError) and error.errno in {None, errno.EINVAL})


class UnpackingError(DenoisingError):
    """An archive that cannot be unpacked, or should not."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: its bytes, or the reason why there are none."""

    name: str
    data: bytes
    fault: str = ""


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The files in a .zip, .tar.gz or .tar archive whose name is wanted, and all that is strange, with the fault.

    Strange are names that are absolute, climb out with '..', are not UTF-8 or occur twice, links, devices and what is
    neither file nor folder.

    Raises:
        UnpackingError: the archive is broken, of another kind, or would unpack to far more than audio can.
    """
    seen: set[str] = set()
    read = _zipped if archive.suffix.lower() == ".zip" else _tarred
    try:
        for count, member in enumerate(read(archive, wanted)):
            if count > _MOST_MEMBERS:
                raise UnpackingError(f"{archive}: expected at most {_MOST_MEMBERS} members, found more; it is no corpus.")
            fault = member.fault or _name_fault(member.name) or ("occurs twice" if member.name in seen else "")
            seen.add(member.name)
            if fault or wanted(member.name):
                yield Member(shown(member.name), b"" if fault else member.data, fault)
    except (*BROKEN, OSError) as error:
        if not is_broken(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise UnpackingError(
            f"{archive}: cannot be read to its end ({why}); remove it, and the next run fetches it anew."
        ) from None


def _tarred(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The members of a tar, in one pass: compressed data has no other order."""
    limit = _expansion_limit(archive)
    with (
        archive.open("rb") as file,
        gzip.GzipFile(fileobj=file) if archive.name.endswith((".gz", ".tgz")) else file as stream,
        tarfile.open(fileobj=_Limited(stream, limit, archive), mode="r|", encoding="utf-8", errors="surrogateescape") as tar,
    ):
        for info in tar:
            # Else every header read stays in memory.
            tar.members = []  # type: ignore[attr-defined]
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                yield Member(info.name, b"", f"is a {_kind(info)}")
            elif info.size > _MOST_BYTES:
                raise UnpackingError(_too_large(archive, info.name, info.size))
            elif wanted(info.name):
                file_in_tar = tar.extractfile(info)
                assert file_in_tar is not None
                data = file_in_tar.read()
                if len(data) != info.size:
                    raise EOFError(f"{shown(info.name)} has {len(data)} of {info.size} bytes")
                yield Member(info.name, data)
            else:
                yield Member(info.name, b"")


def _zipped(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The members of a zip; each is checked by its CRC."""
    limit, total = _expansion_limit(archive), 0
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            kind = info.external_attr >> 16 & 0o170000
            if info.is_dir():
                continue
            if kind not in (0, 0o100000):
                yield Member(info.filename, b"", "is a link" if kind == 0o120000 else "is a device or pipe")
                continue
            # Programs that predate UTF-8 in zips wrote what they had; read as the code page of the format it is a guess.
            if not info.flag_bits & 0x800 and not info.orig_filename.isascii():
                yield Member(info.filename, b"", "has a name that is not UTF-8")
                continue
            if not wanted(info.filename):
                yield Member(info.filename, b"")
                continue
            total += info.file_size
            if info.file_size > _MOST_BYTES:
                raise UnpackingError(_too_large(archive, info.filename, info.file_size))
            if total > limit:
                raise UnpackingError(_bomb(archive, limit))
            with zipped.open(info) as file:
                data = file.read(info.file_size + 1)
            if len(data) != info.file_size:
                raise zipfile.BadZipFile(f"{shown(info.filename)} has not the {info.file_size} bytes that are promised")
            yield Member(info.filename, data)


class _Limited(io.RawIOBase):
    """A stream that may not yield more than `limit` bytes, whatever the archive says of itself."""

    def __init__(self, stream: io.BufferedIOBase | gzip.GzipFile, limit: int, archive: Path) -> None:
        self._stream, self._left, self._limit, self._archive = stream, limit, limit, archive

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UnpackingError(_bomb(self._archive, self._limit))
        return data


def _expansion_limit(archive: Path) -> int:
    return _MOST_EXPANSION * archive.stat().st_size + _ALWAYS_ALLOWED


def _name_fault(name: str) -> str:
    if shown(name) != name:
        return "has a name that is not UTF-8"
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        return "has an absolute path, or one of another system"
    if ".." in PurePosixPath(name).parts:
        return "climbs out of its folder"
    if not name.isprintable():
        return "has a name with control characters"
    return ""


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    if info.isdev():
        return "device or pipe"
    return "file with holes" if info.issparse() else "member of an unknown kind"


def _bomb(archive: Path, limit: int) -> str:
    return (
        f"{archive}: expected at most {limit / 1e6:.0f} MB unpacked, {_MOST_EXPANSION} times its size, found more; remove it."
    )


def _too_large(archive: Path, name: str, size: int) -> str:
    return (
        f"{archive}: expected members of at most {_MOST_BYTES / 1e6:.0f} MB, {shown(name)} has {size / 1e6:.0f} MB; remove it."
    )

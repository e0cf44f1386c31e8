"""Whether a file lacks some of what its header says, for containers where libsndfile or FFmpeg keeps that to itself."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD = 1 << 16
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def missing_part(path: Path, container: str) -> str:
    """What `path` lacks, in words, or nothing; `container` is FFmpeg's name or libsndfile's."""
    check = {
        "avi": _riff_end,
        "asf": _asf_end,
        "ogg": _ogg_end,
        "matroska,webm": _matroska_end,
        "OGG": _ogg_end,
        "MP3": _mp3_end,
    }.get(container)
    return "" if check is None else check(path, path.stat().st_size)


def _riff_end(path: Path, size: int) -> str:
    with path.open("rb") as file:
        head = file.read(8)
    # Programs that write to a pipe leave 0 or the largest number.
    expected = struct.unpack("<I", head[4:])[0] + 8 if head.startswith(b"RIFF") and len(head) == 8 else 0
    return _shortfall(expected if expected < 0x7FFFF000 else 0, size)


def _asf_end(path: Path, size: int) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        # The flag says that it is a broadcast, whose length was not known when the header was written.
        return ""
    return _shortfall(struct.unpack_from("<Q", head, at + 40)[0], size)


def _matroska_end(path: Path, size: int) -> str:
    """By the size of the segment, which holds all but a short header; recorders that cannot go back leave it unknown."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    at = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        first = head[at + 4] if head.startswith(name, at) and len(head) > at + 12 else 0
        if not first:
            return ""
        n_bytes = 9 - first.bit_length()
        length = int.from_bytes(head[at + 4 : at + 4 + n_bytes]) & ((1 << 7 * n_bytes) - 1)
        unknown = length == (1 << 7 * n_bytes) - 1
        at += 4 + n_bytes + length
    return _shortfall(0 if unknown else at, size)


def _ogg_end(path: Path, size: int) -> str:
    """Goes through all pages: libsndfile and FFmpeg pass over damaged ones, and the length they give is what is left."""
    expected: dict[bytes, int] = {}
    last, at = b"", 0
    with path.open("rb") as file:
        while at < size:
            page = ogg_page(file)
            if page[22:26] != struct.pack("<I", ogg_checksum(page)):
                return f"the page at byte {at} is damaged" if len(page) < size - at else "its last page is missing"
            serial, number = page[14:18], struct.unpack_from("<I", page, 18)[0]
            if number != expected.get(serial, number):
                return f"the page before byte {at} is missing"
            expected[serial] = number + 1
            last, at = page, at + len(page)
    return "" if last[5:6] and last[5] & 4 else "its last page is missing"


def ogg_page(file: BinaryIO) -> bytes:
    """The next page of an OGG file, cut short or of other content where the file is damaged."""
    header = file.read(27)
    lengths = file.read(header[26]) if len(header) == 27 else b""
    return header + lengths + file.read(sum(lengths))


def ogg_checksum(page: bytes) -> int:
    """The CRC of an OGG page: that of zlib with all bits in the other order, and nothing inverted."""
    blank = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(blank.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _mp3_end(path: Path, size: int) -> str:
    """By the number of bytes in the Xing or Info header."""
    with path.open("rb") as file:
        start = 0
        if (head := file.read(10)).startswith(b"ID3") and len(head) == 10:
            start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(start)
        head = file.read(200)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 16 or not head[at + 7] & 2:
        return ""
    length = struct.unpack_from(">I", head, at + 8 + 4 * (head[at + 7] & 1))[0]
    return _shortfall(start + length, size)


def bytes_behind(path: Path, end: int) -> int:
    """How many bytes lie behind the last frame of sound, not counting tags."""
    with path.open("rb") as file:
        file.seek(end)
        tag = file.read(11)
    return 0 if tag.startswith((b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN")) else path.stat().st_size - end


def _shortfall(expected: int, size: int) -> str:
    return f"expected {expected} bytes, found {size}" if expected > size else ""

"""What a file has behind the sound that its header promises, which nobody reads and nobody would miss without a word."""

import re
import struct
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

_PIECE = 1 << 16
# Names of chunks are four characters; these begin sound, or another file that was put behind the first.
_NAME = re.compile(rb"[ -~]{4}")
_SOUND = frozenset({b"RIFF", b"RIFX", b"RF64", b"FORM", b"data", b"SSND"})
# Tags that programs put behind files of any kind.
_TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN")
# Programs that write to a pipe leave 0 or one of the largest numbers as the size of the samples.
_UNKNOWN_SIZE = 0x7FFFF000
# Encoders of MP3 disagree on which frames they count. No frame is larger.
_LARGEST_FRAME = 2881


@runtime_checkable
class Source(Protocol):
    """What bytes are read from: a pipe, a file, or bytes in memory."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def sound_left_out(path: Path, container: str) -> str:
    """A remark on bytes behind the sound that may be sound too, or nothing; `container` is FFmpeg's name or libsndfile's.

    Tags, chunks of any name and padding are none.
    """
    count = {
        **dict.fromkeys(["WAV", "WAVEX", "RF64", "AIFF", "wav", "aiff"], _behind_chunk),
        **dict.fromkeys(["MP3"], _behind_frames),
        **dict.fromkeys(["mov,mp4,m4a,3gp,3g2,mj2"], _second_file),
    }.get(container)
    if count is None:
        return ""
    with path.open("rb") as file:
        return left_out(count(file, path.stat().st_size))


def left_out(n_bytes: int) -> str:
    """The remark on bytes that may be sound."""
    return f"its header ends the sound {n_bytes} bytes before the end; if they are sound, it was left out" if n_bytes else ""


def bytes_of_no_chunk(source: Source, order: str = "<", *, odd: bool) -> int:
    """How many bytes at the end of `source` are no chunks of a WAV or AIFF file; it stands behind the samples.

    `order` is that of the bytes in the sizes of chunks; `odd` says that a byte of padding is to come, which some leave out.
    """
    while True:
        head = _read(source, 1) if odd else b""
        head = head if head.isalnum() else b""
        head += _read(source, 8 - len(head))
        if len(head) < 8 or head.startswith(_TAGS):
            return 0
        if not _NAME.match(head) or head[:4] in _SOUND:
            return _n_bytes(source, head)
        size = struct.unpack_from(f"{order}I", head, 4)[0]
        if (found := skipped(source, size)) < size:
            return 8 + found
        odd = size % 2 == 1


def skipped(source: Source, n_bytes: int) -> int:
    """Passes over bytes, in pieces since a damaged header may ask for billions; how many there were."""
    left = n_bytes
    while left and (piece := source.read(min(left, _PIECE))):
        left -= len(piece)
    return n_bytes - left


def _read(source: Source, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes and (piece := source.read(n_bytes - len(data))):
        data += piece
    return data


def _n_bytes(source: Source, head: bytes) -> int:
    """How many bytes there are with `head`, or 0 when all are zero: padding, as some devices write whole sectors."""
    found, empty = len(head), not any(head)
    while piece := source.read(_PIECE):
        found += len(piece)
        empty = empty and piece.count(0) == len(piece)
    return 0 if empty else found


def _behind_chunk(file: BinaryIO, size: int) -> int:
    """For WAV, RF64 and AIFF."""
    order = "<" if file.read(12)[:4] in (b"RIFF", b"RF64") else ">"
    long_size = 0
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack_from(f"{order}I", head, 4)[0]
        if name == b"ds64" and length >= 16:
            long_size = struct.unpack_from("<Q", file.read(16), 8)[0]
            length -= 16
        if name in (b"data", b"SSND"):
            length = long_size or (length if length < _UNKNOWN_SIZE else 0)
            end = file.tell() + length
            file.seek(end)
            return bytes_of_no_chunk(file, order, odd=length % 2 == 1) if length and end < size else 0
        file.seek(length + length % 2, 1)
    return 0


def _behind_frames(file: BinaryIO, size: int) -> int:
    """For MP3 with a Xing or Info header, whose number of frames is all that is read."""
    start = _after_tags(file, 0)
    file.seek(start)
    head = file.read(200)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 16 or head[at + 7] & 3 != 3:
        return 0
    end = _after_tags(file, start + int(struct.unpack_from(">I", head, at + 12)[0]))
    if size - end <= _LARGEST_FRAME:
        return 0
    file.seek(end)
    return 0 if (head := file.read(11)).startswith(_TAGS) else _n_bytes(file, head)


def _after_tags(file: BinaryIO, place: int) -> int:
    """Where the ID3 tags end that begin at `place`."""
    while True:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            return place
        place += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _second_file(file: BinaryIO, size: int) -> int:
    """For MP4 and its kin: from the header of a file that was put behind the first. One in fragments may have several."""
    second = place = 0
    while place + 8 <= size:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8))
        if name == b"moof":
            return 0
        if name == b"ftyp" and place and not second:
            second = place
        if length < 8:
            break
        place += length
    return size - second if second else 0

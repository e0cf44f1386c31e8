"""What a WAV file holds beside sound and tags, which neither libsndfile nor FFmpeg hands on."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Chunks that are the sound and how to read it, tags that other code keeps, or fillers.
_KNOWN = frozenset({"fmt ", "data", "fact", "PEAK", "ds64", "LIST", "id3 ", "ID3 ", "bext", "JUNK", "junk", "PAD ", "FLLR"})
_NAMES = {"cue ": "markers (cue)", "adtl": "labels (adtl)", "smpl": "loops (smpl)", "inst": "instrument (inst)"}
_EXTENSIBLE = 0xFFFE
_MASK = slice(20, 24)  # the loudspeakers of the channels, a bit for each, in the chunk `fmt ` of that kind


def unusual_chunks(path: Path) -> list[str]:
    """The chunks of a WAV file that nobody else keeps, by what they hold or by their name; none for any other file."""
    with path.open("rb") as file:
        found = {name for name, _, _ in _chunks(file)} - _KNOWN
    return sorted(_NAMES.get(name, name.strip()) for name in found)


def speaker_mask(path: Path) -> bytes | None:
    """Which loudspeaker has which channel: four bytes, None where a file does not say."""
    with path.open("rb") as file:
        form = _format(file)
    return form[1][_MASK] if form else None


def put_speaker_mask(path: Path, mask: bytes) -> None:
    """Writes it into a file that has a place for it."""
    with path.open("r+b") as file:
        form = _format(file)
        if form:
            file.seek(form[0] + _MASK.start)
            file.write(mask)


def _format(file: BinaryIO) -> tuple[int, bytes] | None:
    """Where the chunk `fmt ` of the extensible kind begins, and its bytes."""
    for name, place, size in _chunks(file):
        if name == "fmt ":
            file.seek(place)
            data = file.read(min(size, 64))
            extensible = len(data) >= _MASK.stop and struct.unpack_from("<H", data)[0] == _EXTENSIBLE
            return (place, data) if extensible else None
    return None


def _chunks(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each chunk; a list of labels has the name of its kind."""
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        return
    place = 12
    while len(head := file.read(8)) == 8 and head[:4].isascii() and head[:4].decode("ascii").isprintable():
        name, size = head[:4].decode("ascii"), struct.unpack("<I", head[4:])[0]
        kind = file.read(4) if name == "LIST" else b""
        yield ("adtl" if kind == b"adtl" else name), place + 8, size
        place += 8 + size + size % 2
        file.seek(place)

"""A live signal on pipes: raw PCM or WAV in, the same out, as it comes."""

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from stages.core.audio import impossible
from stages.core.container_rest import Source, bytes_of_no_chunk, left_out, skipped
from stages.core.errors import DenoisingError
from stages.core.streaming import StreamingDenoiser

# Programs that write to a pipe cannot know the size of what is to come and leave 0 or one of the largest numbers there.
_UNKNOWN = 0xFFFFFFFF
_LARGEST_KNOWN = 0x7FFF0000
# RF64 gives sizes beyond 4 GB; where nobody knew it, this or more.
_LONGEST_KNOWN = 1 << 62
# How much is read of a chunk that describes the samples; a damaged header may give it billions of bytes.
_LONGEST_READ = 64
_TYPES = {"u8": "u1", "s16": "<i2", "s24": "s24", "s32": "<i4", "f32": "<f4", "f64": "<f8"}
_WAV_TYPES = {(1, 8): "u8", (1, 16): "s16", (1, 24): "s24", (1, 32): "s32", (3, 32): "f32", (3, 64): "f64"}
_WIDTHS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
ENCODINGS = tuple(_WIDTHS)


# What is read before it is clear that samples are raw, and how sound files begin that are no WAV stream: with these bytes (in
# hexadecimal W64, ASF and EBML), with these in the first and third four, or with `ftyp` in the second.
_SIGN_BYTES = 12
_SIGNS = (
    *(b"fLaC", b"OggS", b"caff", b".snd", b"NIST_1A", b"BW64", b"ID3"),
    *(bytes.fromhex(sign) for sign in ("726966662e91cf11a5d628db", "3026b275", "1a45dfa3")),
)
_FILES = {(b"FORM", b"AIFF"), (b"FORM", b"AIFC"), (b"RIFX", b"WAVE")}


class LiveError(DenoisingError):
    """A stream that is not what it was said to be."""


@runtime_checkable
class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> Any:
        """Takes bytes."""

    def flush(self) -> Any:
        """Passes on what was taken."""


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """Interleaved little-endian samples: Hz, channels, one of ENCODINGS; with `wav` they have a header.

    `n_bytes` is how long the samples are, None where nobody knows.
    """

    sample_rate: int
    n_channels: int
    encoding: str
    wav: bool = False
    n_bytes: int | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.n_channels * _WIDTHS[self.encoding]


def standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output as they are for bytes, made to wait for whatever is at their other end.

    Raises:
        LiveError: one of them is closed.
    """
    for stream, name, way in ((sys.stdin, "input", "into"), (sys.stdout, "output", "out of")):
        if stream is None:
            raise LiveError(f"--stream needs the standard {name}, which is closed: lead a pipe or a file {way} the program.")
        # A pipe that another program has set not to wait looks as if it had ended whenever it is empty.
        os.set_blocking(stream.fileno(), True)
    return sys.stdin.buffer, sys.stdout.buffer


def wav_format(stream: Source) -> PcmFormat:
    """Reads the header of a WAV stream up to its first sample.

    Raises:
        LiveError: it is no WAV stream, or has an encoding other than PCM or floating point.
    """
    head = stream.read(_SIGN_BYTES)
    if not _begins_wav(head):
        _check_file(head)
        raise LiveError("The input is no WAV stream; name the format of raw samples with --rate, --channels and --encoding.")
    form, long_size = None, 0
    while True:
        chunk = stream.read(8)
        if len(chunk) < 8:
            raise LiveError("The WAV stream ends before its samples begin.")
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            break
        body = stream.read(min(size + size % 2, _LONGEST_READ)) if name in (b"fmt ", b"ds64") else b""
        skipped(stream, size + size % 2 - len(body))
        if name == b"fmt ":
            form = _described(body)
        elif name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack_from("<Q", body, 8)[0]
    if form is None:
        raise LiveError("The WAV stream has no chunk that describes its samples.")
    if size == _UNKNOWN and 0 < long_size < _LONGEST_KNOWN:
        return replace(form, n_bytes=long_size)
    return replace(form, n_bytes=size if 0 < size < _LARGEST_KNOWN else None)


def wav_header(form: PcmFormat) -> bytes:
    """The header of a WAV stream, with the length of its samples where that is known."""
    code = 3 if form.encoding.startswith("f") else 1
    width = _WIDTHS[form.encoding]
    fields = (code, form.n_channels, form.sample_rate, form.sample_rate * form.frame_bytes, form.frame_bytes, 8 * width)
    described = b"fmt " + struct.pack("<IHHIIHH", 16, *fields)
    size = form.n_bytes if form.n_bytes is not None and form.n_bytes < _LARGEST_KNOWN else _UNKNOWN
    whole = _UNKNOWN if size == _UNKNOWN else 36 + size + size % 2
    return b"RIFF" + struct.pack("<I", whole) + b"WAVE" + described + b"data" + struct.pack("<I", size)


@dataclass(frozen=True, slots=True)
class Heard:
    """What there is to say of a stream that has ended.

    Values that were clipped at full scale, values that were no numbers, and bytes behind the samples that may be some too.
    """

    n_clipped: int
    n_not_finite: int
    n_left_out: int = 0

    @property
    def remarks(self) -> list[str]:
        """The same as sentences that the user should see."""
        said = [f"{self.n_clipped} values were clipped at full scale"] if self.n_clipped else []
        if self.n_not_finite:
            said.append(f"{self.n_not_finite} values were NaN or infinite, and were taken for silence")
        return [*said, left_out(self.n_left_out)] if self.n_left_out else said


def denoise_stream(source: Source, sink: Sink, form: PcmFormat, denoiser: StreamingDenoiser, block_samples: int) -> Heard:
    """Denoises samples from `source` to `sink` until the source ends, flushing every block.

    Blocks are read as they come, at most `block_samples` long. NaN and infinity become silence: a live signal goes on.

    Raises:
        LiveError: the stream ended within a sample, or before its header says; all that came was written. Or raw samples
            begin as a WAV stream does.
    """
    if form.wav:
        sink.write(wav_header(form))
    rest, n_clipped, n_not_finite, n_read = b"", 0, 0, 0
    for piece in _pieces(source, form, block_samples * form.frame_bytes):
        n_read += len(piece)
        data = rest + piece
        whole = len(data) - len(data) % form.frame_bytes
        rest = data[whole:]
        block = decoded(data[:whole], form)
        finite = np.isfinite(block)
        n_not_finite += block.size - int(np.count_nonzero(finite))
        n_clipped += _written(sink, denoiser.process(np.where(finite, block, np.float32(0))), form)
    n_clipped += _written(sink, denoiser.flush(), form)
    if form.n_bytes is not None and form.n_bytes % 2 and n_read == form.n_bytes:
        sink.write(b"\0")
    if rest and n_read == form.n_bytes:
        raise LiveError(
            f"The header gives {n_read} bytes of sound, which are no whole samples of {form.frame_bytes} bytes; "
            "the whole ones were denoised."
        )
    if rest or n_read < (form.n_bytes or 0):
        promised = "whole samples" if form.n_bytes is None else f"{form.n_bytes} bytes of sound"
        raise LiveError(f"The stream was cut off: expected {promised}, found {n_read} bytes; what came was denoised.")
    n_left_out = 0 if form.n_bytes is None else bytes_of_no_chunk(source, odd=form.n_bytes % 2 == 1)
    return Heard(n_clipped, n_not_finite, n_left_out)


def _pieces(source: Source, form: PcmFormat, n_bytes: int) -> Iterator[bytes]:
    """The bytes of samples as they come, at most `n_bytes` at a time."""
    n_read = 0
    if not form.wav:
        # All of them before the first are worked on, however small the pieces are in which they come.
        if head := source.read(_SIGN_BYTES):
            _check_raw(head)
            yield head
        n_read = len(head)
    read = getattr(source, "read1", source.read)
    # What lies behind the samples of a WAV stream, tags for example, is no sound.
    while piece := read(n_bytes if form.n_bytes is None else min(n_bytes, form.n_bytes - n_read)):
        n_read += len(piece)
        yield piece


def _begins_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def _check_raw(head: bytes) -> None:
    if _begins_wav(head):
        raise LiveError("The input is a WAV stream, which says its own format: leave out --rate, or send raw samples.")
    _check_file(head)


def _check_file(head: bytes) -> None:
    other = head[4:8] == b"ftyp" or (head.startswith(b"RIFF") and len(head) == _SIGN_BYTES)
    if other or head.startswith(_SIGNS) or (head[:4], head[8:12]) in _FILES:
        raise LiveError("The input begins as a sound file does: denoise it as a file, or send a WAV stream or raw samples.")


def decoded(data: bytes, form: PcmFormat) -> Float32[np.ndarray, "samples channels"]:
    """Samples with full scale 1.0 from interleaved bytes."""
    if form.encoding == "s24":
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(octets), 4), np.uint8)
        wide[:, 1:] = octets
        values = wide.view("<i4")[:, 0] / np.float32(2**31)
    else:
        values = np.frombuffer(data, _TYPES[form.encoding])
        if form.encoding == "u8":
            values = (values.astype(np.float32) - 128) / 128
        elif form.encoding.startswith("s"):
            values = values / np.float32(2 ** (8 * _WIDTHS[form.encoding] - 1))
    # What is too large for it becomes infinite.
    with np.errstate(over="ignore"):
        samples = np.asarray(values, dtype=np.float32)
    return samples.reshape(-1, form.n_channels)


def encoded(block: Float32[np.ndarray, "samples channels"], form: PcmFormat) -> tuple[bytes, int]:
    """Interleaved bytes of samples, and how many values were clipped at full scale, as whole numbers must be."""
    if form.encoding.startswith("f"):
        return block.astype(_TYPES[form.encoding]).tobytes(), 0
    scale = 2 ** (8 * _WIDTHS[form.encoding] - 1)
    values = np.round(block.astype(np.float64) * scale)
    n_clipped = int(np.count_nonzero((values < -scale) | (values > scale)))
    values = np.clip(values, -scale, scale - 1)
    if form.encoding == "u8":
        return (values + 128).astype(np.uint8).tobytes(), n_clipped
    if form.encoding == "s24":
        return values.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), n_clipped
    return values.astype(_TYPES[form.encoding]).tobytes(), n_clipped


def _written(sink: Sink, block: Float32[np.ndarray, "samples channels"], form: PcmFormat) -> int:
    if not np.isfinite(block).all():
        raise LiveError(
            "The denoiser made NaN or infinity of sound that has none: the weights are broken, or the sound is far too loud, "
            "as samples of another encoding are; what came before is written."
        )
    data, n_clipped = encoded(block, form)
    sink.write(data)
    sink.flush()
    return n_clipped


def _described(body: bytes) -> PcmFormat:
    if len(body) < 16:
        raise LiveError("The header of the WAV stream is damaged: the description of its samples is too short.")
    code, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", body[:16])
    if code == 0xFFFE and len(body) >= 26:
        code = struct.unpack("<H", body[24:26])[0]
    encoding = _WAV_TYPES.get((code, bits))
    if encoding is None:
        raise LiveError(
            f"The WAV stream has format {code} with {bits} bits: expected PCM or floating point; denoise it as a file, or "
            "convert it first, as with ffmpeg -i INPUT -c:a pcm_s16le -f wav -."
        )
    if fault := impossible(rate, channels):
        raise LiveError(f"The header of the WAV stream is damaged: {fault}.")
    form = PcmFormat(rate, channels, encoding, wav=True)
    if frame_bytes != form.frame_bytes:
        raise LiveError(
            f"The WAV stream has samples of {bits} bits and {frame_bytes} bytes for all {channels} channels: expected "
            f"{form.frame_bytes}; denoise it as a file."
        )
    return form

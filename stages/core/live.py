"""A live signal on pipes: raw PCM or WAV in, the same out, as it comes."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32

from stages.core.errors import DenoisingError
from stages.core.streaming import StreamingDenoiser

# Size of a chunk whose length its writer cannot know.
_UNKNOWN = 0xFFFFFFFF
_TYPES = {"u8": "u1", "s16": "<i2", "s24": "s24", "s32": "<i4", "f32": "<f4", "f64": "<f8"}
_WAV_TYPES = {(1, 8): "u8", (1, 16): "s16", (1, 24): "s24", (1, 32): "s32", (3, 32): "f32", (3, 64): "f64"}
_WIDTHS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
ENCODINGS = tuple(_WIDTHS)


class LiveError(DenoisingError):
    """A stream that is not what it was said to be."""


@dataclass(frozen=True, slots=True)
class PcmFormat:
    """Interleaved little-endian samples: Hz, channels, and one of ENCODINGS."""

    sample_rate: int
    n_channels: int
    encoding: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.n_channels * _WIDTHS[self.encoding]


def wav_format(stream: BinaryIO) -> PcmFormat:
    """Reads the header of a WAV stream up to its first sample.

    Raises:
        LiveError: it is no WAV stream, or has an encoding other than PCM or floating point.
    """
    head = stream.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise LiveError("The input is no WAV stream; name the format of raw samples with --rate, --channels and --encoding.")
    form = None
    while True:
        chunk = stream.read(8)
        if len(chunk) < 8:
            raise LiveError("The WAV stream ends before its samples begin.")
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            break
        body = stream.read(size + size % 2)
        if name == b"fmt ":
            form = _described(body)
    if form is None:
        raise LiveError("The WAV stream has no chunk that describes its samples.")
    return form


def wav_header(form: PcmFormat) -> bytes:
    """The header of a WAV stream whose length is not known."""
    code = 3 if form.encoding.startswith("f") else 1
    width = _WIDTHS[form.encoding]
    fields = (code, form.n_channels, form.sample_rate, form.sample_rate * form.frame_bytes, form.frame_bytes, 8 * width)
    described = struct.pack("<HHIIHH", *fields)
    return (
        b"RIFF"
        + struct.pack("<I", _UNKNOWN)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + described
        + b"data"
        + struct.pack("<I", _UNKNOWN)
    )


def denoise_stream(source: BinaryIO, sink: BinaryIO, form: PcmFormat, denoiser: StreamingDenoiser, block_samples: int) -> int:
    """Denoises samples from `source` to `sink` until the source ends, flushing every block; returns how many were clipped.

    Blocks are read as they come, at most `block_samples` long. A last frame that is not whole is dropped.
    """
    rest, n_clipped = b"", 0
    read = getattr(source, "read1", source.read)
    while piece := read(block_samples * form.frame_bytes):
        data = rest + piece
        whole = len(data) - len(data) % form.frame_bytes
        rest = data[whole:]
        n_clipped += _written(sink, denoiser.process(decoded(data[:whole], form)), form)
    return n_clipped + _written(sink, denoiser.flush(), form)


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
    return np.asarray(values, dtype=np.float32).reshape(-1, form.n_channels)


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


def _written(sink: BinaryIO, block: Float32[np.ndarray, "samples channels"], form: PcmFormat) -> int:
    data, n_clipped = encoded(block, form)
    sink.write(data)
    sink.flush()
    return n_clipped


def _described(body: bytes) -> PcmFormat:
    code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if code == 0xFFFE and len(body) >= 26:
        code = struct.unpack("<H", body[24:26])[0]
    encoding = _WAV_TYPES.get((code, bits))
    if encoding is None or channels == 0 or rate == 0:
        raise LiveError(
            f"The WAV stream has format {code} with {bits} bits, {channels} channels at {rate} Hz: "
            "expected PCM or floating point."
        )
    return PcmFormat(rate, channels, encoding)

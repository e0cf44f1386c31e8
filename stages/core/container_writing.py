"""Sound encoded by FFmpeg through PyAV, in a container whose picture, subtitles and other streams are copied untouched."""

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import PacketSideData

from stages.core.container_opening import OPEN_OPTIONS
from stages.core.container_reading import ContainerReader
from stages.core.media_reading import Block, MediaError, MediaReader
from stages.core.sound_writing import LEAST_BIT_RATE, MOST_BIT_RATE, MediaSink, whole_numbers

# Generic in the type stubs of PyAV only.
if TYPE_CHECKING:
    _Packet: TypeAlias = av.Packet[Any]
else:
    _Packet = av.Packet
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# Samples that an encoder puts before the sound.
_DELAYS = {"aac": 1024, "ac3": 256, "eac3": 256, "mp2": 481, "libmp3lame": 1105}
# Containers that say how much of that players shall skip. In the others the sound begins that much later in the input,
# so that it stays where it was; what is lost is what the first encoder had put before it.
_EDITED = frozenset({"mp4", "mov", "ipod", "3gp", "3g2"})
_SKIPPING = _EDITED | {"matroska", "webm", "ogg", "mp3"}
# Decoders drop the first frame of these.
_FIRST_FRAME_LOST = frozenset({"wmav1", "wmav2"})
# Encoders that end with the last whole frame, so that what comes late out of them needs zeros behind it.
_ENDING_EARLY = frozenset({"mp2", "ac3", "eac3"})
# Encoders that fill more frames than the sound has.
_FILLING = _DELAYS.keys() | {"libopencore_amrnb"}
# Encoders of 24 bits, which take them in the highest bits of 32.
_HIGH_24 = frozenset({"alac", "flac", "tta"})
_FRAME_KINDS = {"u8": 8, "s16": 16, "s32": 32}
_FREE_FRAME = 4096
_SKIP_SAMPLES = 11  # AV_PKT_DATA_SKIP_SAMPLES
# Constant bit rates that these encoders know, in kbit/s.
_RATES = {
    "ac3": (64, 96, 128, 192, 256, 320, 384, 448, 512, 576, 640),
    "mp2": (64, 96, 128, 192, 256, 320, 384),
    "libmp3lame": (64, 96, 128, 160, 192, 256, 320),
    "libopencore_amrnb": (12.2,),
}
_WRITER_TAGS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "software"})


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What FFmpeg shall write: its names of a container and an encoder, and the kinds of other streams that are copied."""

    muxer: str
    encoder: str
    copied: frozenset[str]


class ContainerSink(MediaSink):
    """A file that FFmpeg writes, to the place `temporary`, with everything of `like` but its sound."""

    def __init__(self, temporary: Path, path: Path, like: MediaReader, plan: ContainerPlan) -> None:
        """Opens the encoder and writes the header.

        Raises:
            FFmpegError, ValueError, KeyError: FFmpeg does not write this.
        """
        super().__init__(path, like.sample_rate, like.n_channels, floating=plan.encoder.startswith("pcm_f"))
        self._plan, self._path_read = plan, like.path
        options = {"fflags": "+bitexact", "strict": "experimental"}
        if plan.muxer in _EDITED:
            # The edit list counts in units of the whole file, which are milliseconds otherwise.
            options |= {"movie_timescale": str(like.sample_rate)}
        if path.suffix.lower() in (".m4a", ".m4b"):
            # FFmpeg's own muxer for m4a takes no cover picture.
            options |= {"brand": "M4A "}
        self._out = av.open(str(temporary.absolute()), "w", format=plan.muxer, options=options)
        self._others: _Others | None = None
        with ExitStack() as failing:
            failing.callback(self.close)
            self._out.metadata.update({name: text for name, text in like.tags.items() if name.lower() not in _WRITER_TAGS})
            self._add_streams(like)
            self._out.start_encoding()
            failing.pop_all()
        context = self._stream.codec_context
        self._frame_size = context.frame_size or _FREE_FRAME
        self._delay = _DELAYS.get(plan.encoder, 0)
        start = round(like.start_s * like.sample_rate)
        # mp4 skips what lies before time 0 only.
        self._skipping = plan.muxer in _SKIPPING and not (plan.muxer in _EDITED and start > 0)
        self._skip = 0 if self._skipping else self._delay
        self._origin = start + self._skip
        self._held = np.zeros((0, like.n_channels), np.float32)
        self._n_fed = self._n_packets = 0
        self._last: _Packet | None = None
        if plan.encoder in _FIRST_FRAME_LOST:
            self._origin -= self._frame_size
            self._held = np.zeros((self._frame_size, like.n_channels), np.float32)

    def _add_streams(self, like: MediaReader) -> None:
        """Adds the streams in their order in the input."""
        if not isinstance(like, ContainerReader):
            self._stream = self._new_stream(like, _LAYOUTS[like.n_channels])
            return
        self._others = _Others(like.path)
        for stream in self._others.container.streams:
            new: av.stream.Stream
            if stream.index == like.stream_index:
                new = self._stream = self._new_stream(like, like.layout)
            elif stream.type in self._plan.copied:
                new = self._out.add_stream_from_template(stream, opaque=True)
                self._others.targets[stream.index] = new
            else:
                self._others.left_out.append(stream.type)
                continue
            kept = {name: text for name, text in stream.metadata.items() if name.lower() not in _WRITER_TAGS}
            new.metadata.update(kept)
            new.disposition = stream.disposition
        self._out.set_chapters(self._others.container.chapters())
        if self._others.container.chapters():
            # mp4 holds them as a stream of data as well, which is written anew.
            self._others.left_out = [kind for kind in self._others.left_out if kind != "data"]
        if self._others.left_out:
            kinds = ", ".join(sorted(set(self._others.left_out)))
            self.remarks.append(f"streams that the container does not take were left out: {kinds}")

    def _new_stream(self, like: MediaReader, layout: str) -> AudioStream:
        encoder = self._plan.encoder
        options = {"flags": "+bitexact", "strict": "experimental"}
        stream = cast(AudioStream, self._out.add_stream(encoder, rate=like.sample_rate, options=options))
        context = stream.codec_context
        context.layout = layout
        context.format = _frame_format(context.codec, like)
        context.time_base = stream.time_base = Fraction(1, like.sample_rate)
        if not context.codec.lossless:
            context.bit_rate = _bit_rate(encoder, like.format.bit_rate, like.n_channels)
        context.thread_count = 1
        # Opus takes lower rates but is always decoded at 48 kHz.
        rates = [48_000] if encoder == "libopus" else context.codec.audio_rates
        if rates and like.sample_rate not in rates:
            raise ValueError(f"{encoder} does not take {like.sample_rate} Hz")
        context.open()
        return stream

    def close(self) -> None:
        """Closes the files."""
        if self._others is not None:
            self._others.container.close()
        self._out.close()

    def _put(self, block: Block) -> None:
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        held = np.concatenate([self._held, block[skipped:]])
        whole = len(held) // self._frame_size * self._frame_size
        for first in range(0, whole, self._frame_size):
            self._encode(held[first : first + self._frame_size])
        self._held = held[whole:]

    def _end(self) -> None:
        late = self._delay if self._plan.encoder in _ENDING_EARLY else 0
        tail = np.concatenate([self._held, np.zeros((late, self.n_channels), np.float32)])
        for first in range(0, len(tail), self._frame_size):
            self._encode(tail[first : first + self._frame_size])
        packets = self._stream.encode(None)
        if not self._skipping and self._plan.encoder in _FILLING:
            # As many frames as the sound needs; the encoder has more, for what it put before the sound.
            packets = packets[: max(0, -(-self.n_written // self._frame_size) - self._n_packets)]
        self._take(packets)
        self._trim_last()
        self._mux_last()
        if self._others is not None:
            for packet in self._others.until(None):
                self._mux(packet)
        self._guarded(self.close)

    def _encode(self, samples: Block) -> None:
        context = self._stream.codec_context
        name = context.format.name
        kind = name.removesuffix("p")
        data: np.ndarray = samples
        if kind in _FRAME_KINDS:
            bits = 24 if kind == "s32" and self._plan.encoder in _HIGH_24 else _FRAME_KINDS[kind]
            data = whole_numbers(samples, bits, np.int32 if kind == "s32" else np.int16, _FRAME_KINDS[kind] - bits)
            data = (data + 128).astype(np.uint8) if kind == "u8" else data
        elif kind == "dbl":
            data = samples.astype(np.float64)
        data = np.ascontiguousarray(data.T) if context.format.is_planar else data.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format=name, layout=context.layout.name)
        frame.sample_rate, frame.time_base = self.sample_rate, Fraction(1, self.sample_rate)
        frame.pts = self._origin + self._n_fed
        self._n_fed += len(samples)
        try:
            packets = self._stream.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{self.path}: cannot be encoded as {self._plan.encoder} ({error}).") from None
        self._take(packets)

    def _take(self, packets: list[_Packet]) -> None:
        for packet in packets:
            self._mux_last()
            self._n_packets += 1
            self._last = packet

    def _mux_last(self) -> None:
        """Writes the packet that is held back, and of the other streams what comes before it."""
        packet, self._last = self._last, None
        if packet is None:
            return
        if self._others is not None and packet.dts is not None:
            for other in self._others.until(packet.dts * packet.time_base):
                self._mux(other)
        self._mux(packet)

    def _trim_last(self) -> None:
        """Says where the sound ends within the last packet, for encoders that do not say it themselves."""
        over = self._n_packets * self._frame_size - (self._delay if self._skipping else 0) - self.n_written
        if self._last is None or self._plan.encoder not in _ENDING_EARLY | {"aac"} or not 0 < over < self._frame_size:
            return
        if self._plan.muxer in ("matroska", "webm"):
            skipped = PacketSideData(_SKIP_SAMPLES, 10)  # type: ignore[call-arg]
            skipped.update(struct.pack("<IIBB", 0, over, 0, 0))
            self._last.set_sidedata(skipped)
        elif self._plan.muxer in _EDITED:
            self._last.duration = self._frame_size - over

    def _mux(self, packet: _Packet) -> None:
        self._guarded(lambda: self._out.mux_one(packet))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{self.path}: cannot be written as {self._plan.muxer} ({error}).") from None


class _Others:
    """The streams of the input that are copied, read along with the sound that replaces the one."""

    def __init__(self, path: Path) -> None:
        self.container = av.open(str(path.absolute()), options=OPEN_OPTIONS, metadata_errors="replace")
        self.targets: dict[int, av.stream.Stream] = {}
        self.left_out: list[str] = []
        self._path = path
        self._packets: Iterator[_Packet] | None = None
        self._waiting: _Packet | None = None

    def until(self, time: Fraction | None) -> Iterator[_Packet]:
        """The packets up to a decoding time in seconds, each with its new stream; None is up to the end."""
        while self.targets:
            packet = self._waiting or self._next()
            if packet is None:
                return
            stamp = packet.pts if packet.dts is None else packet.dts
            if time is not None and stamp is not None and stamp * packet.time_base > time:
                self._waiting = packet
                return
            self._waiting = None
            packet.stream = self.targets[packet.stream_index]
            yield packet

    def _next(self) -> _Packet | None:
        if self._packets is None:
            self._packets = self.container.demux([self.container.streams[index] for index in self.targets])
        try:
            # Packets without data end a stream.
            return next((packet for packet in self._packets if packet.size), None)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self._path}: its picture cannot be read to its end ({error}); replace the file.") from None


def _frame_format(codec: av.Codec, like: MediaReader) -> str:
    """The sample format that keeps most: floating point for lossy codecs, else the depth of the input."""
    names = [form.name for form in codec.audio_formats or []]
    whole = ["s16", "s32"] if (like.format.bit_depth or 32) <= 16 else ["s32", "s16"]
    wanted = [*whole, "u8", "flt", "dbl"] if codec.lossless else ["flt", "s32", "s16"]
    if isinstance(like, ContainerReader) and codec.lossless:
        wanted = [like.frame_format, *wanted]
    return next((name for kind in wanted for name in (kind + "p", kind) if name in names), names[0])


def _bit_rate(encoder: str, source: int | None, n_channels: int) -> int:
    wanted = min(max(source or 0, LEAST_BIT_RATE * n_channels), MOST_BIT_RATE * n_channels)
    known = _RATES.get(encoder)
    return wanted if known is None else int(1000 * next((rate for rate in known if rate * 1000 >= wanted), known[-1]))

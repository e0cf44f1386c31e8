"""The sound of whatever libsndfile does not read, such as m4a, mp4, webm, mkv and wma, decoded by FFmpeg through PyAV."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from stages.core.audio import impossible
from stages.core.container_ends import bytes_behind, missing_part
from stages.core.container_opening import chosen, messages, opened, reason, start_decoder
from stages.core.media_reading import Block, MediaError, MediaFormat, MediaReader

# Generic in PyAV's type stubs only.
if TYPE_CHECKING:
    _Packet: TypeAlias = av.Packet[Any]
else:
    _Packet = av.Packet
# These say how long the sound is; other containers let FFmpeg guess from the bit rate.
_PROMISING = frozenset({"mov", "matroska", "asf", "avi", "ogg", "flac", "wav", "w64", "aiff", "caf", "flv", "tta", "wv", "ape"})
# In these every byte belongs to a frame of the one stream, so that a hole between two frames is damage.
_GAPLESS = frozenset({"aac", "ac3", "eac3", "dts", "mp3"})
# MPEG audio has no larger frames, but FFmpeg adds what it does not understand to the frame before.
_LARGEST_MPEG_FRAME = 2881
# Time stamps are rounded to milliseconds, durations count what the encoder put before and after.
_TOLERANCE_S = 0.1
# The most by which the last frame of a codec reaches beyond the end that the container gives.
_LONGEST_FRAME = 1 << 13
# Longer silence that the time stamps ask for than this is a damaged time stamp, where the container gives no duration.
_LONGEST_GAP_S = 600
_DIVISORS = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


class ContainerReader(MediaReader):
    """One audio stream of a file that FFmpeg reads.

    What encoders put before the sound is skipped where the container says how much that is, and mp4's edit list ends the
    sound to the sample, as in players. Gaps between time stamps, as recorders leave them, are filled with silence, so that
    sound and picture stay together. `layout` names the channels; `frame_format` is FFmpeg's name of the sample format.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and decodes its first frame, which alone tells the rate and channels for sure.

        Raises:
            MediaError: FFmpeg does not know the file, it has no sound, or no decoder for it.
        """
        self._container = opened(path)
        with ExitStack() as failing:
            failing.callback(self._container.close)
            if lack := missing_part(path, self._container.format.name):
                raise MediaError(f"{path}: truncated or corrupt: {lack}; replace or remove the file.")
            self._stream, remarks = chosen(path, self._container)
            self.stream_index = self._stream.index
            start_decoder(path, self._stream)
            self._duration = _duration(self._container, self._stream)
            self.path, self.n_read, self._n_decoded, self._end = path, 0, 0, 0
            self._origin: Fraction | None = None
            self._filled = 0
            self._frames = self._decoded()
            self._first = next(self._frames, None)
            if self._first is None:
                raise MediaError(f"{path}: not a sound file, or one without a single sample; replace or remove it.")
            self._describe(path, self._first, remarks)
            failing.pop_all()

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _describe(self, path: Path, first: AudioFrame, remarks: list[str]) -> None:
        container, stream = self._container, self._stream
        rate, exact = first.sample_rate, _is_exact(container, stream)
        codec = stream.codec_context.codec
        self.layout, self.frame_format = first.layout.name, first.format.name.removesuffix("p")
        bits = None if codec.lossy and not codec.lossless else first.format.bits
        form = MediaFormat(
            "av", container.format.name, codec.canonical_name, bit_depth=bits, bit_rate=_bit_rate(container, stream, bits)
        )
        if fault := impossible(rate, len(first.layout.channels)):
            raise MediaError(f"{path}: its header is damaged: {fault}; replace or remove the file.")
        promised = None if self._duration is None or not exact else round(self._duration * rate)
        super().__init__(path, rate, len(first.layout.channels), promised, form)
        self.duration_s = None if self._duration is None else float(self._duration)
        if first.pts is not None and first.time_base:
            self._origin = first.pts * first.time_base
            self.start_s = float(self._origin)
        self.tags = dict(container.metadata)
        self.remarks = remarks

    def _decoded(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            with _checked(self.path, lambda: self._time):
                packet = next(packets, None)
                if packet is None:
                    return
                self._check_packet(packet)
                frames = self._stream.decode(packet)
            for frame in frames:
                if frame.is_corrupt:
                    raise self._corrupt("a frame is damaged")
                yield frame

    def _check_packet(self, packet: _Packet) -> None:
        if packet.is_corrupt:
            raise self._corrupt("a packet is damaged")
        if self._container.format.name in _GAPLESS and packet.pos is not None and packet.size:
            # Bytes between two frames that are neither, or that were taken for a part of the one before.
            junk = max(
                packet.pos - self._end if self._end else 0,
                packet.size - _LARGEST_MPEG_FRAME if self._container.format.name == "mp3" else 0,
            )
            if junk > 0:
                raise self._corrupt(f"{junk} bytes or more are no frame of sound")
            self._end = packet.pos + packet.size

    def _chunks(self) -> Iterator[Block]:
        frame = self._first
        while frame is not None:
            if (frame.sample_rate, len(frame.layout.channels)) != (self.sample_rate, self.n_channels):
                raise MediaError(
                    f"{self.path}: changes from {self.n_channels} channels at {self.sample_rate} Hz to "
                    f"{len(frame.layout.channels)} at {frame.sample_rate} Hz, {self._time:.2f} s from its start; convert it."
                )
            yield from self._silence(frame)
            samples = _samples(frame)
            self._n_decoded += len(samples)
            over = 0 if self.n_samples is None else self._n_decoded - self.n_samples
            # Beyond the end of the edit list lies what fills the last frame of the codec.
            yield samples[: max(0, len(samples) - over)] if 0 < over <= _LONGEST_FRAME else samples
            frame = next(self._frames, None)

    def _silence(self, frame: AudioFrame) -> Iterator[Block]:
        """What the time stamps leave out before `frame`."""
        if self._origin is None or frame.pts is None or frame.time_base is None or self.n_samples is not None:
            return
        at = float(frame.pts * frame.time_base - self._origin)
        gap = at - self._n_decoded / self.sample_rate
        if gap <= _TOLERANCE_S:
            return
        latest = self._time + _LONGEST_GAP_S if self.duration_s is None else self.duration_s + 1
        if at > latest:
            raise self._corrupt(f"the time stamps jump ahead by {gap:.1f} s")
        missing = round(gap * self.sample_rate)
        self._filled += missing
        self._n_decoded += missing
        for first in range(0, missing, _LONGEST_FRAME):
            yield np.zeros((min(_LONGEST_FRAME, missing - first), self.n_channels), np.float32)

    def _check_end(self) -> None:
        missing = 0.0 if self._duration is None else float(self._duration) - self.n_read / self.sample_rate
        if missing > _TOLERANCE_S + abs(self.start_s) and self._is_own():
            if self.format.container != "avi":
                raise self._truncated(round(float(self._duration or 0) * self.sample_rate))
            # FFmpeg itself writes AVI headers that count the silence before the sound, which is not in the file.
            self.remarks.append(f"its header promises {missing:.2f} s of sound more than there is")
        if self._end and (n_bytes := bytes_behind(self.path, self._end)):
            self.remarks.append(f"its last {n_bytes} bytes are no sound")
        self._note_rest()
        if self._filled:
            seconds = self._filled / self.sample_rate
            self.remarks.append(f"its time stamps leave out {seconds:.2f} s in all, which became silence")

    def _is_own(self) -> bool:
        """Whether the duration is that of the sound; that of a file of several streams is that of the longest."""
        return bool(self._stream.duration) or "DURATION" in self._stream.metadata or len(self._container.streams) == 1

    @property
    def _time(self) -> float:
        return self._n_decoded / (self.sample_rate if hasattr(self, "sample_rate") else 1)

    def _corrupt(self, reason: str) -> MediaError:
        return MediaError(f"{self.path}: corrupt {self._time:.2f} s from its start: {reason}; replace or remove the file.")


@contextmanager
def _checked(path: Path, time: Callable[[], float]) -> Iterator[None]:
    """Makes an error of whatever FFmpeg raises in the block, or reports as an error and then conceals."""
    failure = ""
    with messages() as said:
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            failure = reason(error)
    if said or failure:
        # The log says more than the number of an error.
        failure = " ".join((said[0][2] if said else failure).split()).strip(".")
        raise MediaError(f"{path}: truncated or corrupt {time():.2f} s from its start ({failure}); replace or remove the file.")


def _duration(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """The length of the sound in seconds as the container promises it."""
    if container.format.name.split(",")[0] not in _PROMISING:
        return None
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if "DURATION" in stream.metadata:
        try:
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
        except ValueError:
            return None
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def _is_exact(container: InputContainer, stream: AudioStream) -> bool:
    """Whether the container promises a length to the sample, which ends the sound within the last frame of the codec."""
    base = stream.time_base
    return container.format.name.startswith("mov") and bool(stream.duration) and base is not None and base.denominator >= 8000


def _bit_rate(container: InputContainer, stream: AudioStream, bits: int | None) -> int | None:
    if bits is not None:
        return None
    if stream.codec_context.bit_rate:
        return int(stream.codec_context.bit_rate)
    return int(container.bit_rate) if len(container.streams) == 1 and container.bit_rate else None


def _samples(frame: AudioFrame) -> Block:
    """The samples of a frame of any format, scaled exactly: full scale of whole numbers is 1.0."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, len(frame.layout.channels))
    name = frame.format.name.removesuffix("p")
    if name == "u8":
        data = data.astype(np.int16) - 128
    if name in _DIVISORS:
        data = data / _DIVISORS[name]
    return np.ascontiguousarray(data, dtype=np.float32)

"""The samples of a sound file in blocks, read forward once in constant memory, and what all media files have in common."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import soundfile
from jaxtyping import Float32

from stages.core.audio import AudioError, ForwardFile, check_complete, impossible
from stages.core.container_ends import missing_part
from stages.core.container_rest import sound_left_out

Block = Float32[np.ndarray, "samples channels"]
# How much is decoded at once, whatever the length of the blocks that are asked for.
_CHUNK = 1 << 14
# A file of no samples is no more than a header; recorders that were killed leave a header of no samples and sound behind it.
_LONGEST_HEADER = 1024
# What libsndfile reports of a length that it does not know, and beyond.
_UNKNOWN = 2**62
_BIT_DEPTHS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_BIT_DEPTHS |= {"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32}
_COMPRESSED = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})


class MediaError(AudioError):
    """A sound or video file that cannot be read to its end, holds what is no sound, or cannot be written."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """How the sound of a file is stored, so that another can be written alike.

    The words are those of the library that read it: WAV, PCM_16, LITTLE of libsndfile; matroska, opus of FFmpeg.
    `bit_depth` is None for lossy encodings, `bit_rate` (bits per second of the sound) for all others or where unknown.
    """

    backend: Literal["soundfile", "av"]
    container: str
    encoding: str
    endian: str = "FILE"
    bit_depth: int | None = None
    bit_rate: int | None = None


class MediaReader(ABC):
    """One sound or video file that is open for reading, from its start to its end, once.

    `n_samples` is the length that the file promises, None where it promises none; `duration_s` is what is known of the
    length for showing progress. `start_s` is when the sound begins on the clock of the file. `remarks` are sentences that
    the user should see; some are known only after the last block.
    """

    def __init__(self, path: Path, sample_rate: int, n_channels: int, n_samples: int | None, form: MediaFormat) -> None:
        """Notes what the header says."""
        self.path, self.sample_rate, self.n_channels, self.format = path, sample_rate, n_channels, form
        self.n_samples = n_samples
        self.n_read = 0
        self.duration_s = None if n_samples is None else n_samples / sample_rate
        self.start_s = 0.0
        self.tags: dict[str, str] = {}
        self.remarks: list[str] = []

    def blocks(self, n: int) -> Iterator[Block]:
        """All samples in blocks of `n`, the last one shorter; full scale is 1.0.

        Raises:
            MediaError: the file is truncated or corrupt, or holds NaN or infinity.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        held: list[Block] = []
        n_held = 0
        for chunk in self._chunks():
            self._check_finite(chunk)
            self.n_read += len(chunk)
            held.append(chunk)
            n_held += len(chunk)
            if n_held >= n:
                waiting = np.concatenate(held) if len(held) > 1 else chunk
                for first in range(0, n_held - n + 1, n):
                    yield waiting[first : first + n]
                n_held %= n
                held = [waiting[len(waiting) - n_held :]]
        self._check_end()
        if n_held:
            yield np.concatenate(held)

    @abstractmethod
    def close(self) -> None:
        """Closes the file; closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _chunks(self) -> Iterator[Block]:
        """What was decoded, in pieces of any length."""

    @abstractmethod
    def _check_end(self) -> None:
        """Refuses a file that gave less than it promised."""

    def _check_finite(self, chunk: Block) -> None:
        finite = np.isfinite(chunk)
        if finite.all():
            return
        first = int(np.argmin(finite.all(axis=1)))
        kind = "NaN" if np.isnan(chunk[first]).any() else "infinite"
        time = (self.n_read + first) / self.sample_rate
        raise MediaError(f"{self.path}: holds samples that are {kind}, the first at {time:.3f} s; replace or remove the file.")

    def _note_rest(self) -> None:
        if remark := sound_left_out(self.path, self.format.container):
            self.remarks.append(remark)

    def _truncated(self, promised: int) -> MediaError:
        return MediaError(
            f"{self.path}: truncated or corrupt: expected {promised} samples ({promised / self.sample_rate:.2f} s), found "
            f"{self.n_read}; replace or remove the file."
        )


class SoundReader(MediaReader):
    """A file that libsndfile reads."""

    def __init__(self, path: Path) -> None:
        """Opens the file; raises SoundFileError when it is none of libsndfile's, MediaError when it is damaged."""
        # As bytes, since a name need not be UTF-8.
        self._file = ForwardFile(os.fsencode(path))
        file = self._file
        with ExitStack() as failing:
            failing.callback(file.close)
            check_complete(path, file)
            if lack := missing_part(path, file.format):
                raise MediaError(f"{path}: truncated or corrupt: {lack}; replace or remove the file.")
            if fault := impossible(file.samplerate, file.channels):
                raise MediaError(f"{path}: its header is damaged: {fault}; replace or remove the file.")
            n_samples = None if file.frames >= _UNKNOWN else int(file.frames)
            if n_samples == 0 and path.stat().st_size > _LONGEST_HEADER:
                raise MediaError(
                    f"{path}: holds no samples: its header promises none, and the file has {path.stat().st_size} bytes."
                )
            super().__init__(path, int(file.samplerate), int(file.channels), n_samples, _sound_format(path, file))
            self.tags = file.copy_metadata()
            failing.pop_all()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _chunks(self) -> Iterator[Block]:
        while True:
            chunk = np.empty((_CHUNK, self.n_channels), np.float32)
            try:
                chunk = self._file.read(out=chunk)
            except soundfile.SoundFileError as error:
                raise MediaError(
                    f"{self.path}: corrupt or truncated: it cannot be decoded past {self.n_read / self.sample_rate:.2f} s "
                    f"({str(error).strip(' .')}); replace or remove the file."
                ) from None
            if len(chunk):
                yield chunk
            if len(chunk) < _CHUNK:
                return

    def _check_end(self) -> None:
        if self.n_samples is not None and self.n_read != self.n_samples:
            raise self._truncated(self.n_samples)
        self._note_rest()


def _sound_format(path: Path, file: soundfile.SoundFile) -> MediaFormat:
    rate = None
    if file.subtype in _COMPRESSED and 0 < file.frames < _UNKNOWN:
        rate = round(path.stat().st_size * 8 * file.samplerate / file.frames)
    return MediaFormat("soundfile", file.format, file.subtype, file.endian, _BIT_DEPTHS.get(file.subtype), rate)

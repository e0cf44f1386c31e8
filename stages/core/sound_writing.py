"""Sound written block by block: what all writers share, and the one for the formats of libsndfile."""

import os
import struct
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import soundfile

from stages.core.audio import ForwardFile
from stages.core.container_ends import ogg_checksum, ogg_page
from stages.core.media_reading import Block, MediaError
from stages.core.wav_chunks import put_speaker_mask

# libsndfile's Vorbis encoder overflows its stack on very long single writes (libsndfile#709).
_LONGEST_WRITE = 1 << 14
# Bits of the sample, type that libsndfile takes, and how far the sample is shifted up in it.
_WHOLE: dict[str, tuple[int, type[np.int16 | np.int32], int]] = {
    "PCM_S8": (8, np.int16, 8),
    "PCM_U8": (8, np.int16, 8),
    "PCM_16": (16, np.int16, 0),
    "PCM_24": (24, np.int32, 8),
    "PCM_32": (32, np.int32, 0),
    "ALAC_16": (16, np.int16, 0),
    "ALAC_20": (20, np.int32, 12),
    "ALAC_24": (24, np.int32, 8),
    "ALAC_32": (32, np.int32, 0),
}
# Containers whose encoder writes its last part on closing, when libsndfile no longer tells of a full disk.
_LATE = frozenset({"FLAC", "OGG", "MP3"})
_FLOATING = frozenset({"FLOAT", "DOUBLE"})
# Kilobits per second and channel of Vorbis at 44.1 kHz for quality 0.0, 0.1 and so on, from its encoder's documentation.
_VORBIS_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 250)
_MP3_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 320)
_ADD_PEAK_CHUNK = 0x1050
# A second lossy generation at the same rate would add as much noise as the first: at least this much for each channel.
LEAST_BIT_RATE = 96_000
# Encoders refuse more; rates that are guessed from the size of a very short file are mostly its header.
MOST_BIT_RATE = 256_000


class MediaSink(ABC):
    """A file that is being written. `path` is where it will be; `remarks` are sentences that the user should see.

    `n_clipped` counts values beyond full scale, which only floating-point formats keep.
    """

    def __init__(self, path: Path, sample_rate: int, n_channels: int, *, floating: bool) -> None:
        """Starts a file of no samples."""
        self.path, self.sample_rate, self.n_channels = path, sample_rate, n_channels
        self.floating = floating
        self.n_clipped = self.n_written = 0
        self.remarks: list[str] = []

    def write(self, block: Block) -> None:
        """Appends samples, clipped at full scale on purpose where the format holds no more.

        Raises:
            MediaError: the block holds NaN or infinity, has another number of channels, or the file cannot be written.
        """
        if block.shape[1] != self.n_channels:
            raise MediaError(f"{self.path}: expected blocks of {self.n_channels} channels, found {block.shape[1]}.")
        # NaN is the least and the greatest of whatever it is among.
        low, high = (float(block.min()), float(block.max())) if block.size else (0.0, 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise MediaError(f"{self.path}: the sound to be written holds NaN or infinity; the model or the input is broken.")
        if not self.floating and max(-low, high) > 1:
            self.n_clipped += int(np.count_nonzero(np.abs(block) > 1.0))
            block = np.clip(block, -1.0, 1.0)
        self._put(block)
        self.n_written += len(block)

    def finish(self) -> None:
        """Ends the file."""
        self._end()
        if self.n_clipped:
            self.remarks.append(f"{self.n_clipped} values were clipped at full scale")

    @abstractmethod
    def close(self) -> None:
        """Lets go of the file, finished or not; closing twice is fine."""

    @abstractmethod
    def _put(self, block: Block) -> None:
        """Appends samples that the format can hold."""

    @abstractmethod
    def _end(self) -> None:
        """Writes what is held back, and the header."""


class SoundSink(MediaSink):
    """A file that libsndfile writes, to the place `temporary`; `speakers` is the speaker mask of a WAV file, if it has one."""

    def __init__(
        self, temporary: Path, path: Path, shape: tuple[int, int], form: tuple[str, str, str], bit_rate: int | None
    ) -> None:
        """Opens a file of `shape` (sample rate, channels) and `form` (container, encoding, byte order).

        Raises:
            SoundFileError, ValueError: libsndfile does not write this.
        """
        container, encoding, endian = form
        super().__init__(path, *shape, floating=encoding in _FLOATING)
        level = compression_level(encoding, *shape, bit_rate)
        mode = "CONSTANT" if encoding == "MPEG_LAYER_III" else None
        self._file = ForwardFile(
            os.fsencode(temporary), "w", *shape, encoding, endian, container, compression_level=level, bitrate_mode=mode
        )
        # The chunk with the peaks holds the time of writing, so equal sound would give unequal files.
        soundfile._snd.sf_command(self._file._file, _ADD_PEAK_CHUNK, soundfile._ffi.NULL, 0)
        self._whole = _WHOLE.get(encoding)
        self._numbered = temporary if container == "OGG" else None
        self._late = temporary if container in _LATE else None
        self._temporary = temporary
        self.speakers: bytes | None = None

    def tag(self, tags: dict[str, str]) -> None:
        """Writes title, artist and the like; comes before the first block. What the format does not take is left out."""
        for name, text in tags.items():
            # libsndfile signs with its own name.
            if name != "software":
                try:
                    setattr(self._file, name, text)
                except soundfile.SoundFileError:
                    continue

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _put(self, block: Block) -> None:
        data = block if self._whole is None else whole_numbers(block, *self._whole)
        try:
            for first in range(0, len(data), _LONGEST_WRITE):
                self._file.write(data[first : first + _LONGEST_WRITE])
        except (soundfile.SoundFileError, AssertionError) as error:
            raise MediaError(f"{self.path}: cannot be written ({error or 'is the disk full?'}).") from None

    def _end(self) -> None:
        self.close()
        if self._late is not None and not _whole(self._late, self.n_written):
            raise MediaError(f"{self.path}: could not be written whole; is the disk full?")
        if self._numbered is not None:
            number_ogg_streams(self._numbered)
        if self.speakers is not None:
            put_speaker_mask(self._temporary, self.speakers)


def _whole(path: Path, n_samples: int) -> bool:
    """Whether a file holds so many samples; encoders that need whole blocks may have added to them."""
    try:
        with ForwardFile(os.fsencode(path)) as file:
            if file.format == "FLAC":  # where the end is missing, it is said to be of endless length
                return int(file.frames) == n_samples
            if file.format == "MP3":  # its length is reckoned, not counted
                n_found = 0
                while n_read := len(file.read(_LONGEST_WRITE)):
                    n_found += n_read
                return n_found >= n_samples
            return int(file.frames) >= n_samples
    except soundfile.SoundFileError:
        return False


def whole_numbers(block: Block, bits: int, kind: type[np.int16 | np.int32], shift: int) -> np.ndarray:
    """Samples of `bits` bits, rounded to the nearest, in the highest bits of a type: what is read back is the same number.

    libsndfile's own conversion rounds down.
    """
    scale = 2.0 ** (bits - 1)
    # A product with a power of two is exact, and so are whole numbers of up to 24 bits.
    numbers = np.rint((block if bits <= 24 else block.astype(np.float64)) * scale)
    whole: np.ndarray = np.left_shift(np.clip(numbers, -scale, scale - 1, out=numbers).astype(kind), shift)
    return whole


def number_ogg_streams(path: Path) -> None:
    """Numbers the streams of an OGG file from 1, so that equal sound gives equal files: libsndfile draws by the clock."""
    numbers: dict[bytes, int] = {}
    with path.open("r+b") as file:
        while page := ogg_page(file):
            number = numbers.setdefault(page[14:18], len(numbers) + 1)
            page = page[:14] + struct.pack("<I", number) + page[18:]
            page = page[:22] + struct.pack("<I", ogg_checksum(page)) + page[26:]
            file.seek(-len(page), 1)
            file.write(page)


def compression_level(encoding: str, sample_rate: int, n_channels: int, bit_rate: int | None) -> float | None:
    """Libsndfile's level of compression (0 best, 1 smallest) for at least `bit_rate` bits per second; None if lossless."""
    wanted = max(bit_rate or 0, LEAST_BIT_RATE * n_channels)
    if encoding == "OPUS":
        # 6 to 256 kbit/s for each channel.
        return 1 - min(max((wanted / n_channels / 1000 - 6) / 250, 0.0), 1.0)
    if encoding == "VORBIS":
        share = wanted / n_channels / 1000 * max(1.0, 44_100 / sample_rate)
        quality = next((index for index, rate in enumerate(_VORBIS_RATES) if rate >= share), len(_VORBIS_RATES) - 1)
        return 1 - quality / 10
    if encoding == "MPEG_LAYER_III":
        low, high = (32, 320) if sample_rate >= 32_000 else (8, 160) if sample_rate >= 16_000 else (8, 64)
        rate = next((rate for rate in _MP3_RATES if rate * 1000 >= wanted), high)
        return (high - min(max(rate, low), high)) / (high - low)
    return None

"""Sound files that libsndfile reads, whole or in part."""

import os
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from stages.core.errors import DenoisingError
from stages.core.files import visible_files

SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".w64", ".rf64"}
)


# libsndfile's log about the chunk of samples: the size in the header, and what the length of the file leaves of it.
_SIZES = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
# And about an OGG stream: no last page, for Vorbis and for Opus, or a part of one.
_CUT_OGG = ("lacks an end-of-stream bit", "without an End-Of-Stream flag", "Junk after the last page")
# The same for CAF files of packets.
_VALID_FRAMES = re.compile(r"^\s*Valid frames\s*: (\d+)")
# Programs that write to a pipe cannot know the size and leave one of the largest numbers there.
_UNKNOWN_SIZE = 0x7FFFF000
# Samples whose squares are summed in single precision.
_STRETCH = 1 << 16
# What libsndfile reports of a FLAC stream that was written to a pipe.
_UNKNOWN_FRAMES = 2**62
# More than any recorder gives: 1-bit recorders run at 2.8 MHz. Headers that say more are damaged, and what is built for such
# rates, filters for example, would take minutes and gigabytes.
LOWEST_RATE, HIGHEST_RATE = 1000, 3_000_000
MOST_CHANNELS = 1024


class AudioError(DenoisingError):
    """A sound file that cannot be read to its end, or holds what is no sound."""


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read on from where one is.

    After every read soundfile seeks to where it has got to. That costs a FLAC file a search and the decoding of a block, can
    hang in a truncated one (python-soundfile#385), and loses samples in some files whose header is damaged.
    """

    def seekable(self) -> bool:
        """Always False."""
        return False


def impossible(sample_rate: int, n_channels: int) -> str:
    """Why sound of this rate (Hz) and so many channels cannot be, or nothing."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        return f"expected a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, found {sample_rate} Hz"
    return "" if 1 <= n_channels <= MOST_CHANNELS else f"expected 1 to {MOST_CHANNELS} channels, found {n_channels}"


def sound_files(folder: Path) -> list[Path]:
    """All visible files below `folder` whose suffix is that of a sound file, sorted."""
    return [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]


def read_audio(
    path: Path, *, start: int = 0, n_samples: int | None = None
) -> tuple[Float32[np.ndarray, "samples channels"], int]:
    """The waveform in a sound file, full scale 1.0, and its sample rate in Hz.

    Args:
        path: a file that libsndfile reads.
        start: first sample of the part that is wanted.
        n_samples: length of that part; None is up to the end.

    Raises:
        AudioError: the file is no sound file, is shorter than its header or the part promises, or holds NaN or infinity.
    """
    with _opened(path) as file:
        if fault := impossible(file.samplerate, file.channels):
            raise AudioError(f"{path}: its header is damaged: {fault}; replace or remove the file.")
        if n_samples is None:  # a part that is promised is counted, and the log of libsndfile is slow to read
            check_complete(path, file)
        if file.frames >= _UNKNOWN_FRAMES:
            raise AudioError(f"{path}: its header does not say how long it is; write it anew, as with 'flac' or 'sox'.")
        promised = file.frames - start if n_samples is None else n_samples
        try:
            if start:
                file.seek(start)
            waveform = file.read(promised, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{path}: cannot be decoded to its end ({error}); replace or remove the file.") from None
        sample_rate = int(file.samplerate)
    if len(waveform) != promised:
        raise AudioError(
            f"{path}: truncated or corrupt: expected {promised} samples, found {len(waveform)}; replace or remove the file."
        )
    if not np.isfinite(waveform).all():
        raise AudioError(f"{path}: holds samples that are NaN or infinite; replace or remove the file.")
    return waveform, sample_rate


def resampled(
    waveform: Float32[np.ndarray, "samples *channels"], sample_rate: float, new_rate: float
) -> Float32[np.ndarray, "new *channels"]:
    """A waveform at another sample rate (Hz), by soxr in its high quality; unchanged when the rates are equal."""
    if sample_rate == new_rate:
        return waveform
    return np.asarray(soxr.resample(waveform, sample_rate, new_rate, quality="HQ"), dtype=np.float32)


def level_dbfs(waveform: Float32[np.ndarray, "..."]) -> float:
    """The root mean square of a waveform in dB below full scale; -infinity for digital silence."""
    power = energy(waveform) / waveform.size if waveform.size else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


def energy(samples: Float32[np.ndarray, "..."]) -> float:
    """The sum of the squares of all samples; short stretches are summed in single precision."""
    flat = samples.ravel()
    if flat.size <= _STRETCH:
        return float(np.dot(flat, flat))
    stretches = (flat[start : start + _STRETCH] for start in range(0, flat.size, _STRETCH))
    # Ten times as fast as double precision throughout, and no less exact than 1e-6 of the sum.
    return float(sum(float(np.dot(stretch, stretch)) for stretch in stretches))


def check_complete(path: Path, file: soundfile.SoundFile) -> None:
    """Refuses a file that ends before its header says, which libsndfile reads short and mentions in its log alone."""
    for line in file.extra_info.splitlines():
        if any(sign in line for sign in _CUT_OGG):
            raise AudioError(f"{path}: truncated: its last page is missing; replace or remove the file.")
        valid = _VALID_FRAMES.search(line)
        if valid and int(valid[1]) > file.frames:
            raise AudioError(
                f"{path}: truncated or corrupt: expected {valid[1]} samples, found {file.frames}; replace or remove the file."
            )
        sizes = _SIZES.search(line)
        if sizes and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
            raise AudioError(
                f"{path}: truncated: expected {sizes[1]} bytes of audio, found {sizes[2]}; replace or remove the file."
            )


def _opened(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise AudioError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes); replace or remove it.")
    try:
        # As bytes, since a name need not be UTF-8.
        return soundfile.SoundFile(os.fsencode(path))
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioError(f"{path}: not a sound file that libsndfile reads ({error}); replace or remove it.") from None

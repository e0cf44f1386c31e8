"""Sound files, read whole or in part and written in the format that they came in."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from stages.core.errors import DenoisingError
from stages.core.files import written

# libsndfile's Vorbis encoder overflows its stack on very long single writes (libsndfile#709), so writing goes in blocks.
_BLOCK = 1 << 16
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


class AudioError(DenoisingError):
    """A sound file that cannot be read to its end, or holds what is no sound."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Container, encoding and byte order of a sound file in libsndfile's words, such as WAV, PCM_16, FILE."""

    container: str
    encoding: str
    endian: str


def sound_files(folder: Path) -> list[Path]:
    """All files below `folder` whose suffix is that of a sound file, sorted; hidden files and folders are passed over."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def file_format(path: Path) -> FileFormat:
    """The format of the sound file `path`; AudioError when it is not one."""
    with _opened(path) as file:
        return FileFormat(file.format, file.subtype, file.endian)


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
        check_complete(path, file)
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


def write_audio(path: Path, waveform: Float32[np.ndarray, "samples channels"], sample_rate: int, form: FileFormat) -> int:
    """Writes a waveform atomically in the format `form`; returns how many values were clipped at full scale.

    Encodings of whole numbers hold nothing above full scale, so values beyond ±1.0 are clipped on purpose; floating-point
    encodings keep them.

    Raises:
        AudioError: libsndfile cannot write this format, or the waveform holds NaN or infinity.
    """
    if not np.isfinite(waveform).all():
        raise AudioError(f"{path}: the waveform holds NaN or infinity, which no sound file should; nothing was written.")
    clipped = 0
    if form.encoding not in ("FLOAT", "DOUBLE"):
        clipped = int(np.count_nonzero(np.abs(waveform) > 1.0))
        waveform = np.clip(waveform, -1.0, 1.0)
    with written(path) as temporary:
        try:
            with soundfile.SoundFile(
                temporary, "w", sample_rate, waveform.shape[1], form.encoding, form.endian, form.container
            ) as file:
                for first in range(0, len(waveform), _BLOCK):
                    file.write(waveform[first : first + _BLOCK])
        except (soundfile.SoundFileError, ValueError) as error:
            raise AudioError(f"{path}: cannot be written as {form.container} {form.encoding}: {error}") from None
    return clipped


def resampled(
    waveform: Float32[np.ndarray, "samples *channels"], sample_rate: int, new_rate: int
) -> Float32[np.ndarray, "new *channels"]:
    """A waveform at another sample rate (Hz), by soxr in its high quality; unchanged when the rates are equal."""
    if sample_rate == new_rate:
        return waveform
    return np.asarray(soxr.resample(waveform, sample_rate, new_rate, quality="HQ"), dtype=np.float32)


def level_dbfs(waveform: Float32[np.ndarray, "..."]) -> float:
    """The root mean square of a waveform in dB below full scale; -infinity for digital silence."""
    power = float(np.mean(np.square(waveform, dtype=np.float64))) if waveform.size else 0.0
    return 10 * np.log10(power) if power > 0 else -np.inf


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
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioError(f"{path}: not a sound file that libsndfile reads ({error}); replace or remove it.") from None

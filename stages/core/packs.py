"""Packs: many rendered mixtures in one WAV file that any player opens, the mixture left and its speech right.

A pack is 16-bit PCM: half the size of float32, and its rounding error lies 98 dB below full scale, far below every noise
that is mixed. The header of such a file holds no date, so equal mixtures give equal bytes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from stages.core.audio import read_audio
from stages.core.files import written

Waveform = Float32[np.ndarray, "samples"]
# 16-bit PCM reads back in steps of 1 / 32768 of full scale.
_STEP = 1 / 32768


def rounded(waveform: Waveform) -> Waveform:
    """The waveform as a 16-bit file gives it back."""
    return np.asarray(np.clip(np.round(waveform / _STEP), -32768, 32767) * np.float32(_STEP), dtype=np.float32)


def write_pack(path: Path, pairs: Iterable[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> None:
    """Writes (mixture, speech) pairs of waveforms, one after another, atomically to the WAV file `path`."""
    with (
        written(path) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, 2, "PCM_16", format="WAV") as file,
    ):
        for mixture, speech in pairs:
            file.write(_integers(np.stack([mixture, speech], axis=1)))


def write_wav(path: Path, waveform: Waveform, sample_rate: int) -> None:
    """Writes one waveform atomically as a 16-bit WAV file."""
    with written(path) as temporary:
        soundfile.write(temporary, _integers(waveform), sample_rate, "PCM_16", format="WAV")


def read_pack(path: Path, start: int, n_samples: int) -> tuple[Waveform, Waveform]:
    """The mixture and the speech at `start` (samples) of a pack; AudioError when the file is shorter."""
    both, _ = read_audio(path, start=start, n_samples=n_samples)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def _integers(waveform: Float32[np.ndarray, "samples *channels"]) -> np.ndarray:
    # Rounding is done here because libsndfile's own differs between builds in the last bit.
    return np.asarray(np.clip(np.round(waveform / _STEP), -32768, 32767), dtype=np.int16)

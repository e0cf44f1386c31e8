"""Packs: many rendered mixtures in one WAV file that any player opens, the mixture left and its speech right.

A pack is 16-bit PCM: half the size of float32, and its rounding error lies 98 dB below full scale, far below every noise
that is mixed. The header of such a file holds no date, so equal mixtures give equal bytes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32, Int16

from stages.core.audio import read_audio
from stages.core.files import written

Waveform = Float32[np.ndarray, "samples"]
Integers = Int16[np.ndarray, "samples"]
# Full scale in steps of 16-bit PCM, which reads back as these numbers divided by it.
STEPS = 32768


def integers(waveform: Waveform) -> Integers:
    """The waveform in the whole numbers of a 16-bit file, clipped at full scale."""
    # Rounding is done here because libsndfile's own differs between builds in the last bit.
    steps = waveform * np.float32(STEPS)
    np.rint(steps, out=steps)
    np.clip(steps, -STEPS, STEPS - 1, out=steps)
    return steps.astype(np.int16)


def write_pack(path: Path, pairs: Iterable[tuple[Integers, Integers]], sample_rate: int) -> None:
    """Writes (mixture, speech) pairs of `integers`, one after another, atomically to the WAV file `path`."""
    with (
        written(path) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, 2, "PCM_16", format="WAV") as file,
    ):
        for mixture, speech in pairs:
            file.write(np.stack([mixture, speech], axis=1))


def write_wav(path: Path, waveform: Integers, sample_rate: int) -> None:
    """Writes the `integers` of one waveform atomically as a 16-bit WAV file."""
    with written(path) as temporary:
        soundfile.write(temporary, waveform, sample_rate, "PCM_16", format="WAV")


def read_pack(path: Path, start: int, n_samples: int) -> tuple[Waveform, Waveform]:
    """The mixture and the speech at `start` (samples) of a pack; AudioError when the file is shorter."""
    both, _ = read_audio(path, start=start, n_samples=n_samples)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])

"""What the network sees of a spectrogram: a level of its own for every frame, and compressed numbers."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex64, Float32, Float64
from scipy import signal
from torch import Tensor

from stages.core.spectra import bin_power

# The level follows the signal with this time constant: long against syllables, short against a walk across a room.
_SECONDS = 2.0
# Mean power of a bin below which a frame counts as digital silence; 16-bit rounding noise lies 60 dB above it.
POWER_FLOOR = 1e-14


class LevelState(NamedTuple):
    """The sum of weighted powers and of weights so far, (batch,) each."""

    power: Float64[np.ndarray, "batch"]
    weight: Float64[np.ndarray, "batch"]


def level_decay(frames_per_second: float) -> float:
    """The weight of a frame in the running level as a share of that of the next."""
    return float(np.exp(-1 / (_SECONDS * frames_per_second)))


def running_level(
    mixture: Complex64[np.ndarray, "batch frames bins"], frames_per_second: float, state: LevelState | None = None
) -> tuple[Float32[np.ndarray, "batch frames 1"], LevelState]:
    """The level of each frame: the root of the mean power of all frames so far, older ones with less and less weight.

    It uses no later frame, so a live stream has it too, and it scales with the input, so that divided by it loud and quiet
    recordings look the same to the network. `state` continues where an earlier block ended.
    """
    power = np.mean(mixture.real.astype(np.float64) ** 2 + mixture.imag.astype(np.float64) ** 2, axis=-1)
    decay = level_decay(frames_per_second)
    start = state or LevelState(np.zeros(len(power)), np.zeros(len(power)))
    powers, end = signal.lfilter([1.0], [1.0, -decay], power, axis=-1, zi=decay * start.power[:, None])
    weights, _ = signal.lfilter([1.0], [1.0, -decay], np.ones_like(power), axis=-1, zi=decay * start.weight[:, None])
    del end
    level = np.sqrt(np.maximum(powers / weights, POWER_FLOOR))[..., None].astype(np.float32)
    return level, LevelState(powers[:, -1], weights[:, -1])


def magnitude(spectrum: Complex64[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """The absolute value of complex numbers, with a gradient that stays finite at zero."""
    return (bin_power(spectrum) + 1e-12).sqrt()


def features(
    mixture: Complex64[Tensor, "batch frames bins"], compression: float, *, phase: bool
) -> Float32[Tensor, "batch frames features"]:
    """Magnitudes of a levelled mixture to the power `compression`; with `phase` also real and imaginary parts so compressed."""
    absolute = magnitude(mixture)
    compressed = absolute.pow(compression)
    if not phase:
        return compressed
    parts = torch.view_as_real(mixture) * (compressed / absolute).unsqueeze(-1)
    return torch.cat([compressed, parts[..., 0], parts[..., 1]], dim=-1)

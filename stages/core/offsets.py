"""Offsets: the constant part of a recording, which is no sound, and stands in the way of hearing it."""

import numpy as np
from jaxtyping import Complex64, Float64

from stages.core.features import level_decay

Spectra = Complex64[np.ndarray, "channels frames bins"]
# What looks like an offset is one if it has more power than so many bins of the sound beside it, on the mean of all bins.
_CHANCE = 30.0


class OffsetFinder:
    """Finds the constant offset of each channel of a signal in its frames, as far as earlier frames tell it.

    A network never saw one: it would take it for a loud sound, and speech for a faint one, which it lowers.
    """

    def __init__(self, n_channels: int, frames_per_second: float) -> None:
        """Starts a signal."""
        self._decay = level_decay(frames_per_second)
        self._sums = np.zeros((2, n_channels + 1))

    def found(self, heard: Complex64[np.ndarray, "more frames bins"]) -> Spectra:
        """The part of the next frames that is an offset: 0 where it is no more than chance gives any sound.

        Behind the channels `heard` has what a signal of 1.0 would have in these frames. Its multiple that fits all frames
        so far best, older ones with less and less weight, is the offset.
        """
        constant = heard[-1]
        values = np.stack([_products(heard, constant), _products(heard, heard)])
        sums = np.empty_like(values)
        for frame in range(values.shape[-1]):
            self._sums = sums[..., frame] = self._decay * self._sums + values[..., frame]
        tiny = np.finfo(np.float64).tiny
        fits, unit, powers = sums[0, :-1], sums[0, -1], sums[1, :-1]
        offsets = fits / np.maximum(unit, tiny)
        explained = offsets**2 * unit
        beside = np.maximum(powers - explained, 0.0)
        shares = np.maximum(explained - _CHANCE / heard.shape[-1] * beside, 0.0) / np.maximum(explained, tiny)
        return np.asarray((shares * offsets).astype(np.float32)[..., None] * constant)


def _products(one: Spectra, other: Complex64[np.ndarray, "*channels frames bins"]) -> Float64[np.ndarray, "channels frames"]:
    """The real parts of the inner products of frames."""
    return np.asarray(np.vecdot(one.view(np.float32), other.view(np.float32)), np.float64)

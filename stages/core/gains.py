"""Gains: what the network does to each bin of a signal that comes in blocks of frames."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64, Float32

from stages.core.denoiser import AnyDenoiser
from stages.core.spectra import n_bins

Frames = Complex64[np.ndarray, "frames bins"]
Ready = Complex64[np.ndarray, "ready bins"]
# A network that looks both ways sees this much at once, and on either side this much more that is then thrown away.
_WINDOW_S = 4.0
_CONTEXT_S = 2.0
# Over this much the gains of one window turn into those of the next: the level that a window begins with is another one.
_FADE_S = 1.0


class GainSource:
    """The gains of one signal, frame for frame; those of a network that looks ahead come later.

    A causal network carries its state from block to block. A bidirectional one runs over windows that overlap, at places
    that depend on the signal's beginning alone, so its gains are the same however the signal is cut into blocks.
    """

    def __init__(self, denoiser: AnyDenoiser) -> None:
        """Starts a signal."""
        self._denoiser = denoiser
        self._state: Any = None
        self._window = round(_WINDOW_S * denoiser.frames_per_second)
        self._context = round(_CONTEXT_S * denoiser.frames_per_second)
        self._heard = np.zeros((0, n_bins(denoiser.stft)), np.complex64)
        self._past = 0
        self._fade = round(_FADE_S * denoiser.frames_per_second)
        self._fading = self._heard

    @property
    def look_ahead(self) -> int:
        """Frames of the future that a gain may wait for."""
        return self._window + self._context - 1 if self._denoiser.looks_ahead else 0

    def pushed(self, frames: Frames) -> Ready:
        """The gains that are ready after the next frames of the signal."""
        if not self._denoiser.looks_ahead:
            if len(frames) == 0:
                return frames
            estimate, self._state = self._denoiser.denoised(torch.from_numpy(frames[None]), self._state)
            return gain(estimate[0].numpy(), frames)
        self._heard = np.concatenate([self._heard, frames])
        found = [frames[:0]]
        while len(self._heard) >= self._past + self._window + self._context:
            found.append(self._of_window(self._window))
        return np.concatenate(found)

    def finished(self) -> Frames:
        """The gains that are still missing when the signal has ended."""
        found = [self._heard[:0]]
        while len(self._heard) > self._past:
            found.append(self._of_window(min(self._window, len(self._heard) - self._past)))
        return np.concatenate(found)

    def _of_window(self, length: int) -> Frames:
        seen = self._heard[: self._past + self._window + self._context]
        estimate, _ = self._denoiser.denoised(torch.from_numpy(seen[None]), None)
        end = self._past + length
        gains = gain(estimate[0].numpy(), seen)
        found = gains[self._past : end]
        n_faded = min(len(self._fading), length)
        share = (np.arange(1, n_faded + 1, dtype=np.float32) / (self._fade + 1))[:, None]
        found[:n_faded] = share * found[:n_faded] + (1 - share) * self._fading[:n_faded]
        self._fading = gains[end : end + self._fade].copy()
        start = max(0, end - self._context)
        self._past = end - start
        self._heard = self._heard[start:]
        return found


def gain(estimate: Frames, mixture: Frames) -> Frames:
    """The factor from a mixture to an estimate; 0 where the mixture is silent."""
    power = bin_powers(mixture)
    return np.where(power > 0, estimate * mixture.conj() / np.maximum(power, np.float32(1e-30)), np.complex64(0))


def bin_powers(spectra: Complex64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """The squares of the absolute values, without the root that `abs` takes."""
    return np.asarray(spectra.real**2 + spectra.imag**2)

"""From a noisy waveform of any sample rate and number of channels to a clean one of the same shape."""

import math

import numpy as np
import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

from stages.core.audio import resampled
from stages.core.denoiser import Denoiser
from stages.core.parameters import Stft
from stages.core.spectra import n_bins, spectrogram, waveform

# Bins above the network's band follow the mean gain of this many of its highest bins (1 kHz at 31.25 Hz a bin).
_TOP_BINS = 32
# Channels whose mean has less than this share of their power are out of phase: independent ones keep 1 / channels.
_CANCELLED = 0.05


def enhanced(
    noisy: Float32[np.ndarray, "samples channels"], sample_rate: int, denoiser: Denoiser
) -> Float32[np.ndarray, "samples channels"]:
    """The estimate of the speech in `noisy`, with the same number of samples and channels.

    At a multiple of the network's sample rate the window keeps its length in time, so the lowest bins are exactly those
    that the network knows; other rates are resampled to the next multiple and back. One gain, found on the mean of all
    channels, serves them all, so that directions stay. Silence comes back as silence.
    """
    if noisy.shape[0] == 0:
        return noisy.copy()
    factor = max(1, math.ceil(sample_rate / denoiser.sample_rate))
    work_rate = factor * denoiser.sample_rate
    work = resampled(noisy, sample_rate, work_rate)
    stft = scaled(denoiser.stft, factor)
    spectra = spectrogram(torch.from_numpy(np.ascontiguousarray(work.T)), stft)
    estimate = waveform(spectra * _gain(spectra, denoiser), work.shape[0], stft)
    return _fitted(resampled(estimate.numpy().T, work_rate, sample_rate), noisy.shape[0])


def scaled(stft: Stft, factor: int) -> Stft:
    """The same transform at `factor` times the sample rate: equal times and frequencies, `factor` times the bins."""
    # Not checked again: the ranges of params.yaml are for the network's own sample rate.
    return Stft.model_construct(
        n_fft=stft.n_fft * factor, win_length=stft.win_length * factor, hop_length=stft.hop_length * factor
    )


def _gain(spectra: Complex64[Tensor, "channels frames wide"], denoiser: Denoiser) -> Complex64[Tensor, "1 frames wide"]:
    bins = n_bins(denoiser.stft)
    # A longer window at a higher rate sums more samples of the same tone.
    mean = _shared(spectra)[..., :bins] / ((spectra.shape[-1] - 1) / (bins - 1))
    estimate = denoiser.denoised(mean)
    power = mean.abs().square()
    gain = torch.where(power > 0, estimate * mean.conj() / power.clamp_min(1e-30), torch.zeros_like(mean))
    top = gain[..., -_TOP_BINS:].abs().mean(-1, keepdim=True).to(gain.dtype)
    return torch.cat([gain, top.expand(-1, -1, spectra.shape[-1] - bins)], dim=-1)


def _shared(spectra: Complex64[Tensor, "channels frames wide"]) -> Complex64[Tensor, "1 frames wide"]:
    """The mean of all channels, or the loudest one where they cancel each other."""
    mean, powers = spectra.mean(0, keepdim=True), spectra.abs().square().sum((1, 2))
    if mean.abs().square().sum() < _CANCELLED * powers.mean():
        return spectra[int(powers.argmax())].unsqueeze(0)
    return mean


def _fitted(estimate: Float32[np.ndarray, "found channels"], n_samples: int) -> Float32[np.ndarray, "samples channels"]:
    """Exactly `n_samples` samples: resampling there and back can be a sample off."""
    return np.pad(estimate[:n_samples], ((0, max(0, n_samples - len(estimate))), (0, 0)))

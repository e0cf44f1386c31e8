"""Losses: how far an output, or the spectrum that it stands for, is from the ideal."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool1d, mse_loss, pad

from stages.core.disturbance import disturbances
from stages.core.features import magnitude
from stages.core.intelligibility import intelligibilities
from stages.core.parameters import Stft
from stages.core.spectra import spectrogram, waveform
from stages.core.targets import Target
from stages.core.training_parameters import Train

Spectrum = Complex64[Tensor, "batch frames bins"]
Output = Float32[Tensor, "batch frames outputs"]
Scalar = Float32[Tensor, ""]
# Weight of the complex term against the magnitude term, 30 to 70 as published with GTCRN (Rong et al. 2024).
_COMPLEX_SHARE = 0.3
# Where there is only speech or only noise, the SNR term asks for no more than an error 40 dB below the mixture.
_FLOOR = 1e-4
# Far below the power of any levelled mixture, and no division by zero where all is silent.
_TINY = 1e-8


class Batch(NamedTuple):
    """Levelled spectrograms of mixtures and their speech, and the levels that they were divided by."""

    mixture: Complex64[Tensor, "batch frames bins"]
    speech: Complex64[Tensor, "batch frames bins"]
    level: Float32[Tensor, "batch frames 1"]


@dataclass(frozen=True, slots=True)
class Loss(ABC):
    """One way to judge the outputs of a network for a target."""

    settings: Train
    target: Target
    stft: Stft
    sample_rate: int

    @abstractmethod
    def __call__(self, raw: Output, batch: Batch) -> Scalar:
        """The mean over a batch of what the network's raw outputs lack."""


class SquaredError(Loss):
    """The mean squared error between the output and the ideal output."""

    def __call__(self, raw: Output, batch: Batch) -> Scalar:
        """|f(raw) - ideal|²."""
        return mse_loss(self.target.activated(raw, batch.mixture), self.target.ideal(batch.mixture, batch.speech))


class CrossEntropy(Loss):
    """The cross-entropy between the probabilities that the output stands for and an ideal of zeros and ones."""

    def __call__(self, raw: Output, batch: Batch) -> Scalar:
        """-(M log p + (1 - M) log(1 - p))."""
        return binary_cross_entropy_with_logits(raw, self.target.ideal(batch.mixture, batch.speech))


class CompressedSpectrumError(Loss):
    """The squared error of magnitudes, and of complex numbers, to the power `compression` (Braun and Tashev 2020, eq. 5).

    A small term of the SNR in decades keeps the loud bins in view, which compression hides; others may count what disturbs
    a listener, in points of PESQ, and what cannot be understood, as extended STOI.
    """

    def __call__(self, raw: Output, batch: Batch) -> Scalar:
        """0.7 (|Ŝ|^c - |S|^c)² + 0.3 |Ŝ^c - S^c|², less `snr_weight` times the SNR, and what is heard, weighted."""
        estimate = self.target.estimated(raw, batch.mixture)
        if self.settings.consistency:
            estimate = consistent(estimate, batch.level, self.stft)
        error = _spectral_error(estimate, batch.speech, self.target.compression)
        if self.settings.snr_weight:
            error = error - self.settings.snr_weight * _snr_decades(estimate, batch.mixture, batch.speech)
        if self.settings.pesq_weight or self.settings.estoi_weight:
            error = error + self._heard(estimate, batch)
        return error

    def _heard(self, estimate: Spectrum, batch: Batch) -> Scalar:
        """The mean over a batch of the points that PESQ takes off and of what is missing to an extended STOI of 1, weighted."""
        n_samples = (estimate.shape[1] - self.stft.win_length // self.stft.hop_length + 1) * self.stft.hop_length
        missing = estimate.real.new_zeros(())
        if n_samples <= 0:
            return missing
        heard, wanted = (waveform(part * batch.level, n_samples, self.stft) for part in (estimate, batch.speech))
        if self.settings.pesq_weight:
            missing = missing + self.settings.pesq_weight * disturbances(heard, wanted, self.sample_rate).mean()
        if self.settings.estoi_weight:
            missing = missing + self.settings.estoi_weight * (1 - intelligibilities(heard, wanted, self.sample_rate)).mean()
        return missing


def consistent(estimate: Spectrum, level: Float32[Tensor, "batch frames 1"], stft: Stft) -> Spectrum:
    """The levelled spectrogram of the waveform that a levelled estimate becomes (Wisdom et al. 2019).

    Frames at either end, which reach into what was cut away, stay as they are, and so does an estimate of such frames alone.
    What the waveform changes is divided by the highest level among the frames that overlap. That of the frame itself can
    be 140 dB lower, in digital silence before a word, where what a mask spills would then outweigh all else.
    """
    n_shared = stft.win_length // stft.hop_length - 1
    inner = slice(n_shared, estimate.shape[1] - n_shared)
    if inner.start >= inner.stop:
        return estimate
    sound = estimate * level
    samples = waveform(sound, (estimate.shape[1] - n_shared) * stft.hop_length, stft)
    highest = max_pool1d(level.mT, 2 * n_shared + 1, stride=1, padding=n_shared).mT
    change = (spectrogram(samples, stft) - sound) / highest
    return estimate + pad(change[:, inner], (0, 0, n_shared, n_shared))


def _spectral_error(estimate: Spectrum, speech: Spectrum, compression: float) -> Scalar:
    absolute, wanted = magnitude(estimate), magnitude(speech)
    compressed, wanted_compressed = absolute.pow(compression), wanted.pow(compression)
    parts = torch.view_as_real(estimate) * (compressed / absolute).unsqueeze(-1)
    wanted_parts = torch.view_as_real(speech) * (wanted_compressed / wanted).unsqueeze(-1)
    complex_error = 2 * mse_loss(parts, wanted_parts)
    return (1 - _COMPLEX_SHARE) * mse_loss(compressed, wanted_compressed) + _COMPLEX_SHARE * complex_error


def _snr_decades(estimate: Spectrum, mixture: Spectrum, speech: Spectrum) -> Scalar:
    """The mean over mixtures of log10(Σ|S|² / Σ|S - Ŝ|²); without speech Σ|X|² takes the place of Σ|S|²."""
    parts = (torch.view_as_real(part) for part in (speech, speech - estimate, mixture))
    power, error, whole = (part.square().sum((1, 2, 3)) + _TINY for part in parts)
    silent = power < _FLOOR**2 * whole
    floor = torch.where(silent | (power == whole), _FLOOR * whole, torch.zeros_like(whole))
    return torch.log10(torch.where(silent, whole, power) / (error + floor)).mean()


LOSSES: dict[str, type[Loss]] = {
    "mse": SquaredError,
    "bce": CrossEntropy,
    "compressed": CompressedSpectrumError,
}

"""Losses: how far an output, or the spectrum that it stands for, is from the ideal."""

from collections.abc import Callable

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from stages.core.features import magnitude
from stages.core.targets import Target

Spectrum = Complex64[Tensor, "batch frames bins"]
Output = Float32[Tensor, "batch frames outputs"]
Loss = Callable[[Target, Output, Spectrum, Spectrum], Float32[Tensor, ""]]
# Weight of the complex term against the magnitude term, 30 to 70 as published with GTCRN (Rong et al. 2024).
_COMPLEX_SHARE = 0.3
_SNR_WEIGHT = 0.03
# Where there is only speech or only noise, the SNR term asks for no more than an error 40 dB below the mixture.
_FLOOR = 1e-4


def squared_error(target: Target, raw: Output, mixture: Spectrum, speech: Spectrum) -> Float32[Tensor, ""]:
    """The mean squared error between the output and the ideal output."""
    return mse_loss(target.activated(raw, mixture), target.ideal(mixture, speech))


def binary_cross_entropy(target: Target, raw: Output, mixture: Spectrum, speech: Spectrum) -> Float32[Tensor, ""]:
    """The cross-entropy between the probabilities that the output stands for and an ideal of zeros and ones."""
    return binary_cross_entropy_with_logits(raw, target.ideal(mixture, speech))


def compressed_spectrum_error(target: Target, raw: Output, mixture: Spectrum, speech: Spectrum) -> Float32[Tensor, ""]:
    """The squared error of magnitudes, and of complex numbers, to the power `compression` (Braun and Tashev 2020, eq. 5).

    A small term of the SNR in decades keeps the loud bins in view, which compression hides.
    """
    estimate = target.estimate(target.activated(raw, mixture), mixture)
    absolute, wanted = magnitude(estimate), magnitude(speech)
    compressed, wanted_compressed = absolute.pow(target.compression), wanted.pow(target.compression)
    parts = torch.view_as_real(estimate) * (compressed / absolute).unsqueeze(-1)
    wanted_parts = torch.view_as_real(speech) * (wanted_compressed / wanted).unsqueeze(-1)
    complex_error = (parts - wanted_parts).square().sum(-1).mean()
    spectral_error = (1 - _COMPLEX_SHARE) * mse_loss(compressed, wanted_compressed) + _COMPLEX_SHARE * complex_error
    return spectral_error - _SNR_WEIGHT * _snr_decades(estimate, mixture, speech)


def _snr_decades(estimate: Spectrum, mixture: Spectrum, speech: Spectrum) -> Float32[Tensor, ""]:
    """The mean over mixtures of log10(Σ|S|² / Σ|S - Ŝ|²); without speech Σ|X|² takes the place of Σ|S|²."""
    power, error, whole = (magnitude(part).square().sum((1, 2)) for part in (speech, speech - estimate, mixture))
    silent = power < _FLOOR**2 * whole
    floor = torch.where(silent | (power == whole), _FLOOR * whole, torch.zeros_like(whole))
    return torch.log10(torch.where(silent, whole, power) / (error + floor)).mean()


LOSSES: dict[str, Loss] = {
    "mse": squared_error,
    "bce": binary_cross_entropy,
    "compressed": compressed_spectrum_error,
}

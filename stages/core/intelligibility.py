"""How much of clean speech can still be understood: extended STOI (Jensen and Taal 2016), for gradients to go through."""

import math
from functools import cache

import torch
from jaxtyping import Float32
from torch import Tensor

from stages.core.parameters import Stft
from stages.core.spectra import power_spectrogram

Waveforms = Float32[Tensor, "batch samples"]
Bands = Float32[Tensor, "frames bands"]
_FRAME_S = 0.0256
# Thirds of an octave, from the lowest centre up.
_N_BANDS = 15
_LOWEST_HZ = 150.0
# Frames whose envelopes are compared, 384 ms, and from one such stretch to the next; a step of 1 tells no more.
_STRETCH = 30
_STEP = 3
# Frames of speech so far below its loudest one are pauses, which do not count.
_PAUSE_DB = 40.0
# Powers below this, -100 dBFS, are nothing; it also keeps slopes finite.
_NOTHING = 1e-10


def intelligibilities(estimate: Waveforms, speech: Waveforms, sample_rate: int) -> Float32[Tensor, "batch"]:
    """Extended STOI of estimates, up to 1, which it also is where there is less speech than one stretch.

    In place of resampling to 10 kHz, frames are as long at any rate; pauses are left out as frames, not as samples. Over
    waveforms at 10 kHz without pauses the numbers are those of pystoi to 0.01.
    """
    hop = round(_FRAME_S * sample_rate / 2)
    stft = Stft(n_fft=2 ** math.ceil(math.log2(4 * hop)), win_length=2 * hop, hop_length=hop)
    shares = _thirds(stft.n_fft, sample_rate, estimate.device)
    powers = [power_spectrogram(part, stft) for part in (estimate, speech)]
    envelopes = [(power @ shares + _NOTHING).sqrt() for power in powers]
    loudness = powers[1].sum(-1) / stft.n_fft
    spoken = (loudness > 10 ** (-_PAUSE_DB / 10) * loudness.amax(-1, keepdim=True)) & (loudness > _NOTHING)
    return torch.stack([_correlation(*(part[frames] for part in one)) for *one, frames in zip(*envelopes, spoken, strict=True)])


def _correlation(heard: Bands, wanted: Bands) -> Float32[Tensor, ""]:
    """The mean over stretches of how alike both are, envelope by envelope and then spectrum by spectrum."""
    if len(heard) < _STRETCH:
        return heard.new_ones(())
    stretches = [part.unfold(0, _STRETCH, _STEP) for part in (heard, wanted)]  # (stretches, bands, frames)
    alike = [_normalised(_normalised(part, -1), -2) for part in stretches]
    return (alike[0] * alike[1]).sum((1, 2)).mean() / _STRETCH


def _normalised(values: Tensor, dim: int) -> Tensor:
    """Without the mean, and of length 1."""
    centred = values - values.mean(dim, keepdim=True)
    return centred / (centred.square().sum(dim, keepdim=True) + _NOTHING).sqrt()


@cache
def _thirds(n_fft: int, sample_rate: int, device: torch.device) -> Float32[Tensor, "bins bands"]:
    """Which bins each band takes, from the bin nearest to its lower edge up to, without it, that of its upper edge."""
    # Kept for training as well, which takes no tensors that were made for inference.
    with torch.inference_mode(False):
        shares = torch.zeros(n_fft // 2 + 1, _N_BANDS)
        for band in range(_N_BANDS):
            lower, upper = (round(_LOWEST_HZ * 2 ** ((2 * band + side) / 6) * n_fft / sample_rate) for side in (-1, 1))
            shares[lower:upper, band] = 1
        return shares.to(device)

"""How much what differs from clean speech disturbs a listener: the model of hearing of PESQ, for gradients to go through."""

import math
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import pad

from stages.core.parameters import Stft
from stages.core.spectra import power_spectrogram

Waveforms = Float32[Tensor, "batch samples"]
Bands = Float32[Tensor, "batch frames bands"]
PerFrame = Float32[Tensor, "batch frames"]
# Speech is heard at this level (dB SPL), measured between these frequencies; what is above the highest is not heard.
_LISTENING_DB = 79.0
_SPEECH_HZ = (300.0, 3400.0)
_HIGHEST_HZ = 8000.0
_N_BANDS = 49
# The sums of a stretch are those of its worst frames (an L6 norm); the stretches overlap by half.
_STRETCH = 20
# A reference below this power is no speech.
_SILENCE = 1e-12


class Hearing(NamedTuple):
    """Critical bands: which share of a bin's power each takes, how wide (Bark) it is, and how much (dB SPL) is not heard.

    `speech` are the bands that the level of listening is measured in.
    """

    shares: Float32[Tensor, "bins bands"]
    speech: slice
    width: float
    threshold: Float32[Tensor, "bands"]


def disturbances(estimate: Waveforms, speech: Waveforms, sample_rate: int) -> Float32[Tensor, "batch"]:
    """How many points PESQ (ITU-T P.862, before its mapping to 1 to 4.6) takes off 4.5, roughly; 0 where there is no speech.

    Left out of P.862 are the alignment in time and bad intervals, the filter of the handset, the loudness of low bands and
    the weights of long recordings. The bands are of one width, the gain follows the last two frames, the colour is that of all
    frames. Over validation mixtures, denoised and not, the points go with those of PESQ (r = 0.98, slope 0.93).
    """
    estimate, speech = (part - part.mean(-1, keepdim=True) for part in (estimate, speech))
    hop = round(0.016 * sample_rate)
    stft = Stft(n_fft=2 * hop, win_length=2 * hop, hop_length=hop)
    hearing = _hearing(stft.n_fft, sample_rate, estimate.device)
    powers = [power_spectrogram(part, stft) @ hearing.shares for part in (estimate, speech)]
    heard, reference = (_levelled(power, powers[1], hearing.speech) for power in powers)
    reference = reference * _equalisation(heard, reference)
    heard = heard * _gain(heard, reference, hearing)
    loudness, wanted = (_loudness(part, hearing) for part in (heard, reference))
    # A small difference is masked by what is heard of both.
    disturbance = ((loudness - wanted).abs() - 0.25 * torch.minimum(loudness, wanted)).clamp_min(0)
    # What is added disturbs more than what is missing.
    added = ((heard + 50) / (reference + 50)).pow(1.2)
    added = torch.where(added < 3, torch.zeros_like(added), added.clamp_max(12))
    weight = ((reference.sum(-1) + 1e5) / 1e7).pow(0.04)
    symmetric = hearing.width * _root(disturbance.square().sum(-1)) * math.sqrt(_N_BANDS)
    asymmetric = hearing.width * (disturbance * added).sum(-1)
    sums = [_over_time((part / weight).clamp_max(45)) for part in (symmetric, asymmetric)]
    points = 0.1 * sums[0] + 0.0309 * sums[1]
    return torch.where(_spoken(speech), points, torch.zeros_like(points))


def _spoken(speech: Waveforms) -> Bool[Tensor, "batch"]:
    return speech.square().mean(-1) > _SILENCE


def _levelled(power: Bands, reference: Bands, speech: slice) -> Bands:
    """Power as a multiple of that at 0 dB SPL, at the level of listening; what is 40 dB below the reference stays faint."""
    mean, wanted = (part[:, :, speech].sum(-1).mean(-1)[:, None, None] for part in (power, reference))
    return power * (10 ** (_LISTENING_DB / 10) / (torch.maximum(mean, 1e-4 * wanted) + _SILENCE))


def _equalisation(heard: Bands, reference: Bands) -> Float32[Tensor, "batch 1 bands"]:
    """What a listener gets used to: another colour of the whole, within 20 dB."""
    means = [part.mean(1, keepdim=True) for part in (heard, reference)]
    return ((means[0] + 1000) / (means[1] + 1000)).clamp(0.01, 100)


def _gain(heard: Bands, reference: Bands, hearing: Hearing) -> Float32[Tensor, "batch frames 1"]:
    """What brings each frame to the level of the reference, within what PESQ allows, hardly smoothed."""
    threshold = 10 ** (hearing.threshold / 10)
    audible = [torch.where(part > threshold, part, torch.zeros_like(part)).sum(-1) for part in (heard, reference)]
    ratio = ((audible[1] + 5000) / (audible[0] + 5000)).clamp(3e-4, 5)
    before = torch.cat((ratio[:, :1], ratio[:, :-1]), 1)
    return (0.8 * ratio + 0.2 * before).unsqueeze(-1)


def _loudness(excitation: Bands, hearing: Hearing) -> Bands:
    """Sones per Bark (Zwicker and Feldtkeller 1967)."""
    threshold = 10 ** (hearing.threshold / 10)
    rise = (0.5 + 0.5 * excitation / threshold).pow(0.23) - 1
    return 0.187 * (threshold / 0.5).pow(0.23) * rise.clamp_min(0)


def _over_time(frames: PerFrame) -> Float32[Tensor, "batch"]:
    """The L2 norm of stretches, each the L6 norm of its frames; the last goes on beyond the end, where nothing disturbs."""
    step = _STRETCH // 2
    n_missing = max(_STRETCH - frames.shape[1], -(frames.shape[1] - _STRETCH) % step)
    stretches = pad(frames, (0, n_missing)).unfold(1, _STRETCH, step)
    # The highest is drawn out, for its sixth power would be infinite in half precision and zero where nothing disturbs.
    highest = stretches.amax(-1, keepdim=True).detach().clamp_min(1e-6)
    sixth = (stretches / highest).pow(6).mean(-1).clamp_min(1e-6).pow(1 / 6) * highest.squeeze(-1)
    return _root(sixth.square().mean(-1))


def _root(squares: Tensor) -> Tensor:
    """The square root, whose slope at 0 is finite."""
    return (squares + 1e-8).sqrt() - 1e-4


@cache
def _hearing(n_fft: int, sample_rate: int, device: torch.device) -> Hearing:
    # Kept for training as well, which takes no tensors that were made for inference.
    with torch.inference_mode(False):
        spacing = sample_rate / n_fft
        centres = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * spacing
        lower, upper = (_bark((centres + side * spacing / 2).clamp(0, _HIGHEST_HZ)) for side in (-1, 1))
        top = float(_bark(torch.tensor(min(_HIGHEST_HZ, sample_rate / 2))))
        # The band below the lowest is not heard.
        edges = torch.linspace(0, top, _N_BANDS + 2, dtype=torch.float64)[1:]
        shared = torch.minimum(upper[:, None], edges[1:]) - torch.maximum(lower[:, None], edges[:-1])
        shares = shared.clamp_min(0) / (upper - lower).clamp_min(1e-9)[:, None]
        first, last = (int((_hertz(edges) < end).sum()) for end in _SPEECH_HZ)
        frequency = _hertz((edges[1:] + edges[:-1]) / 2) / 1000
        # Terhardt (1979), eq. 1.
        threshold = 3.64 * frequency.pow(-0.8) - 6.5 * torch.exp(-0.6 * (frequency - 3.3).square()) + 1e-3 * frequency.pow(4)
        return Hearing(shares.float().to(device), slice(first, last), float(edges[0]), threshold.float().to(device))


def _bark(hertz: Tensor) -> Tensor:
    """Traunmüller (1990), eq. 6, from 0 at 0 Hz."""
    return 26.81 * hertz / (1960 + hertz)


def _hertz(bark: Tensor) -> Tensor:
    return 1960 * bark / (26.81 - bark)

"""The short-time Fourier transform and its inverse: the one module that knows windows, padding and the order of axes."""

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

from stages.core.parameters import Stft


def n_bins(stft: Stft) -> int:
    """Frequency bins of a spectrogram, from 0 Hz to half the sample rate."""
    return stft.n_fft // 2 + 1


def n_frames(n_samples: int, stft: Stft) -> int:
    """Frames of the spectrogram of a waveform: every sample lies in win_length / hop_length of them."""
    return -(-n_samples // stft.hop_length) + stft.win_length // stft.hop_length - 1


def spectrogram(waveform: Float32[Tensor, "*batch samples"], stft: Stft) -> Complex64[Tensor, "*batch frames bins"]:
    """The spectrogram of a waveform of any length, by a square-root Hann window.

    The waveform is padded by zeros so that its first and last samples lie in as many frames as all others: a changed
    spectrogram then has no weak borders that the inverse would have to amplify.
    """
    lead = stft.win_length - stft.hop_length
    length = (n_frames(waveform.shape[-1], stft) - 1) * stft.hop_length + stft.win_length
    padded = torch.nn.functional.pad(waveform, (lead, length - lead - waveform.shape[-1]))
    frames = padded.unfold(-1, stft.win_length, stft.hop_length) * _window(stft, waveform.device)
    return torch.as_tensor(torch.fft.rfft(frames, stft.n_fft))


def waveform(
    spectrum: Complex64[Tensor, "*batch frames bins"], n_samples: int, stft: Stft
) -> Float32[Tensor, "*batch samples"]:
    """The waveform of `n_samples` samples whose spectrogram comes nearest to `spectrum` (Griffin and Lim 1984, eq. 6).

    Exact for an unchanged spectrogram. Frames are weighted by the window once more and added where they overlap; for
    win_length = k · hop_length the squared windows sum to k / 2 everywhere.
    """
    window = _window(stft, spectrum.device) * (2 * stft.hop_length / stft.win_length)
    frames = torch.fft.irfft(spectrum, stft.n_fft)[..., : stft.win_length] * window
    lead = stft.win_length - stft.hop_length
    return _overlap_added(frames, stft.hop_length)[..., lead : lead + n_samples]


def _overlap_added(frames: Float32[Tensor, "*batch frames length"], hop: int) -> Float32[Tensor, "*batch samples"]:
    *batch, count, length = frames.shape
    pieces = frames.reshape(*batch, count, length // hop, hop)
    total = frames.new_zeros(*batch, count + length // hop - 1, hop)
    for position in range(length // hop):
        total[..., position : position + count, :] += pieces[..., position, :]
    return total.flatten(-2)


def _window(stft: Stft, device: torch.device) -> Float32[Tensor, "length"]:
    return torch.hann_window(stft.win_length, periodic=True, dtype=torch.float64, device="cpu").sqrt().float().to(device)

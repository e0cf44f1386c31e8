"""The short-time Fourier transform and its inverse: the one module that knows windows, padding and the order of axes."""

from functools import cache
from typing import Any

import numpy as np
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
    return torch.as_tensor(torch.fft.rfft(_frames(waveform, stft), stft.n_fft))


def waveform(
    spectrum: Complex64[Tensor, "*batch frames bins"], n_samples: int, stft: Stft
) -> Float32[Tensor, "*batch samples"]:
    """The waveform of `n_samples` samples whose spectrogram comes nearest to `spectrum` (Griffin and Lim 1984, eq. 6).

    Exact for an unchanged spectrogram. Frames are weighted by the window once more and added where they overlap; for
    win_length = k · hop_length the squared windows sum to k / 2 everywhere.
    """
    lead = stft.win_length - stft.hop_length
    return _overlap_added(_windowed_frames(spectrum, stft), stft.hop_length)[..., lead : lead + n_samples]


def bin_power(spectrum: Complex64[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """The square of the absolute value, without the root that `abs` takes."""
    power: Tensor = _Power.apply(spectrum)  # type: ignore[no-untyped-call]
    return power


def power_spectrogram(waveform: Float32[Tensor, "*batch samples"], stft: Stft) -> Float32[Tensor, "*batch frames bins"]:
    """The powers of the bins of the spectrogram."""
    power: Tensor = _FramePower.apply(_frames(waveform, stft), stft.n_fft)  # type: ignore[no-untyped-call]
    return power


class StreamingStft:
    """The transform and its inverse for a signal that comes in blocks: the same numbers, however it is cut.

    In NumPy: most of what a block of one frame takes is the start of each operation, which is three times as long in PyTorch.
    A sample can be given out once `win_length - 1` later ones are known.
    """

    def __init__(self, stft: Stft, n_channels: int) -> None:
        """Starts a signal of `n_channels` channels."""
        self.stft = stft
        self._window = _square_root_hann(stft.win_length).numpy()
        self._back = self._window * np.float32(2 * stft.hop_length / stft.win_length)
        self._lead = stft.win_length - stft.hop_length
        self._heard = np.zeros((n_channels, self._lead), np.float32)
        self._tail = np.zeros((n_channels, self._lead), np.float32)
        self._to_drop = self._lead
        self._taken = self._n_frames = 0

    def analysed(self, samples: Float32[np.ndarray, "channels samples"]) -> Complex64[np.ndarray, "channels frames bins"]:
        """The frames that the next samples complete."""
        self._taken += samples.shape[-1]
        return self._frames(samples)

    def analysed_end(self) -> Complex64[np.ndarray, "channels frames bins"]:
        """The frames that are still open when the signal has ended, which zeros complete."""
        missing = (n_frames(self._taken, self.stft) if self._taken else 0) - self._n_frames
        length = missing * self.stft.hop_length + self._lead - self._heard.shape[-1]
        return self._frames(np.zeros((len(self._heard), max(0, length)), np.float32))

    def synthesised(self, spectra: Complex64[np.ndarray, "channels frames bins"]) -> Float32[np.ndarray, "channels samples"]:
        """The samples that no later frame changes any more."""
        if spectra.shape[1] == 0:
            return self._tail[:, :0]
        frames = np.fft.irfft(spectra, self.stft.n_fft)[..., : self.stft.win_length] * self._back
        count, hop = frames.shape[1], self.stft.hop_length
        total = np.zeros((len(frames), count * hop + self._lead), np.float32)
        total[:, : self._lead] = self._tail
        for start in range(0, self.stft.win_length, hop):
            total[:, start : start + count * hop] += frames[..., start : start + hop].reshape(len(frames), -1)
        ready, self._tail = total[:, : -self._lead], total[:, -self._lead :].copy()
        dropped, self._to_drop = self._to_drop, max(0, self._to_drop - ready.shape[-1])
        return ready[:, dropped:]

    def _frames(self, samples: Float32[np.ndarray, "channels samples"]) -> Complex64[np.ndarray, "channels frames bins"]:
        heard = np.concatenate([self._heard, samples], axis=-1)
        hop, win_length = self.stft.hop_length, self.stft.win_length
        count = max(0, (heard.shape[-1] - self._lead) // hop)
        self._heard = heard[:, count * hop :].copy()
        self._n_frames += count
        if count == 0:
            return np.zeros((len(heard), 0, n_bins(self.stft)), np.complex64)
        pieces = [heard[:, start : start + count * hop].reshape(-1, count, hop) for start in range(0, win_length, hop)]
        return np.asarray(np.fft.rfft(np.concatenate(pieces, axis=-1) * self._window, self.stft.n_fft))


class _Power(torch.autograd.Function):
    """|S|², whose gradient 2 g S takes one multiplication here, and several passes where PyTorch derives it."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor) -> Tensor:
        """The squares of both parts, added."""
        ctx.save_for_backward(spectrum)
        return spectrum.real.square() + spectrum.imag.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The direction in which the power grows."""
        spectrum: Tensor = ctx.saved_tensors[0]
        return _scaled(spectrum, 2 * gradients[0])


class _FramePower(torch.autograd.Function):
    """|FFT(x)|² of frames, whose gradient is a real inverse transform; the one that PyTorch takes is complex and padded."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, n_fft: int) -> Tensor:
        """The powers of the bins from 0 Hz up."""
        spectrum: Tensor = torch.fft.rfft(frames, n_fft)
        ctx.save_for_backward(spectrum)
        ctx.lengths = frames.shape[-1], n_fft
        return spectrum.real.square() + spectrum.imag.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Σ 2 g S e^(iωt) over the bins; the inverse counts twice those that stand for a negative frequency as well."""
        spectrum: Tensor = ctx.saved_tensors[0]
        length, n_fft = ctx.lengths
        slopes = _scaled(spectrum, gradients[0])
        slopes[..., 0] *= 2
        if n_fft % 2 == 0:
            slopes[..., -1] *= 2
        return torch.as_tensor(torch.fft.irfft(slopes, n_fft, norm="forward")[..., :length]), None


def _scaled(spectrum: Tensor, scale: Tensor) -> Tensor:
    """Complex numbers times real ones, which are not made complex first."""
    return torch.as_tensor(torch.view_as_complex(torch.view_as_real(spectrum) * scale.unsqueeze(-1)))


def _frames(waveform: Float32[Tensor, "*batch samples"], stft: Stft) -> Float32[Tensor, "*batch frames length"]:
    """The windowed frames that `spectrogram` transforms."""
    lead = stft.win_length - stft.hop_length
    length = (n_frames(waveform.shape[-1], stft) - 1) * stft.hop_length + stft.win_length
    return _windowed(torch.nn.functional.pad(waveform, (lead, length - lead - waveform.shape[-1])), stft)


def _windowed(padded: Float32[Tensor, "*batch samples"], stft: Stft) -> Float32[Tensor, "*batch frames length"]:
    return padded.unfold(-1, stft.win_length, stft.hop_length) * _window(stft, padded.device)


def _windowed_frames(spectrum: Complex64[Tensor, "*batch frames bins"], stft: Stft) -> Float32[Tensor, "*batch frames length"]:
    window = _window(stft, spectrum.device) * (2 * stft.hop_length / stft.win_length)
    return torch.as_tensor(torch.fft.irfft(spectrum, stft.n_fft)[..., : stft.win_length] * window)


def _overlap_added(frames: Float32[Tensor, "*batch frames length"], hop: int) -> Float32[Tensor, "*batch samples"]:
    *batch, count, length = frames.shape
    pieces = frames.reshape(*batch, count, length // hop, hop)
    total = frames.new_zeros(*batch, count + length // hop - 1, hop)
    for position in range(length // hop):
        total[..., position : position + count, :] += pieces[..., position, :]
    return total.flatten(-2)


def _window(stft: Stft, device: torch.device) -> Float32[Tensor, "length"]:
    return _square_root_hann(stft.win_length).to(device)


@cache
def _square_root_hann(length: int) -> Float32[Tensor, "length"]:
    # Kept for training as well, which takes no tensors that were made for inference.
    with torch.inference_mode(False):
        return torch.hann_window(length, periodic=True, dtype=torch.float64, device="cpu").sqrt().float()

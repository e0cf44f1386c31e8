"""Denoising as the sound comes in: blocks of any length in, the estimate out, the same samples however it is cut."""

import math
from dataclasses import dataclass

import numpy as np
import soxr
from jaxtyping import Complex64, Float32

from stages.core.denoiser import AnyDenoiser
from stages.core.errors import DenoisingError
from stages.core.gains import GainSource, bin_powers
from stages.core.offsets import OffsetFinder
from stages.core.parameters import Stft
from stages.core.spectra import StreamingStft, n_bins

Block = Float32[np.ndarray, "samples channels"]
Ready = Float32[np.ndarray, "ready channels"]
# Channels whose mean has less than this share of their power are out of phase: independent ones keep 1 / channels.
_CANCELLED = 0.05
# Longer blocks are cut, so that memory does not grow with them.
_LONGEST_BLOCK_S = 10


class BlockError(DenoisingError, ValueError):
    """A block of another type or shape than the stream's."""


class StrengthError(DenoisingError):
    """A strength that cannot be."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How much the denoiser may do.

    `attenuation_limit_db` is the most by which anything is lowered, None without a limit; `dry` is the share of the
    unprocessed signal in the output, 0 to 1.
    """

    attenuation_limit_db: float | None = None
    dry: float = 0.0

    def __post_init__(self) -> None:
        """Raises StrengthError for values out of range."""
        if self.attenuation_limit_db is not None and not 0 <= self.attenuation_limit_db <= 200:
            raise StrengthError(f"The attenuation limit is {self.attenuation_limit_db:g} dB: expected 0 to 200 dB.")
        if not 0 <= self.dry <= 1:
            raise StrengthError(f"The share of the unprocessed sound (mix) is {self.dry:g}: expected 0 to 1.")

    def applied(self, gain: Complex64[np.ndarray, "frames bins"]) -> Complex64[np.ndarray, "frames bins"]:
        """The gain that is used for a gain that was found."""
        if self.attenuation_limit_db is not None:
            # What is kept stays as it was: with the phases of a complex mask it would be lowered where frames overlap.
            floor = 10 ** (-self.attenuation_limit_db / 20)
            gain = np.where(np.abs(gain) < floor, np.complex64(floor), gain)
        return gain * (1 - self.dry) + self.dry if self.dry else gain


class StreamingDenoiser:
    """Denoises one recording or live signal in blocks; `process` may return fewer or more samples than it was given.

    At a multiple of the network's sample rate the window keeps its length in time, so the lowest bins are exactly those
    that the network knows; other rates are resampled to the next multiple and back. One gain, found on the mean of all
    channels, serves them all, so that directions stay. Silence comes back as silence; a constant offset is lowered as far as
    the strength allows.
    """

    def __init__(self, denoiser: AnyDenoiser, sample_rate: int, n_channels: int, *, strength: Strength | None = None) -> None:
        """Starts a signal of `n_channels` channels at `sample_rate` Hz."""
        self._denoiser, self._rate, self._channels = denoiser, sample_rate, n_channels
        self._factor = max(1, math.ceil(sample_rate / denoiser.sample_rate))
        self._work_rate = self._factor * denoiser.sample_rate
        self._strength = strength or Strength()
        # So much of an offset stays: it is lowered as what the network hears nothing in.
        self._kept = float(self._strength.applied(np.zeros((1, 1), np.complex64)).real[0, 0])
        self.reset()

    @property
    def delay(self) -> int:
        """Algorithmic delay in samples: how much of the future an output sample may need, resampling not counted."""
        frames = self._gains.look_ahead
        return math.ceil(
            (scaled(self._denoiser.stft, self._factor).win_length - 1 + frames * self._hop) * self._rate / self._work_rate
        )

    @property
    def resampling_delay(self) -> int:
        """How many samples more the resamplers hold back at most, as measured; 0 at a multiple of the network's rate."""
        if self._work_rate == self._rate:
            return 0
        up, down = self._new_resamplers()
        block = np.zeros((math.ceil(self._rate / 100), self._channels + 1), np.float32)
        n_held = longest = 0
        for _ in range(100):
            n_held += len(block) - len(down.resample_chunk(up.resample_chunk(block)[:, 1:].copy()))
            longest = max(longest, n_held)
        return longest

    def reset(self) -> None:
        """Forgets everything heard so far: the next block begins a new signal."""
        stft = scaled(self._denoiser.stft, self._factor)
        self._hop = stft.hop_length
        # Beside the signal goes one that is always 1: what becomes of it shows what an offset looks like in each frame.
        self._analysis, self._synthesis = StreamingStft(stft, self._channels + 1), StreamingStft(stft, self._channels)
        self._offsets = OffsetFinder(self._channels, self._denoiser.frames_per_second)
        self._gains = GainSource(self._denoiser)
        self._pending = np.zeros((2 if self._kept else 1, self._channels, 0, n_bins(stft)), np.complex64)
        self._taken = self._given = 0
        self._resamplers = None if self._work_rate == self._rate else self._new_resamplers()

    # Sound that is far too loud becomes infinite, which whoever writes it tells.
    @np.errstate(over="ignore", invalid="ignore")
    def process(self, block: Block) -> Ready:
        """Takes the next samples and returns those of the estimate that are ready.

        Raises:
            BlockError: the block is not of float32, or not of samples times the channels of the stream.
        """
        if block.dtype != np.float32 or block.ndim != 2 or block.shape[1] != self._channels:
            raise BlockError(
                f"Expected a block of float32, full scale 1.0, of the shape (samples, {self._channels}), found {block.dtype} "
                f"of the shape {block.shape}; for whole numbers divide by their full scale first."
            )
        limit = _LONGEST_BLOCK_S * self._rate
        if len(block) > limit:
            return np.concatenate([self.process(block[first : first + limit]) for first in range(0, len(block), limit)])
        self._taken += len(block)
        work = np.concatenate([block, np.ones((len(block), 1), np.float32)], axis=1)
        if self._resamplers is not None:
            work = self._resamplers[0].resample_chunk(work)
        return self._given_out(self._passed(self._analysis.analysed(work.T), last=False), last=False)

    @np.errstate(over="ignore", invalid="ignore")
    def flush(self) -> Ready:
        """The rest of the estimate, so that as many samples were returned as were taken; then starts a new signal."""
        work = np.zeros((0, self._channels + 1), np.float32)
        if self._resamplers is not None and self._taken:
            work = self._resamplers[0].resample_chunk(work, last=True)
        ending = np.concatenate([self._analysis.analysed(work.T), self._analysis.analysed_end()], axis=1)
        rest = self._given_out(self._passed(ending, last=True), last=True)
        rest = np.pad(rest, ((0, max(0, self._taken - self._given)), (0, 0)))
        self.reset()
        return rest

    def _new_resamplers(self) -> tuple[soxr.ResampleStream, soxr.ResampleStream]:
        """To the rate of the transform, of one channel more, and back."""
        up = soxr.ResampleStream(self._rate, self._work_rate, self._channels + 1, "float32", "HQ")
        return up, soxr.ResampleStream(self._work_rate, self._rate, self._channels, "float32", "HQ")

    def _passed(
        self, heard: Complex64[np.ndarray, "more frames wide"], *, last: bool
    ) -> Float32[np.ndarray, "channels samples"]:
        """Samples of the frames whose gain is known by now."""
        bins = n_bins(self._denoiser.stft)
        offsets = self._offsets.found(heard)
        spectra = heard[:-1] - offsets
        # A longer window at a higher rate sums more samples of the same tone.
        gains = self._gains.pushed(shared(spectra)[:, :bins] / self._factor)
        if last:
            gains = np.concatenate([gains, self._gains.finished()])
        parts = np.stack([spectra, np.float32(self._kept) * offsets]) if self._kept else spectra[None]
        waiting = np.concatenate([self._pending, parts], axis=2) if self._pending.shape[2] else parts
        ready, self._pending = waiting[:, :, : len(gains)], waiting[:, :, len(gains) :]
        changed = _changed(ready[0], gains, self._strength)
        return self._synthesis.synthesised(changed + ready[1] if self._kept else changed)

    def _given_out(self, work: Float32[np.ndarray, "channels samples"], *, last: bool) -> Ready:
        block = np.ascontiguousarray(work.T)
        if self._resamplers is not None:
            block = self._resamplers[1].resample_chunk(block, last=last)
        block = block[: max(0, self._taken - self._given)] if last else block
        self._given += len(block)
        return block


def scaled(stft: Stft, factor: int) -> Stft:
    """The same transform at `factor` times the sample rate: equal times and frequencies, `factor` times the bins."""
    # Not checked again: the ranges of params.yaml are for the network's own sample rate.
    return Stft.model_construct(
        n_fft=stft.n_fft * factor, win_length=stft.win_length * factor, hop_length=stft.hop_length * factor
    )


def shared(spectra: Complex64[np.ndarray, "channels frames wide"]) -> Complex64[np.ndarray, "frames wide"]:
    """The mean of all channels; in frames where they cancel each other, the loudest of them."""
    if len(spectra) == 1:
        return np.asarray(spectra[0])
    mean, powers = spectra.mean(0), _frame_power(spectra)
    cancelled = _frame_power(mean) < _CANCELLED * powers.mean(0)
    if not cancelled.any():
        return np.asarray(mean)
    loudest = spectra[powers.argmax(0), np.arange(spectra.shape[1])]
    return np.asarray(np.where(cancelled[:, None], loudest, mean))


def _frame_power(spectra: Complex64[np.ndarray, "*channels frames wide"]) -> Float32[np.ndarray, "*channels frames"]:
    return np.asarray(bin_powers(spectra).sum(-1))


def _changed(
    spectra: Complex64[np.ndarray, "channels frames wide"], gains: Complex64[np.ndarray, "frames bins"], strength: Strength
) -> Complex64[np.ndarray, "channels frames wide"]:
    """The spectra times the gains; bins above the network's band change as the power in the upper half of the band does.

    Where there is speech it holds most of that power, so that clean speech keeps its highest frequencies.
    """
    bins = gains.shape[-1]
    changed = spectra.copy()
    changed[..., :bins] *= strength.applied(gains)
    if spectra.shape[-1] > bins:
        upper = slice(bins // 2, bins)
        power, kept = bin_powers(spectra[..., upper]).sum(0), bin_powers(gains[:, upper])
        whole = np.maximum(power.sum(-1, keepdims=True), np.float32(1e-30))
        top = np.minimum(np.sqrt((power * kept).sum(-1, keepdims=True) / whole), 1)
        changed.view(np.float32)[..., 2 * bins :] *= strength.applied(top.astype(gains.dtype)).real
    return changed

"""The denoiser: features, network and target together, from a noisy spectrogram to a clean one."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Complex64, Float, Float32
from torch import Tensor, nn

from stages.core.band_network import BandNetwork
from stages.core.features import LevelState, features, running_level
from stages.core.network import RecurrentNetwork, State
from stages.core.parameters import Model, Stft
from stages.core.spectra import n_bins
from stages.core.targets import TARGETS

Spectrum = Complex64[Tensor, "batch frames bins"]


@runtime_checkable
class AnyDenoiser(Protocol):
    """What turns noisy spectrograms into clean ones, block by block, whatever it computes with."""

    stft: Stft
    sample_rate: int

    @property
    def looks_ahead(self) -> bool:
        """Whether an estimate needs frames that come after it."""

    @property
    def frames_per_second(self) -> float:
        """Frames of its spectrograms in one second."""

    def denoised(self, spectrum: Spectrum, state: Any = None) -> tuple[Spectrum, Any]:
        """The clean spectrogram estimated from the next frames of a noisy one, and the state after them."""


class DenoiserState(NamedTuple):
    """What a denoiser remembers of the frames so far."""

    level: LevelState
    network: State


class Denoiser(nn.Module):
    """A network with all that is needed to use it: its target, its STFT and its sample rate (Hz)."""

    def __init__(self, model: Model, stft: Stft, sample_rate: int) -> None:
        """Builds a denoiser with untrained weights."""
        super().__init__()
        self.model, self.stft, self.sample_rate = model, stft, sample_rate
        self.target = TARGETS[model.target](model.compression)
        n_features = n_bins(stft) * (3 if self.target.needs_phase else 1)
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.network: nn.Module
        if model.network == "bands":
            per_bin = n_features // n_bins(stft), self.target.outputs_per_bin
            self.network = BandNetwork(model, n_bins(stft), sample_rate, *per_bin)
        else:
            self.network = RecurrentNetwork(model, n_features, n_bins(stft) * self.target.outputs_per_bin)

    @property
    def looks_ahead(self) -> bool:
        """Whether an estimate needs frames that come after it."""
        return self.model.bidirectional

    @property
    def frames_per_second(self) -> float:
        """Frames of its spectrograms in one second."""
        return self.sample_rate / self.stft.hop_length

    def forward(self, mixture: Spectrum, state: State | None = None) -> tuple[Float[Tensor, "batch frames outputs"], State]:
        """The network's raw output for a levelled mixture, and the state after its last frame."""
        inputs = (self._features(mixture) - self.feature_mean) / self.feature_scale
        outputs: tuple[Tensor, State] = self.network(inputs, state)
        return outputs

    @torch.inference_mode()
    def standardise(self, mixtures: Iterable[Spectrum]) -> None:
        """Takes the mean and the standard deviation of each feature from levelled mixtures, all of which fit into memory.

        Without it training is many times slower: features of one sign drive all units of the first layer together.
        """
        found = torch.cat([self._features(mixture).flatten(0, 1) for mixture in mixtures])
        self.feature_mean.copy_(found.mean(0))
        self.feature_scale.copy_(found.std(0) + 1e-3)

    def _features(self, mixture: Spectrum) -> Float32[Tensor, "batch frames features"]:
        return features(mixture, self.model.compression, phase=self.target.needs_phase)

    def levels(
        self, spectrum: Complex64[np.ndarray, "batch frames bins"], state: LevelState | None = None
    ) -> tuple[Float32[np.ndarray, "batch frames 1"], LevelState]:
        """The running level of a noisy spectrogram, by which `forward` wants it divided."""
        return running_level(spectrum, self.frames_per_second, state)

    @torch.inference_mode()
    def denoised(self, spectrum: Spectrum, state: DenoiserState | None = None) -> tuple[Spectrum, DenoiserState]:
        """The clean spectrogram estimated from the next frames of a noisy one, and the state after them."""
        device = self.feature_mean.device
        level, level_state = self.levels(spectrum.cpu().numpy(), state.level if state else None)
        scale = torch.from_numpy(level).to(device)
        mixture = spectrum.to(device) / scale
        raw, network_state = self(mixture, state.network if state else None)
        estimate = self.target.estimated(raw, mixture) * scale
        return estimate.to(spectrum.device), DenoiserState(level_state, network_state)

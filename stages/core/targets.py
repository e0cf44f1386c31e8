"""Targets: what the network is trained to put out, and how its output becomes an estimate of the clean spectrum."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor
from torch.nn.functional import softplus

from stages.core.features import magnitude

Spectrum = Complex64[Tensor, "batch frames bins"]
Output = Float32[Tensor, "batch frames outputs"]
# Keeps divisions by the mixture finite: 120 dB below the level to which mixtures are brought.
TINY = 1e-6


class Target(ABC):
    """One way to get from a mixture to its speech; spectra are those of levelled mixtures."""

    outputs_per_bin: ClassVar[int] = 1
    needs_phase: ClassVar[bool] = False

    def __init__(self, compression: float) -> None:
        """`compression` is the exponent on magnitudes that are targets themselves."""
        self.compression = compression

    @abstractmethod
    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """The output that a perfect network would have, which the loss compares with `activated`."""

    @abstractmethod
    def activated(self, raw: Output, mixture: Spectrum) -> Output:
        """The last layer's numbers brought to the range of `ideal`."""

    @abstractmethod
    def estimate(self, activated: Output, mixture: Spectrum) -> Spectrum:
        """The clean spectrum that an output stands for, with the phase of the mixture unless the target has its own."""

    def estimated(self, raw: Output, mixture: Spectrum) -> Spectrum:
        """The clean spectrum that the last layer's numbers stand for."""
        return self.estimate(self.activated(raw, mixture), mixture)


class Magnitude(Target):
    """The compressed magnitude of the speech itself."""

    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """|S|^c."""
        return magnitude(speech).pow(self.compression)

    def activated(self, raw: Output, mixture: Spectrum) -> Output:
        """Not negative, and |X|^c where the network puts out 0.

        A network that has to draw every spectrum from nothing is no better than the mixture after hundreds of steps.
        """
        compressed = magnitude(mixture).pow(self.compression)
        return softplus(raw + compressed + torch.log(-torch.expm1(-compressed)))

    def estimate(self, activated: Output, mixture: Spectrum) -> Spectrum:
        """|Ŝ| with the phase of the mixture."""
        return mixture * (activated.clamp_min(TINY).pow(1 / self.compression) / (magnitude(mixture) + TINY))


class Subtraction(Target):
    """The compressed magnitude of the noise, which is subtracted from that of the mixture (after Boll 1979)."""

    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """|N|^c."""
        return magnitude(mixture - speech).pow(self.compression)

    def activated(self, raw: Output, mixture: Spectrum) -> Output:
        """Magnitudes are not negative."""
        return softplus(raw)

    def estimate(self, activated: Output, mixture: Spectrum) -> Spectrum:
        """max(|X| - |N̂|, 0) with the phase of the mixture; the maximum is rounded off, or too much would have no gradient."""
        share = activated.clamp_min(TINY).pow(1 / self.compression) / (magnitude(mixture) + TINY)
        return mixture * softplus(1 - share, beta=10)


class RatioMask(Target):
    """The ideal ratio mask, the root of the Wiener gain (Wang, Narayanan and Wang 2014)."""

    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """(|S|² / (|S|² + |N|²))^½."""
        clean, noise = magnitude(speech).square(), magnitude(mixture - speech).square()
        return (clean / (clean + noise)).sqrt()

    def activated(self, raw: Output, mixture: Spectrum) -> Output:
        """A mask lies between 0 and 1."""
        return raw.sigmoid()

    def estimate(self, activated: Output, mixture: Spectrum) -> Spectrum:
        """The masked mixture."""
        return mixture * activated


class BinaryMask(RatioMask):
    """The ideal binary mask with a criterion of 0 dB (Wang 2005); the network gives the probability of its ones.

    The estimate is weighted by the probability, the expected mask: a threshold would only add musical noise.
    """

    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """1 where the speech is louder than the noise, else 0."""
        return (magnitude(speech) > magnitude(mixture - speech)).float()


class ComplexMask(Target):
    """The complex ratio mask S / X, its parts compressed by K·tanh(x / K) (after Williamson, Wang and Wang 2016, eq. 12)."""

    outputs_per_bin = 2
    needs_phase = True
    LIMIT: ClassVar[float] = 2.0
    # A part of a mask goes no further than this times K: an output that was rounded to K would be endless.
    FURTHEST: ClassVar[float] = math.atanh(0.9999)

    def ideal(self, mixture: Spectrum, speech: Spectrum) -> Output:
        """The compressed real parts, then the compressed imaginary parts."""
        power = magnitude(mixture).square() + TINY**2
        mask = torch.view_as_real(speech * mixture.conj()) / power.unsqueeze(-1)
        return self.LIMIT * (torch.cat([mask[..., 0], mask[..., 1]], dim=-1) / self.LIMIT).tanh()

    def activated(self, raw: Output, mixture: Spectrum) -> Output:
        """Compressed parts between -K and K; a mask of 1, which changes nothing, where the network puts out 0."""
        return self.LIMIT * self._shifted(raw).tanh()

    def estimate(self, activated: Output, mixture: Spectrum) -> Spectrum:
        """The mixture times the mask, which brings its own phase."""
        return self._masked((activated / self.LIMIT).atanh(), mixture)

    def estimated(self, raw: Output, mixture: Spectrum) -> Spectrum:
        """The same without compressing the mask first: atanh(tanh(x)) is x, without rounding twice."""
        return self._masked(self._shifted(raw), mixture)

    def _shifted(self, raw: Output) -> Output:
        real, imaginary = raw.chunk(2, dim=-1)
        return torch.cat([real + 1 / self.LIMIT, imaginary], dim=-1)

    def _masked(self, share: Output, mixture: Spectrum) -> Spectrum:
        real, imaginary = (self.LIMIT * share.clamp(-self.FURTHEST, self.FURTHEST)).chunk(2, dim=-1)
        return mixture * torch.complex(real, imaginary)


TARGETS: dict[str, type[Target]] = {
    "magnitude": Magnitude,
    "subtraction": Subtraction,
    "irm": RatioMask,
    "ibm": BinaryMask,
    "crm": ComplexMask,
}

"""Remixing (Défossez et al. 2020): new mixtures of the speech and the noise in a batch, so that no epoch is like another."""

import numpy as np
from jaxtyping import Complex64, Float32

from stages.core.training_parameters import Remix

Spectra = Complex64[np.ndarray, "batch frames 2 bins"]
# Curves of equalisation run straight through this many points, evenly spaced over the bins.
_POINTS = 6
_TINY = 1e-20


def remixed(both: Spectra, random: np.random.Generator, settings: Remix) -> Spectra:
    """Mixtures and their speech, [:, :, 0] and [:, :, 1], with noises exchanged within the batch.

    A share `probability` of the batch gets the noise of another of its mixtures, colours of their own for speech and noise,
    and the ratio of their powers anew; of these some lose their noise and some their speech. The others stay as they are.
    """
    n_mixtures, _, _, n_bins = both.shape
    hit = np.asarray(random.random(n_mixtures) < settings.probability)
    speech, noise = both[:, :, 1], both[:, :, 0] - both[:, :, 1]
    noise = noise[random.permutation(n_mixtures)]
    speech, noise = (part * _colours(random, n_mixtures, n_bins, settings.equalisation_db) for part in (speech, noise))
    snr_db = random.uniform(settings.snr_db[0], settings.snr_db[1], n_mixtures)
    ratio = _power(speech) / np.maximum(_power(noise), _TINY) / 10 ** (snr_db / 10)
    noise = noise * np.sqrt(ratio).astype(np.float32)[:, None, None]
    kind = random.random(n_mixtures)
    speech[kind < settings.noise_only_share] = 0
    noise[kind >= 1 - settings.speech_only_share] = 0
    new: np.ndarray = np.where(hit[:, None, None, None], np.stack([speech + noise, speech], axis=2), both)
    return new


def _colours(random: np.random.Generator, n_mixtures: int, n_bins: int, range_db: float) -> Float32[np.ndarray, "batch 1 bins"]:
    """Smooth gains over frequency, up to `range_db` above and below 1."""
    points = random.uniform(-range_db, range_db, (n_mixtures, _POINTS))
    places = np.linspace(0, _POINTS - 1, n_bins)
    curves = [np.interp(places, np.arange(_POINTS), heights) for heights in points]
    return (10 ** (np.array(curves, np.float32) / 20))[:, None].astype(np.float32)


def _power(spectra: Complex64[np.ndarray, "batch frames bins"]) -> np.ndarray:
    return np.asarray(np.sum(spectra.real**2 + spectra.imag**2, axis=(1, 2), dtype=np.float64))

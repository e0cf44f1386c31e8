"""The oracle: what the model's target could reach at best, made from the true speech."""

import numpy as np
import torch
from jaxtyping import Float32

from stages.core.denoiser import Denoiser
from stages.core.spectra import spectrogram, waveform

Waveform = Float32[np.ndarray, "samples"]


@torch.inference_mode()
def oracle(noisy: Waveform, clean: Waveform, denoiser: Denoiser) -> Waveform:
    """The estimate of a network whose output is ideal; both waveforms are at the denoiser's sample rate."""
    spectra = spectrogram(torch.from_numpy(np.stack([noisy, clean])), denoiser.stft)
    level = torch.from_numpy(denoiser.levels(spectra[:1].numpy())[0])
    mixture, speech = (spectra / level).split(1)
    estimate = denoiser.target.estimate(denoiser.target.ideal(mixture, speech), mixture) * level
    return np.asarray(waveform(estimate, len(noisy), denoiser.stft)[0].numpy())

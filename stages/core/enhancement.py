"""From a whole noisy waveform, of any sample rate and number of channels, to a clean one of the same shape."""

import numpy as np
from jaxtyping import Float32

from stages.core.denoiser import AnyDenoiser
from stages.core.streaming import StreamingDenoiser, Strength


def enhanced(
    noisy: Float32[np.ndarray, "samples channels"], sample_rate: int, denoiser: AnyDenoiser, *, strength: Strength | None = None
) -> Float32[np.ndarray, "samples channels"]:
    """The estimate of the speech in `noisy`, with the same number of samples and channels; see `StreamingDenoiser`."""
    stream = StreamingDenoiser(denoiser, sample_rate, noisy.shape[1], strength=strength)
    return np.concatenate([stream.process(noisy), stream.flush()])

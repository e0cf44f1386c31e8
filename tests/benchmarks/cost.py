"""What weights cost to use: `python -m tests.benchmarks.cost [WEIGHTS ...]` prints a table, on one core.

Columns: weights; multiplications for one second of audio; whole recordings as a share of real time, STFT included; one frame
of a live stream with its STFT, in ms, and so how many streams one core holds.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from stages.core.checkpoint import load_checkpoint
from stages.core.denoiser import Denoiser
from stages.core.enhancement import enhanced
from stages.core.network import n_weights
from stages.core.spectra import n_bins

SECONDS = 60
N_FRAMES = 500


def macs_per_second(denoiser: Denoiser) -> float:
    """Multiply-accumulates of the network for one second of audio (those of the STFT are not counted)."""
    mixture = torch.randn(1, 100, n_bins(denoiser.stft), dtype=torch.complex64)
    with FlopCounterMode(display=False) as counter:
        denoiser(mixture)
    return counter.get_total_flops() / 2 / 100 * denoiser.frames_per_second


def share_of_real_time(denoiser: Denoiser) -> float:
    """Time for a recording of a minute over its duration."""
    noisy = np.random.default_rng(0).standard_normal((SECONDS * denoiser.sample_rate, 1)).astype(np.float32) * 0.05
    start = time.perf_counter()
    enhanced(noisy, denoiser.sample_rate, denoiser)
    return (time.perf_counter() - start) / SECONDS


@torch.inference_mode()
def frame_ms(denoiser: Denoiser) -> float:
    """The median time for one frame of a stream: window, transform, level, network, mask and inverse transform."""
    stft, state, level, times = denoiser.stft, None, None, []
    window = torch.hann_window(stft.win_length).sqrt()
    for samples in torch.randn(N_FRAMES, stft.win_length) * 0.05:
        start = time.perf_counter()
        spectrum = torch.fft.rfft(samples * window, stft.n_fft)[None, None]
        levels, level = denoiser.levels(spectrum.numpy(), level)
        mixture = spectrum / torch.from_numpy(levels)
        raw, state = denoiser(mixture, state)
        estimate = denoiser.target.estimated(raw, mixture) * torch.from_numpy(levels)
        torch.fft.irfft(estimate[0, 0], stft.n_fft) * window
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def main() -> None:
    """Prints the table for the weights named, or for those that the pipeline trained."""
    torch.set_num_threads(1)
    print(f"{'':44}{'weights':>10}{'MACs/s':>10}{'RTF':>8}{'ms/frame':>10}{'streams':>9}")
    for path in [Path(name) for name in sys.argv[1:]] or [Path("models/denoiser.safetensors")]:
        denoiser, _ = load_checkpoint(path)
        count, macs, share = n_weights(denoiser), macs_per_second(denoiser), share_of_real_time(denoiser)
        line = f"{str(path)[-42:]:44}{count:>10,}{macs / 1e6:>9.0f}M{share:>8.4f}"
        if denoiser.model.bidirectional:
            print(line + f"{'-':>10}{'-':>9}")
            continue
        milliseconds = frame_ms(denoiser)
        print(line + f"{milliseconds:>10.2f}{1000 / denoiser.frames_per_second / milliseconds:>9.0f}")


if __name__ == "__main__":
    main()

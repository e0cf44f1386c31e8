"""How many live streams one core keeps up with, and their delay; a part of `python -m tests.benchmarks.denoising`.

Blocks of 16 ms, from samples to samples: the worst case for the cost, since every call has one frame. Time is that of the
processor, and the best of several rounds in which all engines take turns. A core that is busy all the time comes late: half of
it is left for everything else.
"""

import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from stages.core.checkpoint import load_checkpoint
from stages.core.denoiser import Denoiser
from stages.core.onnx_graph import onnx_graph
from stages.core.onnx_model import OnnxDenoiser, onnx_denoiser
from stages.core.parameters import Model, Stft
from stages.core.streaming import StreamingDenoiser

Denoisers = dict[str, Denoiser | OnnxDenoiser]
RATES = (16_000, 48_000)
STACK = Model(
    network="stack",
    n_bands=32,
    target="irm",
    cell="gru",
    layers=2,
    hidden=256,
    bidirectional=False,
    dropout=0.0,
    compression=0.3,
)
BLOCK_S = 0.016
SECONDS = 8
N_ROUNDS = 5
# By how much a sample of the future is changed to see which samples of the past it alters.
_PULSE = 0.5


def print_table(models: list[Path]) -> None:
    """Prints streams and delay for each network, engine and sample rate."""
    print(f"live streams that half of one core keeps up with, blocks of {1000 * BLOCK_S:.0f} ms, one channel; delay in ms")
    print(f"{'network':16}{'engine':8}{'rate':>8}{'x real time':>13}{'streams':>9}{'delay':>8}{'measured':>10}", flush=True)
    networks = {path.parent.name: load_checkpoint(path)[0] for path in models}
    torch.manual_seed(1)
    networks["stack 2 x 256"] = Denoiser(STACK, Stft(n_fft=512, win_length=512, hop_length=256), 16_000).eval()
    with threadpool_limits(1):
        for name, network in networks.items():
            if network.looks_ahead:
                print(f"{name:16}looks ahead: not for live signals", flush=True)
                continue
            print_network(name, {"onnx": exported(network), "torch": network})


def print_network(name: str, engines: Denoisers) -> None:
    """Prints the lines of one network."""
    for rate in RATES:
        found = speeds(engines, rate)
        for engine, denoiser in engines.items():
            stream = StreamingDenoiser(denoiser, rate, 1)
            stated, measured = (1000 * samples / rate for samples in (stream.delay, measured_delay(denoiser, rate)))
            row = f"{found[engine]:>12.0f}x{found[engine] / 2:>9.0f}{stated:>8.2f}{measured:>10.2f}"
            print(f"{name:16}{engine:8}{rate:>8}{row}", flush=True)


def exported(network: Denoiser) -> OnnxDenoiser:
    """The same network for ONNX Runtime."""
    return onnx_denoiser(onnx_graph(network, "0" * 64).SerializeToString(), Path("memory"))


def speeds(engines: Denoisers, rate: int) -> dict[str, float]:
    """Seconds of sound that each engine denoises in a second of one core."""
    waveform = sound(SECONDS * rate, rate)
    best = dict.fromkeys(engines, 0.0)
    for _ in range(N_ROUNDS):
        for name, denoiser in engines.items():
            start = time.process_time()
            streamed(denoiser, waveform, rate)
            best[name] = max(best[name], SECONDS / (time.process_time() - start))
    return best


def measured_delay(denoiser: Denoiser | OnnxDenoiser, rate: int) -> int:
    """How many samples before a sample that differs the estimate already does, at most, for samples at all places of a hop."""
    waveform = sound(rate, rate)
    plain = streamed(denoiser, waveform, rate)
    hop = denoiser.stft.hop_length * rate // denoiser.sample_rate
    longest = 0
    for place in range(rate // 2, rate // 2 + hop + 1, max(1, hop // 16)):
        changed = waveform.copy()
        changed[place] += _PULSE
        altered = np.flatnonzero(np.any(streamed(denoiser, changed, rate) != plain, axis=1))
        longest = max(longest, place - int(altered[0]))
    return longest


def streamed(denoiser: Denoiser | OnnxDenoiser, waveform: np.ndarray, rate: int) -> np.ndarray:
    """The estimate, block by block."""
    stream, n_samples = StreamingDenoiser(denoiser, rate, 1), round(BLOCK_S * rate)
    blocks = [stream.process(waveform[start : start + n_samples]) for start in range(0, len(waveform), n_samples)]
    return np.concatenate([*blocks, stream.flush()])


def sound(n_samples: int, seed: int) -> np.ndarray:
    """A noise, (samples, 1)."""
    waveform: np.ndarray = 0.1 * np.random.default_rng(seed).standard_normal((n_samples, 1), np.float32)
    return waveform

"""Seconds of sound that one core denoises in a second, by PyTorch and by ONNX Runtime: `python -m tests.benchmarks.engines`.

`network` is from spectrum to spectrum, `all` from samples to samples, with the STFT of a live signal. The weights are random:
they do not change the speed. Time is that of the processor, and the best of several rounds in which all engines take turns, so
that other work on the machine counts little and slows all of them alike.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from stages.core.denoiser import Denoiser
from stages.core.onnx_graph import onnx_graph
from stages.core.onnx_model import OnnxDenoiser, load_onnx
from stages.core.parameters import Model, Stft
from stages.core.spectra import spectrogram
from stages.core.streaming import StreamingDenoiser

RATE = 16000
STFT = Stft(n_fft=512, win_length=512, hop_length=256)
NETWORKS: dict[str, dict[str, Any]] = {
    "gru 2 x 256, irm": {"target": "irm", "layers": 2, "hidden": 256},
    "gru 2 x 256, crm": {"target": "crm", "layers": 2, "hidden": 256},
    "gru 2 x 512, crm": {"target": "crm", "layers": 2, "hidden": 512},
}
SECONDS = 10
N_ROUNDS = 5
BLOCK = RATE // 2
Engine = Denoiser | OnnxDenoiser


def denoiser(changes: dict[str, Any]) -> Denoiser:
    """An untrained denoiser."""
    torch.manual_seed(1)
    values = {"cell": "gru", "bidirectional": False, "dropout": 0.0, "compression": 0.3}
    return Denoiser(Model.model_validate(values | changes), STFT, RATE).eval()


def network_only(engine: Engine, spectrum: torch.Tensor, n_frames: int) -> None:
    """From spectrum to spectrum."""
    state: Any = None
    for block in spectrum.split(n_frames, dim=1):
        _, state = engine.denoised(block, state)


def all_of_it(engine: Engine, waveform: np.ndarray, n_samples: int) -> None:
    """From samples to samples."""
    stream = StreamingDenoiser(engine, RATE, 1)  # type: ignore[arg-type]
    for start in range(0, len(waveform), n_samples):
        stream.process(waveform[start : start + n_samples])
    stream.flush()


def speeds(works: dict[tuple[str, str], Callable[[], None]]) -> dict[tuple[str, str], float]:
    """Seconds of sound in a second for each work."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(N_ROUNDS):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = max(best[name], SECONDS / (time.process_time() - start))
    return best


def table(original: Denoiser, exported: OnnxDenoiser) -> str:
    """The speeds of one network as a table."""
    waveform = (0.1 * np.random.default_rng(0).standard_normal((SECONDS * RATE, 1))).astype(np.float32)
    spectrum = spectrogram(torch.from_numpy(waveform[:, 0]), STFT).unsqueeze(0)
    works: dict[tuple[str, str], Callable[[], None]] = {}
    for name, engine in (("PyTorch", original), ("ONNX", exported)):
        for way, n_samples in (("whole file", len(waveform)), ("blocks of 0.5 s", BLOCK), ("one frame", STFT.hop_length)):
            n_frames = max(1, n_samples // STFT.hop_length)
            works[f"{name}, {way}", "network"] = lambda e=engine, n=n_frames: network_only(e, spectrum, n)  # type: ignore[misc]
            works[f"{name}, {way}", "all"] = lambda e=engine, n=n_samples: all_of_it(e, waveform, n)  # type: ignore[misc]
    found = speeds(works)
    lines = [f"{'':26}{'network':>9}{'all':>9}{'live streams':>14}"]
    for name in dict.fromkeys(name for name, _ in found):
        # A core that is busy all the time comes late: half of it is left for everything else.
        streams = f"{found[name, 'all'] / 2:14.0f}" if "whole" not in name else ""
        lines.append(f"{name:26}{found[name, 'network']:8.0f}x{found[name, 'all']:8.0f}x{streams}")
    return "\n".join(lines)


def main() -> None:
    """Prints a table for each network."""
    print(f"seconds of sound in a second of one core, at {RATE} Hz; live streams at half its load")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for name, changes in NETWORKS.items():
            original = denoiser(changes)
            path = Path(folder) / "denoiser.onnx"
            path.write_bytes(onnx_graph(original, "0" * 64).SerializeToString())
            print(f"\n{name}: {path.stat().st_size / 1e6:.1f} MB\n{table(original, load_onnx(path))}", flush=True)


if __name__ == "__main__":
    main()

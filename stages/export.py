"""Exports the denoiser to ONNX, to run it without PyTorch, and checks that it still does the same.

Reads: models/denoiser.safetensors; data/mixtures/test/noisy/, to check it on.
Writes: models/denoiser.onnx; metrics/export.json.
Params: none.

The file holds one step: frames and states in, frames and states out, and in its metadata what another program has to know. A
bidirectional network has no steps: its file takes a whole signal. `python -m stages.export WEIGHTS` exports weights that lie
elsewhere, to a file beside them.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64
from threadpoolctl import threadpool_limits
from torch import Tensor

from stages.core.audio import read_audio, resampled, sound_files
from stages.core.checkpoint import load_checkpoint, named_weights
from stages.core.denoiser import Denoiser
from stages.core.errors import DenoisingError
from stages.core.files import file_digest, write_json, written
from stages.core.onnx_graph import OPSET, onnx_graph
from stages.core.onnx_model import OnnxDenoiser, load_onnx
from stages.core.runtime import run_stage
from stages.core.seeds import generator
from stages.core.spectra import spectrogram

CHECKPOINT = Path("models/denoiser.safetensors")
MIXTURES_DIR = Path("data/mixtures/test/noisy")
MODEL = Path("models/denoiser.onnx")
METRICS = Path("metrics/export.json")
N_MIXTURES = 3
# Largest difference from PyTorch, as a share of the largest number in the frame: 80 dB below it. Right graphs stay below
# 1e-6, or 2e-5 with a saturated complex mask; wrong ones were off by more than 1e-3.
LIMIT = 1e-4
# The signal to check on, noise in sections of 64 frames, in dB below full scale. The first frames, the way into silence,
# the loudest there is and the way down from it are where levels and states could go wrong.
SECTIONS_DBFS = (-30.0, -np.inf, 0.0, -90.0, -30.0)
SECTION_FRAMES = 64
# Spectra below this count as silence: less than the rounding of 24-bit samples.
SILENCE = 1e-6

Spectrum = Complex64[Tensor, "1 frames bins"]


class ExportError(DenoisingError):
    """An exported denoiser that does not do what the original does."""


def run(checkpoint: Path, mixtures_dir: Path, model: Path, metrics: Path | None) -> None:
    """Exports the weights in `checkpoint` to `model`; what the check found goes to `metrics`, where that is named.

    Raises:
        ExportError: the exported denoiser differs from the original, or would take the place of it; `model` is left as it was.
    """
    if model.exists() and model.samefile(checkpoint):
        raise ExportError(f"{checkpoint}: the ONNX file would be written over these weights; give them another name.")
    denoiser, _ = load_checkpoint(checkpoint)
    graph = onnx_graph(denoiser, file_digest(checkpoint))
    signals = [_synthetic(denoiser), *_mixtures(mixtures_dir, denoiser)]
    # Sums over several threads round differently, and the figures would change from run to run.
    with threadpool_limits(1), written(model) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))
        found = _differences(denoiser, load_onnx(temporary), signals)
        _check(found, checkpoint)
    description = _described(denoiser, model, found, signals)
    if metrics:
        write_json(metrics, description)
    print(f"exported {checkpoint} to {model}: {'one step' if description['streaming'] else 'whole signals only'}")
    print(f"largest difference from PyTorch: {max(found.values()):.1e} of a frame's largest number")


def _synthetic(denoiser: Denoiser) -> Spectrum:
    """Noise that is quiet, silent, loud and faint in turn."""
    random = generator(1, "export")
    length = SECTION_FRAMES * denoiser.stft.hop_length
    sections = [10 ** (level / 20) * random.standard_normal(length) for level in SECTIONS_DBFS]
    return _spectrum(np.clip(np.concatenate(sections), -1, 1).astype(np.float32), denoiser)


def _mixtures(folder: Path, denoiser: Denoiser) -> list[Spectrum]:
    """The first few test mixtures; none where weights were brought along without data."""
    found = []
    for path in sound_files(folder)[:N_MIXTURES]:
        noisy, sample_rate = read_audio(path)
        found.append(_spectrum(resampled(noisy[:, 0], sample_rate, denoiser.sample_rate), denoiser))
    return found


def _spectrum(waveform: np.ndarray, denoiser: Denoiser) -> Spectrum:
    return spectrogram(torch.from_numpy(np.ascontiguousarray(waveform)), denoiser.stft).unsqueeze(0)


def _differences(denoiser: Denoiser, exported: OnnxDenoiser, signals: list[Spectrum]) -> dict[str, float]:
    """The largest difference of the exported denoiser on any signal, taken whole and frame by frame."""
    n_whole = max(signal.shape[1] for signal in signals)
    ways = {"whole": n_whole} if exported.looks_ahead else {"whole": n_whole, "frame_by_frame": 1}
    found = dict.fromkeys(ways, 0.0)
    for signal in signals:
        reference, _ = denoiser.denoised(signal)
        for way, n_frames in ways.items():
            difference = _difference(reference, _estimate(exported, signal, n_frames), signal)
            # Unlike max(), this keeps a difference that is not a number.
            found[way] = float(np.maximum(found[way], difference))
    return found


def _estimate(exported: OnnxDenoiser, signal: Spectrum, n_frames: int) -> Spectrum:
    """The exported denoiser's estimate, found in blocks of `n_frames`."""
    state, found = None, []
    for block in signal.split(n_frames, dim=1):
        estimate, state = exported.denoised(block, state)
        found.append(estimate)
    return torch.cat(found, dim=1)


def _difference(reference: Spectrum, estimate: Spectrum, signal: Spectrum) -> float:
    scale = torch.maximum(signal.abs(), reference.abs()).amax(-1).clamp_min(SILENCE)
    return float(((estimate - reference).abs().amax(-1) / scale).max())


def _check(found: dict[str, float], checkpoint: Path) -> None:
    for way, difference in found.items():
        if not difference <= LIMIT:
            raise ExportError(
                f"{checkpoint}: exported to ONNX and run {way.replace('_', ' ')}, the denoiser differs from PyTorch by "
                f"{difference:.1e} of a frame's largest number, expected at most {LIMIT:.0e}; nothing was written. Weights "
                "that are huge do this: train again with a lower train.learning_rate."
            )


def _described(denoiser: Denoiser, model: Path, found: dict[str, float], signals: list[Spectrum]) -> dict[str, Any]:
    kind: dict[str, Any] = {"streaming": not denoiser.looks_ahead}
    if denoiser.looks_ahead:
        kind["reason"] = "a bidirectional network has no steps: it needs the whole signal at once"
    else:
        kind["delay_ms"] = round(1000 * (denoiser.stft.win_length - 1) / denoiser.sample_rate, 4)
    return kind | {
        "n_bytes": model.stat().st_size,
        "opset": OPSET,
        "n_signals_checked": len(signals),
        "n_frames_checked": sum(signal.shape[1] for signal in signals),
        "difference_below": {way: _power_of_ten(difference) for way, difference in found.items()},
    }


def _power_of_ten(difference: float) -> float:
    """The next power of ten: digits beyond it change from run to run, with where arrays happen to lie in memory."""
    return float(f"1e{math.ceil(math.log10(difference))}") if difference > 0 else 0.0


def main() -> None:
    """Runs the stage, or exports the weights that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="?", help="best, live or a weights file; the ONNX file goes beside it")
    name = parser.parse_args().weights
    if name is not None:
        weights = named_weights(name)
        run(weights, MIXTURES_DIR, weights.with_suffix(".onnx"), None)
    else:
        run(CHECKPOINT, MIXTURES_DIR, MODEL, METRICS)


if __name__ == "__main__":
    run_stage("export", main)

"""Turns mixtures into shards of spectrograms, in parallel.

Reads: data/mixtures/train/ and data/mixtures/valid/.
Writes: data/shards/train/ and data/shards/valid/ (shard-NNNNN.npy and index.csv); metrics/shard.json with the error that
half-precision numbers cost.
Params: shard, stft, audio.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from stages.core.files import fresh_folder, write_json
from stages.core.packs import read_pack
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Shard, Stft
from stages.core.runtime import run_stage, streamed
from stages.core.shards import Entry, ShardError, Spectrum, packed, unpacked, write_index, write_shard
from stages.core.spectra import spectrogram

MIXTURES_DIR = Path("data/mixtures")
SHARDS_DIR = Path("data/shards")
METRICS = Path("metrics/shard.json")
# Frames this far below the loudest of their mixture count as quiet.
QUIET_DB = 40.0


@dataclass(frozen=True, slots=True)
class Job:
    """One shard to write and the rows of the index of mixtures that go into it."""

    source: Path
    target: Path
    rows: list[dict[str, Any]]


def run(
    settings: Shard, stft: Stft, sample_rate: int, mixtures_dir: Path, shards_dir: Path, metrics: Path, n_jobs: int
) -> None:
    """Writes the shards of both splits and the error of their numbers.

    Raises:
        ShardError: there are no mixtures yet.
    """
    for index in (mixtures_dir / split / "index.csv" for split in ("train", "valid")):
        if not index.is_file():
            raise ShardError(f"{index} is missing: run 'dvc repro mix' first.")
    n_all = 0
    errors: list[np.ndarray] = []
    for split in ("train", "valid"):
        source, target = mixtures_dir / split, fresh_folder(shards_dir / split)
        with (source / "index.csv").open(encoding="utf-8") as file:
            n_shards = -(-(sum(1 for _ in file) - 1) // settings.n_mixtures)
        jobs = _jobs(source, target, settings)
        # Each shard is written and entered in the index before the next but few are looked at.
        results = streamed(partial(_write, stft), jobs, n_items=n_shards, n_jobs=n_jobs, description=f"sharding {split}")
        write_index(target, _entered(results, errors))
        n_all += n_shards
    write_json(metrics, _metrics(np.concatenate(errors), n_all, sample_rate / stft.hop_length))


def _jobs(source: Path, target: Path, settings: Shard) -> Iterator[Job]:
    with pd.read_csv(source / "index.csv", dtype={"id": str, "pack": str}, chunksize=settings.n_mixtures) as tables:
        for number, table in enumerate(tables):
            yield Job(source, target / f"shard-{number:05d}.npy", table.to_dict(orient="records"))


def _entered(results: Iterable[tuple[list[Entry], np.ndarray]], errors: list[np.ndarray]) -> Iterator[Entry]:
    """The entries of all shards as they come; their errors are put into a list."""
    for entries, found in results:
        errors.append(found)
        yield from entries


def _write(stft: Stft, job: Job) -> tuple[list[Entry], np.ndarray]:
    """Writes one shard; the entries of its mixtures, and a row of errors for each."""
    items, errors = [], []
    for row in job.rows:
        mixture, speech = _spectra(row, job.source, stft)
        numbers, scale = packed(mixture, speech)
        items.append((str(row["id"]), numbers, scale))
        errors.append(_errors(speech, numbers[:, 1:], scale))
    return write_shard(job.target, items), np.array(errors)


def _spectra(row: dict[str, Any], source: Path, stft: Stft) -> tuple[Spectrum, Spectrum]:
    waveforms = np.stack(read_pack(source / row["pack"], row["start"], row["n_samples"]))
    mixture, speech = spectrogram(torch.from_numpy(waveforms), stft).numpy()
    return mixture, speech


def _errors(speech: Spectrum, numbers: np.ndarray, scale: float) -> tuple[float, float, float]:
    """Signal-to-error ratios (dB) of the stored speech: over all frames, and the worst of the quiet ones; and the frames."""
    power = _power(speech)
    error = _power(unpacked(numbers, scale)[:, 0] - speech)
    heard = power > 0
    quiet = heard & (power < power.max() * 10 ** (-QUIET_DB / 10))
    ratio = 10 * np.log10(power[heard].sum() / max(error.sum(), 1e-300))
    worst = 10 * np.log10(np.min(power[quiet] / np.maximum(error[quiet], 1e-300))) if quiet.any() else np.inf
    return float(ratio), float(worst), float(len(speech))


def _power(spectrum: Spectrum) -> Float64[np.ndarray, "frames"]:
    """The power of each frame, summed without a copy."""
    numbers = np.ascontiguousarray(spectrum).view(np.float32)
    power: np.ndarray = np.einsum("fn,fn->f", numbers, numbers)
    return power.astype(np.float64)


def _metrics(errors: Float64[np.ndarray, "mixtures 3"], n_shards: int, frames_per_second: float) -> dict[str, Any]:
    ratios, worst, frames = errors.T
    quiet = worst[np.isfinite(worst)]
    return {
        "n_mixtures": len(errors),
        "n_shards": n_shards,
        "hours": round(float(frames.sum()) / frames_per_second / 3600, 4),
        "storage_snr_db": {
            "mean": round(float(ratios.mean()), 2),
            "lowest": round(float(ratios.min()), 2),
            "lowest_in_quiet_frames": round(float(quiet.min()), 2) if len(quiet) else None,
        },
    }


def main() -> None:
    """Runs the stage with the values of params.yaml."""
    parameters = read_parameters(Path("params.yaml"))
    run(
        parameters.shard,
        parameters.stft,
        parameters.audio.sample_rate,
        MIXTURES_DIR,
        SHARDS_DIR,
        METRICS,
        parameters.runtime.n_jobs,
    )


if __name__ == "__main__":
    run_stage("shard", main, about=__doc__)

"""Turns mixtures into shards of spectrograms, in parallel.

Reads: data/mixtures/train/ and data/mixtures/valid/.
Writes: data/shards/train/ and data/shards/valid/ (shard-NNNNN.npy and index.csv); metrics/shard.json with the error that
half-precision numbers cost.
Params: shard, stft, audio.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core.files import fresh_folder, write_json
from stages.core.packs import read_pack
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Shard, Stft
from stages.core.runtime import parallel, run_stage
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
    jobs = [
        job for split in ("train", "valid") for job in _jobs(mixtures_dir / split, fresh_folder(shards_dir / split), settings)
    ]
    results = parallel(partial(_write, stft), jobs, n_jobs=n_jobs, description="sharding")
    for split in ("train", "valid"):
        found = [entries for job, (entries, _) in zip(jobs, results, strict=True) if job.target.parent.name == split]
        write_index(shards_dir / split, [entry for entries in found for entry in entries])
    errors = pd.DataFrame([error for _, found in results for error in found])
    write_json(metrics, _metrics(errors, len(jobs), sample_rate / stft.hop_length))


def _jobs(source: Path, target: Path, settings: Shard) -> list[Job]:
    rows = pd.read_csv(source / "index.csv", dtype={"id": str, "pack": str}).to_dict(orient="records")
    places = range(0, len(rows), settings.n_mixtures)
    return [
        Job(source, target / f"shard-{place // settings.n_mixtures:05d}.npy", rows[place : place + settings.n_mixtures])
        for place in places
    ]


def _write(stft: Stft, job: Job) -> tuple[list[Entry], list[dict[str, float]]]:
    """Writes one shard; the entries of its mixtures and the error of each."""
    items = [(str(row["id"]), *_spectra(row, job.source, stft)) for row in job.rows]
    return write_shard(job.target, items), [_errors(mixture, speech) for _, mixture, speech in items]


def _spectra(row: dict[str, Any], source: Path, stft: Stft) -> tuple[Spectrum, Spectrum]:
    waveforms = np.stack(read_pack(source / row["pack"], row["start"], row["n_samples"]))
    mixture, speech = spectrogram(torch.from_numpy(waveforms), stft).numpy()
    return mixture, speech


def _errors(mixture: Spectrum, speech: Spectrum) -> dict[str, float]:
    """Signal-to-error ratios (dB) of the stored speech: over all frames, and the worst of the quiet ones; and the frames."""
    stored = unpacked(*packed(mixture, speech))[:, 1]
    power = np.sum(np.abs(speech).astype(np.float64) ** 2, axis=-1)
    error = np.sum(np.abs(stored - speech).astype(np.float64) ** 2, axis=-1)
    heard = power > 0
    quiet = heard & (power < power.max() * 10 ** (-QUIET_DB / 10))
    ratio = 10 * np.log10(power[heard].sum() / max(error.sum(), 1e-300))
    worst = 10 * np.log10(np.min(power[quiet] / np.maximum(error[quiet], 1e-300))) if quiet.any() else np.inf
    return {"all": float(ratio), "quiet": float(worst), "frames": float(len(mixture))}


def _metrics(errors: pd.DataFrame, n_shards: int, frames_per_second: float) -> dict[str, Any]:
    quiet = errors["quiet"][np.isfinite(errors["quiet"])]
    return {
        "n_mixtures": len(errors),
        "n_shards": n_shards,
        "hours": round(float(errors["frames"].sum()) / frames_per_second / 3600, 4),
        "storage_snr_db": {
            "mean": round(float(errors["all"].mean()), 2),
            "lowest": round(float(errors["all"].min()), 2),
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
    run_stage("shard", main)

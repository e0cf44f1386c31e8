"""Turns mixtures into shards of spectrograms, in parallel.

Reads: data/mixtures/train/ and data/mixtures/valid/.
Writes: data/shards/train/ and data/shards/valid/ (shard-NNNNN.npy and index.csv); metrics/shard.json with the error that
half-precision numbers cost, measured on the first mixture of each shard.
Params: shard, stft, audio.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from stages.core.files import fresh_folder, write_json
from stages.core.packs import read_pack
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Shard, Stft
from stages.core.runtime import n_workers, run_stage, streamed
from stages.core.shards import Entry, ShardError, Spectrum, packed, unpacked, write_index, write_shard

MIXTURES_DIR = Path("data/mixtures")
SHARDS_DIR = Path("data/shards")
METRICS = Path("metrics/shard.json")
SPLITS = ("train", "valid")
# Frames this far below the loudest of their mixture count as quiet.
QUIET_DB = 40.0


@dataclass(frozen=True, slots=True)
class Job:
    """One shard to write and the rows of the index of mixtures that go into it."""

    source: Path
    target: Path
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Written:
    """A shard in `folder`: where its mixtures lie, and the errors of the first of them."""

    folder: Path
    entries: list[Entry]
    errors: tuple[float, float]


class Summary:
    """Metrics of all shards, gathered while they pass."""

    def __init__(self) -> None:
        self._n_shards = self._n_mixtures = self._n_frames = 0
        self._errors: list[tuple[float, float]] = []

    def counted(self, shards: Iterable[Written]) -> Iterator[list[Entry]]:
        """The entries of each shard as they come."""
        for shard in shards:
            self._n_shards += 1
            self._n_mixtures += len(shard.entries)
            self._n_frames += sum(entry.n_frames for entry in shard.entries)
            self._errors.append(shard.errors)
            yield shard.entries

    def metrics(self, frames_per_second: float) -> dict[str, Any]:
        """Numbers of mixtures and shards, hours, and what half precision costs."""
        ratios, worst = np.array(self._errors).T
        quiet = worst[np.isfinite(worst)]
        return {
            "n_mixtures": self._n_mixtures,
            "n_shards": self._n_shards,
            "hours": round(self._n_frames / frames_per_second / 3600, 4),
            "storage_snr_db": {
                "n_mixtures": len(ratios),
                "mean": round(float(ratios.mean()), 2),
                "lowest": round(float(ratios.min()), 2),
                "lowest_in_quiet_frames": round(float(quiet.min()), 2) if len(quiet) else None,
            },
        }


def run(
    settings: Shard, stft: Stft, sample_rate: int, mixtures_dir: Path, shards_dir: Path, metrics: Path, n_jobs: int
) -> None:
    """Writes the shards of both splits and the error of their numbers.

    Raises:
        ShardError: there are no mixtures yet.
    """
    for index in (mixtures_dir / split / "index.csv" for split in SPLITS):
        if not index.is_file():
            raise ShardError(f"{index} is missing: run 'dvc repro mix' first.")
    jobs, n_shards = [], 0
    for split in SPLITS:
        source, target = mixtures_dir / split, fresh_folder(shards_dir / split)
        with (source / "index.csv").open(encoding="utf-8") as file:
            n_mixtures = sum(1 for _ in file) - 1
        if n_mixtures < 1:
            raise ShardError(f"{source / 'index.csv'} names no mixtures: run 'dvc repro -f mix'.")
        n_shards += -(-n_mixtures // settings.n_mixtures)
        jobs.append(_jobs(source, target, settings))
    if min(n_workers(n_jobs), n_shards) == 1:
        # This process makes the shards itself then, and limits the threads of those libraries that are there when it begins.
        import torch  # noqa: F401
    # Each shard is written and entered in the index before the next but few are looked at.
    results = streamed(
        partial(_write, stft), chain.from_iterable(jobs), n_items=n_shards, n_jobs=n_jobs, description="sharding"
    )
    summary = Summary()
    for target, shards in groupby(results, key=attrgetter("folder")):
        write_index(target, chain.from_iterable(summary.counted(shards)))
    write_json(metrics, summary.metrics(sample_rate / stft.hop_length))


def _jobs(source: Path, target: Path, settings: Shard) -> Iterator[Job]:
    with pd.read_csv(source / "index.csv", dtype={"id": str, "pack": str}, chunksize=settings.n_mixtures) as tables:
        for number, table in enumerate(tables):
            yield Job(source, target / f"shard-{number:05d}.npy", table.to_dict(orient="records"))


def _write(stft: Stft, job: Job) -> Written:
    # By the processes that work, not by the one that hands out the work and would keep them waiting for a second.
    import torch

    from stages.core.spectra import spectrogram

    items: list[tuple[str, np.ndarray, float]] = []
    for row in job.rows:
        waveforms = read_pack(job.source / row["pack"], row["start"], row["n_samples"])
        mixture, speech = spectrogram(torch.from_numpy(waveforms), stft).numpy()
        numbers, scale = packed(mixture, speech)
        if not items:
            errors = _errors(speech, numbers[:, 1:], scale)
        items.append((str(row["id"]), numbers, scale))
    return Written(job.target.parent, write_shard(job.target, items), errors)


def _errors(speech: Spectrum, numbers: np.ndarray, scale: float) -> tuple[float, float]:
    """Signal-to-error ratios (dB) of the stored speech: over all frames, and the worst of the quiet ones."""
    power = _power(speech)
    error = _power(unpacked(numbers, scale)[:, 0] - speech)
    heard = power > 0
    quiet = heard & (power < power.max() * 10 ** (-QUIET_DB / 10))
    ratio = 10 * np.log10(power[heard].sum() / max(error.sum(), 1e-300))
    worst = 10 * np.log10(np.min(power[quiet] / np.maximum(error[quiet], 1e-300))) if quiet.any() else np.inf
    return float(ratio), float(worst)


def _power(spectrum: Spectrum) -> Float64[np.ndarray, "frames"]:
    """The power of each frame, summed without a copy."""
    numbers = np.ascontiguousarray(spectrum).view(np.float32)
    power: np.ndarray = np.einsum("fn,fn->f", numbers, numbers)
    return power.astype(np.float64)


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

"""Mixes speech and noise: plans every mixture, then renders them in parallel.

Reads: data/corpora/speech/ and data/corpora/noise/ (manifests and audio).
Writes: data/mixtures/plan.jsonl; data/mixtures/train/ and valid/ (packs, mixture left and speech right, with index.csv);
data/mixtures/test/ (noisy/ID.wav, clean/ID.wav and index.csv); metrics/mix.json.
Params: mix, audio.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.core.errors import DenoisingError
from stages.core.files import fresh_folder, write_json, write_text
from stages.core.manifest import SPLITS, read_manifest
from stages.core.packs import rounded, write_pack, write_wav
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Mix
from stages.core.plan import Mixture, planned, write_plan
from stages.core.rendering import rendered
from stages.core.runtime import parallel, run_stage

CORPORA_DIR = Path("data/corpora")
MIXTURES_DIR = Path("data/mixtures")
METRICS = Path("metrics/mix.json")
# Mixtures in one pack: enough that a pack is a large file, few enough that the work spreads evenly.
PACK_SIZE = 32
SNR_TOLERANCE_DB = 0.01


class MixError(DenoisingError):
    """Mixtures that did not come out as asked."""


def run(settings: Mix, sample_rate: int, corpora_dir: Path, mixtures_dir: Path, metrics: Path, n_jobs: int) -> None:
    """Plans and renders all mixtures at `sample_rate` Hz and writes what was asked and what was achieved."""
    speech = read_manifest(corpora_dir / "speech" / "manifest.csv")
    noise = read_manifest(corpora_dir / "noise" / "manifest.csv")
    mixtures = planned(speech, noise, settings, sample_rate)
    for split in SPLITS:
        fresh_folder(mixtures_dir / split)
    write_plan(mixtures_dir / "plan.jsonl", mixtures)
    packs = [pack for split in SPLITS for pack in _packs(mixtures, split)]
    tables = parallel(partial(_render, mixtures_dir, sample_rate), packs, n_jobs=n_jobs, description="mixing")
    rows = [row for table in tables for row in table]
    for split in SPLITS:
        table = pd.DataFrame([row for row in rows if row["split"] == split])
        write_text(mixtures_dir / split / "index.csv", table.to_csv(index=False, lineterminator="\n"))
    write_json(metrics, _metrics(rows))


def _packs(mixtures: Sequence[Mixture], split: str) -> list[tuple[str, list[Mixture]]]:
    chosen = [mixture for mixture in mixtures if mixture.split == split]
    return [
        (f"pack-{place // PACK_SIZE:05d}.wav", chosen[place : place + PACK_SIZE]) for place in range(0, len(chosen), PACK_SIZE)
    ]


def _render(mixtures_dir: Path, sample_rate: int, pack: tuple[str, list[Mixture]]) -> list[dict[str, Any]]:
    """Renders and writes the mixtures of one pack; one row of the index for each."""
    name, mixtures = pack
    pairs = [_rounded(*rendered(mixture, sample_rate)) for mixture in mixtures]
    folder = mixtures_dir / mixtures[0].split
    starts = np.cumsum([0, *(mixture.n_samples for mixture in mixtures)])
    rows = [_row(mixture, *pair) for mixture, pair in zip(mixtures, pairs, strict=True)]
    if mixtures[0].split == "test":
        for mixture, (noisy, clean) in zip(mixtures, pairs, strict=True):
            write_wav(folder / "noisy" / f"{mixture.id}.wav", noisy, sample_rate)
            write_wav(folder / "clean" / f"{mixture.id}.wav", clean, sample_rate)
        return rows
    write_pack(folder / name, pairs, sample_rate)
    return [{"id": row["id"], "pack": name, "start": int(start), **row} for row, start in zip(rows, starts[:-1], strict=True)]


def _rounded(noisy: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rounded(noisy), rounded(clean)


def _row(mixture: Mixture, noisy: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    noise = noisy.astype(np.float64) - clean
    achieved = 10 * np.log10(np.sum(np.square(clean, dtype=np.float64)) / np.sum(np.square(noise)))
    if abs(achieved - mixture.snr_db) > SNR_TOLERANCE_DB:
        raise MixError(
            f"{mixture.id}: asked for an SNR of {mixture.snr_db:.3f} dB, 16-bit samples hold {achieved:.3f} dB; "
            "raise mix.level_dbfs or narrow mix.snr_db and mix.snr_grid_db."
        )
    return {
        "id": mixture.id,
        "split": mixture.split,
        "speaker": mixture.speaker,
        "language": mixture.language,
        "noise": mixture.noise,
        "n_samples": mixture.n_samples,
        "snr_db": mixture.snr_db,
        "achieved_snr_db": round(float(achieved), 4),
        "level_dbfs": mixture.level_dbfs,
    }


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    table = pd.DataFrame(rows)
    table["error"] = (table["achieved_snr_db"] - table["snr_db"]).abs()
    by_split = {
        str(split): {
            "n_mixtures": len(part),
            "n_speakers": int(part["speaker"].nunique()),
            "mean_snr_db": round(float(part["snr_db"].mean()), 3),
            "largest_snr_error_db": round(float(part["error"].max()), 4),
        }
        for split, part in table.groupby("split", sort=False)
    }
    return by_split


def main() -> None:
    """Runs the stage with the values of params.yaml."""
    parameters = read_parameters(Path("params.yaml"))
    run(parameters.mix, parameters.audio.sample_rate, CORPORA_DIR, MIXTURES_DIR, METRICS, parameters.runtime.n_jobs)


if __name__ == "__main__":
    run_stage("mix", main)

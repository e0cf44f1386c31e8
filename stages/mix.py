"""Mixes speech and noise: plans every mixture, then renders them in parallel.

Reads: data/corpora/speech/, data/corpora/noise/ and data/corpora/rooms/ (manifests and audio).
Writes: data/mixtures/plan.jsonl; data/mixtures/train/ and valid/ (packs, mixture left and speech right, with index.csv);
data/mixtures/test/ (noisy/ID.wav, clean/ID.wav and index.csv); metrics/mix.json.
Params: mix, audio.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.audio import energy
from stages.core.bundles import announce
from stages.core.errors import DenoisingError
from stages.core.files import fresh_folder, write_json, write_table, written
from stages.core.manifest import SPLITS, read_manifest
from stages.core.packs import STEPS, Steps, rounded, write_pack, write_wav
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Mix
from stages.core.plan import Mixture, planned, recorded
from stages.core.rendering import clipped, rendered
from stages.core.runtime import run_stage, streamed

CORPORA_DIR = Path("data/corpora")
MIXTURES_DIR = Path("data/mixtures")
METRICS = Path("metrics/mix.json")
# Mixtures in one pack: enough that a pack is a large file, few enough that the work spreads evenly.
PACK_SIZE = 32
SNR_TOLERANCE_DB = 0.01


class MixError(DenoisingError):
    """Mixtures that did not come out as asked."""


class Summary:
    """Metrics of all mixtures, gathered while they pass."""

    def __init__(self) -> None:
        self._speakers: dict[str, set[str]] = {}
        self._snrs: dict[str, tuple[int, float]] = {}
        self._errors: dict[str, float] = {}

    def counted(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows of the index as they come."""
        for row in rows:
            split, error = row["split"], abs(row["achieved_snr_db"] - row["snr_db"])
            self._speakers.setdefault(split, set()).add(row["speaker"])
            n_mixtures, total = self._snrs.get(split, (0, 0.0))
            self._snrs[split] = (n_mixtures + 1, total + row["snr_db"])
            self._errors[split] = max(error, self._errors.get(split, 0.0))
            yield row

    def metrics(self) -> dict[str, Any]:
        """Numbers of mixtures and speakers, the mean SNR that was asked for and the largest miss, by split."""
        return {
            split: {
                "n_mixtures": n_mixtures,
                "n_speakers": len(self._speakers[split]),
                "mean_snr_db": round(total / n_mixtures, 3),
                "largest_snr_error_db": round(self._errors[split], 4),
            }
            for split, (n_mixtures, total) in self._snrs.items()
        }


def run(settings: Mix, sample_rate: int, corpora_dir: Path, mixtures_dir: Path, metrics: Path, n_jobs: int) -> None:
    """Plans and renders all mixtures at `sample_rate` Hz and writes what was asked and what was achieved."""
    speech, noise = (read_manifest(corpora_dir / role / "manifest.csv") for role in ("speech", "noise"))
    rooms = read_manifest(corpora_dir / "rooms" / "manifest.csv", "fetch")
    mixtures = planned(speech, noise, settings, sample_rate, rooms)
    for split in SPLITS:
        fresh_folder(mixtures_dir / split)
    n_packs = sum(-(-count // PACK_SIZE) for count in (settings.n_train, settings.n_valid, settings.n_test))
    summary = Summary()
    # Plan, packs and tables are passed on as they come: no step holds them all.
    with written(mixtures_dir / "plan.jsonl") as plan, plan.open("w", encoding="utf-8", newline="\n") as file:
        tables = streamed(
            partial(_render, mixtures_dir, sample_rate),
            _packs(recorded(mixtures, file)),
            n_items=n_packs,
            n_jobs=n_jobs,
            description="mixing",
        )
        for split, rows in groupby(chain.from_iterable(tables), key=itemgetter("split")):
            write_table(mixtures_dir / split / "index.csv", summary.counted(rows))
    write_json(metrics, summary.metrics())


def _packs(mixtures: Iterable[Mixture]) -> Iterator[tuple[str, list[Mixture]]]:
    for _, of_split in groupby(mixtures, key=attrgetter("split")):
        packs = iter(partial(_taken, of_split), [])
        for number, pack in enumerate(packs):
            yield f"pack-{number:05d}.wav", pack


def _taken(mixtures: Iterator[Mixture]) -> list[Mixture]:
    return list(islice(mixtures, PACK_SIZE))


def _render(mixtures_dir: Path, sample_rate: int, pack: tuple[str, list[Mixture]]) -> list[dict[str, Any]]:
    """Renders and writes the mixtures of one pack; one row of the index for each."""
    name, mixtures = pack
    folder = mixtures_dir / mixtures[0].split
    rows: list[dict[str, Any]] = []
    pairs = _pairs(mixtures, sample_rate, rows)
    if mixtures[0].split == "test":
        for mixture, (noisy, clean) in zip(mixtures, pairs, strict=True):
            write_wav(folder / "noisy" / f"{mixture.id}.wav", noisy, sample_rate)
            write_wav(folder / "clean" / f"{mixture.id}.wav", clean, sample_rate)
        return rows
    write_pack(folder / name, pairs, sample_rate)
    starts = np.cumsum([0, *(mixture.n_samples for mixture in mixtures)])
    return [{"id": row["id"], "pack": name, "start": int(start), **row} for row, start in zip(rows, starts[:-1], strict=True)]


def _pairs(mixtures: Iterable[Mixture], sample_rate: int, rows: list[dict[str, Any]]) -> Iterator[tuple[Steps, Steps]]:
    """The mixtures one by one, since what was just computed is still in the processor's cache; their rows go into a list."""
    for segment in chain.from_iterable((*mixture.speech, *mixture.noises) for mixture in mixtures):
        announce(segment.path, segment.within)
    for mixture in mixtures:
        noisy, clean = (rounded(waveform) for waveform in rendered(mixture, sample_rate, STEPS))
        rows.append(_row(mixture, noisy, clean))
        yield clipped(noisy, mixture.clipping_db), clean


def _row(mixture: Mixture, noisy: Steps, clean: Steps) -> dict[str, Any]:
    speech, noise = energy(clean), energy(noisy - clean)
    achieved = 10 * math.log10(speech / noise) if speech and noise else math.nan
    if not abs(achieved - mixture.snr_db) <= SNR_TOLERANCE_DB:
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


def main() -> None:
    """Runs the stage with the values of params.yaml."""
    parameters = read_parameters(Path("params.yaml"))
    run(parameters.mix, parameters.audio.sample_rate, CORPORA_DIR, MIXTURES_DIR, METRICS, parameters.runtime.n_jobs)


if __name__ == "__main__":
    run_stage("mix", main, about=__doc__)

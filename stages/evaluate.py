"""Scores mixtures, estimates and oracle masks on test mixtures, clean input and folders of real pairs, in parallel.

Reads: data/mixtures/test/, data/corpora/pairs/, models/denoiser.safetensors, and the folders in evaluate.pairs.
Writes: metrics/evaluate.json, metrics/evaluate_by_snr.csv, metrics/evaluate_by_noise.csv, data/scores.csv (every item).
Params: evaluate.

With --show it prints the table of the last evaluation and computes nothing; with --model WEIGHTS PAIRS it prints that of other
weights on folders of pairs and writes nothing.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.core.checkpoint import load_checkpoint, named_weights, worker_denoiser
from stages.core.enhancement import enhanced
from stages.core.errors import DenoisingError
from stages.core.files import shown, write_json, write_text
from stages.core.manifest import Recording, read_manifest
from stages.core.oracle import oracle
from stages.core.pairs import Pair, pairs, published_pairs, read_pair
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Evaluate
from stages.core.runtime import parallel, run_stage
from stages.core.scores import METRICS, scores, versions

TEST_DIR = Path("data/mixtures/test")
PAIRS = Path("data/corpora/pairs/manifest.csv")
CHECKPOINT = Path("models/denoiser.safetensors")
METRICS_JSON = Path("metrics/evaluate.json")
BY_SNR = Path("metrics/evaluate_by_snr.csv")
BY_NOISE = Path("metrics/evaluate_by_noise.csv")
SCORES = Path("data/scores.csv")
SYSTEMS = ("mixture", "estimate", "oracle")
# Scores that could not be given and are told one by one.
_N_REASONS = 20


class EvaluationError(DenoisingError):
    """An evaluation that cannot be made or shown."""


@dataclass(frozen=True, slots=True)
class Item:
    """One pair to score: `kind` is noisy (mixture, estimate, oracle) or clean (clean input to the model)."""

    set: str
    kind: str
    pair: Pair
    labels: dict[str, Any]


def run(
    settings: Evaluate,
    test_dir: Path,
    manifest: Path,
    checkpoint: Path,
    outputs: tuple[Path, Path, Path, Path],
    n_jobs: int,
) -> None:
    """Scores everything and writes metrics, by SNR, by noise, and every item (the paths in `outputs`).

    `manifest` lists the published pairs; a name in `settings.pairs` that is none of them is a folder.
    """
    _check_names(settings.pairs, {"test": "the test mixtures"})
    items = _test_items(test_dir, settings.n_clean)
    published = read_manifest(manifest, "fetch")
    items += [item for folder in settings.pairs for item in _pair_items(folder, published)]
    table = _table(items, checkpoint, n_jobs)
    metrics, by_snr, by_noise, every = outputs
    means = _metrics(table)
    write_json(metrics, means)
    test = table[(table["set"] == "test") & (table["kind"] == "noisy")]
    # A mixture with several noises counts for each of them.
    by_kind = test.assign(noise=test["noise"].str.split("+")).explode("noise")
    for path, part, column in ((by_snr, test, "snr_asked_db"), (by_noise, by_kind, "noise")):
        write_text(path, _grouped(part, column).to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    write_text(every, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    print(summary(means))


def compare(folders: Sequence[str], manifest: Path, checkpoint: Path, n_jobs: int) -> str:
    """The means of any weights on folders of pairs, or published pairs that are there, as a table for people.

    Below it stands which scores could not be given, and why.
    """
    _check_names(folders, {})
    published = read_manifest(manifest, "fetch") if manifest.is_file() else []
    items = [item for folder in folders for item in _pair_items(folder, published)]
    table = _table(items, checkpoint, n_jobs)
    lacking = table[table["missing"] != ""]
    reasons = [f"{row.set} {_label(row.kind, row.system)} {row.id}: {row.missing}" for row in lacking.itertuples()]
    more = [f"and {len(reasons) - _N_REASONS} more"] if len(reasons) > _N_REASONS else []
    return "\n".join([summary(_metrics(table)), *reasons[:_N_REASONS], *more])


def _table(items: Sequence[Item], checkpoint: Path, n_jobs: int) -> pd.DataFrame:
    """A row for every item and system."""
    load_checkpoint(checkpoint)
    found = parallel(partial(_scored, checkpoint), items, n_jobs=n_jobs, description="scoring")
    return pd.DataFrame([row for rows in found for row in rows])


def summary(metrics: dict[str, Any]) -> str:
    """The means of an evaluation as a table for people."""
    labels = [f"{name} {system}" for name, systems in metrics["sets"].items() for system in systems]
    width = max([24, *(len(label) + 1 for label in labels)])
    lines = [f"{'':{width}}{'items':>6}" + "".join(f"{name:>11}" for name in METRICS)]
    for name, systems in metrics["sets"].items():
        for system, means in systems.items():
            cells = "".join(f"{'-':>11}" if means[metric] is None else f"{means[metric]:>11.3f}" for metric in METRICS)
            lines.append(f"{name + ' ' + system:{width}}{means['n_items']:>6}" + cells)
            fewer = [f"{metric} of {means[key]}" for metric in METRICS if (key := f"n_items_{metric}") in means]
            lines += [f"{'':{width}}only {', '.join(fewer)}"] if fewer else []
    return "\n".join(lines)


def _test_items(test_dir: Path, n_clean: int) -> list[Item]:
    index = test_dir / "index.csv"
    if not index.is_file():
        raise EvaluationError(f"{index} is missing: run 'dvc repro mix' first.")
    labels = pd.read_csv(index, dtype={"id": str, "noise": str}, keep_default_na=False).set_index("id")
    found = pairs(test_dir)
    noisy = [
        Item(
            "test",
            "noisy",
            pair,
            {"snr_asked_db": float(labels.loc[pair.name, "snr_db"]), "noise": str(labels.loc[pair.name, "noise"])},
        )
        for pair in found
    ]
    return noisy + [Item("test", "clean", pair, {}) for pair in found[:n_clean]]


def _check_names(folders: Sequence[str], taken: dict[str, str]) -> None:
    for folder in folders:
        name = _set_name(Path(folder))
        if name in taken:
            raise EvaluationError(f"The pairs {folder} and {taken[name]} would both be called '{name}'; rename one.")
        taken[name] = folder


def _set_name(folder: Path) -> str:
    # The keys of metrics may not contain dots.
    return shown(os.path.basename(os.path.realpath(folder))).replace(".", "-") or "root"


def _pair_items(folder: str, published: Sequence[Recording]) -> list[Item]:
    rows = [recording for recording in published if recording.corpus == folder]
    if not rows and not Path(folder).exists():
        raise EvaluationError(
            f"{folder}: no such folder, and no published pairs that were fetched: name those in evaluate.pairs and run "
            "'dvc repro fetch' first."
        )
    found = published_pairs(folder, rows) if rows else pairs(Path(folder))
    return [Item(_set_name(Path(folder)), kind, pair, {}) for kind in ("noisy", "clean") for pair in found]


def _scored(checkpoint: Path, item: Item) -> list[dict[str, Any]]:
    """The scores of every system on one pair, a row for each."""
    denoiser = worker_denoiser(checkpoint)
    noisy, clean, sample_rate = read_pair(item.pair)
    if item.kind == "clean":
        noisy = clean
    outputs = {"mixture": noisy, "estimate": enhanced(noisy[:, None], sample_rate, denoiser)[:, 0]}
    if item.kind == "clean":
        del outputs["mixture"]
    elif sample_rate == denoiser.sample_rate:
        outputs["oracle"] = oracle(noisy, clean, denoiser)
    rows = []
    for system, waveform in outputs.items():
        found = asdict(scores(reference=clean, estimate=waveform, sample_rate=sample_rate))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.pop("reasons").items())
        rows.append(
            {
                "set": item.set,
                "kind": item.kind,
                "id": shown(item.pair.name),
                "system": system,
                **item.labels,
                **found,
                "missing": reasons,
            }
        )
    return rows


def _metrics(table: pd.DataFrame) -> dict[str, Any]:
    sets: dict[str, dict[str, Any]] = {}
    for (name, kind, system), part in table.groupby(["set", "kind", "system"], sort=False):
        sets.setdefault(str(name), {})[_label(kind, system)] = _means(part)
    noisy = table[table["kind"] == "noisy"]
    improvement = {str(name): _improvement(part) for name, part in noisy.groupby("set", sort=False)}
    return {"sets": sets, "improvement": improvement, "packages": versions()}


def _label(kind: Any, system: Any) -> str:
    return str(system) if kind == "noisy" else "clean_input"


def _means(part: pd.DataFrame) -> dict[str, Any]:
    """Means over the items that have a score, and how many those are where it is not all of them."""
    means: dict[str, Any] = {"n_items": len(part)}
    for metric in METRICS:
        values = part[metric].astype(float).dropna()
        means[metric] = round(float(values.mean()), 4) if len(values) else None
        if len(values) < len(part):
            means[f"n_items_{metric}"] = len(values)
    return means


def _improvement(part: pd.DataFrame) -> dict[str, float | None]:
    """How much higher estimates score than mixtures in the mean, over the items of a set for which both have a score."""
    before, after = (
        part.loc[part["system"] == system, list(METRICS)].astype(float).reset_index(drop=True)
        for system in ("mixture", "estimate")
    )
    means = (after - before).mean()
    return {metric: None if np.isnan(means[metric]) else round(float(means[metric]), 4) for metric in METRICS}


def _grouped(table: pd.DataFrame, column: str) -> pd.DataFrame:
    rows: Sequence[dict[str, Any]] = [
        {
            column: value,
            "system": system,
            **{name: mean for name, mean in _means(part).items() if name in ("n_items", *METRICS)},
        }
        for (value, system), part in table.groupby([column, "system"], sort=True)
    ]
    return pd.DataFrame(rows).replace({None: np.nan})


def main() -> None:
    """Runs the stage with the values of params.yaml, or shows its last result."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--show", action="store_true", help="print the table of the last evaluation")
    other.add_argument("--model", metavar="WEIGHTS", help="score a weights file, best or live on PAIRS and write nothing")
    parser.add_argument("pairs", nargs="*", metavar="PAIRS", help="a folder with clean/ and noisy/ inside, or published pairs")
    arguments = parser.parse_args()
    if (arguments.model is not None) != bool(arguments.pairs):
        parser.error("weights and pairs go together: python -m stages.evaluate --model WEIGHTS PAIRS ...")
    if arguments.model is not None:
        print(compare(arguments.pairs, PAIRS, named_weights(arguments.model), -1))
        return
    if arguments.show:
        if not METRICS_JSON.is_file():
            raise EvaluationError(f"{METRICS_JSON} is missing: run 'dvc repro' first.")
        print(summary(json.loads(METRICS_JSON.read_text(encoding="utf-8"))))
        return
    parameters = read_parameters(Path("params.yaml"))
    run(parameters.evaluate, TEST_DIR, PAIRS, CHECKPOINT, (METRICS_JSON, BY_SNR, BY_NOISE, SCORES), parameters.runtime.n_jobs)


if __name__ == "__main__":
    run_stage("evaluate", main)

"""What each part of the recipe is worth: `python -m tests.benchmarks.ablations AUDIO [NAME …] [--steps N]`.

AUDIO is a folder with speech/, noise/ and split.csv (path, split, speaker). Runs one DVC experiment for each line of `CHANGES`
in a copy of this repository beside it, all with the same steps of eight pieces of two seconds, and adds a row for each to
metrics/ablations.csv: scores of validation (its SNR, by which to choose) and of 60 test mixtures of other speakers and
noises. About two minutes each on two cores; a name that the table has already is passed over.
"""

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "metrics/ablations.csv"
BATCH = 8
# What all of them have in common, and the base that each changes in one way.
BASE = (
    "mix.n_valid=120",
    "mix.n_test=60",
    "mix.snr_db=[-5,20]",
    "mix.noise_evenly_by=recording",
    "mix.short_noise=repeat",
    "mix.low_pass.probability=0.1",
    "mix.low_pass.cutoff_hz=[3000,7800]",
    "mix.reverberation.probability=0.2",
    "model.network=bands",
    "model.n_bands=24",
    "model.hidden=64",
    "model.target=crm",
    "train.n_epochs=1",
    "train.batch_size=8",
    "train.optimizer=muon",
    "train.learning_rate=0.015",
    "train.warmup_share=0.05",
    "train.crop_s=2",
    "train.remix.probability=0.9",
    "train.remix.snr_db=[-5,20]",
    "train.remix.speech_only_share=0.1",
    "train.remix.noise_only_share=0.05",
    "train.remix.equalisation_db=6",
)
CHANGES: dict[str, list[str]] = {
    "base": [],
    "base, seed 2": ["train.seed=2"],
    "base, seed 3": ["train.seed=3"],
    "AdamW": ["train.optimizer=adamw", "train.learning_rate=0.002"],
    "stack of 2 x 256 units, AdamW": [
        "model.network=stack",
        "model.hidden=256",
        "train.optimizer=adamw",
        "train.learning_rate=0.002",
    ],
    "ratio mask": ["model.target=irm"],
    "no SNR in the loss": ["train.snr_weight=0"],
    "three times the SNR in the loss": ["train.snr_weight=0.1"],
    "consistency": ["train.consistency=true"],
    "averaging": ["train.averaging=0.99"],
    "no remixing": ["train.remix.probability=0"],
    "no equalisation": ["train.remix.equalisation_db=0"],
    "compression 0.5": ["model.compression=0.5"],
    "looking ahead": ["model.bidirectional=true"],
    "3 x 48 units": ["model.layers=3", "model.hidden=48"],
    "minGRU": ["model.cell=mingru"],
    "minGRU, bfloat16": ["model.cell=mingru", "train.precision=bfloat16"],
    "LSTM": ["model.cell=lstm"],
    "clipping": ["mix.clipping.probability=0.25"],
    "noise by the second": ["mix.noise_evenly_by=second"],
    "points of PESQ": ["train.pesq_weight=0.04"],
    "points of PESQ, SNR": ["train.pesq_weight=0.08", "train.snr_weight=0.1"],
    "ESTOI": ["train.estoi_weight=0.3"],
    "ESTOI, points of PESQ, SNR": ["train.estoi_weight=0.3", "train.pesq_weight=0.08", "train.snr_weight=0.1"],
    "window of 60 ms": ["stft.n_fft=960", "stft.win_length=960", "stft.hop_length=320"],
}


def experiment(folder: Path, changes: list[str]) -> dict[str, Any]:
    """The row of one experiment in the repository `folder`, whose committed state is the base."""
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=folder, check=True)
    settings = [word for change in changes for word in ("-S", change)]
    subprocess.run(["dvc", "exp", "run", "--quiet", *settings, "evaluate"], cwd=folder, check=True)
    train, scored = (json.loads((folder / "metrics" / f"{name}.json").read_text()) for name in ("train", "evaluate"))
    estimate = scored["sets"]["test"]["estimate"]
    row = {"changes": " ".join(changes), "n_weights": train["n_weights"], "valid_snr_db": train["valid_snr_db"]}
    row |= {f"test_{name}": estimate[name] for name in ("snr_db", "si_sdr_db", "pesq_wb", "estoi")}
    return row | {"clean_pesq_wb": scored["sets"]["test"]["clean_input"]["pesq_wb"]}


def prepared(folder: Path, audio: Path, n_steps: int) -> None:
    """A copy of the repository with the base as its committed parameters."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    corpora = ["corpora.speech=[folder]", "corpora.noise=[folder,generated]", "download.noise.generated.n_recordings=4"]
    for role in ("speech", "noise"):
        corpora += [f"download.{role}.folder.path={audio / role}", f"download.{role}.folder.split_csv={audio / 'split.csv'}"]
    corpora += ["download.speech.folder.group='^(.+)$'", f"mix.n_train={BATCH * n_steps}"]
    settings = [word for change in (*corpora, *BASE) for word in ("-S", change)]
    subprocess.run(["dvc", "exp", "run", "--quiet", *settings, "shard"], cwd=folder, check=True)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "Base of the ablations"], cwd=folder, check=True)


def main() -> None:
    """Adds the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("names", nargs="*", choices=[*CHANGES, []], metavar="NAME")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    rows = list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.is_file() else []
    done = {row["name"] for row in rows}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        prepared(folder, arguments.audio.resolve(), arguments.steps)
        for name in arguments.names or CHANGES:
            if name in done:
                continue
            rows.append({"name": name, **experiment(folder, CHANGES[name])})
            with TABLE.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()

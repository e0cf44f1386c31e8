"""Trains the denoiser on the shards.

Reads: data/shards/train/ and data/shards/valid/.
Writes: models/denoiser.safetensors; metrics/train.json; metrics/curves.csv, one row for each epoch.
Params: train, model, stft, audio.

After each epoch the state of the training goes to .cache/training/KEY, where KEY is the digest of data, parameters and code.
A killed training goes on from there and ends with the same weights as an unbroken one.
"""

import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from stages.core.checkpoint import CheckpointError, save_checkpoint, start_from
from stages.core.denoiser import Denoiser
from stages.core.files import code_digest, digest, write_json, write_text
from stages.core.network import n_weights
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Model, Stft
from stages.core.runtime import resolved_device, run_stage
from stages.core.shards import INDEX, ShardReader
from stages.core.spectra import n_bins
from stages.core.training import Progress, Trainer
from stages.core.training_parameters import Train

SHARDS_DIR = Path("data/shards")
CHECKPOINT = Path("models/denoiser.safetensors")
METRICS = Path("metrics/train.json")
CURVES = Path("metrics/curves.csv")
STATE_DIR = Path(".cache/training")


def run(
    settings: Train,
    model: Model,
    stft: Stft,
    sample_rate: int,
    shards_dir: Path,
    checkpoint: Path,
    metrics: Path,
    curves: Path,
    state_dir: Path,
    device: torch.device,
) -> None:
    """Trains a denoiser, going on from an earlier state of exactly this training where there is one."""
    train, valid = ShardReader(shards_dir / "train"), ShardReader(shards_dir / "valid")
    for reader in (train, valid):
        reader.check_bins(n_bins(stft))
    # Not only the training: orthogonal first weights come from a decomposition that rounds differently on more threads.
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    denoiser = Denoiser(model, stft, sample_rate)
    if settings.init_from:
        _check_start(Path(settings.init_from), checkpoint)
        start_from(Path(settings.init_from), denoiser)
    size = f"{model.cell} x {model.layers}, {n_weights(denoiser):,} weights"
    print(f"{model.network}, {size}, on {device}; {len(train)} mixtures")
    key = _key(settings, model, stft, sample_rate, shards_dir, device)
    progress = Trainer(denoiser, settings, train, valid, device).run(state_dir / key / "state.pt")
    save_checkpoint(checkpoint, denoiser, settings.model_dump() | {"epoch": progress.best_epoch.epoch})
    write_json(metrics, _metrics(progress, denoiser))
    table = pd.DataFrame([asdict(epoch) for epoch in progress.epochs])
    write_text(curves, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _check_start(start: Path, checkpoint: Path) -> None:
    if os.path.realpath(start) == os.path.realpath(checkpoint):
        raise CheckpointError(
            f"train.init_from={start}: a training cannot start from the file that it writes, which DVC takes away first. Set "
            "the parameter back, bring the file back with 'dvc checkout', copy it to another name, and start from the copy."
        )


def _key(settings: Train, model: Model, stft: Stft, sample_rate: int, shards_dir: Path, device: torch.device) -> str:
    """What the weights depend on; the indices of the shards hold the digests of their content."""
    parameters = [section.model_dump_json() for section in (settings, model, stft)]
    data = [(shards_dir / split / INDEX).read_bytes() for split in ("train", "valid")]
    data += [Path(settings.init_from).read_bytes()] if settings.init_from else []
    return digest(*parameters, str(sample_rate), *data, code_digest(), torch.__version__, device.type)[:32]


def _metrics(progress: Progress, denoiser: Denoiser) -> dict[str, float | int]:
    best = progress.best_epoch
    return {
        "n_weights": n_weights(denoiser),
        "n_epochs": len(progress.epochs),
        "best_epoch": best.epoch,
        "train_loss": float(f"{best.train_loss:.6g}"),
        "valid_loss": float(f"{best.valid_loss:.6g}"),
        "valid_snr_db": round(best.valid_snr_db, 4),
    }


def main() -> None:
    """Runs the stage with the values of params.yaml."""
    parameters = read_parameters(Path("params.yaml"))
    run(
        parameters.train,
        parameters.model,
        parameters.stft,
        parameters.audio.sample_rate,
        SHARDS_DIR,
        CHECKPOINT,
        METRICS,
        CURVES,
        STATE_DIR,
        resolved_device(parameters.runtime.device),
    )


if __name__ == "__main__":
    run_stage("train", main, about=__doc__)

"""How fast the pipeline works on what the last `dvc repro` left: `python -m tests.benchmarks.throughput`.

Prints hours of audio per minute for mixing and sharding with one process and with all, mixtures per second for training
against the same step on data that is there already, and denoising as a multiple of real time on one core.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stages import mix, shard
from stages.core.checkpoint import load_checkpoint
from stages.core.denoiser import Denoiser
from stages.core.enhancement import enhanced
from stages.core.losses import Batch
from stages.core.parameter_file import read_parameters
from stages.core.parameters import Parameters
from stages.core.runtime import n_workers
from stages.core.shards import ShardReader
from stages.core.training import Trainer

SECONDS = 60


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def corpora_to_shards(parameters: Parameters, n_jobs: int) -> None:
    """Prints the throughput of mix and shard."""
    rate = parameters.audio.sample_rate
    hours = parameters.mix.seconds / 3600 * (parameters.mix.n_train + parameters.mix.n_valid + parameters.mix.n_test)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mixing = timed(lambda: mix.run(parameters.mix, rate, mix.CORPORA_DIR, folder / "mixtures", folder / "mix.json", n_jobs))
        sharding = timed(
            lambda: shard.run(
                parameters.shard, parameters.stft, rate, folder / "mixtures", folder / "shards", folder / "shard.json", n_jobs
            )
        )
    print(f"{'mix':10}{n_jobs:3} processes{60 * hours / mixing:10.1f} hours of mixtures per minute")
    print(f"{'shard':10}{n_jobs:3} processes{60 * hours / sharding:10.1f} hours of mixtures per minute")


def training(parameters: Parameters) -> None:
    """Prints the mixtures per second of a training, reading and remixing included, and of its steps on random numbers."""
    train = ShardReader(Path("data/shards/train"))
    denoiser = Denoiser(parameters.model, parameters.stft, parameters.audio.sample_rate)
    trainer = Trainer(denoiser, parameters.train, train, train, torch.device("cpu"))
    size, n_steps = parameters.train.batch_size, min(20, len(train) // parameters.train.batch_size)
    order = list(range(n_steps * size))
    batch = next(trainer._batches(train, order[:size], epoch=0))
    random = Batch(*(torch.randn_like(tensor) for tensor in batch[:2]), torch.ones_like(batch.level))
    trainer._step(random, 1e-3)
    bare = timed(lambda: [trainer._step(random, 1e-3) for _ in range(n_steps)])
    whole = timed(lambda: [trainer._step(batch, 1e-3) for batch in trainer._batches(train, order, epoch=0)])
    waiting = 100 * (1 - bare / whole)
    print(f"{'train':10}{n_steps * size / whole:8.1f} mixtures per second, {n_steps * size / bare:.1f} on random numbers")
    print(f"{'':10}{waiting:8.1f} % of the time goes into data")


def denoising(parameters: Parameters) -> None:
    """Prints the speed of enhancement on one core."""
    torch.set_num_threads(1)
    denoiser, _ = load_checkpoint(Path(parameters.denoise.model))
    for rate, channels in ((16000, 1), (48000, 2), (44100, 1)):
        noisy = np.random.default_rng(0).standard_normal((SECONDS * rate, channels)).astype(np.float32) * 0.05
        seconds = timed(lambda noisy=noisy, rate=rate: enhanced(noisy, rate, denoiser))  # type: ignore[misc]
        print(f"{'denoise':10}{SECONDS / seconds:8.1f} x real time on one core, {rate} Hz, {channels} channels")


def main() -> None:
    """Prints all tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    parameters = read_parameters(Path("params.yaml"))
    for n_jobs in sorted({1, n_workers(-1)}):
        corpora_to_shards(parameters, n_jobs)
    training(parameters)
    denoising(parameters)


if __name__ == "__main__":
    main()

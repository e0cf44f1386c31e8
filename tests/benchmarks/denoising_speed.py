"""How much slower the command is than the work it cannot do without; a part of `python -m tests.benchmarks.denoising`.

That work is decoding, Fourier transform, network, inverse transform and encoding, for the same files in the same number of
processes, in turns with the command. Both have processes that run already and weights that are loaded; what starting costs
has a table of its own. Time on the processor is that of this process and its children; times are the best of several rounds.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import soundfile
import torch

from stages.core.command import Options
from stages.core.engines import Engine, loaded
from stages.core.ledger import Ledger
from stages.core.runtime import completed
from stages.core.spectra import StreamingStft, n_bins
from stages.core.streaming import Strength, scaled
from stages.denoise import run

ROOT = Path(__file__).resolve().parents[2]
PIECE_S = 5


@dataclass(frozen=True, slots=True)
class Material:
    """Recordings of one kind."""

    n_files: int
    seconds: int
    sample_rate: int
    n_channels: int

    @property
    def folder(self) -> str:
        """A name for them."""
        return str(self).replace(" ", "")

    def __str__(self) -> str:
        return f"{self.n_files} x {self.seconds} s, {self.sample_rate // 1000} kHz x {self.n_channels}"


KINDS = ((16_000, 1), (48_000, 2))


class Cost(NamedTuple):
    """Seconds on the clock and on the processor."""

    clock: float
    processor: float


def print_tables(folder: Path, model: Path, engines: list[Engine], n_rounds: int, share: float) -> None:
    """Prints all tables for one model; of short recordings `share` of the number, of long ones of the length."""
    print(f"multiples of real time of the command and of the bare work, {model}; best of {n_rounds} rounds")
    print(f"{'':24}{'':14}{'processor':>20}{'':10}{'clock':>20}")
    heads = "".join(f"{'command':>10}{'bare':>10}{'over':>9}" for _ in range(2))
    print(f"{'files':24}{'engine':8}{'cores':>6}{heads}", flush=True)
    short = [Material(round(60 * share), 5, *kind) for kind in KINDS]
    long = [Material(2, round(300 * share), *kind) for kind in KINDS]
    for material in (*short, *long):
        source = folder / material.folder
        recordings(source, material)
        for engine in engines:
            for n_jobs in (1, 2):
                whole, bare = compared(source, folder, Options(model, engine, Strength()), n_jobs, n_rounds)
                duration = material.n_files * material.seconds
                row = "".join(
                    f"{duration / ours:>9.0f}x{duration / least:>9.0f}x{100 * (ours / least - 1):>7.1f} %"
                    for ours, least in ((whole.processor, bare.processor), (whole.clock, bare.clock))
                )
                print(f"{material!s:24}{engine:8}{n_jobs:>6}{row}", flush=True)
    print("\nthe whole command from its start, seconds")
    print(f"{'files':24}{'engine':8}{'cores':>6}{'processor':>11}{'clock':>8}", flush=True)
    for engine in engines:
        for n_jobs in (1, 2):
            arguments = [folder / short[0].folder, folder / "out", "--model", model.resolve()]
            cost = started([*map(str, arguments), "--engine", engine, "--jobs", str(n_jobs), "--overwrite"], folder)
            print(f"{short[0]!s:24}{engine:8}{n_jobs:>6}{cost.processor:>11.1f}{cost.clock:>8.1f}", flush=True)


def recordings(folder: Path, material: Material) -> None:
    """Writes noises, 16 bits a sample."""
    folder.mkdir()
    for number in range(material.n_files):
        random = np.random.default_rng(number)
        shape = (material.seconds * material.sample_rate, material.n_channels)
        waveform = 0.1 * random.standard_normal(shape, np.float32)
        soundfile.write(folder / f"{number:03}.wav", waveform, material.sample_rate, "PCM_16")


def compared(source: Path, folder: Path, options: Options, n_jobs: int, n_rounds: int) -> tuple[Cost, Cost]:
    """The costs of denoising the recordings in `source` by the command and bare, the least of several rounds."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        out, ledger = Path(place) / "out", Ledger(Path(place) / "ledger", copies=False)

        def whole() -> None:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                run(source, out, options, ledger, n_jobs, overwrite=True, table=None)

        def bare() -> None:
            for _ in completed(partial(bare_work, options, out), sorted(source.iterdir()), n_jobs=n_jobs):
                pass

        rounds = []
        # The first round starts processes and loads weights. Outputs are new each time: replacing a file waits for the disk.
        for _ in range(1 + n_rounds):
            costs = []
            for action in (whole, bare):
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                costs.append(cost(action))
            rounds.append(costs)
    ours, least = zip(*rounds[1:], strict=True)
    return Cost(*map(min, zip(*ours, strict=True))), Cost(*map(min, zip(*least, strict=True)))


def bare_work(options: Options, target: Path, path: Path) -> None:
    """Decodes, transforms, lets the network estimate, transforms back and encodes: no more, and in pieces that are fast."""
    denoiser = loaded(options.model, options.engine)
    with (
        soundfile.SoundFile(path) as file,
        soundfile.SoundFile(target / path.name, "w", file.samplerate, file.channels) as sink,
    ):
        factor, bins = file.samplerate // denoiser.sample_rate, n_bins(denoiser.stft)
        stft, state = StreamingStft(scaled(denoiser.stft, factor), file.channels), None
        for block in file.blocks(PIECE_S * file.samplerate, dtype="float32", always_2d=True):
            spectra = stft.analysed(block.T)
            heard = spectra.mean(0, keepdims=True)[..., :bins] / factor
            estimate, state = denoiser.denoised(torch.from_numpy(heard), state)
            spectra[..., :bins] = factor * estimate.numpy()
            sink.write(stft.synthesised(spectra).T)


def cost(action: Callable[[], None]) -> Cost:
    """What an action costs, in this process and in processes that live on."""
    start, before = time.perf_counter(), processor_time()
    action()
    return Cost(time.perf_counter() - start, processor_time() - before)


def processor_time() -> float:
    """Seconds that this process and its children have spent on the processor."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def started(arguments: list[str], folder: Path) -> Cost:
    """What the command costs as a program of its own."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.denoise", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"python -m stages.denoise {' '.join(arguments)} ended with {status}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)

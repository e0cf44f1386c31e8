"""Folders that are denoised by a program that is killed on the way, watched from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from denoised_files import contents, weights
from small_pipeline import CHECKPOINT, ROOT, environment

from stages.core import media
from stages.core.audio import AudioError
from stages.core.files import PARTIAL

FORMATS = [("wav", "WAV", "PCM_16"), ("flac", "FLAC", "PCM_24"), ("ogg", "OGG", "VORBIS"), ("wav", "WAV", "FLOAT")]
N_JOBS = 2


class Watch(threading.Thread):
    """Reads every file below a folder as soon as it has its final name, again and again, until it is told to stop."""

    def __init__(self, folder: Path, lengths: dict[str, int]) -> None:
        super().__init__()
        self.folder, self.lengths = folder, lengths
        self.seen: set[tuple[str, int]] = set()
        self.faults: list[str] = []
        self.ending = threading.Event()

    def run(self) -> None:
        """Looks at all files that are new."""
        while not self.ending.is_set():
            self.look()
            time.sleep(0.005)
        self.look()

    def look(self) -> None:
        """Reads the files that have come since the last look."""
        for path in self.folder.rglob("*") if self.folder.is_dir() else ():
            name = path.relative_to(self.folder).as_posix()
            if path.name.startswith(".") or name not in self.lengths or (name, path.stat().st_ino) in self.seen:
                continue
            self.seen.add((name, path.stat().st_ino))
            try:
                with media.reader(path) as source:
                    n_samples = sum(len(block) for block in source.blocks(1 << 14))
            except AudioError as error:
                self.faults.append(str(error))
            else:
                if n_samples != self.lengths[name]:
                    self.faults.append(f"{name}: {n_samples} samples, expected {self.lengths[name]}")


@dataclass
class Soak:
    """What became of a folder: how many files were there after each kill, what was wrong, and all outputs."""

    n_files: int
    n_after_kill: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    n_seen: int = 0
    summary: str = ""
    left: list[str] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)
    unbroken: dict[str, bytes] = field(default_factory=dict)


def soak(folder: Path, n_files: int, shares: tuple[float, ...]) -> Soak:
    """Denoises `n_files` short recordings, killed when each of `shares` of the outputs are there, and without a kill."""
    lengths = recordings(folder / "in", n_files)
    found = Soak(n_files)
    for name in ("broken", "whole"):
        weights(folder / name / CHECKPOINT)
    watch = Watch(folder / "broken/out", lengths)
    watch.start()
    try:
        for share in shares:
            found.n_after_kill.append(killed(folder / "broken", watch.folder, round(share * n_files)))
        found.summary = finished(folder / "broken")
    finally:
        watch.ending.set()
        watch.join()
    finished(folder / "whole")
    found.faults, found.n_seen = watch.faults, len({name for name, _ in watch.seen})
    found.left = [path.name for path in (folder / "broken").rglob(f"{PARTIAL}*")]
    found.outputs, found.unbroken = (contents(folder / name / "out") for name in ("broken", "whole"))
    return found


def recordings(folder: Path, n_files: int) -> dict[str, int]:
    """Makes recordings of 1 to 2 s in several formats and folders; the samples of each."""
    lengths = {}
    for number in range(n_files):
        suffix, form, encoding = FORMATS[number % len(FORMATS)]
        name = f"{number % 5}/{number:03}.{suffix}"
        random = np.random.default_rng(number)
        lengths[name] = int(random.integers(16_000, 32_000))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.1 * random.standard_normal(lengths[name]), 16_000, encoding, format=form)
    return lengths


def program(folder: Path) -> "subprocess.Popen[str]":
    """Starts denoising the recordings beside `folder` into it."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.denoise", "../in", "out", "--model", str(CHECKPOINT), "--jobs", str(N_JOBS)],
        cwd=folder,
        env=environment(folder) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed(folder: Path, outputs: Path, n_outputs: int) -> int:
    """Kills the program once `n_outputs` files are there; how many there are when its workers have ended."""
    process = program(folder)
    deadline = time.monotonic() + 300
    while visible(outputs) < n_outputs:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"no {n_outputs} outputs came:\n{process.communicate()[0]}")
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    # Its workers hold the pipe until they end.
    process.communicate(timeout=60)
    return visible(outputs)


def visible(folder: Path) -> int:
    """Files with a final name."""
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def finished(folder: Path) -> str:
    """Runs the program to its end; what it prints."""
    process = program(folder)
    output, _ = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(output)
    return output

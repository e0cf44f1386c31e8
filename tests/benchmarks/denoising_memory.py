"""The most memory that denoising one long recording takes; a part of `python -m tests.benchmarks.denoising`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from stages.core.engines import Engine

ROOT = Path(__file__).resolve().parents[2]
RATE, CHANNELS = 48_000, 2
MINUTES = (10, 180)
# The command in a process whose parent is small: what a process had before it became another program counts as its own.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
found = resource.getrusage(resource.RUSAGE_CHILDREN)
print(found.ru_maxrss * (1 if sys.platform == "darwin" else 1024), found.ru_utime + found.ru_stime)
"""


def recording(path: Path, minutes: int) -> None:
    """Writes a noise that comes and goes, a second at a time."""
    random = np.random.default_rng(1)
    swell = (0.05 + 0.1 * np.sin(np.linspace(0, np.pi, RATE)))[:, None]
    with soundfile.SoundFile(path, "w", RATE, CHANNELS, "PCM_16") as file:
        for _ in range(60 * minutes):
            file.write((swell * random.standard_normal((RATE, CHANNELS), np.float32)).astype(np.float32))


def denoised(folder: Path, recording: Path, model: Path, engine: Engine) -> tuple[float, float, float]:
    """Peak memory in MB of denoising a recording by the command in `folder`, its time on the processor and on the clock."""
    output = folder / f"out-{recording.name}"
    command = [sys.executable, "-m", "stages.denoise", recording, output, "--model", model.resolve(), "--engine", engine]
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command), "--overwrite"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    before, after = soundfile.info(recording), soundfile.info(output)
    output.unlink()
    if (before.frames, before.samplerate, before.channels) != (after.frames, after.samplerate, after.channels):
        raise RuntimeError(f"{output} has {after.frames} samples, {recording} {before.frames}")
    peak, processor = ended.stdout.split()
    return int(peak) / 1e6, float(processor), seconds


def print_table(folder: Path, model: Path, engines: list[Engine], minutes: tuple[int, ...]) -> None:
    """Prints the peak for each engine and length; `folder` holds one recording and its output at a time."""
    print(f"peak memory of the command, WAV of {RATE} Hz and {CHANNELS} channels, {model}")
    print(f"{'engine':8}{'minutes':>8}{'peak':>10}{'x real time':>14}{'on the clock':>14}", flush=True)
    for length in minutes:
        path = folder / f"{length}.wav"
        recording(path, length)
        for engine in engines:
            peak, processor, seconds = denoised(folder, path, model, engine)
            speeds = f"{60 * length / processor:>13.0f}x{60 * length / seconds:>13.0f}x"
            print(f"{engine:8}{length:>8}{peak:>7.0f} MB{speeds}", flush=True)
        path.unlink()

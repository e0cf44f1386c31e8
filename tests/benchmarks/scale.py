"""How the pipeline does on a simulated LibriSpeech: `python -m tests.benchmarks.scale [--utterances 28539] [--folder DIR]`.

28,539 utterances are the 100 hours of train-clean-100; the default is a tenth, which takes minutes. Speech is repeated from
DENOISE_TEST_AUDIO where that is set, else by eSpeak NG. Prints for download, mix and shard: time, hours of audio per minute,
in all and per core that was kept busy, how busy the cores were, in all and with the stage's own processes, and the highest
memory of all processes together; beside mix the same with a plain loop in one process; then files, and DVC without changes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from stages.core.runtime import n_workers
from tests.benchmarks.corpus_material import MEAN_S, N_UTTERANCES, ROOT, copied_repository, material, surroundings

MIXTURE_S = 4.0
N_PLAIN = 3000  # enough to time


class Usage(NamedTuple):
    """What a command used: seconds, seconds of processors, bytes of all processes together and of the first one.

    `busy_s` are the seconds of processors that were not idle, with what the system does for the command (writing to the disk).
    """

    seconds: float
    cpu_s: float
    busy_s: float
    peak: int
    parent_peak: int


def used(command: list[str], folder: Path, archives: Path) -> Usage:
    """Runs a command that must end well, and looks at the memory of its processes once a second, which takes time itself."""
    os.sync()  # what was written before is not its to wait for
    before, busy_before = resource.getrusage(resource.RUSAGE_CHILDREN), _busy_s()
    begun, peak, parent_peak = time.perf_counter(), 0, 0
    process = psutil.Popen(command, cwd=folder, env=surroundings(archives), stdout=subprocess.DEVNULL)
    returned = None
    while returned is None:
        total = 0
        for part in [process, *process.children(recursive=True)]:
            try:
                memory = part.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
            total += memory
            parent_peak = max(parent_peak, memory if part.pid == process.pid else 0)
        peak = max(peak, total)
        with suppress(psutil.TimeoutExpired):
            returned = process.wait(timeout=1)
    if returned:
        raise SystemExit(f"{' '.join(command)} ended with {returned}")
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(seconds, cpu_s, _busy_s() - busy_before, peak, parent_peak)


def _busy_s() -> float:
    """Seconds since the machine was started that its processors were neither idle nor waiting for a disk or another machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "steal", 0))


def row(name: str, hours: float, usage: Usage) -> str:
    """One line of the table."""
    cores = n_workers(-1)
    rate = 60 * hours / usage.seconds
    own, busy = (100 * part / usage.seconds / cores for part in (usage.cpu_s, usage.busy_s))
    return (
        f"{name:18}{usage.seconds:8.1f} s{rate:9.2f} h/min{60 * hours / usage.cpu_s:9.2f} h/min per core"
        f"{busy:6.0f} % busy, {own:.0f} % with it"
        f"{usage.peak / 1e6:8.0f} MB in all{usage.parent_peak / 1e6:7.0f} MB in the first process"
    )


def compare(mixing: Usage, hours: float, folder: Path, archives: Path, n_mixtures: int) -> None:
    """Two lines on the straightforward way to mix, each with how many times as fast mixing was, in all and per core."""
    plain = [sys.executable, "-m", "tests.benchmarks.plain_mixing", str(folder), str(n_mixtures)]
    subprocess.run([*plain, "--prepare"], cwd=ROOT, check=True)
    for name, options in (("plain loop", []), ("with whole files", ["--whole"])):
        usage, done = used([*plain, *options], ROOT, archives), n_mixtures * MIXTURE_S / 3600
        in_all = hours / mixing.seconds / (done / usage.seconds)
        per_core = hours / mixing.cpu_s / (done / usage.cpu_s)
        print(
            f"{row(name, done, usage)}; mixing is {in_all:.2f} times as fast in all, {per_core:.2f} times per core", flush=True
        )


def files(folder: Path) -> str:
    """Number and size of the files below a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{folder.name}: {len(sizes)} files, {sum(sizes) / 1e9:.2f} GB, the largest {max(sizes) / 1e6:.0f} MB"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=N_UTTERANCES // 10)
    parser.add_argument("--mixtures", type=int, help="in all; as many hours as the corpus unless given")
    parser.add_argument("--folder", type=Path, help="where archives and results are left; a temporary folder unless given")
    arguments = parser.parse_args()
    hours = arguments.utterances * MEAN_S / 3600
    n_mixtures = arguments.mixtures or round(hours * 3600 / MIXTURE_S)
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.folder or Path(temporary)
        archives, folder = home / "archives", home / "repository"
        if not archives.is_dir():
            material(archives, arguments.utterances)
        if not folder.is_dir():
            copied_repository(folder, archives, n_mixtures)
        print(
            f"{arguments.utterances} utterances, {hours:.1f} hours; {n_mixtures} mixtures; "
            f"{n_workers(-1)} cores, load {psutil.getloadavg()[0]:.1f}"
        )
        mixed = n_mixtures * MIXTURE_S / 3600
        for name, done, stage in (
            ("download speech", hours, ["download", "speech"]),
            ("again, from cache", hours, ["download", "speech"]),
            ("download noise", 18 * 300 / 3600, ["download", "noise"]),
            ("fetch", 0.0, ["fetch"]),
            ("mix", mixed, ["mix"]),
            ("shard", mixed, ["shard"]),
        ):
            usage = used([sys.executable, "-m", f"stages.{stage[0]}", *stage[1:]], folder, archives)
            print(row(name, done, usage), flush=True)
            if name == "mix":
                compare(usage, mixed, folder, archives, min(n_mixtures, N_PLAIN))
        for name in ("corpora", "mixtures", "shards"):
            print(files(folder / "data" / name))
        for text, command in (
            (
                "dvc commit, which hashes and links",
                ["dvc", "commit", "--force", "--quiet", "download", "fetch", "mix", "shard"],
            ),
            ("dvc status", ["dvc", "status", "--quiet", "download", "fetch", "mix", "shard"]),
            ("dvc repro without changes", ["dvc", "repro", "--quiet", "shard"]),
        ):
            begun = time.perf_counter()
            subprocess.run(command, cwd=folder, env=surroundings(archives), check=True)
            print(f"{text}: {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()

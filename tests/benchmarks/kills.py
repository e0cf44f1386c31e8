"""`kill -9` at 20 random moments of fetching and at 20 of unpacking: `python -m tests.benchmarks.kills [--kills 20]`.

A simulated LibriSpeech and DEMAND come from a server on 127.0.0.1: first slowly, so that the kills fall into fetching, then
fast. After the kills both corpora are obtained in peace. Prints how many runs were killed, and whether manifests and bundles
are byte for byte those of a repository that was never killed.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.corpus_material import copied_repository, material, surroundings
from tests.misbehaving_server import Server, server

N_UTTERANCES = 600
FETCH_S = 8.0
FIRST_CHANNEL = r"[A-Z]+/ch01\.wav"


def start(role: str, folder: Path) -> subprocess.Popen[str]:
    """Obtains the corpora of a role."""
    environment = {key: value for key, value in surroundings(folder).items() if key != "DENOISE_ARCHIVES"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.download", role],
        cwd=folder,
        env={**environment, "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(role: str, folder: Path) -> float:
    """Obtains the corpora of a role in peace; the seconds it took."""
    begun = time.perf_counter()
    process = start(role, folder)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(output)
    return time.perf_counter() - begun


def killed(role: str, folder: Path, after_s: float) -> bool:
    """Kills a run after a while, workers too; whether it had not ended before."""
    process = start(role, folder)
    time.sleep(after_s)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def contents(folder: Path) -> dict[str, bytes]:
    """All files of the corpora."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "data/corpora").rglob("*")
        if path.is_file() and path.name != ".gitignore"
    }


def partial_files(folder: Path) -> list[str]:
    """What an unfinished run would leave in the cache."""
    return [path.name for path in (folder / ".cache").rglob("*") if ".part" in path.name]


def soak(running: Server, folder: Path, n_kills: int, size: int) -> None:
    """Kills, while fetching and while unpacking."""
    moments = random.Random(6)
    for speed, what in ((size / FETCH_S, "fetching"), (0.0, "unpacking")):
        for manners in running.paths.values():
            manners.bytes_per_s = speed
        n_killed, n_runs = 0, 0
        while n_killed < n_kills and n_runs < 3 * n_kills:
            role = ("speech", "noise")[n_runs % 2]
            n_runs += 1
            if what == "unpacking":
                shutil.rmtree(folder / ".cache/corpora", ignore_errors=True)
            n_killed += killed(role, folder, moments.uniform(0.3, 3.5))
        archives = sorted(path.name for path in (folder / ".cache/archives").glob("*/*") if path.suffix in {".gz", ".zip"})
        unpacked = [path for path in (folder / ".cache/corpora").glob("[!.]*")] if (folder / ".cache/corpora").is_dir() else []
        print(
            f"{what}: {n_killed} of {n_runs} runs killed; {len(archives)} archives fetched by then, {len(unpacked)} unpacked, "
            f"{len(partial_files(folder))} files in part",
            flush=True,
        )


def main() -> None:
    """Kills and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of fetching and of unpacking each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, server() as running:
        home = Path(temporary)
        material(home / "archives", N_UTTERANCES)
        paths = sorted((home / "archives").iterdir())
        for path in paths:
            running.serve(path.name, path.read_bytes())
        for name in ("peace", "war"):
            copied_repository(home / name, home / "archives", 100, running.root, FIRST_CHANNEL)
        needed = {role: finish(role, home / "peace") for role in ("speech", "noise")}
        print(f"in peace: {', '.join(f'{role} {seconds:.1f} s' for role, seconds in needed.items())}", flush=True)
        soak(running, home / "war", arguments.kills, sum(path.stat().st_size for path in paths))
        for role in needed:
            finish(role, home / "war")
        peace, war = contents(home / "peace"), contents(home / "war")
        for role in needed:
            name = f"data/corpora/{role}/manifest.csv"
            print(f"{name}: {'equal' if peace[name] == war[name] else 'DIFFERENT'}, {len(peace[name])} bytes")
        print(f"all {len(peace)} files of the corpora: {'equal' if peace == war else 'DIFFERENT'}")
        print(f"files in part that are left: {partial_files(home / 'war') or 'none'}")


if __name__ == "__main__":
    main()

"""What the time of mixing and sharding goes into: `python -m tests.benchmarks.time_shares REPOSITORY [N]`.

REPOSITORY is one that `tests.benchmarks.scale --folder` left, or this one after `dvc repro`. Mixes and shards N mixtures in one
process and prints the shares of the processor's time in libsndfile, which decodes and writes; in what else reading and writing
sound files takes (finding one in its bundle, rounding to 16 bits, putting two channels side by side, temporary files); in
soxr; in writing plan and index; in Fourier transforms; in half-precision numbers, their checksums and writing them; and in
all else, the project's own arithmetic and bookkeeping. What it takes to count the calls is measured and left out.
"""

import argparse
import csv
import gc
import json
import os
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import soundfile
import soxr

from stages import mix, shard
from stages.core import packs, rendering, spectra
from stages.core.parameter_file import read_parameters


class Clock:
    """Seconds of processor by what they are used for; what a counted function calls that is counted too is the latter's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        # By what they are within, where the time that it takes to count them shows; "" is what is not counted.
        self.calls: Counter[str] = Counter()
        self._within: list[str] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted under `name`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[self._within[-1] if self._within else ""] += 1
            self._within.append(name)
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                needed = time.thread_time() - begun
                self._within.pop()
                self.seconds[name] += needed
                if self._within:
                    self.seconds[self._within[-1]] -= needed

        return call


def call_s(n_calls: int = 100_000) -> float:
    """Seconds of processor that it takes to count a call, which the share of its function does not show."""
    clock = Clock()
    counted = clock.timed("nothing", int)
    begun = time.process_time()
    for _ in range(n_calls):
        counted()
    return (time.process_time() - begun - clock.seconds["nothing"]) / n_calls


def shares(name: str, work: Callable[[], None], places: list[tuple[str, Any, str]]) -> None:
    """Does the work with the functions at `places` (what for, owner, attribute) counted, and prints a line."""
    clock = Clock()
    patches = [patch.object(owner, key, clock.timed(what, getattr(owner, key))) for what, owner, key in places]
    for each in patches:
        each.start()
    begun = time.process_time()
    work()
    total = time.process_time() - begun
    for each in patches:
        each.stop()
    counting_s = call_s()
    parts = {part: value - clock.calls[part] * counting_s for part, value in clock.seconds.items()}
    parts["the rest"] = total - sum(clock.seconds.values()) - clock.calls[""] * counting_s
    total = sum(parts.values())
    print(f"{name:6}{total:8.1f} s  " + "  ".join(f"{part} {100 * value / total:.1f} %" for part, value in parts.items()))


def main() -> None:
    """Prints a line for mixing and one for sharding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("n_mixtures", type=int, nargs="?", default=2000)
    arguments = parser.parse_args()
    parameters = read_parameters(arguments.repository / "params.yaml")
    settings = parameters.mix.model_copy(update={"n_train": arguments.n_mixtures, "n_valid": 64, "n_test": 1})
    rate = parameters.audio.sample_rate
    sound = soundfile.SoundFile
    files = [("libsndfile", sound, key) for key in ("__init__", "read", "seek", "write", "close")]
    around = [
        ("around it", owner, key)
        for owner, key in (
            (rendering, "read_clip"),
            (mix, "announce"),
            (shard, "read_pack"),
            (mix, "rounded"),
            (packs, "_interleaved"),
            (tempfile, "mkstemp"),
            (os, "replace"),
        )
    ]
    tables = [("plan and index", owner, key) for owner, key in ((json.JSONEncoder, "encode"), (csv.DictWriter, "writerow"))]
    gc.freeze()  # as run_stage does
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shares(
            "mix",
            lambda: mix.run(
                settings, rate, arguments.repository / "data/corpora", folder / "mixtures", folder / "mix.json", n_jobs=1
            ),
            [*files, *around, *tables, ("resampling", soxr, "resample")],
        )
        shares(
            "shard",
            lambda: shard.run(
                parameters.shard, parameters.stft, rate, folder / "mixtures", folder / "shards", folder / "s.json", n_jobs=1
            ),
            [
                *files,
                *around,
                *tables,
                ("transforms", spectra, "spectrogram"),
                ("half precision", shard, "packed"),
                ("checksums", zlib, "crc32"),
                ("writing shards", shard, "write_shard"),
            ],
        )


if __name__ == "__main__":
    main()

"""The straightforward way to mix, to compare with: `python -m tests.benchmarks.plain_mixing REPOSITORY N [--whole]`.

One process reads, scales, adds and writes WAV files with soundfile, as most recipes do, for the first N mixtures of the plan
that `mix` left in REPOSITORY. It has a file for each recording, as the corpus is published, in REPOSITORY/plain, where
`--prepare` puts them and does no more. It reads the stretches that the plan names, or with `--whole` each utterance as
a whole before it cuts. It checks nothing: not for short reads, NaN, silence or clipping.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from stages.core.bundles import clip_bytes


def rows(repository: Path, n_mixtures: int) -> Iterator[dict[str, Any]]:
    """The first mixtures of the plan."""
    with (repository / "data/mixtures/plan.jsonl").open(encoding="utf-8") as file:
        for line in islice(file, n_mixtures):
            yield json.loads(line)


def single(segment: dict[str, Any], repository: Path) -> Path:
    """The file that a recording has for itself."""
    return repository / "plain" / f"{segment['id']}.sound"


def prepare(repository: Path, n_mixtures: int) -> None:
    """Writes each recording that is needed into a file of its own."""
    for row in rows(repository, n_mixtures):
        for segment in (*row["speech"], *row["noises"]):
            path = single(segment, repository)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(clip_bytes(repository / segment["path"], tuple(segment["within"])))


def stretch(segment: dict[str, Any], repository: Path, *, whole: bool) -> np.ndarray:
    """The samples that the plan asks for; a stretch that goes beyond the end goes on at the beginning."""
    path, start, n_samples = single(segment, repository), segment["start"], segment["n_samples"]
    if whole or start + n_samples > segment["whole"][1]:
        return np.take(soundfile.read(path)[0], np.arange(start, start + n_samples), mode="wrap")
    waveform: np.ndarray = soundfile.read(path, start=start, frames=n_samples)[0]
    return waveform


def mix(row: dict[str, Any], repository: Path, folder: Path, *, whole: bool) -> None:
    """Reads, scales, adds and writes one mixture and its speech."""
    speech = np.concatenate([stretch(segment, repository, whole=whole) for segment in row["speech"]])[: row["n_samples"]]
    noises = [stretch(segment, repository, whole=False)[: len(speech)] for segment in row["noises"]]
    gains = [10 ** (segment["gain_db"] / 20) for segment in row["noises"]]
    noise = sum(gain * wave / np.sqrt(np.mean(wave**2)) for gain, wave in zip(gains, noises, strict=True))
    noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 10 ** (row["snr_db"] / 10))
    noisy = speech + noise
    gain = min(10 ** (row["level_dbfs"] / 20) / np.sqrt(np.mean(noisy**2)), 0.98 / np.max(np.abs(noisy)))
    rate = row["speech"][0]["sample_rate"]
    soundfile.write(folder / "noisy" / f"{row['id']}.wav", gain * noisy, rate)
    soundfile.write(folder / "clean" / f"{row['id']}.wav", gain * speech, rate)


def main() -> None:
    """Mixes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("n_mixtures", type=int)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.repository, arguments.n_mixtures)
        return
    folder = arguments.repository / "plain-mixtures"
    for side in ("noisy", "clean"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for row in rows(arguments.repository, arguments.n_mixtures):
        mix(row, arguments.repository, folder, whole=arguments.whole)


if __name__ == "__main__":
    main()

"""Pairs: folders with clean/ and noisy/ inside, which hold the same recordings under equal names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stages.core.audio import read_audio, sound_files
from stages.core.errors import DenoisingError

Waveform = Float32[np.ndarray, "samples"]


class PairError(DenoisingError):
    """Pairs that cannot be laid against each other."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One noisy recording and its reference."""

    name: str
    noisy: Path
    clean: Path


def pairs(folder: Path) -> list[Pair]:
    """All pairs in `folder`, in the order of their names.

    Raises:
        PairError: clean/ or noisy/ is missing or empty, or a recording of one has no counterpart in the other, or
            two have the same name but for their suffix.
    """
    found: dict[str, dict[str, Path]] = {}
    for side in ("noisy", "clean"):
        if not (folder / side).is_dir():
            raise PairError(f"{folder.absolute()}: expected the folders clean and noisy inside, {side} is missing.")
        found[side] = {}
        for path in sound_files(folder / side):
            name = path.relative_to(folder / side).with_suffix("").as_posix()
            if name in found[side]:
                raise PairError(f"{folder.absolute()}: '{name}' is there twice, {found[side][name].name} and {path.name}.")
            found[side][name] = path
    alone = sorted(found["noisy"].keys() ^ found["clean"].keys())
    if alone:
        raise PairError(
            f"{folder.absolute()}: {len(alone)} recordings are in only one of clean and noisy, the first is '{alone[0]}'."
        )
    if not found["noisy"]:
        raise PairError(f"{folder.absolute()}: no sound files in clean and noisy.")
    return [Pair(name, path, found["clean"][name]) for name, path in sorted(found["noisy"].items())]


def read_pair(pair: Pair) -> tuple[Waveform, Waveform, int]:
    """First channel of the noisy and of the clean recording, and their sample rate (Hz).

    Raises:
        PairError: they differ in length or sample rate.
    """
    noisy, rate = read_audio(pair.noisy)
    clean, clean_rate = read_audio(pair.clean)
    if rate != clean_rate or len(noisy) != len(clean):
        raise PairError(
            f"{pair.noisy}: {len(noisy)} samples at {rate} Hz, but {pair.clean} has {len(clean)} at {clean_rate} Hz; "
            "both must be equal."
        )
    return np.ascontiguousarray(noisy[:, 0]), np.ascontiguousarray(clean[:, 0]), rate

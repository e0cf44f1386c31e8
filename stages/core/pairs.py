"""Pairs: the same recordings, clean and noisy, under equal names; in a folder with clean/ and noisy/, or published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stages.core.audio import sound_files
from stages.core.bundles import Within, read_clip
from stages.core.errors import DenoisingError
from stages.core.manifest import Recording

Waveform = Float32[np.ndarray, "samples"]


class PairError(DenoisingError):
    """Pairs that cannot be laid against each other."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One noisy recording and its reference, each a file, or a part of a bundle."""

    name: str
    noisy: Path
    clean: Path
    noisy_within: Within = None
    clean_within: Within = None


def pairs(folder: Path) -> list[Pair]:
    """All pairs in `folder`, in the order of their names.

    Raises:
        PairError: the folder, clean/ or noisy/ is missing or empty, or a recording of one has no counterpart in the other,
            or two have the same name but for their suffix.
    """
    missing = [side for side in ("clean", "noisy") if not (folder / side).is_dir()]
    if missing:
        absent = f"found no {' and no '.join(missing)}" if folder.is_dir() else "there is no such folder"
        raise PairError(f"{folder.absolute()}: expected a folder with clean and noisy inside, {absent}.")
    found: dict[str, dict[str, Path]] = {}
    for side in ("noisy", "clean"):
        found[side] = {}
        for path in sound_files(folder / side):
            name = path.relative_to(folder / side).with_suffix("").as_posix()
            if name in found[side]:
                raise PairError(f"{folder.absolute()}: '{name}' is there twice, {found[side][name].name} and {path.name}.")
            found[side][name] = path
    _check_partners(str(folder.absolute()), set(found["noisy"]), set(found["clean"]))
    if not found["noisy"]:
        raise PairError(f"{folder.absolute()}: no sound files in clean and noisy.")
    return [Pair(name, path, found["clean"][name]) for name, path in sorted(found["noisy"].items())]


def published_pairs(corpus: str, recordings: Sequence[Recording]) -> list[Pair]:
    """All pairs of a published corpus, from the rows of its manifest with the ids CORPUS/clean/NAME and CORPUS/noisy/NAME.

    Raises:
        PairError: a recording has no counterpart.
    """
    sides = {
        side: {row.id.removeprefix(f"{corpus}/{side}/"): row for row in recordings if row.id.startswith(f"{corpus}/{side}/")}
        for side in ("noisy", "clean")
    }
    _check_partners(corpus, set(sides["noisy"]), set(sides["clean"]))
    rows = ((name, sides["noisy"][name], sides["clean"][name]) for name in sorted(sides["noisy"]))
    return [Pair(name, Path(noisy.path), Path(clean.path), noisy.within, clean.within) for name, noisy, clean in rows]


def _check_partners(where: str, noisy: set[str], clean: set[str]) -> None:
    alone = sorted(noisy ^ clean)
    if alone:
        raise PairError(f"{where}: {len(alone)} recordings are in only one of clean and noisy, the first is '{alone[0]}'.")


def read_pair(pair: Pair) -> tuple[Waveform, Waveform, int]:
    """First channel of the noisy and of the clean recording, and their sample rate (Hz).

    Raises:
        PairError: they differ in length or sample rate.
    """
    noisy, rate = read_clip(pair.noisy, pair.noisy_within)
    clean, clean_rate = read_clip(pair.clean, pair.clean_within)
    if rate != clean_rate or len(noisy) != len(clean):
        raise PairError(
            f"{pair.noisy}: {len(noisy)} samples at {rate} Hz, but {pair.clean} has {len(clean)} at {clean_rate} Hz; "
            "both must be equal."
        )
    return np.ascontiguousarray(noisy[:, 0]), np.ascontiguousarray(clean[:, 0]), rate

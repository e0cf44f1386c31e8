"""Any folder of sound files as a corpus of speech or noise: nothing is copied, every file is read once and checked."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from stages.core import audio
from stages.core.corpora.shares import drawn
from stages.core.errors import DenoisingError
from stages.core.files import file_digest, shown, visible_files
from stages.core.manifest import SPLITS, Recording, Split
from stages.core.parameters import Folder
from stages.core.runtime import parallel

LICENCE = "The licence is that of your recordings."
# A file below this level holds nothing but the rounding noise of 16-bit silence (-96 dBFS and 6 dB of margin).
_SILENCE_DBFS = -90.0


class FolderError(DenoisingError):
    """A folder corpus that is absent, empty, or holds files that cannot be used."""


def recordings(settings: Folder, role: Literal["speech", "noise"], n_jobs: int) -> list[Recording]:
    """The manifest rows of all sound files below `settings.path`, in the order of their paths.

    Raises:
        FolderError: no such folder, no sound file in it, files that are corrupt or silent (the first 20 are named), a
            pattern that is no regular expression, or a table of splits that leaves files out.
    """
    key, root = f"download.{role}.folder", Path(settings.path)
    paths = _sound_files(root, settings.exclude, key)
    relative = [path.relative_to(root).as_posix() for path in paths]
    groups = [_found(settings.group, name, f"{key}.group") for name in relative]
    labels = [_found(settings.label, name, f"{key}.label") for name in relative]
    table = _table(Path(settings.split_csv), f"{key}.split_csv")
    if table:
        splits, groups = _tabled(paths, groups, table, Path(settings.split_csv))
    else:
        splits = drawn(groups, settings.seed, settings.valid_share, settings.test_share)
    rows = zip(paths, relative, groups, labels, splits, strict=True)
    checked = parallel(partial(_recording, role), list(rows), n_jobs=n_jobs, description=f"reading {root}")
    faults = [row for row in checked if isinstance(row, str)]
    if faults:
        listed = "\n  ".join(faults[:20]) + (f"\n  … and {len(faults) - 20} more" if len(faults) > 20 else "")
        raise FolderError(
            f"{len(faults)} of {len(paths)} files cannot be used; mend, remove or list them in {key}.exclude:\n  {listed}"
        )
    found = [row for row in checked if isinstance(row, Recording)]
    _tell_copies(found, key)
    return found


def _tell_copies(found: Sequence[Recording], key: str) -> None:
    """Says that there are recordings of equal content, such as a file and a link to it; in two splits they are heard twice."""
    first: dict[str, Recording] = {}
    copies = [(first.setdefault(row.content, row), row) for row in found]
    copies = [(one, other) for one, other in copies if one is not other]
    if copies:
        # Those that make the test easier come first.
        one, other = next((pair for pair in copies if pair[0].split != pair[1].split), copies[0])
        where = f"in {one.split} and in {other.split}" if one.split != other.split else f"both in {one.split}"
        print(
            f"{len(copies)} recordings are copies of others, such as {other.path} of {one.path}, {where}: remove them, or "
            f"leave them out by {key}.exclude"
        )


def _sound_files(root: Path, exclude: Sequence[str], key: str) -> list[Path]:
    if not root.is_dir():
        raise FolderError(f"{key}.path: {root.absolute()} is not a folder; set it to a folder of sound files.")
    visible = visible_files(root)
    left_out: set[Path] = set()
    for pattern in exclude:
        meant = [path for path in visible if _is_meant(path, root, pattern)]
        if not meant:
            print(f"{key}.exclude: '{pattern}' matches no file in {shown(root)}")
        left_out.update(meant)
    wanted = [path for path in visible if path not in left_out]
    kept = [path for path in wanted if path.suffix.lower() in audio.SUFFIXES]
    others = Counter(_kind(path) for path in wanted if path.suffix.lower() not in audio.SUFFIXES)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        print(f"{shown(root)}: passed over by their names: {kinds}; a corpus is made of WAV, FLAC, OGG, MP3, AIFF and the like")
    for path in kept:
        if shown(path) != str(path):
            raise FolderError(
                f"{key}.path: the name of {shown(path)} is not UTF-8, as tables need it; rename the file, or put this into "
                f"{key}.exclude."
            )
    if not kept:
        why = f" ({len(left_out)} were left out by {key}.exclude)" if left_out else ""
        raise FolderError(f"{key}.path: no sound files in {root.absolute()}{why}; put WAV, FLAC, OGG or MP3 files there.")
    return kept


def _is_meant(path: Path, root: Path, pattern: str) -> bool:
    """Whether a pattern of what to leave out means this file, by its path in the folder or as errors show it."""
    name = path.relative_to(root).as_posix()
    # What an error shows is meant literally, brackets and all; so is a folder, which means all in it.
    names = {shown(name), shown(path), shown(path.absolute())}
    folder = pattern.rstrip("/") + "/"
    return bool(pattern) and (pattern in names or any(one.startswith(folder) for one in names) or fnmatch(name, pattern))


def _kind(path: Path) -> str:
    """The suffix, or that there is none: what follows the last dot of a sentence is no suffix."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.(?=.*[a-z])[a-z0-9]{1,6}", suffix) else "without a suffix"


def _found(pattern: str, name: str, key: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise FolderError(f"{key}: '{pattern}' is no regular expression: {error}.") from None
    if match is None or not match.groups() or not match.group(1):
        raise FolderError(f"{key}: '{pattern}' finds no group in '{name}'; it needs one (…) that matches every path.")
    return match.group(1)


def _table(path: Path, key: str) -> dict[Path, tuple[str, str]]:
    """Split and speaker ('' if not given) of each file that the table lists."""
    if not path.is_file():
        raise FolderError(
            f"{key}: {path.absolute()} is missing; a table without rows (only 'path,split') splits by the shares."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # of which those for empty, ragged and wrongly encoded tables are kinds
        raise FolderError(f"{path}: cannot be read as a table in UTF-8 ({' '.join(str(error).split())}).") from None
    if not {"path", "split"} <= set(table.columns):
        raise FolderError(f"{path}: expected the columns path and split, found {', '.join(table.columns)}.")
    wrong = sorted(set(table["split"]) - set(SPLITS))
    if wrong:
        raise FolderError(f"{path}: '{wrong[0]}' is no split; use {', '.join(SPLITS)}.")
    speakers = table["speaker"] if "speaker" in table.columns else [""] * len(table)
    paths = (Path(os.path.realpath(path.parent / PurePosixPath(name))) for name in table["path"])
    rows: dict[Path, tuple[str, str]] = {}
    for place, row in zip(paths, zip(table["split"], speakers, strict=True), strict=True):
        if rows.setdefault(place, row) != row:
            raise FolderError(f"{path}: {place} is listed twice, as {', '.join(rows[place])} and {', '.join(row)}.")
    return rows


def _tabled(
    paths: Sequence[Path], groups: Sequence[str], table: dict[Path, tuple[str, str]], source: Path
) -> tuple[list[Split], list[str]]:
    places = [Path(os.path.realpath(path)) for path in paths]
    absent = [path for path, place in zip(paths, places, strict=True) if place not in table]
    if absent:
        raise FolderError(
            f"{source}: {len(absent)} of {len(paths)} files are not listed, the first is {absent[0]}; "
            "list every file, or empty the table to split by the shares."
        )
    rows = [table[place] for place in places]
    named = [speaker or group for (_, speaker), group in zip(rows, groups, strict=True)]
    splits: list[Split] = [split for (name, _) in rows for split in SPLITS if split == name]
    seen: dict[str, tuple[Split, Path]] = {}
    for group, split, path in zip(named, splits, paths, strict=True):
        other, where = seen.setdefault(group, (split, path))
        if other != split:
            raise FolderError(
                f"{source}: '{group}' is in two splits: {where} in {other}, {path} in {split}; "
                "a speaker or recording belongs to one."
            )
    return splits, named


def _recording(role: str, row: tuple[Path, str, str, str, Split]) -> Recording | str:
    path, name, group, label, split = row
    try:
        waveform, sample_rate = audio.read_audio(path)
    except audio.AudioError as error:
        return str(error)
    if len(waveform) == 0:
        return f"{path}: holds no samples."
    if audio.level_dbfs(np.ascontiguousarray(waveform[:, 0])) < _SILENCE_DBFS:
        return f"{path}: silent (its first channel is below {_SILENCE_DBFS:g} dBFS)."
    return Recording(
        id=f"folder/{name}",
        corpus="folder",
        path=str(path.absolute()),
        start=0,
        n_samples=len(waveform),
        sample_rate=sample_rate,
        group=f"folder/{group}",
        label=label,
        split=split,
        content=file_digest(path),
    )

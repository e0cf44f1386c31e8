"""The manifest: one row for each recording of a corpus, where it lies and to which split it belongs."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from stages.core.errors import DenoisingError
from stages.core.files import write_text

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class ManifestError(DenoisingError):
    """A manifest that is absent or not as it was written."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance or one noise recording, whole or as a part of a larger file.

    `path` is absolute, or relative to the manifest's folder; `start` and `n_samples` (samples at `sample_rate` Hz) say
    which part of that file is meant. `group` is what may not cross splits: the speaker of an utterance, the original
    recording of a noise. `label` is the kind of a noise, or the language of an utterance. `content` is the SHA-256 of the
    file's bytes, so that a changed file changes the manifest. `offset` and `size` (bytes) say where in `path`, a bundle,
    that file lies; a size of 0 is a file of its own.
    """

    id: str
    corpus: str
    path: str
    start: int
    n_samples: int
    sample_rate: int
    group: str
    label: str
    split: Split
    content: str
    offset: int = 0
    size: int = 0

    @property
    def within(self) -> tuple[int, int] | None:
        """Offset and size where the recording lies in a bundle; None for a file of its own."""
        return (self.offset, self.size) if self.size else None


def write_manifest(path: Path, recordings: Sequence[Recording]) -> None:
    """Writes `recordings`, sorted by id, to the CSV file `path`; ids that occur twice raise ManifestError."""
    ordered = sorted(recordings, key=lambda recording: recording.id)
    for first, second in pairwise(ordered):
        if first.id == second.id:
            raise ManifestError(f"{path}: the id '{first.id}' occurs twice: {first.path} and {second.path}.")
    columns = [field.name for field in fields(Recording)]
    table = pd.DataFrame([asdict(recording) for recording in ordered], columns=columns)
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_manifest(path: Path, stage: str = "download") -> list[Recording]:
    """The recordings of the manifest `path`, which `stage` writes, by their ids; paths are resolved against its folder."""
    if not path.is_file():
        raise ManifestError(f"{path} is missing: run 'dvc repro {stage}' first.")
    text = {"id": str, "corpus": str, "path": str, "group": str, "label": str, "split": str, "content": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False)
    expected = [field.name for field in fields(Recording)]
    if list(table.columns) != expected:
        raise ManifestError(f"{path}: expected the columns {expected}, found {list(table.columns)}.")
    folder = str(path.parent)
    table["path"] = [os.path.join(folder, name) for name in table["path"].tolist()]
    # Column by column: numbers come as Python's own, which a plan is written with.
    return [Recording(*row) for row in zip(*(table[name].tolist() for name in expected), strict=True)]

"""Many recordings: which output belongs to which input, and which of them are made already."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from stages.core.errors import DenoisingError
from stages.core.files import digest, file_digest, write_json, written
from stages.core.media import media_files

# Added to the name of an output that would lie in the place of its input.
_MARK = "-denoised"


class BatchError(DenoisingError):
    """An input that is not there."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording to denoise: `name` is its path below the input folder."""

    name: str
    source: Path
    target: Path
    n_bytes: int


def jobs(source: Path, target: Path) -> list[Job]:
    """The recordings in a file or below a folder, with the places of their outputs, largest first.

    Outputs mirror the folders and names of the input. Where both are the same folder, outputs get `-denoised` behind
    their name, and such files are no input; an output folder inside the input folder is no input either.

    Raises:
        BatchError: `source` is neither a file nor a folder.
    """
    if source.is_file():
        folder = target.is_dir() or not target.suffix
        place = target / source.name if folder else target
        return [_job(source.name, source, place)]
    if not source.is_dir():
        raise BatchError(f"{source}: no such file or folder.")
    found = [path for path in media_files(source) if not _inside(path, target, source)]
    if target.resolve() == source.resolve():
        found = [path for path in found if not path.stem.endswith(_MARK)]
    made = [_job(path.relative_to(source).as_posix(), path, target / path.relative_to(source)) for path in found]
    return sorted(made, key=lambda job: (-job.n_bytes, job.name))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording: `status` is denoised, kept (it was done already) or failed; `seconds` is its length."""

    name: str
    status: Literal["denoised", "kept", "failed"]
    output: str
    seconds: float
    remarks: list[str]


def report(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as a CSV table with the columns file, status, output, seconds and remarks, in the order of the files."""
    rows = [
        {
            "file": one.name,
            "status": one.status,
            "output": one.output,
            "seconds": round(one.seconds, 3),
            "remarks": "; ".join(one.remarks),
        }
        for one in sorted(outcomes, key=lambda one: one.name)
    ]
    columns = ["file", "status", "output", "seconds", "remarks"]
    return str(pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one recording: its output, what that has behind the name asked for, its SHA-256, length and remarks."""

    output: str
    suffix: str
    content: str
    seconds: float
    remarks: list[str]


class Ledger:
    """Remembers which outputs were made from which input, model and settings, whatever dates and names say.

    With `copies` it keeps the outputs themselves, as links where the file system has them, and can put them back.
    """

    def __init__(self, folder: Path, *, copies: bool) -> None:
        """Opens the ledger in `folder`, which is made on demand."""
        self.folder, self.copies = folder, copies

    def key(self, job: Job, settings: str) -> str:
        """What an output depends on: the bytes of the input, its suffix, and model and settings."""
        return digest(file_digest(job.source), job.source.suffix.lower(), settings)[:40]

    def found(self, key: str, target: Path) -> Record | None:
        """The record of an output that is still in its place beside `target`, or was put back there; None otherwise."""
        try:
            record = Record(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        output = target.with_name(target.name + record.suffix)
        if not output.is_file() and self.copies and (self.folder / key).is_file():
            with written(output) as temporary:
                shutil.copyfile(self.folder / key, temporary)
        if output.is_file() and file_digest(output) == record.content:
            return record
        return None

    def add(self, key: str, job: Job, output: Path, seconds: float, remarks: Sequence[str]) -> Record:
        """Notes an output that has just been written."""
        record = Record(output.name, output.name.removeprefix(job.target.name), file_digest(output), seconds, list(remarks))
        if self.copies:
            with written(self.folder / key) as temporary:
                temporary.unlink()
                _linked(output, temporary)
        write_json(self.folder / f"{key}.json", asdict(record))
        return record


def _linked(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _job(name: str, source: Path, target: Path) -> Job:
    if source.resolve() == target.resolve():
        target = target.with_name(f"{target.stem}{_MARK}{target.suffix}")
    return Job(name, source, target, source.stat().st_size)


def _inside(path: Path, target: Path, source: Path) -> bool:
    inner = target.resolve()
    return inner != source.resolve() and path.resolve().is_relative_to(inner)

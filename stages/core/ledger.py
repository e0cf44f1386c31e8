"""The ledger of outputs: which are made already, from what, and which files are no outputs and not to be replaced."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.batch import Job, Outcome
from stages.core.errors import DenoisingError
from stages.core.files import digest, file_digest, shown, write_json, written


class LedgerError(DenoisingError):
    """A file in the place of an output."""


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one recording: what its output has behind the name asked for, its SHA-256, length and remarks."""

    suffix: str
    content: str
    seconds: float
    remarks: list[str]


class Ledger:
    """Remembers which outputs were made from which input, model and settings, whatever dates and names say.

    With `copies` it keeps the outputs themselves, as links where the file system has them, and can put them back; their
    folder is the pipeline's own then, where any file may be replaced.
    """

    def __init__(self, folder: Path, *, copies: bool) -> None:
        """Opens the ledger in `folder`, which is made on demand."""
        self.folder, self.copies = folder, copies

    def key(self, job: Job, settings: str) -> str:
        """What an output depends on: the bytes of the input, both suffixes, and model and settings."""
        return digest(file_digest(job.source), job.source.suffix.lower(), job.target.suffix.lower(), settings)[:40]

    @contextmanager
    def claimed(self, output: Path, *, overwrite: bool) -> Iterator[None]:
        """Keeps the place of an output while it is written and noted; what a killed process was writing is known by it.

        Raises:
            LedgerError: a file is there that was not made from here, and it is not to be overwritten.
        """
        claim = self.folder / f"{digest(os.fsencode(os.path.realpath(output)))[:40]}.claim"
        if os.path.lexists(output) and not (overwrite or self.copies or claim.exists() or self._is_made(output)):
            raise LedgerError(
                f"{output} is there already, and was not made from here or was changed since: "
                "move it away, name another place, or replace it with --overwrite."
            )
        claim.parent.mkdir(parents=True, exist_ok=True)
        claim.touch()
        try:
            yield
        finally:
            claim.unlink(missing_ok=True)

    def found(self, key: str, job: Job) -> Outcome | None:
        """The outcome of a recording whose output is still in its place, or was put back there; None otherwise."""
        try:
            record = Record(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
            output = job.target.with_name(job.target.name + record.suffix)
        except (OSError, ValueError, TypeError):
            return None
        if record.suffix in job.taken:
            return None
        copy = self.folder / key
        if not output.is_file() and self.copies and copy.is_file() and file_digest(copy) == record.content:
            with written(output) as temporary:
                shutil.copyfile(copy, temporary)
        if output.is_file() and file_digest(output) == record.content:
            return Outcome(job.name, "kept", job.below(output), record.seconds, record.remarks)
        return None

    def add(self, key: str, job: Job, output: Path, seconds: float, remarks: Sequence[str]) -> Outcome:
        """Notes an output that has just been written."""
        said = [shown(remark) for remark in remarks]
        record = Record(output.name.removeprefix(job.target.name), file_digest(output), seconds, said)
        if self.copies:
            with written(self.folder / key) as temporary:
                temporary.unlink()
                _linked(output, temporary)
        write_json(self.folder / f"{key}.json", asdict(record))
        self._mark(record.content).touch()
        return Outcome(job.name, "denoised", job.below(output), seconds, said)

    def _is_made(self, output: Path) -> bool:
        """Whether a file holds what was written from here, under whichever name."""
        return output.is_file() and self._mark(file_digest(output)).exists()

    def _mark(self, content: str) -> Path:
        return self.folder / f"{content[:40]}.made"


def _linked(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

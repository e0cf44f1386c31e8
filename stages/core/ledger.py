"""The ledger of outputs: which are made already, from what, and which files are no outputs and not to be replaced."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

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


@dataclass(frozen=True, slots=True)
class Place:
    """What may be in the place of an output: the SHA-256 of files made from the recording `source`, seen from the ledger."""

    source: str
    contents: list[str]


_RECORD, _PLACE = TypeAdapter(Record), TypeAdapter(Place)


class Ledger:
    """Remembers which outputs were made from which input, model and settings, whatever dates and names say.

    With `copies` it keeps the outputs themselves, as links where the file system has them, and can put them back; their
    folder is the pipeline's own then, where any file may be replaced.
    """

    def __init__(self, folder: Path, *, copies: bool) -> None:
        """Opens the ledger in `folder`, which is made on demand."""
        self.folder, self.copies = folder, copies
        self._admitted = ""  # the SHA-256 of what was put in place last

    def key(self, job: Job, settings: str) -> str:
        """What an output depends on: the bytes of the input, both suffixes, and model and settings."""
        return digest(file_digest(job.source), job.source.suffix.lower(), job.target.suffix.lower(), settings)[:40]

    def check(self, source: Path, output: Path, *, overwrite: bool) -> list[str]:
        """The SHA-256 of the file in the place of an output if that was made from `source`; nothing where none is, or no byte.

        Raises:
            LedgerError: what is there was made from something else, or was changed since, and it is not to be overwritten.
        """
        if self.copies or not os.path.lexists(output):
            return []
        note = self._noted(output)
        content = file_digest(output) if output.is_file() and note.contents else ""
        if output.is_symlink():
            why = "is a link"
        elif output.is_file() and not output.stat().st_size:
            return []
        elif content not in note.contents:
            why = "was not made from here or was changed since"
        elif note.source != self._named(source):
            why = f"was made from {os.path.normpath(self.folder / note.source)}"
        else:
            return [content]
        if overwrite:
            return []
        raise LedgerError(
            f"{output} is there already, and {why}: move it away, name another place, or replace it with --overwrite."
        )

    def admit(self, source: Path, output: Path, made: Path, *, overwrite: bool) -> None:
        """Checks the place of an output once more, and notes that what is in the file `made` is about to be put there.

        An output that is there until then stays in the note: a process may be killed in between.

        Raises:
            LedgerError: as check, or the note cannot be written.
        """
        # First, so that hardly any time is left for a file to come between the look at the place and what is put there.
        self._admitted = file_digest(made)
        before = self.check(source, output, overwrite=overwrite)
        if not self.copies:
            self._note(source, output, [*before, self._admitted])

    def found(self, key: str, job: Job) -> Outcome | None:
        """The outcome of a recording whose output is still in its place, or was put back there; None otherwise."""
        try:
            record = _RECORD.validate_json((self.folder / f"{key}.json").read_bytes())
            output = job.target.with_name(job.target.name + record.suffix)
        except (OSError, ValueError):
            return None
        if record.suffix in job.taken:
            return None
        copy = self.folder / key
        if not output.is_file() and self.copies and copy.is_file() and file_digest(copy) == record.content:
            with written(output) as temporary:
                shutil.copyfile(copy, temporary)
        if output.is_file() and file_digest(output) == record.content:
            if not self.copies and not output.is_symlink():
                # It may have been made from another recording of the same bytes, which is not its own any more.
                self._note(job.source, output, [record.content])
            return Outcome(job.name, "kept", job.below(output), record.seconds, record.remarks)
        return None

    def add(self, key: str, job: Job, output: Path, seconds: float, remarks: Sequence[str]) -> Outcome:
        """Notes an output that has just been admitted and put in place."""
        said = [shown(remark) for remark in remarks]
        with self._blamed():
            record = Record(output.name.removeprefix(job.target.name), self._admitted, seconds, said)
            if self.copies:
                with written(self.folder / key) as temporary:
                    temporary.unlink()
                    _linked(output, temporary)
            write_json(self.folder / f"{key}.json", asdict(record))
        return Outcome(job.name, "denoised", job.below(output), seconds, said)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Says that it is the ledger that cannot be written, and no recording."""
        try:
            yield
        except OSError as error:
            raise LedgerError(f"{self.folder}: what is done cannot be noted here ({error.strerror or error}).") from None

    def _note(self, source: Path, output: Path, contents: list[str]) -> None:
        place = Place(self._named(source), contents)
        if place != self._noted(output):
            with self._blamed():
                write_json(self._place(output), asdict(place))

    def _noted(self, output: Path) -> Place:
        try:
            return _PLACE.validate_json(self._place(output).read_bytes())
        except (OSError, ValueError):
            return Place("", [])

    def _place(self, output: Path) -> Path:
        """The note of a place, by where it is, not by where a link in it leads."""
        return self.folder / f"{digest(self._named(output.parent), os.fsencode(output.name))[:40]}.place"

    def _named(self, path: Path) -> str:
        """Where a file is, seen from the ledger, so that both may be moved together; what is not UTF-8 is escaped."""
        seen = os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder))
        return seen.encode("utf-8", "backslashreplace").decode()


def _linked(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

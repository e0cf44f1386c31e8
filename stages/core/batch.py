"""Many recordings: which output belongs to which input, and what became of each."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from stages.core.errors import DenoisingError
from stages.core.files import shown, visible_files
from stages.core.media import FALLBACKS, SUFFIXES

# Added to the name of an output that would lie in the place of its input.
_MARK = "-denoised"
# The name of the table of all outcomes, in the folder of the outputs.
REPORT = "denoise-report.csv"
_COLUMNS = ["file", "status", "output", "seconds", "remarks"]
# Reading it could wait for ever, or never end.
_NO_FILE = "is no regular file, but a pipe, a device or the like"


class BatchError(DenoisingError):
    """An input that is not there, or an output in its place."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording to denoise: `name` is its path below the input folder.

    `taken` is what may not stand behind the name of its output, because another file has that name. `refusal` says why
    this recording cannot be denoised at all; it is empty where it is to be tried.
    """

    name: str
    source: Path
    target: Path
    n_bytes: int
    taken: tuple[str, ...] = ()
    refusal: str = ""

    def below(self, output: Path) -> str:
        """The path of its output below the output folder, which has the same folders as that of the input."""
        return (Path(self.name).parent / output.name).as_posix()


def jobs(source: Path, target: Path) -> tuple[list[Job], list[str]]:
    """The recordings in a file or below a folder with the places of their outputs, and the names of files that are none.

    Outputs mirror the folders and names of the input. Where both are the same folder, outputs get `-denoised` behind
    their name, and such files are no input; an output folder inside the input folder is no input either, but a link to a
    recording there is. A folder that cannot be read is a recording that is refused. The largest files come first, so that
    none is left to one process at the end.

    Raises:
        BatchError: `source` is neither a file nor a folder, or lies inside the folder `target`.
    """
    if source.is_file():
        folder = target.is_dir() or not (target.suffix or target.name == source.name)
        place = target / source.name if folder else target
        return _settled([_job(source.name, source, place)]), []
    if source.exists() and not source.is_dir():
        raise BatchError(f"{source} {_NO_FILE}; for a pipe use --stream.")
    if not source.is_dir():
        raise BatchError(f"{source}: no such file or folder.")
    inner, outer = Path(os.path.realpath(target)), Path(os.path.realpath(source))
    if target.is_file():
        raise BatchError(f"{target} is a file: name a folder for what becomes of the folder {source}.")
    if outer != inner and outer.is_relative_to(inner):
        raise BatchError(
            f"{source} lies inside {target}, where outputs could take the place of recordings: name another folder."
        )
    # By where a link lies, not by where it leads: what it leads to may be a recording that outputs would replace.
    unread: list[OSError] = []
    files = [path for path in visible_files(source, unread) if inner == outer or not _folder(path).is_relative_to(inner)]
    if inner == outer:
        files = [path for path in files if not _marked(path) and path.name != REPORT]
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    made = [_job(path.relative_to(source).as_posix(), path, target / path.relative_to(source)) for path in found]
    made = _settled([*made, *(_unread(error, source, target) for error in unread)])
    others = sorted(path.relative_to(source).as_posix() for path in set(files) - set(found))
    return sorted(made, key=lambda job: (-job.n_bytes, job.name)), others


def check_report(place: Path, work: Sequence[Job], model: Path) -> None:
    """Raises BatchError when the table of all outcomes cannot be written to `place`, or would replace what no option allows.

    That is a recording, an output, the model, or what is no file.
    """
    own = os.path.realpath(place)
    above = {str(folder) for folder in Path(own).parents}
    if place.is_dir():
        raise BatchError(f"{place}: the report would be written here, but this is a folder: name a file.")
    for job in work:
        outputs = [os.path.realpath(str(job.target) + suffix) for suffix in ("", *FALLBACKS)]
        if own == os.path.realpath(job.source) or own in outputs:
            raise BatchError(f"{place}: the report would replace {job.name} or its output: name another file.")
        if not above.isdisjoint(outputs) or outputs[0].startswith(own + os.sep):
            raise BatchError(f"{place}: the report would be in the way of the output of {job.name}: name another file.")
    if own == os.path.realpath(model):
        raise BatchError(f"{place}: the report would replace the model: name another file.")
    if os.path.lexists(place) and not place.is_file():
        raise BatchError(f"{place}: the report would replace this, which is no file: name another one.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BatchError(f"{place}: something else is in the place of its folder: move it away, or name another.") from None
    if not os.access(place.parent, os.W_OK):
        raise BatchError(f"{place}: the report cannot be written, because its folder is not writable: name another place.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording: `status` is denoised, kept (it was done already) or failed; `seconds` is its length.

    `output` is the path of its output below the output folder, empty where there is none.
    """

    name: str
    status: Literal["denoised", "kept", "failed"]
    output: str
    seconds: float
    remarks: list[str]


def report(outcomes: Sequence[Outcome]) -> str:
    """All outcomes as a CSV table with the columns file, status, output, seconds and remarks, in the order of the files.

    What was done already counts as denoised, so that the table is the same however often a run was broken off.
    """
    rows = [
        {
            "file": shown(one.name),
            "status": "failed" if one.status == "failed" else "denoised",
            "output": shown(one.output),
            "seconds": round(one.seconds, 3),
            "remarks": shown("; ".join(one.remarks)),
        }
        for one in sorted(outcomes, key=lambda one: one.name)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _job(name: str, source: Path, target: Path) -> Job:
    if os.path.realpath(source) == os.path.realpath(target):
        target = target.with_name(f"{target.stem}{_MARK}{target.suffix}")
    try:
        status = source.stat()
    except OSError:
        # A link that leads nowhere is a job that will fail with its name.
        return Job(name, source, target, 0)
    return Job(name, source, target, status.st_size, refusal="" if S_ISREG(status.st_mode) else f"{source} {_NO_FILE}.")


def _marked(path: Path) -> bool:
    """Whether a file is an output beside its input, by its name."""
    inner = Path(path.stem)
    fallback = path.suffix in FALLBACKS and inner.suffix.lower() in SUFFIXES
    return inner.name.endswith(_MARK) or (fallback and inner.stem.endswith(_MARK))


def _unread(error: OSError, source: Path, target: Path) -> Job:
    """A folder that cannot be read, as a recording that is refused, so that the report names it."""
    folder = Path(os.fsdecode(error.filename))
    name = folder.relative_to(source)
    refusal = f"{folder}: {error.strerror}: nothing in this folder was denoised."
    return Job(name.as_posix(), folder, target / name, 0, refusal=refusal)


def _folder(path: Path) -> Path:
    return Path(os.path.realpath(path.parent))


def _settled(made: Sequence[Job]) -> list[Job]:
    """The same recordings, those refused whose outputs would replace another recording or output.

    Each gets what would make the name of its output that of another recording or output.
    """
    sources = {os.path.realpath(job.source): job.name for job in made}
    targets = [os.path.realpath(job.target) for job in made]
    shared = Counter(targets)
    settled = []
    for job, target in zip(made, targets, strict=True):
        refusal = job.refusal
        if refusal:
            pass
        elif target in sources:
            refusal = f"{job.target} is the recording {sources[target]}, which {job.name} would replace: name another folder."
        elif shared[target] > 1:
            refusal = f"{job.target} would be the output of several recordings, {job.name} among them: name another folder."
        taken = tuple(suffix for suffix in FALLBACKS if target + suffix in sources or target + suffix in shared)
        settled.append(replace(job, taken=taken, refusal=refusal))
    return settled

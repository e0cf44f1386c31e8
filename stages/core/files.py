"""Files that appear whole or not at all, and digests of what they hold."""

import csv
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.core.errors import DenoisingError

if sys.platform != "win32":
    import fcntl

# The names of files that are being written, each of which its writer holds locked.
PARTIAL = ".partial-"
_LONGEST_SUFFIX = 16
_PARTIAL_NAME = re.compile(re.escape(PARTIAL) + r"[0-9a-f]{32}(\.[^.]*)?")


class WriteError(DenoisingError):
    """A file that could not be written whole."""


@contextmanager
def written(path: Path, admit: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves it there once the block has ended well.

    The temporary name starts with a dot and keeps the suffix of `path`, so that writers that go by the suffix work. The folder
    is made. When the block raises, or `admit`, which is given the temporary path last of all, `path` is left as it was and the
    temporary file removed; what a process that is killed leaves, `clear_partial` removes.

    Raises:
        WriteError: `path` is a folder or a device, a file is in the place of its folder, nothing may be written there, or the
            disk is full.
    """
    if path.is_dir():
        raise WriteError(f"{path} is a folder, where a file is to be written: remove it, or name another place.")
    if path.exists() and not path.is_file():
        raise WriteError(f"{path} is a pipe, a device or the like, where a file is to be written: name another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise WriteError(f"{path}: a file is in the place of its folder: move that away, or name another place.") from None
    # What is longer is no suffix that a writer goes by, and might make the name too long.
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    temporary = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}{suffix}")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError as error:
        raise WriteError(f"{path} cannot be written ({error.strerror}): name another place.") from None
    try:
        _locked(handle)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        if admit:
            admit(temporary)
        os.replace(temporary, path)
    except RuntimeError as error:
        # What libsndfile and PyTorch raise when a disk is full, among other things.
        free = shutil.disk_usage(path.parent).free / 1e6
        reason = " ".join(str(error).split())
        raise WriteError(f"{path}: cannot be written whole ({reason}); its disk has {free:.0f} MB free.") from None
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def clear_partial(folder: Path, *, below: bool = True) -> None:
    """Removes what processes that were killed left half written in `folder`, and in the folders below it if `below`.

    What is still being written stays, whichever process does it, and so does what may not be removed.
    """
    for path in (folder.rglob if below else folder.glob)(f"{PARTIAL}*"):
        if _PARTIAL_NAME.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                handle = os.open(path, os.O_RDWR)
                try:
                    if _locked(handle):
                        path.unlink()
                finally:
                    os.close(handle)


def _locked(handle: int) -> bool:
    """Locks an open file until it is closed or its process ends; whether that could be done."""
    if sys.platform == "win32":  # it has no such locks: what killed processes leave stays there
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_text(path: Path, text: str, admit: Callable[[Path], None] | None = None) -> None:
    """Writes `text` to `path` atomically, in UTF-8 and with LF line ends on every system; `admit` as for `written`."""
    with written(path, admit) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` atomically as indented JSON; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes `rows`, which all have the same keys, atomically to the CSV file `path`, one after the other as they come."""
    with written(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)


def shown(text: object) -> str:
    """Text for people: bytes of a file's name that are no UTF-8, which no terminal could print, as escapes."""
    return str(text).encode(errors="surrogateescape").decode(errors="backslashreplace")


def visible_files(folder: Path, unread: list[OSError] | None = None) -> list[Path]:
    """All files below `folder` that are not hidden, nor in a hidden folder, sorted; none if it is not there.

    Links are followed, to folders that were not found without them, once; one that leads nowhere is listed, so that whoever
    reads it says so.

    Raises:
        OSError: a folder cannot be read. With `unread` it is left out, and its error, which names it, is put there.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        if unread is not None:
            unread.append(error)
        elif not isinstance(error, FileNotFoundError):
            raise error

    # What links lead to comes last, so that a file has the name of the folder that it is in rather than that of a link.
    waiting = [folder]
    while waiting:
        links = []
        for parent, folders, names in os.walk(waiting.pop(0), onerror=note):
            place = os.stat(parent)
            if (place.st_dev, place.st_ino) in entered:
                folders.clear()
                continue
            entered.add((place.st_dev, place.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [path for path in (Path(parent, name) for name in folders) if path.is_symlink()]
            paths = (Path(parent, name) for name in names if not name.startswith("."))
            found += [path for path in paths if _listed(path)]
        waiting += links
    return sorted(found)


def _listed(path: Path) -> bool:
    try:
        return path.is_file() or path.is_symlink()
    except PermissionError:  # of a folder whose names can be read, but nothing else
        return True


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`: what an earlier, broken run left there is removed."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def link(path: Path, target: Path) -> None:
    """Puts the file `path` at `target` as well: as another name of the same bytes where the disk allows, else as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:  # another disk, or one without links
        try:
            with written(target) as temporary:
                shutil.copyfile(path, temporary)
        except OSError as error:
            # It would name the file that is read.
            raise OSError(error.errno, error.strerror, str(target)) from None


def digest(*parts: bytes | str) -> str:
    """The SHA-256 (64 hexadecimal digits) of `parts`, each taken with its length so that their borders count.

    Bytes of a file's name that are no UTF-8 count as they are.
    """
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 (64 hexadecimal digits) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest() -> str:
    """The SHA-256 of the source of every module of this package that is loaded in this process.

    It is part of the key under which state outlives a run, so that state made by other code is never taken up.
    """
    package = __name__.split(".")[0]
    names = {name for name in sys.modules if name.split(".")[0] == package}
    # A stage runs as __main__, so its own file has no other name among the modules.
    sources = {str(getattr(sys.modules[name], "__file__", "")) for name in (*names, "__main__")}
    home = Path(__file__).resolve().parent.parent
    sources = {source for source in sources if Path(source).resolve().is_relative_to(home)}
    return digest(*(Path(source).read_bytes() for source in sorted(sources) if source.endswith(".py")))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Whether an archive is the one that was published, or at least whole."""

import gzip
import hashlib
import zipfile
from pathlib import Path

from stages.core.corpora.members import BROKEN, is_broken

_BLOCK = 1 << 20
_START = 256  # bytes in which a web page shows itself


def fault(path: Path, name: str, checksum: str | None) -> str | None:
    """What is wrong with a local file that is to be the archive `name`, as "expected ..., found ...", or None.

    It must have the `checksum`; without one, the CRC of every member of a zip and of a gzip file must agree.
    """
    found = f"{checksum.partition(':')[0]}:{_digest(path, checksum)}" if checksum else None
    if found != checksum:
        page = ", of a web page" if _is_page(path) else ""
        return f"expected {checksum}, found {found}{page}"
    return None if checksum else _broken(path, Path(name).suffix)


def _digest(path: Path, checksum: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, checksum.partition(":")[0]).hexdigest()


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_START).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _broken(path: Path, suffix: str) -> str | None:
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                bad = file.testzip()
            return f"expected {bad} whole, found a wrong CRC" if bad else None
        if suffix in {".gz", ".tgz"}:
            with gzip.open(path) as file:
                while file.read(_BLOCK):
                    pass
    except (*BROKEN, OSError) as error:
        if not is_broken(error):
            raise
        page = "a web page" if _is_page(path) else f"a broken one ({error})"
        return f"expected a whole {suffix.removeprefix('.')} file, found {page}"
    return None

"""Where archives are kept, under their checksum, and whether what is kept is still sound."""

import os
import sys
from pathlib import Path

from stages.core.corpora.entries import Archive
from stages.core.corpora.partial import Partial, Stretch
from stages.core.corpora.remote_zip import ZipError, pick
from stages.core.corpora.soundness import fault
from stages.core.files import digest, file_digest, write_json, written

_KEY_DIGITS = 12


def key(archive: Archive) -> str:
    """The name of the folder of an archive: its digest, and that of the pattern where only members are wanted.

    An archive without a published checksum goes by its name and first address.
    """
    if archive.checksum:
        name = archive.checksum.partition(":")[2]
    else:
        name = f"unpublished-{digest(archive.name, archive.addresses[0])[:_KEY_DIGITS]}"
    return f"{name}-{digest(archive.members)[:_KEY_DIGITS]}" if archive.members else name


def place(archive: Archive, folder: Path) -> Path:
    """The file in which an archive, or the zip of its wanted members, is kept."""
    return folder / key(archive) / archive.name


def part(archive: Archive, folder: Path) -> Path:
    """The file into which it is fetched."""
    kept_at = place(archive, folder)
    return kept_at.with_name(f"{kept_at.name}.part")


def is_kept(archive: Archive, folder: Path) -> bool:
    """Whether the archive is in its place and sound; one that is not is removed, which is said on stderr."""
    path = place(archive, folder)
    if not path.is_file():
        return False
    wrong = _changed(path, archive)
    if wrong is not None:
        print(f"{path}: {wrong}; it is fetched again.", file=sys.stderr)
        path.unlink()
        _record(path).unlink(missing_ok=True)
    return wrong is None


def keep(archive: Archive, folder: Path, partial: Partial) -> str | None:
    """Puts a partial file that is whole in its place; returns what is wrong with it instead, if anything is."""
    path = place(archive, folder)
    wrong = fault(partial.path, archive.name, archive.checksum)
    if wrong is None:
        os.replace(partial.path, path)
        if archive.checksum is None:
            _write_record(path)
        partial.drop()
    return wrong


def keep_members(archive: Archive, folder: Path, source: Path, stretches: tuple[Stretch, ...] = ()) -> str | None:
    """Puts the wanted members of the zip in `source`, or in these stretches of it, in their place, as keep does."""
    path = place(archive, folder)
    try:
        with written(path) as temporary:
            pick(source, stretches, archive.members or "", temporary)
    except ZipError as error:
        return str(error)
    _write_record(path)
    return None


def sweep(archive: Archive, folder: Path) -> None:
    """Makes the folder of an archive and removes the temporary files that killed runs left there."""
    home = place(archive, folder).parent
    home.mkdir(parents=True, exist_ok=True)
    for path in home.glob(".partial-*"):
        path.unlink()


def _changed(path: Path, archive: Archive) -> str | None:
    if archive.checksum and not archive.members:
        return fault(path, archive.name, archive.checksum)
    try:
        found, recorded = f"sha256:{file_digest(path)}", _record(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        # Killed between the file and its record.
        wrong = fault(path, archive.name, None)
        if wrong is None:
            _write_record(path)
        return wrong
    return None if f'"{found}"' in recorded else f"expected the checksum in {_record(path).name}, found {found}"


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock.json")


def _write_record(path: Path) -> None:
    """Notes the checksum of a file for which none is published, so that a later change of it shows."""
    write_json(_record(path), {"checksum": f"sha256:{file_digest(path)}", "bytes": path.stat().st_size})

"""Archives turned into bundles: audio kept as it came, in few large files, each recording read through once.

What an archive was turned into lies in a folder named after its checksum and this code. The folder appears whole or not
at all, so a killed unpacking leaves nothing that counts, and archives that were unpacked before are not touched.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from stages.core import audio, bundles
from stages.core.corpora import members
from stages.core.corpora.entries import Archive
from stages.core.corpora.members import UnpackingError
from stages.core.files import digest, file_digest, fresh_folder, link, write_text
from stages.core.runtime import parallel

_INDEX, _SKIPPED, _COMPLETE = "index.csv", "skipped.txt", "complete"
# A recording below this level holds nothing but the rounding noise of 16-bit silence (-96 dBFS and 6 dB of margin).
_SILENCE_DBFS = -90.0
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A member of an archive and where it lies; one that is no audio has 0 samples. `content` is its SHA-256."""

    member: str
    bundle: str
    offset: int
    size: int
    n_samples: int
    sample_rate: int
    content: str


def folder_of(archive: Archive, pattern: str, cache_dir: Path) -> Path:
    """Where an archive is unpacked to: as long as checksum, wanted members and code stay the same, so does this."""
    sources = (str(module.__file__) for module in (audio, bundles, members))
    code = [Path(source).read_bytes() for source in (*sources, __file__)]
    identity = (archive.name, archive.checksum or repr(archive.addresses), archive.members or "", pattern)
    return cache_dir / digest(*identity, *code)[:32]


def is_unpacked(folder: Path) -> bool:
    """Whether a folder holds an archive whole: its files are all there, with the bytes that were written."""
    complete = folder / _COMPLETE
    if not complete.is_file():
        return False
    lines = [line.split("  ", 1) for line in complete.read_text(encoding="utf-8").splitlines()]
    return all((folder / name).is_file() and file_digest(folder / name) == content for content, name in lines)


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool], n_jobs: int) -> None:
    """Unpacks the wanted members of an archive into bundles in `folder`, which appears whole or not at all.

    Members that are strange, and audio that is broken or silent, are left out by name.

    Raises:
        UnpackingError: the archive is broken or dangerous, holds nothing that is wanted, or the disk is too small.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_space(archive, folder.parent)
    temporary = fresh_folder(folder.with_name(f".partial-{folder.name}"))
    found, faults = _bundled(archive, temporary, wanted)
    checked = parallel(partial(_checked, temporary), _batches(found), n_jobs=n_jobs, description=f"reading {archive.name}")
    rows = [row for batch in checked for row in batch if isinstance(row, Unpacked)]
    faults += [row for batch in checked for row in batch if isinstance(row, str)]
    if not any(row.n_samples for row in rows):
        raise UnpackingError(f"{archive}: no audio of this corpus is in it.{_listed(faults)}")
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Unpacked)])
    write_text(temporary / _INDEX, table.to_csv(index=False, lineterminator="\n"))
    left_out = f"{archive.name}: {len(faults)} members are left out:{_listed(faults)}\n" if faults else ""
    write_text(temporary / _SKIPPED, left_out)
    names = sorted(path.name for path in temporary.iterdir())
    write_text(temporary / _COMPLETE, "".join(f"{file_digest(temporary / name)}  {name}\n" for name in names))
    # A folder that is there was found broken.
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def unpacked(folder: Path) -> tuple[list[Unpacked], str]:
    """The members in a folder that is unpacked, in the order of the archive, and what was left out, for people."""
    text = {"member": str, "bundle": str, "content": str}
    table = pd.read_csv(folder / _INDEX, dtype=text, keep_default_na=False)
    rows = [Unpacked(**{str(key): value for key, value in row.items()}) for row in table.to_dict(orient="records")]
    return rows, (folder / _SKIPPED).read_text(encoding="utf-8")


def link_bundles(folder: Path, target: Path) -> None:
    """Puts the bundles of an unpacked archive into the folder `target` as well."""
    for path in sorted(folder.glob("*.tar")):
        link(path, target / path.name)


def _bundled(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> tuple[list[Unpacked], list[str]]:
    """Copies the members into bundles, lengths not known yet; and what is strange in the archive."""
    found, faults = [], []
    with bundles.BundleWriter(folder, archive.name.split(".")[0]) as writer:
        for member in members.members(archive, wanted):
            if member.fault:
                faults.append(f"{member.name} {member.fault}")
                continue
            bundle, offset = writer.add(member.name, member.data)
            content = hashlib.sha256(member.data).hexdigest()
            found.append(Unpacked(member.name, bundle, offset, len(member.data), 0, 0, content))
    return found, faults


def _batches(rows: list[Unpacked], size: int = 256) -> list[list[Unpacked]]:
    return [rows[place : place + size] for place in range(0, len(rows), size)]


def _checked(folder: Path, rows: list[Unpacked]) -> list[Unpacked | str]:
    return [_measured(folder, row) if PurePosixPath(row.member).suffix in audio.SUFFIXES else row for row in rows]


def _measured(folder: Path, row: Unpacked) -> Unpacked | str:
    """The member with its length, once it has been read to its end; or what is wrong with it."""
    data = bundles.clip_bytes(folder / row.bundle, (row.offset, row.size))
    try:
        waveform, sample_rate = bundles.decoded(io.BytesIO(data), row.member)
    except audio.AudioError as error:
        return str(error)
    if len(waveform) == 0:
        return f"{row.member}: holds no samples."
    if audio.level_dbfs(np.ascontiguousarray(waveform[:, 0])) < _SILENCE_DBFS:
        return f"{row.member}: silent (its first channel is below {_SILENCE_DBFS:g} dBFS)."
    return Unpacked(**asdict(row) | {"n_samples": len(waveform), "sample_rate": sample_rate})


def _check_space(archive: Path, folder: Path) -> None:
    needed, free = archive.stat().st_size, shutil.disk_usage(folder).free
    if needed > free:
        raise UnpackingError(
            f"{folder.absolute()}: unpacking {archive.name} needs {needed / 1e9:.1f} GB or more, "
            f"{free / 1e9:.1f} GB are free; make room there."
        )


def _listed(faults: list[str]) -> str:
    more = [f"… and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return "".join(f"\n  {fault}" for fault in [*faults[:_SHOWN], *more])

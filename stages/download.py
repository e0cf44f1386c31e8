"""Obtains the corpora of one role, speech or noise, and writes their manifest.

Reads: the folder download.ROLE.folder.path and its table of splits, where the corpus `folder` is used; the network, or the
archives that DENOISE_ARCHIVES names, where a published corpus is.
Writes: data/corpora/ROLE/ with manifest.csv and the audio that is made or fetched here.
Params: corpora.ROLE, download.ROLE.

A corpus that was made before with the same settings and code, or fetched and unpacked before, is taken from .cache, so that
another one beside it costs nothing. With --list it prints the corpora that are published, with --archives the files of some
of them, and does nothing else.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from stages.core.audio import SUFFIXES
from stages.core.corpora import espeak, folder, generated
from stages.core.corpora.catalogue import PUBLISHED
from stages.core.corpora.layouts import Choices
from stages.core.corpora.listing import archives_table, corpora_table
from stages.core.corpora.names import found_name
from stages.core.corpora.published import obtain, summary
from stages.core.files import code_digest, digest, file_digest, fresh_folder, link, write_text
from stages.core.manifest import SPLITS, Recording, read_manifest, write_manifest
from stages.core.parameter_file import read_parameters
from stages.core.parameters import NoiseCorpora, SpeechCorpora
from stages.core.runtime import run_command, run_stage, say

Role = Literal["speech", "noise"]
CORPORA_DIR = Path("data/corpora")
CACHE_DIR = Path(".cache")
MANIFEST = "manifest.csv"
# In the cache only, written last: the digest of the manifest.
COMPLETE = "complete"


def run(
    role: Role,
    names: Sequence[str],
    settings: SpeechCorpora | NoiseCorpora,
    corpora_dir: Path,
    cache_dir: Path,
    n_jobs: int,
) -> None:
    """Obtains the corpora `names` of a role into `corpora_dir`/`role` and writes the manifest of them all."""
    target = fresh_folder(corpora_dir / role)
    recordings: list[Recording] = []
    for name in names:
        if name == "folder":
            found = folder.recordings(settings.folder, role, n_jobs)
        elif name in ("espeak", "generated"):
            found = _made(name, settings, target, cache_dir / "corpora", n_jobs)
        else:
            side = "clean" if role == "speech" and PUBLISHED[name].role == "pairs" else ""
            found = obtain(name, _choices(settings), target / name, cache_dir, n_jobs, side)
        print(_summary(name, role, found))
        recordings += found
    write_manifest(target / MANIFEST, recordings)
    empty = sorted(set(SPLITS) - {recording.split for recording in recordings})
    if empty:
        print(
            f"No {role} is for {' and '.join(empty)}, which mixing needs: change seed, valid_share or test_share of a corpus, "
            "or add one."
        )


def _made(name: str, settings: SpeechCorpora | NoiseCorpora, target: Path, cache_dir: Path, n_jobs: int) -> list[Recording]:
    """A corpus that is made here: taken from the cache, or made there first, and copied to `target`."""
    if isinstance(settings, SpeechCorpora):
        key = settings.espeak.model_dump_json()
        obtain = partial(espeak.obtain, settings=settings.espeak, n_jobs=n_jobs)
    else:
        key = settings.generated.model_dump_json()
        obtain = partial(generated.obtain, settings=settings.generated, n_jobs=n_jobs)
    cached = cache_dir / digest(name, key, code_digest())[:32]
    if not _sound(cached):
        fresh_folder(cached)
        fresh_folder(cached / name)
        write_manifest(cached / MANIFEST, obtain(cached / name))
        write_text(cached / COMPLETE, file_digest(cached / MANIFEST))
    for path in sorted((cached / name).iterdir()):
        link(path, target / name / path.name)
    rows = read_manifest(cached / MANIFEST)
    return [_moved(row, cached) for row in rows]


def _choices(settings: SpeechCorpora | NoiseCorpora) -> Choices:
    published = settings.published
    leave_out = () if isinstance(settings, SpeechCorpora) else tuple(settings.published.leave_out)
    return Choices(published.seed, published.valid_share, published.test_share, leave_out)


def _sound(cached: Path) -> bool:
    """Whether a corpus in the cache is whole: its manifest is the one that was written, and so is every file in it."""
    manifest, complete = cached / MANIFEST, cached / COMPLETE
    if not manifest.is_file() or not complete.is_file() or complete.read_text(encoding="utf-8") != file_digest(manifest):
        return False
    contents = {Path(row.path): row.content for row in read_manifest(manifest)}
    return all(path.is_file() and file_digest(path) == content for path, content in contents.items())


def _moved(recording: Recording, cached: Path) -> Recording:
    """The recording with its path relative to where the corpus was copied to."""
    values = {name: getattr(recording, name) for name in Recording.__slots__}
    return Recording(**values | {"path": Path(recording.path).relative_to(cached).as_posix()})


def _summary(name: str, role: Role, recordings: Sequence[Recording]) -> str:
    hours = sum(recording.n_samples / recording.sample_rate for recording in recordings) / 3600
    licences = {"espeak": espeak.LICENCE, "generated": generated.LICENCE, "folder": folder.LICENCE}
    licence = licences[name] if name in licences else summary(name)
    groups = len({recording.group for recording in recordings})
    who = "speakers" if role == "speech" else "sources"
    splits = Counter(recording.split for recording in recordings)
    counts = ", ".join(f"{splits[split]} for {split}" for split in SPLITS)
    lines = [f"{name}: {len(recordings)} recordings of {groups} {who}, {hours:.2f} hours: {counts}", f"  {licence}"]
    alone = sum(Path(recording.group).suffix.lower() in SUFFIXES for recording in recordings)
    if role == "speech" and name == "folder" and alone > 1:
        lines.append(
            f"  {alone} recordings count as speakers of their own, so one person may be heard in training and in the test: "
            "put the recordings of each speaker into a folder, or set download.speech.folder.group."
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("role", choices=["speech", "noise"], nargs="?")
    what.add_argument("--list", action="store_true", help="print the published corpora with size and licence")
    archives_help = "print the files that published corpora need, with their addresses and checksums"
    what.add_argument("--archives", nargs="+", action="extend", metavar="NAME", type=_published, help=archives_help)
    return parser.parse_args()


def _published(name: str) -> str:
    if name not in PUBLISHED:
        raise argparse.ArgumentTypeError(f"expected corpora that --list shows, {found_name(name, list(PUBLISHED))}")
    return name


def main() -> None:
    """Runs the stage for the role that is named on the command line, or prints a table."""
    arguments = _arguments()
    if arguments.role is None:
        say(corpora_table() if arguments.list else archives_table(arguments.archives))
        return
    role: Role = arguments.role
    parameters = read_parameters(Path("params.yaml"))
    names = parameters.corpora.speech if role == "speech" else parameters.corpora.noise
    settings = parameters.download.speech if role == "speech" else parameters.download.noise
    run(role, names, settings, CORPORA_DIR, CACHE_DIR, parameters.runtime.n_jobs)


if __name__ == "__main__":
    if _arguments().role is None:
        run_command("download", main)
    else:
        run_stage("download", main)

"""Archives from the network, whole and checked, however the network behaves.

requests asks, tenacity waits, tqdm shows and filelock keeps others out. What they lack is in the modules beside: going on
from what came before, mirrors in turn, members of a remote zip. Pooch was looked at: it starts again after each break.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from stages.core.corpora.addresses import Patience, Web
from stages.core.corpora.archive_files import is_kept, keep_members, place, sweep
from stages.core.corpora.entries import Archive, size_text
from stages.core.corpora.errand import ENVIRONMENT, Errand, FetchError
from stages.core.corpora.soundness import fault
from stages.core.corpora.transfer import Show
from stages.core.errors import DenoisingError

N_AT_ONCE = 4


class DiskSpaceError(DenoisingError):
    """A disk without room for what is to be fetched."""


def fetched(
    archives: Sequence[Archive], folder: Path, *, patience: Patience | None = None, n_at_once: int = N_AT_ONCE
) -> list[Path]:
    """Local paths of `archives`, in their order: complete, checked files kept below `folder` under their checksum.

    An archive is at `folder`/DIGEST/NAME; one of which only members are asked for is a zip of these members at
    `folder`/DIGEST-PATTERN/NAME. What is there already is checked, not fetched again. The environment variable
    DENOISE_ARCHIVES names a folder or an http address that is to have the archives; then nothing else is asked, and whole
    archives in such a folder are used where they lie.

    Raises:
        FetchError: archives cannot be had from any of their addresses; what is good of them is kept for the next run.
        DiskSpaceError: `folder` has no room for what is missing; found out before anything is fetched.
    """
    site = os.environ.get(ENVIRONMENT, "")
    if site and not site.startswith(("http://", "https://")):
        return _supplied(archives, Path(os.path.expanduser(site)), folder)
    missing = [archive for archive in dict.fromkeys(archives) if not is_kept(archive, folder)]
    with ExitStack() as stack:
        stop = threading.Event()
        webs = [stack.enter_context(Web(patience or Patience(), stop)) for _ in missing]
        errands = [
            Errand(archive, (f"{site.rstrip('/')}/{quote(archive.name)}",) if site else archive.addresses, folder, web)
            for archive, web in zip(missing, webs, strict=True)
        ]
        _run_all([errand.plan for errand in errands], webs, n_at_once)
        _check_space(errands, folder)
        _run_all([_shown(errand) for errand in errands], webs, n_at_once)
    return [place(archive, folder) for archive in archives]


def _run_all(works: Sequence[Callable[[], None]], webs: Sequence[Web], n_at_once: int) -> None:
    """Runs all, some at once; after a failure none is begun any more, but what runs comes to its end."""
    errors = []
    # Not cancelled futures: as_completed waits without end for those that are cancelled before they began.
    enough = threading.Event()

    def run(work: Callable[[], None]) -> None:
        if enough.is_set():
            return
        try:
            work()
        except FetchError as error:
            enough.set()
            errors.append(str(error))

    with ThreadPoolExecutor(n_at_once) as pool, ExitStack() as stack:
        stack.callback(_call_off, webs)
        stack.callback(enough.set)
        for future in as_completed([pool.submit(run, work) for work in works]):
            future.result()
        stack.pop_all()
    if errors:
        raise FetchError("\n".join(sorted(errors)))


def _call_off(webs: Sequence[Web]) -> None:
    """Ends all that runs: after Ctrl-C nobody waits for a server."""
    for web in webs:
        web.stop.set()
        web.hang_up()


def _check_space(errands: Sequence[Errand], folder: Path) -> None:
    needed = sum(errand.n_missing() for errand in errands)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        names = ", ".join(errand.archive.name for errand in errands)
        raise DiskSpaceError(
            f"{folder}: expected {size_text(needed)} of free space for {names}, found {size_text(free)}. Make room, or make "
            "the folder a link to one on a larger disk."
        )


def _shown(errand: Errand) -> Callable[[], None]:
    """The errand with a line of its own that shows how far it is, how fast and for how long yet; and one at its end."""
    from tqdm import tqdm

    def run() -> None:
        with _line(errand.archive.name) as show:
            errand.run(show)
        size = place(errand.archive, errand.folder).stat().st_size
        with tqdm.external_write_mode(file=sys.stdout):
            print(f"{errand.archive.name}: fetched and checked, {size_text(size)}", flush=True)

    return run


@contextmanager
def _line(name: str) -> Iterator[Show]:
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        # What an earlier run brought tells nothing of the speed of this one.
        begun = False

        def show(n_bytes: int, total: int | None) -> None:
            nonlocal begun
            if not begun or n_bytes < bar.n:
                bar.initial = bar.n = n_bytes
                begun = True
            bar.total = total
            bar.update(n_bytes - bar.n)

        yield show


def _supplied(archives: Sequence[Archive], site: Path, folder: Path) -> list[Path]:
    """The archives from a folder that is to have them all, as they are named or as they are kept here."""
    if not site.is_dir():
        raise FetchError(
            f"{ENVIRONMENT}: expected a folder that is there, or an address that starts with http, found '{site}'."
        )
    paths: dict[Archive, Path] = {}
    lacking, wrong = [], []
    for archive in dict.fromkeys(archives):
        candidates = _candidates(archive, site)
        if not candidates:
            lacking.append(f"  {archive.name} from {archive.addresses[0]}")
            continue
        try:
            paths[archive] = _checked(archive, candidates[0], site, folder)
        except FetchError as error:
            wrong.append(str(error))
    if wrong:
        wrong.append("Recordings of your own, or repacked ones, are for the corpus 'folder'.")
    if lacking:
        share = f"{len(lacking)} of {len(set(archives))} archives are not there"
        hint = "Fetch them where there is a network, and put them there under these names:"
        lacking.insert(0, f"{site} ({ENVIRONMENT}): {share}. {hint}")
    if wrong or lacking:
        raise FetchError("\n".join(wrong + lacking))
    return [paths[archive] for archive in archives]


def _candidates(archive: Archive, site: Path) -> list[Path]:
    return [path for path in (place(archive, site), site / archive.name) if path.is_file()]


def _checked(archive: Archive, path: Path, site: Path, folder: Path) -> Path:
    only_members = bool(archive.members) and path == place(archive, site)
    wrong = fault(path, archive.name, None if only_members else archive.checksum)
    if wrong is None and archive.members and not only_members:
        if not is_kept(archive, folder):
            sweep(archive, folder)
            wrong = keep_members(archive, folder, path)
        path = path if wrong else place(archive, folder)
    if wrong is not None:
        raise FetchError(f"{path} ({ENVIRONMENT}): {wrong}. Put there what {archive.addresses[0]} gives.")
    return path

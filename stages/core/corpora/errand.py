"""One archive fetched: planned, then brought, alone, and told with all reasons where it cannot be."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial as bound
from pathlib import Path

import filelock

from stages.core.corpora.addresses import AddressError, RangesIgnoredError, StoppedError, Web
from stages.core.corpora.archive_files import is_kept, keep, keep_members, key, part, place, sweep
from stages.core.corpora.entries import Archive
from stages.core.corpora.partial import Partial
from stages.core.corpora.remote_zip import ZipError, wanted
from stages.core.corpora.transfer import Show, StaleError, Transfer, Wish
from stages.core.corpora.turns import AddressesError, Turns
from stages.core.errors import DenoisingError

ENVIRONMENT = "DENOISE_ARCHIVES"
_POLL_S = 0.2


class FetchError(DenoisingError):
    """An archive that cannot be had."""


class Errand:
    """The fetching of one archive from `addresses` into `folder`."""

    def __init__(self, archive: Archive, addresses: Sequence[str], folder: Path, web: Web) -> None:
        self.archive = archive
        self.addresses = tuple(addresses)
        self.folder = folder
        self.web = web
        self.wish = Wish(archive.size)
        self.told: int | None = None

    def plan(self) -> None:
        """Finds out what has to be fetched, and how much that is.

        Raises:
            FetchError: only members are wanted, and no address tells where in the zip they are.
        """
        if self.archive.members is None:
            # What an address tells is for the plan alone: it may be the size of an error page, and the checksum decides.
            self.told = None if self.archive.size else self._told_size()
            return
        if is_kept(self._whole(), self.folder):
            return
        turns = self._turns()
        try:
            self.wish = turns.result(self._looked_up)
        except AddressesError as error:
            # Where a mirror ignores ranges, the zip can still be had whole.
            if not turns.ranges_ignored:
                raise self._told(error) from None

    def n_missing(self) -> int:
        """Bytes that will be written, as far as that is known."""
        here = part(self.archive, self.folder)
        have = here.stat().st_size if here.exists() else 0
        return max(0, (self.wish.length or self.told or 0) - have) + self.wish.unpacked

    def run(self, show: Show) -> None:
        """Brings the archive to its place.

        Raises:
            FetchError: no address gives it; what is good of it is kept for the next run.
        """
        lock = self.folder / "locks" / f"{key(self.archive)}.lock"
        with held(lock, f"{self.archive.name}: another process fetches it", self.web.stop):
            if is_kept(self.archive, self.folder):
                return
            sweep(self.archive, self.folder)
            if self.archive.members and not self.wish.stretches:
                self._run_by_whole(show)
            else:
                self._transfer(show)

    def _transfer(self, show: Show) -> None:
        for _ in range(self.web.patience.tries):
            partial = Partial(part(self.archive, self.folder))
            transfer = Transfer(self.web, partial, self.wish, bound(self._keep, partial), show)
            show(partial.size, self.wish.length or self.told)
            try:
                self._turns().result(transfer.ask)
            except AddressesError as error:
                raise self._told(error) from None
            except StaleError:
                self.plan()
            else:
                return
        raise FetchError(f"{self.archive.name} cannot be fetched: expected one file, found it changed again and again.")

    def _run_by_whole(self, show: Show) -> None:
        whole = Errand(self._whole(), self.addresses, self.folder, self.web)
        whole.run(show)
        source = place(whole.archive, self.folder)
        wrong = keep_members(self.archive, self.folder, source)
        if wrong is not None:
            raise FetchError(f"{source}: {wrong}.")

    def _keep(self, partial: Partial) -> str | None:
        if self.archive.members is None:
            return keep(self.archive, self.folder, partial)
        wrong = keep_members(self.archive, self.folder, partial.path, self.wish.stretches)
        if wrong is None:
            partial.drop()
        return wrong

    def _whole(self) -> Archive:
        return replace(self.archive, members=None)

    def _turns(self) -> Turns:
        return Turns(self.archive.name, self.addresses, self.web.patience, self.web.stop)

    def _told_size(self) -> int | None:
        """The size that an address tells, for what is planned by it; nothing is lost where none does."""
        for address in self.addresses:
            try:
                with self.web.answer(address, method="HEAD") as answer:
                    if answer.total and answer.kind != "text/html":
                        return answer.total
            except AddressError:
                continue
        return None

    def _looked_up(self, address: str) -> Wish:
        with self.web.answer(address, "0-0") as answer:
            if not answer.partial or answer.total is None:
                raise RangesIgnoredError
            size = answer.total
        if self.archive.size not in {None, size}:
            raise AddressError(f"expected {self.archive.size} bytes, found {size}", passing=False)
        try:
            stretches, unpacked = wanted(size, bound(self._read, address, size), self.archive.members or "")
        except ZipError as error:
            raise AddressError(str(error), passing=False) from None
        return Wish(size, stretches, unpacked)

    def _read(self, address: str, size: int, first: int, end: int) -> bytes:
        with self.web.answer(address, f"{first}-{end - 1}") as answer:
            if not answer.partial:
                raise RangesIgnoredError
            block = b"".join(answer.blocks())
            if len(block) != end - first or answer.total not in {size, None}:
                raise AddressError(
                    f"expected {end - first} bytes of {size}, found {len(block)} of {answer.total}", passing=True
                )
            return block

    def _told(self, error: AddressesError) -> FetchError:
        found = [f"{address}: {error.reasons[address]}" for address in self.addresses if address in error.reasons]
        reasons = f" {found[0]}. " if len(found) == 1 else "".join(f"\n  {reason}." for reason in found) + "\n"
        return FetchError(
            f"{self.archive.name} cannot be fetched:{reasons}Run again later, which goes on from what has come, or put the "
            f"file into a folder and set {ENVIRONMENT} to that folder."
        )


@contextmanager
def held(path: Path, busy: str, stop: threading.Event | None = None) -> Iterator[None]:
    """Holds the lock at `path`, which the system drops with the process; waits for another that holds it, and says `busy`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    said = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_POLL_S)
        except filelock.Timeout:
            if stop is not None and stop.is_set():
                raise StoppedError from None
            if not said:
                print(f"{busy}; waiting for that.", flush=True)
            said = True
    try:
        yield
    finally:
        lock.release()

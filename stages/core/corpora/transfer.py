"""One file brought from its addresses into a partial file, stretch by stretch, until it is whole and the right one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from stages.core.corpora.addresses import AddressError, Answer, BeyondEndError, RangesIgnoredError, Web
from stages.core.corpora.partial import Origin, Partial, Stretch

# Checks a whole partial file and puts it in its place: None when all is well, else "expected ..., found ...".
Keep = Callable[[], str | None]
# Shows how many bytes are there, of how many.
Show = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a remote file: its whole, or stretches of it; `size` is that of the whole."""

    size: int | None
    stretches: tuple[Stretch, ...] = ()
    unpacked: int = 0  # bytes that are written beside it, once it is there

    @property
    def length(self) -> int | None:
        """The bytes that are wanted."""
        return sum(end - first for first, end in self.stretches) if self.stretches else self.size


class StaleError(Exception):
    """A file changed after the stretches that are wanted of it had been looked up."""


class Transfer:
    """Fetches what is wished for into `partial`, going on from what is there."""

    def __init__(self, web: Web, partial: Partial, wish: Wish, keep: Keep, show: Show) -> None:
        self._web = web
        self._partial = partial
        self._wish = wish
        self._keep = keep
        self._show = show
        origin = partial.origin
        if origin is not None and (origin.stretches != wish.stretches or (origin.length or partial.size) < partial.size):
            partial.drop()
        # Bytes of an earlier run, or of two addresses, may not belong together, which is the fault of neither.
        self._doubtful = partial.size > 0
        self._doubted = False
        self._restarts = 0

    def ask(self, address: str) -> bool | None:
        """Gets as far as `address` lets it: True when the file is kept, None when some bytes came before it broke.

        Raises:
            AddressError: nothing came, or what came is not the file.
            StaleError: the file is no longer the one whose stretches are wanted.
        """
        before = self._partial.size
        try:
            while not self._whole():
                self._get(address)
        except AddressError as error:
            if error.passing and self._partial.size > before:
                return None
            raise self._with_size(error) from None
        wrong = self._keep()
        if wrong is None:
            return True
        self._partial.drop()
        if self._doubtful and not self._doubted:
            self._doubtful, self._doubted = False, True
            return None
        raise AddressError(wrong, passing=False)

    def _whole(self) -> bool:
        origin = self._partial.origin
        return origin is not None and origin.length is not None and self._partial.size == origin.length

    def _get(self, address: str) -> None:
        """One request, for all that is missing of a stretch, and what came of it."""
        first, end = self._missing()
        stretch = f"{first}-{'' if end is None else end - 1}" if first or end is not None else ""
        origin = self._partial.origin
        validator = origin.validator if origin is not None and origin.address == address else ""
        try:
            with self._web.answer(address, stretch, validator) as answer:
                skipped = self._settle(address, first, answer)
                new = self._store(answer, skipped, end - first if end is not None else None)
        except BeyondEndError:
            self._restart()
            raise
        if not new and not self._whole():
            raise AddressError("expected more bytes, found the end of the answer", passing=True)

    def _missing(self) -> tuple[int, int | None]:
        """The first byte that is not there yet, and the byte after the stretch that it is in, if that is known."""
        have = self._partial.size
        for first, end in self._wish.stretches:
            if have < end - first:
                return first + have, end
            have -= end - first
        return have, None

    def _settle(self, address: str, first: int, answer: Answer) -> int:
        """Makes the partial file fit the answer; returns how many bytes at the start of the answer are there already."""
        there = Origin(address, answer.etag, answer.last_modified, answer.total or self._wish.size, self._wish.stretches)
        self._check(address, answer)
        origin, have = self._partial.origin, self._partial.size
        if origin is not None and have and origin.differs(there):
            self._restart()
        if self._wish.stretches and not answer.partial:
            raise RangesIgnoredError
        if not self._partial.size:
            self._partial.begin(there)
            if have and answer.partial:
                raise AddressError("expected the file that was begun with, found another", passing=True)
            return 0
        self._doubtful |= origin is not None and origin.address != address
        if origin is not None and origin.total is None and there.total is not None:
            self._partial.note(replace(origin, total=there.total))
        if answer.partial and answer.first != first:
            raise AddressError(f"expected bytes from {first} on, found them from {answer.first} on", passing=False)
        return 0 if answer.partial else have

    def _check(self, address: str, answer: Answer) -> None:
        if answer.kind == "text/html":
            raise AddressError("expected the file, found a web page (text/html)", passing=False)
        if self._wish.size is not None and answer.total not in {self._wish.size, None}:
            origin = self._partial.origin
            if self._wish.stretches and (origin is None or origin.address == address):
                self._restart()
            raise AddressError(f"expected {self._wish.size} bytes, found {answer.total}", passing=False)

    def _restart(self) -> None:
        """Drops what is there of a file that changed."""
        self._partial.drop()
        if self._wish.stretches:
            raise StaleError
        self._restarts += 1
        if self._restarts > self._web.patience.tries:
            raise AddressError(f"expected one file, found another {self._restarts} times", passing=False)

    def _store(self, answer: Answer, skipped: int, room: int | None) -> int:
        """Appends the body without its first `skipped` bytes; returns how many bytes that were.

        `room` is the most that may come, where it is not all that is left of the file.
        """
        origin, before = self._partial.origin, self._partial.size
        length = origin.length if origin is not None else None
        have = before
        room = length - before + skipped if room is None and length is not None else room
        came = 0
        with self._partial.growing() as file:
            for block in answer.blocks():
                new = block[max(0, skipped - came) :]
                came += len(block)
                if room is not None and came > room:
                    raise AddressError(f"expected {room} bytes, found more", passing=False)
                have += file.write(new)
                self._show(have, length or self._wish.length)
        if origin is not None and length is None:
            # The end of the answer is the only sign of its length, and a cut may look the same.
            self._doubtful = True
            self._partial.note(replace(origin, total=have))
        return have - before

    def _with_size(self, error: AddressError) -> AddressError:
        origin, size = self._partial.origin, self._partial.size
        if not error.passing or not size or origin is None or origin.length is None:
            return error
        reason = f"expected {origin.length} bytes, found {size} and then no more: {error.reason}"
        changed = f" (it changed {self._restarts} times meanwhile)" if self._restarts else ""
        return AddressError(reason + changed, passing=True, wait_s=error.wait_s)

"""Addresses of one file asked in turn, again and again while there is hope, with growing pauses."""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event, stop_after_attempt, wait_exponential

from stages.core.corpora.addresses import AddressError, Patience, RangesIgnoredError, StoppedError

Result = TypeVar("Result")


class AddressesError(Exception):
    """No address gave the file: what was expected and found at each, in `reasons`."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class _RoundError(Exception):
    """A round over all addresses brought nothing, but another may."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Turns:
    """The addresses of one file, and what was last wrong with each."""

    def __init__(self, name: str, addresses: Sequence[str], patience: Patience, stop: threading.Event) -> None:
        self.reasons: dict[str, str] = {}
        self.ranges_ignored = False
        self._name = name
        self._addresses = list(addresses)
        self._patience = patience
        self._stop = stop

    def result(self, ask: Callable[[str], Result | None]) -> Result:
        """What `ask` returns for the first address that has it.

        None from `ask` says that it got further and is to be called again, so an address that is slow and breaks off
        is asked as often as it takes. An AddressError sends it to the next address, and if it is passing, back to
        this one later.

        Raises:
            AddressesError: no address is left, or all brought nothing `patience.tries` times in a row.
        """
        while True:
            found = self._further(ask)
            if found is not None:
                return found
            sleep_using_event(self._stop)(self._patience.first_pause_s)

    def _further(self, ask: Callable[[str], Result | None]) -> Result | None:
        """The next result or step, with pauses between rounds that brought neither."""
        patience = self._patience
        retrying = Retrying(
            stop=stop_after_attempt(patience.tries),
            wait=self._pause,
            retry=retry_if_exception_type(_RoundError),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            return retrying(self._round, ask)
        except _RoundError:
            raise AddressesError(self.reasons) from None

    def _pause(self, state: RetryCallState) -> float:
        patience = self._patience
        growing = wait_exponential(multiplier=patience.first_pause_s, max=patience.longest_pause_s)(state)
        error = state.outcome.exception() if state.outcome else None
        return max(growing, error.wait_s if isinstance(error, _RoundError) else 0.0)

    def _say(self, state: RetryCallState) -> None:
        from tqdm import tqdm

        address = self._addresses[0]
        when = f"asking again in {state.upcoming_sleep:.0f} s"
        tqdm.write(f"{self._name}: {address}: {self.reasons[address]}; {when}", file=sys.stderr)

    def _round(self, ask: Callable[[str], Result | None]) -> Result | None:
        waits = []
        for address in tuple(self._addresses):
            if self._stop.is_set():
                raise StoppedError
            try:
                return ask(address)
            except AddressError as error:
                self.reasons[address] = error.reason
                self.ranges_ignored |= isinstance(error, RangesIgnoredError)
                if error.passing:
                    waits.append(error.wait_s)
                else:
                    self._addresses.remove(address)
        if not self._addresses:
            raise AddressesError(self.reasons)
        raise _RoundError(min(waits))

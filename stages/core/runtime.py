"""What steers the machine and may not change a result: processes, devices, locks and how a stage ends.

Importing it is cheap: joblib, tqdm and torch are imported by the functions that need them.
"""

import argparse
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import filelock
import psutil

from stages.core.errors import DenoisingError
from stages.core.files import shown
from stages.core.parents import end_with_parent, end_without

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# A run that was killed takes its children with it within a poll or two, so a lock that is still held after this long
# belongs to a run that is alive.
LOCK_TIMEOUT_S = 10.0


class RunningError(DenoisingError):
    """Another run is doing the same thing."""


class WorkerError(DenoisingError):
    """A worker process was ended from outside."""


class DeviceError(DenoisingError):
    """A device that this machine or this build of PyTorch does not have."""


def n_workers(n_jobs: int) -> int:
    """The number of processes that `n_jobs` asks for; -1 stands for one on each core this process may use."""
    if n_jobs == -1:
        import joblib

        return int(joblib.cpu_count())
    if n_jobs < 1:
        raise ValueError(f"n_jobs must be -1 or at least 1, not {n_jobs}")
    return n_jobs


def parallel(function: Callable[[Item], Result], items: Iterable[Item], *, n_jobs: int, description: str) -> list[Result]:
    """`function` of each item, in the order of the items, with progress on stderr when that is a terminal.

    Raises:
        WorkerError: as for `completed`.
        Exception: whatever `function` raised first; the workers are ended then.
    """
    work = list(items)
    return list(streamed(function, work, n_items=len(work), n_jobs=n_jobs, description=description))


def completed(function: Callable[[Item], Result], items: Iterable[Item], *, n_jobs: int) -> Iterator[tuple[int, Result]]:
    """The place of each item and `function` of it, as they are done.

    With one worker this is a plain loop, with more the items are spread over processes that end when this one does.
    Either way each item is computed on one thread, since sums over several threads round differently. For that the
    libraries that `function` computes with must have been imported by its module, not first within an item.

    Raises:
        WorkerError: a worker was ended from outside, most often by the system for lack of memory.
        Exception: whatever `function` raised first; the workers are ended then.
    """
    work = list(items)
    yield from _results(partial(_numbered, function), enumerate(work), min(n_workers(n_jobs), len(work)), in_order=False)


def streamed(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_items: int, n_jobs: int, description: str
) -> Iterator[Result]:
    """As `parallel`, but `n_items` items are taken and results handed out one by one: neither is ever held as a whole.

    `items` may not raise: they are taken in a thread of joblib's.
    """
    from tqdm import tqdm

    results = _results(function, items, min(n_workers(n_jobs), n_items), in_order=True)
    return iter(tqdm(results, total=n_items, desc=description, disable=None))


def resolved_device(name: str) -> "torch.device":
    """The device called `name` (auto, cpu, cuda or mps); auto is the first there is of cuda, mps and cpu.

    Raises:
        DeviceError: the device is unknown or not available.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, found in available.items() if found))
    if name not in available:
        raise DeviceError(f"runtime.device: expected auto, {', '.join(sorted(available))}, found '{name}'.")
    if not available[name]:
        found = ", ".join(device for device, there in available.items() if there)
        raise DeviceError(
            f"runtime.device: '{name}' is not available: PyTorch {torch.__version__} finds only {found} here. "
            f"Set runtime.device to auto, or install the driver and a build of PyTorch for {name}."
        )
    return torch.device(name)


@contextmanager
def alone(name: str, folder: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Holds the lock `folder`/`name`.lock for the block; the folder is made.

    The system drops the lock when the process ends, however it ends, so a killed run leaves nothing that blocks.

    Raises:
        RunningError: another process, or block of this one, holds the lock after `timeout_s` seconds, or there is no folder.
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunningError(f"{folder} cannot be made ({error.strerror}): start from a folder that you may write to.") from None
    lock = filelock.FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunningError(
            f"'{name}' is already running: another process holds {path}. Wait until it has ended, or end it."
        ) from None
    try:
        yield
    finally:
        lock.release()


def run_stage(name: str, main: Callable[[], None], *, about: str = "", locks_dir: Path = Path(".cache/locks")) -> None:
    """Runs `main` as the stage `name`: as `run_command` does, and alone; `about` describes one that takes no arguments."""

    def locked() -> None:
        if about:
            form = argparse.RawDescriptionHelpFormatter
            argparse.ArgumentParser(prog=f"python -m stages.{name}", description=about, formatter_class=form).parse_args()
        # Libraries stay: collections of garbage need not look through them, which costs more than to read a large manifest.
        gc.freeze()
        with alone(name, locks_dir):
            main()

    run_command(name, locked)


def run_command(name: str, main: Callable[[], None]) -> None:
    """Runs `main` no longer than the DVC that started it, and without a traceback for a user's mistake.

    A DenoisingError or OSError becomes its message on stderr and exit code 1, Ctrl-C the line 'interrupted' and exit
    code 130. Any other exception is a mistake in the program and keeps its traceback.
    """
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Until here, while modules are imported, it ends the process at once.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_standard_streams()
        end_with_parent()
        main()
    except DenoisingError as error:
        print(shown(f"error: {error}"), file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        # No space, no permission, a disk that went away: the surroundings, not the program.
        print(shown(f"error: {error.filename or name}: {error.strerror or error}"), file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def say(text: str) -> None:
    """Prints what is no reason to fail where nobody reads it or there is no room for it."""
    try:
        print(text, flush=True)
    except OSError as error:
        unplug(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            print(f"standard output cannot be written: {error.strerror}", file=sys.stderr)


def unplug(sink: IO[Any]) -> None:
    """Leads an output to nowhere: Python would try to write once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sink.fileno())


def _open_standard_streams() -> None:
    """Leads those that are closed nowhere: the next file that is opened would take their place, and messages go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        # Without it print and tqdm would write to the standard output, or fail.
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process


def _results(function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, in_order: bool) -> Iterator[Result]:
    from threadpoolctl import threadpool_limits

    if workers > 1:
        yield from _spread(function, items, workers, in_order=in_order)
        return
    with threadpool_limits(1):
        yield from map(function, items)


def _spread(function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, in_order: bool) -> Iterator[Result]:
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    config = joblib.parallel_config(backend="loky", inner_max_num_threads=1, initializer=_start_worker, initargs=(os.getpid(),))
    threading.excepthook = _told_unless_of_pool
    # Without max_nbytes=None large arrays reach the workers as read-only maps, which the plain loop's are not.
    with config, ExitStack() as stack:
        pool = joblib.Parallel(n_jobs=workers, max_nbytes=None, return_as="generator" if in_order else "generator_unordered")
        try:
            with _interrupts_held():
                outputs = pool(joblib.delayed(function)(item) for item in items)
                stack.callback(_close, outputs)
            # Not `yield from`, with which a caller that closes this closes `outputs` first.
            for output in outputs:  # noqa: UP028
                yield output
        except TerminatedWorkerError:
            raise WorkerError(
                "A worker process was ended from outside, most often by the system for lack of memory. "
                f"Set runtime.n_jobs, or --jobs of the command, below {workers}."
            ) from None


def _numbered(function: Callable[[Item], Result], numbered: tuple[int, Item]) -> tuple[int, Result]:
    place, item = numbered
    return place, function(item)


def _close(outputs: Generator[object, None, None]) -> None:
    # After an interrupt joblib warns that work was thrown away, which is what an interrupt is for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        outputs.close()


def _told_unless_of_pool(failure: threading.ExceptHookArgs) -> None:
    """Tells of a thread's failure, but not that joblib's thread misses items that an interrupt has taken away from it."""
    if not (failure.thread and failure.thread.name == "ExecutorManagerThread" and failure.exc_type is KeyError):
        threading.__excepthook__(failure)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Puts Ctrl-C off until the block ends; processes that are started in it put it off until they allow it."""
    from joblib.externals.loky.backend import resource_tracker as joblibs_tracker

    # joblib has them started along with the first worker, and starting them allows interrupts again, so they come before.
    resource_tracker.ensure_running()
    # After an interrupt the second may find semaphores that were removed but not yet signed off, which it tells in a
    # traceback. Nothing is left behind, and nobody could do anything about it.
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        joblibs_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(parent: int) -> None:
    # Ctrl-C reaches the whole process group, but the parent alone answers it, by ending its workers. A handler that
    # does nothing, unlike SIG_IGN, is not handed on to programs that a worker starts.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if os.getppid() != parent:
        os._exit(1)
    end_without([psutil.Process(parent)], "")

"""What steers the machine and may not change a result: processes, devices, locks and how a stage ends.

Importing it is cheap: joblib, tqdm and torch are imported by the functions that need them.
"""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import filelock
import psutil

from stages.core.errors import DenoisingError
from stages.core.files import shown

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# A run that was killed takes its children with it within a poll or two, so a lock that is still held after this long
# belongs to a run that is alive.
LOCK_TIMEOUT_S = 10.0
POLL_S = 0.1
SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh", "fish", "csh", "tcsh"})


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
    from tqdm import tqdm

    work = list(items)
    found = dict(tqdm(completed(function, work, n_jobs=n_jobs), total=len(work), desc=description, disable=None))
    return [found[place] for place in range(len(work))]


def completed(function: Callable[[Item], Result], items: Iterable[Item], *, n_jobs: int) -> Iterator[tuple[int, Result]]:
    """The place of each item and `function` of it, as they are done.

    With one worker this is a plain loop, with more the items are spread over processes that end when this one does.
    Either way each item is computed on one thread, since sums over several threads round differently. For that the
    libraries that `function` computes with must have been imported by its module, not first within an item.

    Raises:
        WorkerError: a worker was ended from outside, most often by the system for lack of memory.
        Exception: whatever `function` raised first; the workers are ended then.
    """
    from threadpoolctl import threadpool_limits

    work = list(items)
    workers = min(n_workers(n_jobs), len(work))
    if workers > 1:
        yield from _spread(function, work, workers)
        return
    with threadpool_limits(1):
        for place, item in enumerate(work):
            yield place, function(item)


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
        RunningError: another process, or another block of this one, still holds the lock after `timeout_s` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
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


def end_with_parent() -> None:
    """Under DVC, ends this process with exit code 1 as soon as the DVC process that started it is gone.

    DVC does not end its stages when it is killed, and the next `dvc repro` would then write beside the orphan. DVC puts
    a shell between itself and the stage, so that is watched too. Without DVC this does nothing: nohup goes on working.
    """
    if "DVC_STAGE" not in os.environ:
        return
    watched = []
    for ancestor in psutil.Process().parents():
        watched.append(ancestor)
        if _name(ancestor) not in SHELLS:
            break
    message = f"error: {os.environ['DVC_STAGE']} ends because the DVC process that started it is gone\n"
    # What a stage imports takes seconds to load, and its DVC may have gone meanwhile: an orphan is handed to a process
    # of another group, or to a shell that is the first process of a container.
    if not watched or _name(watched[-1]) in SHELLS or not _same_group(watched[-1]):
        os.write(2, message.encode())
        os._exit(1)
    _end_without(watched, message)


def run_stage(name: str, main: Callable[[], None], *, locks_dir: Path = Path(".cache/locks")) -> None:
    """Runs `main` as the stage `name`: as `run_command` does, and alone."""

    def locked() -> None:
        with alone(name, locks_dir):
            main()

    run_command(name, locked)


def run_command(name: str, main: Callable[[], None]) -> None:
    """Runs `main` no longer than the DVC that started it, and without a traceback for a user's mistake.

    A DenoisingError or OSError becomes its message on stderr and exit code 1, Ctrl-C the line 'interrupted' and exit
    code 130. Any other exception is a mistake in the program and keeps its traceback.
    """
    try:
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


def _spread(function: Callable[[Item], Result], work: list[Item], workers: int) -> Iterator[tuple[int, Result]]:
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    config = joblib.parallel_config(backend="loky", inner_max_num_threads=1, initializer=_start_worker, initargs=(os.getpid(),))
    # Without max_nbytes=None large arrays reach the workers as read-only maps, which the plain loop's are not.
    with config, ExitStack() as stack:
        pool = joblib.Parallel(n_jobs=workers, max_nbytes=None, return_as="generator_unordered")
        try:
            with _interrupts_held():
                outputs = pool(joblib.delayed(_numbered)(function, place, item) for place, item in enumerate(work))
                stack.callback(_close, outputs)
            yield from outputs
        except TerminatedWorkerError:
            raise WorkerError(
                "A worker process was ended from outside, most often by the system for lack of memory. "
                f"Set runtime.n_jobs below {workers}."
            ) from None


def _numbered(function: Callable[[Item], Result], place: int, item: Item) -> tuple[int, Result]:
    return place, function(item)


def _close(outputs: Generator[object, None, None]) -> None:
    # After an interrupt joblib warns that work was thrown away, which is what an interrupt is for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        outputs.close()


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
    _end_without([psutil.Process(parent)], "")


def _end_without(watched: list[psutil.Process], message: str) -> None:
    """Starts a thread that ends this process, with `message` on stderr, when any of the `watched` processes is gone."""

    def watch() -> None:
        while all(_alive(process) for process in watched):
            time.sleep(POLL_S)
        # Not sys.exit, which would end this thread only, and no clean-up, which could go on writing.
        if message:
            os.write(2, message.encode())
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _same_group(process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == os.getpgrp()
    except ProcessLookupError:
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        # is_running() compares the start time too, so a number that was given anew is not taken for the same process.
        alive: bool = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return alive


def _name(process: psutil.Process) -> str:
    try:
        name: str = process.name().removeprefix("-").removesuffix(".exe")
    except psutil.NoSuchProcess:
        return ""
    return name

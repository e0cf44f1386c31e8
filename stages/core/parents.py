"""A process that ends when the one that started it has gone, so that no orphan writes beside the next run."""

import os
import threading
import time

import psutil

POLL_S = 0.1
SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh", "fish", "csh", "tcsh"})


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
    end_without(watched, message)


def end_without(watched: list[psutil.Process], message: str) -> None:
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

"""The runtime within one process: equal results for any number of workers, errors as they are, devices, locks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from stages.core.errors import DenoisingError
from stages.core.runtime import (
    DeviceError,
    RunningError,
    WorkerError,
    alone,
    n_workers,
    parallel,
    resolved_device,
    run_stage,
)


def power(item: int) -> tuple[int, float, set[int]]:
    """A sum that BLAS rounds differently on each number of threads, and how many threads there were."""
    waveform = np.random.default_rng(item).standard_normal(64000)
    return item, float(waveform @ waveform), {pool["num_threads"] for pool in threadpool_info()}


def failing(item: int) -> int:
    if item == 3:
        raise RunningError("item 3")
    if item == 5:
        raise ZeroDivisionError("item 5")
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def overwritten(waveform: np.ndarray) -> float:
    waveform[:] = 1
    return float(waveform.sum())


def test_results_are_in_order_and_equal_for_any_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "OPENBLAS", "MKL"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")
    serial = parallel(power, range(20), n_jobs=1, description="powers")
    assert [item for item, _, _ in serial] == list(range(20))
    assert all(threads == {1} for _, _, threads in serial)
    assert parallel(power, range(20), n_jobs=2, description="powers") == serial
    assert parallel(power, iter(range(20)), n_jobs=3, description="powers") == serial


def test_nothing_to_do_is_done() -> None:
    assert parallel(power, [], n_jobs=2, description="nothing") == []


def test_large_arrays_reach_the_workers_as_they_are() -> None:
    waveforms = [np.zeros(300_000), np.zeros(300_000)]
    assert parallel(overwritten, waveforms, n_jobs=2, description="arrays") == [300_000.0, 300_000.0]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(("item", "error"), [(3, RunningError), (5, ZeroDivisionError)])
def test_an_error_in_an_item_comes_out_as_it_is(n_jobs: int, item: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^item {item}$") as caught:
        parallel(failing, [1, item, 2], n_jobs=n_jobs, description="failing")
    assert caught.type is error
    assert parallel(failing, [1, 2], n_jobs=n_jobs, description="after it") == [1, 2]


def test_a_worker_that_is_killed_is_an_error_with_advice() -> None:
    with pytest.raises(WorkerError, match=r"lack of memory.*runtime\.n_jobs, or --jobs .*, below 2"):
        parallel(failing, [1, 7, 2], n_jobs=2, description="failing")
    assert parallel(failing, [1, 2], n_jobs=2, description="after it") == [1, 2]


def test_a_folder_for_locks_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".cache").touch()
    with (
        pytest.raises(RunningError, match=r"\.cache/locks cannot be made \(.*\): start from a folder"),
        alone("x", tmp_path / ".cache/locks"),
    ):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone("mix", tmp_path):
        raise ZeroDivisionError
    with alone("mix", tmp_path, timeout_s=0.0):
        pass


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DenoisingError("noise.wav: is silent;\nremove it."), 1, "error: noise.wav: is silent;\nremove it.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_stage_ends_with_the_message_alone(
    error: BaseException, code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_stage("mix", raising(error), locks_dir=tmp_path)
    assert caught.value.code == code
    assert capsys.readouterr().err == line


def test_a_stage_without_arguments_explains_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in ((["--help"], 0), (["speech"], 2)):
        monkeypatch.setattr(sys, "argv", ["mix.py", *arguments])
        with pytest.raises(SystemExit) as caught:
            run_stage("mix", raising(DenoisingError("begun")), about="Mixes speech and noise.", locks_dir=tmp_path)
        assert caught.value.code == code
    output = capsys.readouterr()
    assert output.out.startswith("usage: python -m stages.mix [-h]\n\nMixes speech and noise.")
    assert "unrecognized arguments: speech" in output.err


def test_a_mistake_in_the_program_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage("mix", raising(ZeroDivisionError()), locks_dir=tmp_path)


def test_n_workers() -> None:
    assert n_workers(3) == 3
    assert 1 <= n_workers(-1) <= (os.cpu_count() or 1)
    for wrong in (0, -2):
        with pytest.raises(ValueError, match="n_jobs must be -1 or at least 1"):
            n_workers(wrong)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_first_device_there_is(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert resolved_device("auto").type == expected
    assert resolved_device("cpu").type == "cpu"
    for name, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert resolved_device(name).type == name
        else:
            with pytest.raises(DeviceError, match=f"'{name}' is not available.*Set runtime.device to auto"):
                resolved_device(name)


def test_an_unknown_device_is_named_with_those_there_are() -> None:
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda, mps, found 'gpu'"):
        resolved_device("gpu")


@pytest.mark.parametrize("stage", ["denoise", "download", "train"])
def test_an_interrupt_while_a_stage_is_imported_leaves_no_traceback(stage: str, repository: Path, tmp_path: Path) -> None:
    for name in ("numpy", "filelock", "tqdm"):
        (tmp_path / f"{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8")
    settings = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{repository}"}
    ended = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")

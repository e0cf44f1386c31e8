"""The pipeline killed at many moments: nothing of it goes on, and the next run ends as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from ruamel.yaml import YAML
from small_pipeline import CHECKPOINT, STAGES, Pipeline, environment

pytest_plugins = ["pipeline_fixtures"]

STATE = ".cache/training/*/state.pt"
# What shows that a stage has come to a certain point: a file or folder that was not there before.
FIRST_OUTPUT = {
    "download@noise": ".cache/corpora/*/generated",
    "mix": "data/mixtures/train",
    "shard": "data/shards/train",
    "train": STATE,
    "evaluate": ".cache/locks/evaluate.lock",
}
N_EPOCHS = 40  # of a training that lasts long enough to be killed after the first of them


class Run:
    """A `dvc repro` in a process group of its own that is watched and killed."""

    def __init__(self, pipeline: Pipeline, stage: str) -> None:
        self.pipeline, self.stage = pipeline, stage
        self.seen: dict[int, psutil.Process] = {}
        self.dvc = subprocess.Popen(
            ["dvc", "repro", stage],
            cwd=pipeline.folder,
            env=environment(pipeline.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def watch(self) -> dict[int, psutil.Process]:
        """All processes below DVC that there are or were, DVC itself left out."""
        with suppress(psutil.NoSuchProcess):
            self.seen |= {child.pid: child for child in psutil.Process(self.dvc.pid).children(recursive=True)}
        return self.seen

    def stage_process(self) -> psutil.Process | None:
        """The process that runs the stage."""
        module = f"stages.{self.stage.split('@')[0]}"
        found = [child for child in self.watch().values() if module in command_line(child)]
        return found[0] if found else None

    def workers(self) -> list[psutil.Process]:
        """The processes that the stage spreads its work over."""
        return [child for child in self.watch().values() if "loky.backend.popen_loky" in " ".join(command_line(child))]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until the condition holds; the run may not end before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self.dvc.poll() is None, f"ended too early:\n{self.dvc.communicate()[0]}"
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.01)

    def end(self, victim: str) -> str:
        """Kills DVC, the stage or one worker; what was printed, once DVC has ended."""
        self.watch()
        stage = self.stage_process()
        targets = {
            "dvc": [self.dvc.pid],
            "stage": [stage.pid] if stage else [],
            "worker": [worker.pid for worker in self.workers()][:1],
        }[victim]
        assert targets, victim
        for target in targets:
            os.kill(target, signal.SIGKILL)
        output = self.dvc.communicate(timeout=60)[0]
        assert self.dvc.returncode != 0, output
        # What DVC leaves when it is killed while it writes its lock; README says to delete it.
        lock = self.pipeline.folder / ".dvc/tmp/rwlock"
        if victim == "dvc" and lock.is_file() and lock.stat().st_size == 0:
            lock.unlink()
        return output

    def all_ended(self, seconds: float) -> bool:
        """Whether every process of the run has ended at most so many seconds from now."""
        deadline = time.monotonic() + seconds
        while any(is_alive(process) for process in self.seen.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start() -> Iterator[Callable[[Pipeline, str], Run]]:
    """Starts `dvc repro` up to a stage; whatever is left of it is killed after the test."""
    runs: list[Run] = []

    def begin(pipeline: Pipeline, stage: str) -> Run:
        runs.append(Run(pipeline, stage))
        return runs[-1]

    yield begin
    for run in runs:
        with suppress(ProcessLookupError):
            os.killpg(run.dvc.pid, signal.SIGKILL)
        for process in run.seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        run.dvc.communicate()


def forget(pipeline: Pipeline, *stages: str) -> None:
    """Makes the stages run in earnest: nothing remembers that they did, or what came out."""
    path = pipeline.folder / "dvc.lock"
    yaml = YAML(pure=True)
    lock = yaml.load(path)
    for stage in stages:
        lock["stages"].pop(stage, None)
    yaml.dump(lock, path)
    for name in (".dvc/cache/runs", ".cache"):
        shutil.rmtree(pipeline.folder / name, ignore_errors=True)


def moment(run: Run, name: str) -> Callable[[], object]:
    """What has come when a moment has come."""

    def output() -> object:
        return run.stage_process() and list(run.pipeline.folder.glob(FIRST_OUTPUT[run.stage]))

    return {
        "import": run.stage_process,
        "output": output,
        "workers": run.workers,
    }[name]


def assert_mended(pipeline: Pipeline, stage: str, unbroken: Pipeline) -> None:
    """The next run makes the broken stage anew and nothing else, since it comes out as it was."""
    assert pipeline.repro() == [stage]
    assert pipeline.results() == unbroken.results()
    assert pipeline.outs() == unbroken.outs()
    assert pipeline.changed() == set()


@pytest.mark.parametrize(
    ("stage", "kills"),
    [
        ("download@noise", [("dvc", "output", 0.0), ("stage", "workers", 0.3)]),
        ("mix", [("dvc", "output", 0.0), ("worker", "workers", 0.3)]),
        ("shard", [("stage", "output", 0.0), ("dvc", "workers", 0.5)]),
        ("evaluate", [("worker", "workers", 0.6), ("dvc", "workers", 1.2)]),
    ],
)
def test_a_killed_stage_leaves_no_process_and_is_made_again(
    copied: Pipeline,
    finished: Pipeline,
    start: Callable[[Pipeline, str], Run],
    stage: str,
    kills: list[tuple[str, str, float]],
) -> None:
    copied.set(runtime__n_jobs=2)
    for victim, name, delay in kills:
        forget(copied, stage)
        run = start(copied, stage)
        run.wait_for(moment(run, name))
        time.sleep(delay)
        output = run.end(victim)
        assert run.all_ended(1.0), (victim, name)
        if victim == "worker":
            assert "worker process was ended from outside" in output
            assert "Traceback" not in output
    assert_mended(copied, stage, finished)


@pytest.mark.parametrize("stage", ["train"])
def test_a_stage_that_loses_its_dvc_while_it_starts_writes_nothing(
    copied: Pipeline, finished: Pipeline, start: Callable[[Pipeline, str], Run], stage: str
) -> None:
    forget(copied, stage)
    run = start(copied, stage)
    run.wait_for(moment(run, "import"))
    run.end("dvc")
    # Importing PyTorch cannot be broken off, so this takes longer than a second.
    assert run.all_ended(20.0)
    assert not (copied.folder / CHECKPOINT).exists()
    assert not list(copied.folder.glob(".cache/training/*"))
    assert_mended(copied, stage, finished)


@pytest.fixture(scope="module")
def long_training(finished: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The finished pipeline with a training of many epochs, unbroken."""
    pipeline = finished.copy(tmp_path_factory.mktemp("long") / "repository")
    pipeline.set(train__n_epochs=N_EPOCHS, train__patience=N_EPOCHS)
    assert pipeline.repro("train") == ["train"]
    return pipeline


def test_a_killed_training_goes_on_where_it_was(
    long_training: Pipeline, tmp_path: Path, start: Callable[[Pipeline, str], Run]
) -> None:
    pipeline = long_training.copy(tmp_path / "repository")
    forget(pipeline, "train")
    run = start(pipeline, "train")
    run.wait_for(lambda: epochs(pipeline))
    run.end("dvc")
    assert run.all_ended(1.0)
    first = epochs(pipeline)
    # A number that no epoch comes to shows whether the first one is taken from the state or made again.
    loss = replaced_loss(pipeline, 12345.0)
    run = start(pipeline, "train")
    run.wait_for(lambda: epochs(pipeline) > first)
    run.end("stage")
    assert run.all_ended(1.0)
    assert first < epochs(pipeline) < N_EPOCHS
    assert replaced_loss(pipeline, loss) == 12345.0
    assert pipeline.repro("train") == ["train"]
    assert trained(pipeline) == trained(long_training)


def replaced_loss(pipeline: Pipeline, loss: float) -> float:
    """Puts another loss for the first epoch into the state of the training; the one that was there."""
    (path,) = pipeline.folder.glob(STATE)
    state = torch.load(path, weights_only=True)
    before = float(state["epochs"][0]["train_loss"])
    state["epochs"][0]["train_loss"] = loss
    torch.save(state, path)
    return before


def epochs(pipeline: Pipeline) -> int:
    """How many epochs the state of the training holds."""
    paths = list(pipeline.folder.glob(STATE))
    return len(torch.load(paths[0], weights_only=True)["epochs"]) if paths else 0


def trained(pipeline: Pipeline) -> list[bytes]:
    return [(pipeline.folder / path).read_bytes() for path in (CHECKPOINT, "metrics/train.json", "metrics/curves.csv")]


def test_ctrl_c_ends_everything(copied: Pipeline, finished: Pipeline, start: Callable[[Pipeline, str], Run]) -> None:
    copied.set(runtime__n_jobs=2)
    forget(copied, "mix")
    run = start(copied, "mix")
    run.wait_for(moment(run, "workers"))
    time.sleep(0.2)
    os.killpg(run.dvc.pid, signal.SIGINT)
    output = run.dvc.communicate(timeout=60)[0]
    assert run.dvc.returncode != 0
    assert "interrupted" in output
    assert "Traceback" not in output
    assert run.all_ended(1.0)
    assert_mended(copied, "mix", finished)


def test_a_kill_between_two_stages_costs_one_of_them_at_most(
    copied: Pipeline, finished: Pipeline, start: Callable[[Pipeline, str], Run]
) -> None:
    forget(copied, "shard")
    run = start(copied, "shard")
    run.wait_for(run.stage_process)
    stage = run.stage_process()
    assert stage is not None
    # DVC is now taking the outputs into its cache.
    run.wait_for(lambda: not is_alive(stage))
    run.end("dvc")
    assert copied.repro() in ([], ["shard"])
    assert copied.results() == finished.results()
    assert set(STAGES) == set(YAML(typ="safe", pure=True).load(copied.folder / "dvc.lock")["stages"])

"""The fixtures of the tests that run the pipeline: one finished run for all of them, and copies of it."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from denoised_files import weights
from small_pipeline import CHECKPOINT, ROOT, SMALL, STAGES, Command, Ended, Pipeline, fresh, put_parameters

from stages.core.checkpoint import PRETRAINED, worker_denoiser
from stages.core.engines import loaded
from stages.core.runtime import run_command, run_stage


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline after `dvc repro`, its state committed to git; tests change copies of it only."""
    pipeline = fresh(tmp_path_factory.mktemp("finished") / "repository")
    assert pipeline.repro() == list(STAGES)
    pipeline.commit()
    return pipeline


@pytest.fixture
def copied(finished: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy of the finished pipeline for one test."""
    return finished.copy(tmp_path / "repository")


@pytest.fixture
def repository_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: what the stages need of a repository, with small parameters, where nothing has been run."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    put_parameters(folder / "params.yaml", SMALL)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model that the command uses by default; the working directory holds nothing else."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in PRETRAINED:
        monkeypatch.setitem(PRETRAINED, name, CHECKPOINT)
    return weights()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m stages.NAME ARGUMENTS` in the working directory, but within this process."""

    def run(name: str, *arguments: str | Path) -> Ended:
        module = importlib.import_module(f"stages.{name}")
        worker_denoiser.cache_clear()
        loaded.cache_clear()
        # It takes locks of its own, since commands with other outputs may run side by side.
        start = run_command if name == "denoise" else run_stage
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"stages.{name}", *map(str, arguments)])
            patch.delenv("DVC_STAGE", raising=False)
            try:
                start(name, module.main)
            except SystemExit as ending:
                return Ended(int(ending.code or 0), *capfd.readouterr())
        return Ended(0, *capfd.readouterr())

    return run

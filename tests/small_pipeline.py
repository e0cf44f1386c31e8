"""The pipeline made small: copies of the repository in folders of their own, where everything is done in seconds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("download@speech", "download@noise", "fetch", "mix", "shard", "train", "evaluate", "export", "denoise")
METRICS = (
    "mix.json",
    "shard.json",
    "train.json",
    "evaluate.json",
    "export.json",
    "curves.csv",
    "evaluate_by_snr.csv",
    "evaluate_by_noise.csv",
)
CHECKPOINT = Path("models/denoiser.safetensors")
SMALL = {
    "download.speech.espeak.n_speakers": 6,
    "download.speech.espeak.n_utterances": 1,
    "download.noise.generated.kinds": ["white", "hum", "babble"],
    "download.noise.generated.n_recordings": 3,
    "download.noise.generated.seconds": 1.5,
    "mix.n_train": 8,
    "mix.n_valid": 4,
    "mix.n_test": 5,
    "mix.seconds": 1.0,
    "shard.n_mixtures": 4,
    "model.hidden": 16,
    "model.layers": 1,
    "train.n_epochs": 2,
    "train.batch_size": 4,
    "evaluate.n_clean": 1,
    "runtime.n_jobs": 1,
    "runtime.device": "cpu",
}


class Ended(NamedTuple):
    """How a stage ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


class Pipeline:
    """A repository of its own in `folder`, a copy of this one without its results, with small parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs a command in the repository; its stdout and stderr come as text."""
        return subprocess.run(
            command, cwd=self.folder, env=environment(self.folder), capture_output=True, text=True, timeout=seconds
        )

    def done(self, *command: str) -> str:
        """What a command that must end well prints, stdout and stderr together."""
        result = self.run(*command)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result.stdout + result.stderr

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` runs, in their order."""
        return stages_run(self.done("dvc", "repro", *arguments))

    def experiment(self, setting: str, *, target: str | None = None) -> list[str]:
        """The stages that an experiment with this setting runs up to a target, in their order."""
        return stages_run(self.done("dvc", "exp", "run", "-S", setting, *([target] if target else [])))

    def stage(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a stage as a command, without DVC."""
        return self.run(sys.executable, "-m", f"stages.{name}", *arguments)

    def changed(self) -> set[str]:
        """The stages that `dvc status` reports as changed."""
        return set(json.loads(self.run("dvc", "status", "--json").stdout))

    def set(self, **values: Any) -> None:
        """Puts values into params.yaml; a name such as mix__seed is the key mix.seed."""
        put_parameters(self.folder / "params.yaml", {name.replace("__", "."): value for name, value in values.items()})

    def commit(self) -> None:
        """Commits everything that git does not ignore."""
        self.done("git", "add", "--all")
        self.done("git", "commit", "--quiet", "--message", "state")

    def copy(self, folder: Path) -> "Pipeline":
        """The same repository with all its results and caches in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Pipeline(folder)

    def results(self) -> dict[str, bytes]:
        """All metrics and the weights."""
        paths = [*(Path("metrics") / name for name in METRICS), CHECKPOINT]
        return {path.as_posix(): (self.folder / path).read_bytes() for path in paths}

    def outs(self) -> dict[str, str]:
        """The hash of each output that dvc.lock holds."""
        lock = YAML(typ="safe", pure=True).load(self.folder / "dvc.lock")
        return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of a stage."""
        return dict(json.loads((self.folder / "metrics" / f"{name}.json").read_text(encoding="utf-8")))


def fresh(folder: Path, source: Path = ROOT, **values: Any) -> Pipeline:
    """A copy of the working tree `source` in `folder` with small parameters, where nothing has been run, committed to git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=source, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        # Results of the pipeline that are kept in git are not part of a fresh start.
        if (source / name).is_file() and name != "dvc.lock" and not name.startswith(("tests/", "metrics/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
    pipeline = Pipeline(folder)
    put_parameters(folder / "params.yaml", SMALL)
    pipeline.set(**values)
    pipeline.done("git", "init", "--quiet")
    # DVC commits experiments in the name of this user as well.
    pipeline.done("git", "config", "user.name", "tests")
    pipeline.done("git", "config", "user.email", "tests@localhost")
    pipeline.commit()
    return pipeline


def put_parameters(path: Path, values: Mapping[str, Any]) -> None:
    """Puts values into a file of parameters under keys such as mix.seed, which need not exist."""
    yaml = YAML(pure=True)
    parameters = yaml.load(path)
    for key, value in values.items():
        *above, last = key.split(".")
        section = parameters
        for name in above:
            section = section[name]
        section[last] = value
    yaml.dump(parameters, path)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a command in `folder`: the Python of these tests first, and no settings of another DVC or git."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    folders = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    own = {f"DVC_{name}_DIR": str(folder / ".dvc/tmp" / name) for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")}
    return kept | own | {"PATH": folders, "GIT_CONFIG_GLOBAL": os.devnull, "NO_COLOR": "1", "COLUMNS": "200"}


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it runs."""
    lines = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return [line.split("'")[1] for line in lines]

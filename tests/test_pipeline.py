"""`dvc repro` and `dvc exp run` end to end: what comes out, what is rerun after which change, and that runs are equal."""

import csv
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from ruamel.yaml import YAML
from small_pipeline import METRICS, ROOT, SMALL, STAGES, Command, Pipeline, fresh, put_parameters, stages_run

pytest_plugins = ["pipeline_fixtures"]

MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py") if path.name != "__init__.py")

# One process for all modules, since most of what `dvc status` takes is its start.
STATUS = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

found = {}
for path in map(Path, sys.argv[1:]):
    text = path.read_bytes()
    path.write_bytes(text + b"# a comment\\n")
    with Repo() as repo:
        found[path.as_posix()] = sorted(repo.status())
    path.write_bytes(text)
print(json.dumps(found))
"""

# All stages in one process without DVC, so that PyTorch is imported once in it and once in each of its workers.
ALL_STAGES = """
import sys
from stages import denoise, download, evaluate, export, fetch, mix, shard, train
from stages.core.runtime import run_command, run_stage

corpora = [(download, "speech"), (download, "noise"), (fetch,)]
for module, *arguments in [*corpora, (mix,), (shard,), (train,), (evaluate,), (export,)]:
    sys.argv[1:] = arguments
    run_stage(module.__name__, module.main)
sys.argv[1:] = []
run_command("denoise", denoise.main)
"""


def definitions(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml with their own names; those of a template, which stay unfilled, each for itself."""
    parsed = YAML(typ="safe", pure=True).load(pipeline.folder / "dvc.yaml")["stages"]
    return {
        name: body.get("do", body)
        for key, body in parsed.items()
        for name in ([f"{key}@speech", f"{key}@noise"] if "foreach" in body else [key])
    }


def comment(pipeline: Pipeline, *modules: str) -> None:
    for module in modules:
        with (pipeline.folder / "stages/core" / module).open("a", encoding="utf-8") as file:
            file.write("# a comment\n")


def numbers(value: Any, place: str = "") -> dict[str, Any]:
    """All keys of nested metrics with what they hold."""
    if not isinstance(value, dict):
        return {place: value}
    assert not [key for key in value if "." in key], place
    return {name: found for key, below in value.items() for name, found in numbers(below, f"{place}/{key}").items()}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def speak(path: Path, seconds: float = 1.0, sample_rate: int = 16000, level: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = level * np.random.default_rng(len(path.name)).standard_normal(round(seconds * sample_rate))
    soundfile.write(path, waveform, sample_rate)
    return path


# ---- what comes out


def test_all_outputs_are_there(finished: Pipeline) -> None:
    named = [definition.get(kind, []) for definition in definitions(finished).values() for kind in ("outs", "metrics", "plots")]
    paths = {path for entries in named for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}
    filled = {path.replace("${key}", role) for path in paths for role in ("speech", "noise")}
    assert len(filled) > 15
    assert [path for path in sorted(filled) if not (finished.folder / path).exists()] == []
    assert {path.name for path in (finished.folder / "metrics").iterdir()} == set(METRICS)
    left = [path for path in finished.folder.rglob(".partial-*")]
    assert left == []


@pytest.mark.parametrize("name", ["mix", "shard", "train", "evaluate", "export"])
def test_metrics_are_json_without_nan_and_dots(finished: Pipeline, name: str) -> None:
    text = (finished.folder / f"metrics/{name}.json").read_text(encoding="utf-8")
    found = numbers(json.loads(text, parse_constant=no_constant))
    assert found
    assert b"\r" not in text.encode()


def test_metrics_tell_what_was_asked_for(finished: Pipeline) -> None:
    mix, train, evaluate = (finished.metrics(name) for name in ("mix", "train", "evaluate"))
    assert [mix[split]["n_mixtures"] for split in ("train", "valid", "test")] == [8, 4, 5]
    assert train["n_epochs"] == 2
    assert evaluate["sets"]["test"]["estimate"]["n_items"] == 5
    assert evaluate["sets"]["test"]["clean_input"]["n_items"] == 1
    assert evaluate["sets"]["test"]["oracle"]["si_sdr_db"] > evaluate["sets"]["test"]["mixture"]["si_sdr_db"]


def test_plots_are_tables_of_numbers(finished: Pipeline) -> None:
    for name in ("curves.csv", "evaluate_by_snr.csv", "evaluate_by_noise.csv"):
        with (finished.folder / "metrics" / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) >= 2, name
        assert not [row for row in rows if "nan" in row.values()], name


def test_denoised_recordings_are_like_the_inbox(finished: Pipeline) -> None:
    inbox, denoised = finished.folder / "data/inbox", finished.folder / "data/denoised"
    names = sorted(path.relative_to(inbox) for path in inbox.rglob("*.wav"))
    assert len(names) == 3
    found = sorted(path.relative_to(denoised) for path in denoised.rglob("*") if path.is_file())
    assert found == sorted([*names, Path("denoise-report.csv")])
    for name in names:
        before, after = soundfile.info(inbox / name), soundfile.info(denoised / name)
        for quality in ("frames", "samplerate", "channels", "format", "subtype"):
            assert getattr(before, quality) == getattr(after, quality), name


def test_the_scores_are_shown(finished: Pipeline, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    ended = command("evaluate", "--show")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split()[:3] == ["items", "snr_db", "si_sdr_db"]
    assert [line.rsplit(maxsplit=6)[0].strip() for line in lines[1:]] == [
        "test mixture",
        "test estimate",
        "test oracle",
        "test clean_input",
    ]


def test_scores_that_are_not_there_are_missed(repository_folder: Path, command: Command) -> None:
    ended = command("evaluate", "--show")
    assert ended.code == 1
    assert ended.err.startswith("error: metrics/evaluate.json is missing: run 'dvc repro' first")


def test_any_weights_are_scored_on_any_pairs_and_nothing_is_written(
    finished: Pipeline, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(finished.folder)
    for side in ("clean", "noisy"):
        shutil.copytree(f"data/mixtures/test/{side}", tmp_path / "talks-of-everybody" / side)
    before = {path: path.stat().st_mtime_ns for path in Path("metrics").iterdir()}
    # Processes that earlier tests in this one have started work in other folders and keep the weights of a path.
    weights = finished.folder / "models/denoiser.safetensors"
    ended = command("evaluate", "--model", str(weights), str(tmp_path / "talks-of-everybody"))
    assert ended.code == 0
    assert len({len(line) for line in ended.out.splitlines()}) == 1, "columns stand below each other"
    told = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))["sets"]["test"]
    rows = {words[1]: words[2:] for words in map(str.split, ended.out.splitlines()) if words[0] == "talks-of-everybody"}
    assert list(rows) == ["mixture", "estimate", "oracle", "clean_input"]
    assert float(rows["estimate"][1]) == pytest.approx(told["estimate"]["snr_db"], abs=1e-3)
    assert {path: path.stat().st_mtime_ns for path in Path("metrics").iterdir()} == before


def test_what_cannot_be_scored_is_told(
    finished: Pipeline, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(finished.folder)
    # Of a name that the test mixtures have in the pipeline's own evaluation.
    folder = tmp_path / "test"
    for side in ("clean", "noisy"):
        speak(folder / side / "long.wav", seconds=1.5)
        speak(folder / side / "short.wav", seconds=0.1).rename(folder / side / os.fsdecode(b"short\xff.wav"))
    ended = command("evaluate", "--model", str(finished.folder / "models/denoiser.safetensors"), str(folder))
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"^test estimate +2 .*\n +only .*pesq_wb of 1", ended.out, re.MULTILINE)
    for system in ("mixture", "estimate", "clean_input"):
        assert len(re.findall(rf"^test {system} short\\xff: .*pesq_wb: ", ended.out, re.MULTILINE)) == 1


def test_improvement_is_that_of_items_which_have_both_scores(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from stages import evaluate
    from stages.core.parameters import Evaluate

    monkeypatch.chdir(finished.folder)
    improvements = []
    for names in (["noisy.wav"], ["noisy.wav", "equal.wav"]):
        for name in names:
            clean = speak(tmp_path / "talks/clean" / name, seconds=1.5)
            waveform, rate = soundfile.read(clean)
            noise = 0.01 * np.random.default_rng(1).standard_normal(len(waveform)) * (name == "noisy.wav")
            (tmp_path / "talks/noisy").mkdir(exist_ok=True)
            soundfile.write(tmp_path / "talks/noisy" / name, waveform + noise, rate, subtype="FLOAT")
            soundfile.write(clean, waveform, rate, subtype="FLOAT")
        metrics, *tables = (tmp_path / name for name in ("metrics.json", "by_snr.csv", "by_noise.csv", "scores.csv"))
        settings = Evaluate(pairs=[str(tmp_path / "talks")], n_clean=1)
        checkpoint = finished.folder / evaluate.CHECKPOINT
        evaluate.run(settings, evaluate.TEST_DIR, evaluate.PAIRS, checkpoint, (metrics, *tables), 1)
        improvements.append(json.loads(metrics.read_text(encoding="utf-8"))["improvement"]["talks"]["snr_db"])
    # Sound that has no noise has no SNR before it was denoised.
    assert improvements[0] == improvements[1]


@pytest.mark.parametrize(
    ("name", "pairs", "text"),
    [
        ("live", "gone", "error: gone: no such folder, and no published pairs that were fetched"),
        ("gone.safetensors", ".", "found no clean and no noisy"),
        ("live", "loop", "error: loop: no such folder"),
        ("", ".", "error: '': no such weights file, and not one of best and live."),
        ("beste", ".", "error: 'beste': no such weights file, and not one of best and live."),
    ],
)
def test_weights_and_pairs_that_are_not_there_are_named(
    repository_folder: Path, command: Command, name: str, pairs: str, text: str
) -> None:
    Path("loop").symlink_to("loop")
    ended = command("evaluate", "--model", name, pairs)
    assert ended.code == 1
    assert text in ended.err


@pytest.mark.parametrize("arguments", [["--model", "other.safetensors"], ["talks"]])
def test_weights_without_pairs_and_pairs_without_weights_are_refused(
    arguments: list[str], repository_folder: Path, command: Command
) -> None:
    ended = command("evaluate", *arguments)
    assert ended.code == 2
    assert "weights and pairs go together: python -m stages.evaluate --model WEIGHTS PAIRS" in ended.err


def test_either_the_last_evaluation_is_shown_or_weights_are_scored(repository_folder: Path, command: Command) -> None:
    ended = command("evaluate", "--show", "--model", "other.safetensors", "talks")
    assert ended.code == 2
    assert "--model: not allowed with argument --show" in ended.err


def test_two_folders_of_pairs_of_one_name_are_refused(repository_folder: Path, command: Command) -> None:
    put_parameters(Path("params.yaml"), {"evaluate.pairs": ["a/talks", "b/talks"]})
    ended = command("evaluate")
    assert ended.code == 1
    assert ended.err.startswith("error: The pairs b/talks and a/talks would both be called 'talks'; rename one.")


# ---- what is rerun


def test_a_second_repro_runs_nothing(finished: Pipeline) -> None:
    output = finished.done("dvc", "repro")
    assert "Running stage" not in output
    assert output.count("didn't change, skipping") == len(STAGES)


def test_the_state_of_a_run_is_clean_for_git_and_dvc(finished: Pipeline) -> None:
    assert finished.changed() == set()
    assert finished.done("git", "status", "--porcelain") == ""


def test_every_module_changes_the_stages_that_name_it(copied: Pipeline) -> None:
    found = json.loads(copied.done("python", "-c", STATUS, *MODULES))
    expected = {
        module: sorted(name for name, body in definitions(copied).items() if module in body["deps"]) for module in MODULES
    }
    assert found == expected
    assert expected["stages/core/oracle.py"] == ["evaluate"]
    assert expected["stages/core/losses.py"] == ["train"]


def test_a_comment_reruns_its_stages_and_no_later_ones(copied: Pipeline) -> None:
    before = copied.results(), copied.outs()
    comment(copied, "plan.py", "losses.py", "oracle.py")
    # Their outputs are as they were, so shard and denoise, which read them, have nothing to do.
    assert copied.repro() == ["mix", "train", "evaluate"]
    assert (copied.results(), copied.outs()) == before


def test_a_new_recording_reruns_denoise_alone_and_n_jobs_nothing(copied: Pipeline) -> None:
    copied.set(runtime__n_jobs=2)
    assert copied.changed() == set()
    speak(copied.folder / "data/inbox/kitchen/one.flac", sample_rate=44100)
    output = copied.done("dvc", "repro")
    assert stages_run(output) == ["denoise"]
    # DVC took the other outputs away before the stage ran: they came from its ledger.
    assert "1 denoised into data/denoised" in output
    assert "3 kept" in output
    assert soundfile.info(copied.folder / "data/denoised/kitchen/one.flac").frames == 44100


def test_a_new_corpus_of_noise_makes_no_speech_anew(copied: Pipeline) -> None:
    for number in range(4):
        speak(copied.folder / f"data/own/noise/rustle/{number}.wav", seconds=2.0)
    copied.set(corpora__noise=["generated", "folder"])
    assert copied.repro("mix") == ["download@noise", "mix"]
    manifest = (copied.folder / "data/corpora/noise/manifest.csv").read_text(encoding="utf-8")
    assert manifest.count("folder/rustle/") >= 4
    assert "generated/babble/001" in manifest


# ---- experiments


def test_an_experiment_with_the_model_trains_and_scores_and_shows_it(copied: Pipeline) -> None:
    assert copied.experiment("model.layers=3") == ["train", "evaluate", "export", "denoise"]
    difference = json.loads(copied.done("dvc", "metrics", "diff", "--json"))
    assert difference["metrics/train.json"]["n_weights"]["diff"] > 0
    assert "metrics/evaluate.json" in difference
    copied.done("dvc", "plots", "diff", "--out", "plots")
    page = (copied.folder / "plots/index.html").read_text(encoding="utf-8")
    assert "valid_loss" in page
    assert "workspace" in page


def test_an_experiment_with_the_scores_scores(copied: Pipeline) -> None:
    assert copied.experiment("evaluate.n_clean=2") == ["evaluate"]
    assert copied.metrics("evaluate")["sets"]["test"]["clean_input"]["n_items"] == 2


def test_an_experiment_with_the_mixtures_obtains_no_corpus(copied: Pipeline) -> None:
    # Up to train; that scores and recordings follow the weights is shown above.
    assert copied.experiment("mix.snr_db=[0,5]", target="train") == ["mix", "shard", "train"]
    assert 0 < copied.metrics("mix")["train"]["mean_snr_db"] < 5


def test_training_mixtures_are_clipped_and_their_speech_is_not(copied: Pipeline) -> None:
    copied.set(mix__clipping__probability=1.0, mix__clipping__excess_db=[6, 6])
    before = soundfile.read(copied.folder / "data/mixtures/train/pack-00000.wav")[0]
    assert copied.stage("mix").returncode == 0
    after = soundfile.read(copied.folder / "data/mixtures/train/pack-00000.wav")[0]
    with (copied.folder / "data/mixtures/train/index.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["pack"] == "pack-00000.wav"]
    for row in rows:
        part = slice(int(row["start"]), int(row["start"]) + int(row["n_samples"]))
        (was, speech), (noisy, kept) = before[part].T, after[part].T
        np.testing.assert_array_equal(kept, speech)
        assert np.abs(noisy).max() == pytest.approx(np.abs(was).max() / 10**0.3, abs=2**-14)
        assert np.sum(np.abs(noisy) == np.abs(noisy).max()) > 1
    assert copied.metrics("mix")["train"]["largest_snr_error_db"] < 0.1


def test_queued_experiments_are_compared(copied: Pipeline) -> None:
    copied.done("dvc", "exp", "run", "--queue", "-S", "model.hidden=8,12", "train")
    copied.done("dvc", "queue", "start", "-j", "1")
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            status = copied.done("dvc", "queue", "status")
            if status.count("Success") + status.count("Failed") == 2:
                break
            time.sleep(2)
        assert status.count("Success") == 2, status
        table = list(csv.DictReader(copied.done("dvc", "exp", "show", "--csv").splitlines()))
    finally:
        copied.run("dvc", "queue", "stop", "--kill")
        end_all(copied.folder)
    weights = {row["model.hidden"]: row["n_weights"] for row in table if row["model.hidden"] and row["Experiment"]}
    assert set(weights) >= {"8", "12"}
    assert weights["8"] != weights["12"]


def end_all(folder: Path) -> None:
    """Ends the workers of the queue, which go on for a while: the processes that work below `folder`."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
                process.wait(10)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue


# ---- runs are equal


def test_runs_from_scratch_are_equal_for_any_number_of_processes(finished: Pipeline, tmp_path: Path) -> None:
    assert SMALL["runtime.n_jobs"] == 1
    other = fresh(tmp_path / "repository", finished.folder, runtime__n_jobs=2)
    other.done("python", "-c", ALL_STAGES)
    assert other.results() == finished.results()
    for folder in ("data/corpora", "data/mixtures", "data/shards", "data/denoised"):
        assert contents(other.folder / folder) == contents(finished.folder / folder), folder
    assert (other.folder / "data/scores.csv").read_bytes() == (finished.folder / "data/scores.csv").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

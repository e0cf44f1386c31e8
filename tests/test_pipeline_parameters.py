"""Wrong parameters and corpora: one sentence that names what is wrong, before any work; no traceback, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_pipeline import Command, Ended, Pipeline, put_parameters

pytest_plugins = ["pipeline_fixtures"]

STAGES = [
    ("download", "speech"),
    ("download", "noise"),
    ("fetch",),
    ("mix",),
    ("shard",),
    ("train",),
    ("evaluate",),
    ("denoise",),
]


def put(**values: Any) -> None:
    """Puts values into the params.yaml of the working directory; mix__seed is the key mix.seed."""
    put_parameters(Path("params.yaml"), {name.replace("__", "."): value for name, value in values.items()})


def sound(name: str, seconds: float = 1.5, level: float = 0.1) -> Path:
    path = Path("data/own") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = level * np.random.default_rng(len(name)).standard_normal(round(16000 * seconds))
    soundfile.write(path, waveform, 16000)
    return path


def folders() -> None:
    """The folders of one's own recordings as they come with the repository, with a table of splits without rows."""
    for role in ("speech", "noise"):
        (Path("data/own") / role).mkdir(parents=True, exist_ok=True)
    Path("data/own/split.csv").write_text("path,split\n", encoding="utf-8")


def files() -> set[Path]:
    return {path for folder in ("data", "metrics", "models") for path in Path(folder).rglob("*") if path.is_file()}


def assert_refused(ended: Ended, *parts: str) -> None:
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    # One sentence, below which the files that it speaks of may be listed.
    assert all(line.startswith("  ") for line in ended.err.splitlines()[1:])
    assert "Traceback" not in ended.err
    for part in parts:
        assert part in ended.err


# ---- params.yaml; export reads none of it


@pytest.mark.parametrize("stage", STAGES, ids="-".join)
def test_every_stage_refuses_a_misspelt_parameter(repository_folder: Path, command: Command, stage: tuple[str, ...]) -> None:
    put(model__layrs=3)
    assert_refused(command(*stage), "params.yaml: model.layrs is not a parameter", "did you mean 'layers'?")
    assert files() == set()


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"model__layers": 0}, ["model.layers", "greater than or equal to 1", "found 0"]),
        ({"model__layers": "3"}, ["model.layers", "valid integer", "found '3'"]),
        ({"mix__snr_db": [15, -5]}, ["mix.snr_db", "upside down", "[-5, 15]"]),
        ({"mix__snr_db": 5}, ["mix.snr_db", "valid list", "found 5"]),
        ({"mix__snr_db": [0, 5, 10]}, ["mix.snr_db", "at most 2 items"]),
        ({"mix__n_train": 0}, ["mix.n_train"]),
        ({"train__loss": "bce"}, ["train.loss bce does not go with model.target irm", "use train.loss=mse or compressed"]),
        ({"model__target": "ibm"}, ["train.loss compressed does not go with model.target ibm", "use train.loss=bce"]),
        (
            {"corpora__speech": ["librispech"]},
            ["corpora.speech.0", "'espeak' or 'folder' or a published corpus", "found 'librispech'"],
        ),
        ({"corpora__noise": []}, ["corpora.noise"]),
        ({"corpora__noise": ["generated", "generated"]}, ["corpora.noise", "'generated' is named twice"]),
        ({"download__noise__generated__kinds": ["white", "hummm"]}, ["download.noise.generated.kinds.1", "found 'hummm'"]),
        ({"download__speech__espeak__test_share": 0.9}, ["download.speech.espeak", "leave nothing to train on"]),
        ({"stft__hop_length": 300}, ["win_length 512 must be 2, 3, 4 … times hop_length 300"]),
        ({"stft__win_length": 1024}, ["win_length 1024 is longer than n_fft 512"]),
        ({"train__learning_rate": float("nan")}, ["train.learning_rate", "found nan"]),
        ({"runtime__n_jobs": 0}, ["runtime", "n_jobs must be a number of processes from 1, or -1"]),
        ({"runtime__device": "gpu"}, ["runtime.device", "found 'gpu'"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_is_named(repository_folder: Path, command: Command, values: dict[str, Any], parts: list[str]) -> None:
    put(**values)
    assert_refused(command("download", "speech"), "params.yaml: ", *parts)
    assert files() == set()


def test_all_wrong_values_are_named_at_once(repository_folder: Path, command: Command) -> None:
    put(model__layers=0, model__cel="gru", mix__seconds=0.1)
    assert_refused(command("mix"), "model.layers", "model.cel", "mix.seconds")


def test_a_missing_section_is_named(repository_folder: Path, command: Command) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("\nshard:", "\nsharp:"), encoding="utf-8")
    assert_refused(command("shard"), "shard is missing", "sharp is not a parameter; did you mean 'shard'?")


@pytest.mark.parametrize(
    ("text", "part"), [("model: [1", "not valid YAML"), ("- 1\n", "expected sections"), ("", "expected sections")]
)
def test_what_is_no_parameter_file_is_refused(repository_folder: Path, command: Command, text: str, part: str) -> None:
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert_refused(command("mix"), "params.yaml", part)


def test_without_a_parameter_file_the_right_place_is_named(repository_folder: Path, command: Command) -> None:
    Path("params.yaml").unlink()
    assert_refused(command("train"), "params.yaml is missing: run from the root of the repository")


def test_a_device_that_is_not_there_is_refused(
    repository_folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    put(runtime__device="cuda")
    assert_refused(command("train"), "'cuda' is not available")
    assert files() == set()


# ---- corpora of one's own


@pytest.fixture
def own(repository_folder: Path) -> Path:
    """A repository with speech and noise of its own, all in order."""
    folders()
    for number in range(4):
        sound(f"speech/speaker{number}/a.wav")
        sound(f"noise/wind/{number}.wav")
    put(corpora__speech=["folder"], corpora__noise=["folder"])
    return repository_folder


def manifests() -> set[Path]:
    return {path for path in files() if "own" not in path.parts}


def test_folders_that_are_in_order_are_mixed(own: Path, command: Command) -> None:
    assert [command(*stage).code for stage in STAGES[:4]] == [0, 0, 0, 0]


def test_recordings_without_a_speaker_are_told(own: Path, command: Command) -> None:
    ended = command("download", "speech")
    assert "folder: 4 recordings of 4 speakers, 0.00 hours: 2 for train, 1 for valid, 1 for test" in ended.out
    assert "of their own" not in ended.out
    sound("speech/one.wav")
    sound("speech/other.wav")
    assert "  2 recordings count as speakers of their own" in command("download", "speech").out


def test_a_folder_that_is_not_there_is_named(own: Path, command: Command) -> None:
    put(download__noise__folder__path="data/own/nois")
    assert_refused(command("download", "noise"), "download.noise.folder.path", "data/own/nois is not a folder")
    assert manifests() == set()


def test_an_empty_folder_is_named(own: Path, command: Command) -> None:
    shutil.rmtree("data/own/noise")
    folders()
    assert_refused(command("download", "noise"), "download.noise.folder.path: no sound files in", "data/own/noise")
    put(download__speech__folder__exclude=["*"])
    assert_refused(command("download", "speech"), "4 were left out by download.speech.folder.exclude")
    assert manifests() == set()


def test_a_missing_table_of_splits_is_named(own: Path, command: Command) -> None:
    Path("data/own/split.csv").unlink()
    assert_refused(command("download", "speech"), "download.speech.folder.split_csv", "split.csv is missing")
    assert manifests() == set()


@pytest.mark.parametrize("pattern", ["(", "speaker", "^(nobody)"])
def test_a_pattern_that_does_not_fit_is_named(own: Path, command: Command, pattern: str) -> None:
    put(download__speech__folder__group=pattern)
    assert_refused(command("download", "speech"), "download.speech.folder.group", f"'{pattern}'")
    assert manifests() == set()


def _silent(path: Path) -> None:
    soundfile.write(path, np.zeros(16000), 16000)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20000])


def _not_a_number(path: Path) -> None:
    soundfile.write(path, np.full(16000, np.nan), 16000, "FLOAT")


def _of_no_length(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16000)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_silent, "silent"),
        (_truncated, "truncated"),
        (_not_a_number, "NaN"),
        (_of_no_length, "no samples"),
        (lambda path: path.write_bytes(b""), "empty (0 bytes)"),
        (lambda path: path.write_text("words"), "not a sound file"),
    ],
    ids=["silent", "truncated", "nan", "no samples", "empty", "text"],
)
@pytest.mark.parametrize("role", ["speech", "noise"])
def test_a_recording_that_cannot_be_used_is_named(
    own: Path, command: Command, role: str, spoil: Callable[[Path], Any], reason: str
) -> None:
    spoil(sound(f"{role}/bad/spoilt.wav"))
    assert_refused(command("download", role), "1 of 5 files cannot be used", f"data/own/{role}/bad/spoilt.wav", reason)
    assert manifests() == set()
    put(**{f"download__{role}__folder__exclude": ["bad/*"]})
    assert command("download", role).code == 0


def test_noise_shorter_than_the_mixtures_is_refused_or_repeated(own: Path, command: Command) -> None:
    for stage in STAGES[:3]:
        assert command(*stage).code == 0
    before = manifests()
    put(mix__seconds=2.0)
    assert_refused(command("mix"), "4 of 4 noise recordings are shorter", "lasts 1.50 s", "mix.short_noise=repeat")
    assert manifests() == before
    put(mix__short_noise="repeat")
    assert command("mix").code == 0


def test_a_corpus_without_enough_speakers_is_refused(own: Path, command: Command) -> None:
    for number in (1, 2, 3):
        shutil.rmtree(f"data/own/speech/speaker{number}")
    for stage in STAGES[:3]:
        assert command(*stage).code == 0
    before = manifests()
    assert_refused(command("mix"), "split has no speech", "more speakers or sources, or other shares")
    assert manifests() == before


# ---- what an earlier stage has not made


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("mix", "run 'dvc repro download' first"),
        ("shard", "data/mixtures/train/index.csv"),
        ("train", "run 'dvc repro shard' first"),
        ("evaluate", "run 'dvc repro mix' first"),
        ("export", "models/denoiser.safetensors: no such weights file; train one with 'dvc repro train'"),
    ],
)
def test_a_stage_whose_input_is_not_there_says_which_comes_first(
    repository_folder: Path, command: Command, stage: str, part: str
) -> None:
    assert_refused(command(stage), part)
    assert files() == set()


def test_an_empty_inbox_is_no_failure_but_said(repository_folder: Path, command: Command) -> None:
    ended = command("denoise")
    hint = "put recordings there, or run 'dvc repro', which makes some"
    assert (ended.code, ended.err) == (2, f"error: data/inbox: no sound or video files in this folder; {hint}.\n")
    assert files() == set()


# ---- under DVC


def test_dvc_refuses_a_parameter_that_is_not_there(copied: Pipeline) -> None:
    ended = copied.run("dvc", "exp", "run", "-S", "model.layrs=3")
    assert ended.returncode != 0
    assert "layrs" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert copied.changed() == set()


def test_a_misspelt_parameter_that_is_added_ends_the_experiment(copied: Pipeline) -> None:
    before = copied.results()
    ended = copied.run("dvc", "exp", "run", "-S", "+model.layrs=3")
    output = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "error: params.yaml: model.layrs is not a parameter; did you mean 'layers'?" in output
    assert output.count("Running stage") == 1
    assert "Traceback" not in output
    after = {path: content for path, content in before.items() if (copied.folder / path).exists()}
    assert {path: (copied.folder / path).read_bytes() for path in after} == after


def test_dvc_names_a_folder_that_is_not_there(copied: Pipeline) -> None:
    copied.set(corpora__noise=["folder"], download__noise__folder__path="data/own/nois")
    ended = copied.run("dvc", "repro")
    output = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "data/own/nois" in output
    assert "Running stage" not in output
    assert "Traceback" not in output

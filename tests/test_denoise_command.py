"""`python -m stages.denoise` and `python -m stages.evaluate --show` as their users run them, and real recordings throughout."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_pipeline import CHECKPOINT, Command, Ended, Pipeline, put_parameters

from stages.core.audio import SUFFIXES

pytest_plugins = ["pipeline_fixtures"]

FORMATS = [
    ("WAV", "PCM_16", "wav", 16000, 1),
    ("WAV", "PCM_24", "wav", 48000, 2),
    ("WAV", "FLOAT", "wav", 44100, 1),
    ("WAV", "PCM_16", "wav", 8000, 2),
    ("FLAC", "PCM_16", "flac", 44100, 2),
    ("OGG", "VORBIS", "ogg", 16000, 1),
    ("AIFF", "PCM_16", "aiff", 22050, 1),
]
SPLITS = ("train", "train", "valid", "test")
QUALITIES = ("frames", "samplerate", "channels", "format", "subtype")


@pytest.fixture
def model(finished: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model at the usual place below the working directory, which holds nothing else."""
    folder = tmp_path / "work"
    (folder / CHECKPOINT.parent).mkdir(parents=True)
    shutil.copy(finished.folder / CHECKPOINT, folder / CHECKPOINT)
    monkeypatch.chdir(folder)
    return CHECKPOINT


def recorded(path: Path, form: str = "WAV", encoding: str = "PCM_16", rate: int = 16000, channels: int = 1) -> Path:
    """A noisy recording of an odd length."""
    random = np.random.default_rng(rate + channels)
    time = np.arange(rate * 6 // 10 + 7)[:, None] / rate
    waveform = 0.2 * np.sin(2 * np.pi * 220 * time) + 0.05 * random.standard_normal((len(time), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, encoding, format=form)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_alike(before: Path, after: Path) -> None:
    first, second = soundfile.info(before), soundfile.info(after)
    assert {name: getattr(first, name) for name in QUALITIES} == {name: getattr(second, name) for name in QUALITIES}
    assert len(soundfile.read(after)[0]) == first.frames


def assert_refused(ended: Ended, *parts: str, code: int = 1) -> None:
    assert ended.code == code
    assert "Traceback" not in ended.out + ended.err
    for part in parts:
        assert part in ended.err


# ---- one file


def test_a_file_is_denoised_to_the_path_that_is_named(model: Path, command: Command) -> None:
    source = recorded(Path("noisy.wav"))
    ended = command("denoise", source, "out/clean.wav")
    assert (ended.code, ended.err) == (0, "")
    assert "denoised 1 of 1 files" in ended.out
    assert_alike(source, Path("out/clean.wav"))
    assert files(Path("out")) == ["clean.wav"]
    noisy, clean = soundfile.read(source)[0], soundfile.read("out/clean.wav")[0]
    assert not np.array_equal(noisy, clean)
    assert 0 < np.mean(clean**2) < np.mean(noisy**2)


def test_a_file_is_denoised_into_a_folder_under_its_name(model: Path, command: Command) -> None:
    source = recorded(Path("noisy.wav"))
    Path("there").mkdir()
    assert command("denoise", source, "there").code == 0
    assert command("denoise", source, "new").code == 0
    assert files(Path("there")) == files(Path("new")) == ["noisy.wav"]


def test_the_command_as_a_program_denoises_and_explains_itself(model: Path, finished: Pipeline, tmp_path: Path) -> None:
    source = recorded(tmp_path / "in" / "noisy.wav", channels=2, rate=8000)
    output = finished.done(sys.executable, "-m", "stages.denoise", str(source.parent), str(tmp_path / "out"), "--jobs", "1")
    assert "denoised 1 of 1 files" in output
    assert_alike(source, tmp_path / "out" / "noisy.wav")
    usage = finished.done(sys.executable, "-m", "stages.denoise", "--help")
    assert usage.startswith("usage: python -m stages.denoise")
    assert "--model" in usage


def test_help_of_every_command(command: Command) -> None:
    for stage in ("denoise", "evaluate", "download"):
        ended = command(stage, "--help")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("usage: ")


# ---- a folder


def test_a_folder_comes_back_with_its_folders_names_and_formats(model: Path, command: Command) -> None:
    sources = [
        recorded(Path(f"in/{place % 3}/deep/{form}-{rate}.{suffix}"), form, encoding, rate, channels)
        for place, (form, encoding, suffix, rate, channels) in enumerate(FORMATS)
    ]
    recorded(Path("in/top level, ümläut.WAV"))
    Path("in/notes.txt").write_text("not a recording", encoding="utf-8")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert files(Path("out")) == sorted(set(files(Path("in"))) - {"notes.txt"})
    for source in sources:
        assert_alike(source, Path("out") / source.relative_to("in"))


def test_processes_change_nothing(model: Path, command: Command) -> None:
    for number in range(3):
        recorded(Path(f"in/{number}.wav"), rate=16000 + number)
    for jobs in ("1", "2"):
        assert command("denoise", "in", f"out{jobs}", "--jobs", jobs).code == 0
    assert files(Path("out1")) == ["0.wav", "1.wav", "2.wav"]
    for name in files(Path("out1")):
        assert (Path("out1") / name).read_bytes() == (Path("out2") / name).read_bytes()


def test_silence_and_very_short_recordings_come_back(model: Path, command: Command) -> None:
    Path("in").mkdir()
    for name, waveform in (("silence", np.zeros(16000)), ("one", np.full(1, 0.1)), ("none", np.zeros(0))):
        soundfile.write(f"in/{name}.wav", waveform, 16000)
    assert command("denoise", "in", "out", "--jobs", "1").code == 0
    for name in ("silence", "one", "none"):
        assert_alike(Path(f"in/{name}.wav"), Path(f"out/{name}.wav"))
    assert not soundfile.read("out/silence.wav")[0].any()


def test_a_corrupt_file_is_named_and_the_others_are_denoised(model: Path, command: Command) -> None:
    for name in ("a", "z/b"):
        recorded(Path(f"in/{name}.wav"))
    cut = recorded(Path("in/m/cut.wav"))
    cut.write_bytes(cut.read_bytes()[:9000])
    Path("in/words.flac").write_text("no sound", encoding="utf-8")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "2 of 4 files failed", "in/m/cut.wav: truncated", "in/words.flac: not a sound file")
    assert "denoised 2 of 4 files" in ended.out
    assert files(Path("out")) == ["a.wav", "z/b.wav"]


# ---- mistakes


def test_an_input_that_is_not_there_is_named(model: Path, command: Command) -> None:
    assert_refused(command("denoise", "nowhere.wav", "out"), "nowhere.wav: no such file or folder")
    assert not Path("out").exists()


def test_a_folder_without_recordings_is_named(model: Path, command: Command) -> None:
    Path("in").mkdir()
    Path("in/notes.txt").write_text("words", encoding="utf-8")
    assert_refused(command("denoise", "in", "out"), "in: no sound files")
    assert not Path("out").exists()


def test_a_missing_output_is_named(model: Path, command: Command) -> None:
    assert_refused(command("denoise", recorded(Path("noisy.wav"))), "name an input and an output", code=2)


@pytest.mark.parametrize("spoil", ["missing", "text", "another program's"])
def test_a_model_that_is_not_there_or_none_is_named(model: Path, command: Command, spoil: str) -> None:
    source = recorded(Path("noisy.wav"))
    if spoil == "missing":
        model.unlink()
    elif spoil == "text":
        model.write_text("no weights", encoding="utf-8")
    else:
        from safetensors.numpy import save_file

        save_file({"weight": np.zeros(3)}, model)
    assert_refused(command("denoise", source, "out"), "models/denoiser.safetensors: ")
    assert_refused(command("denoise", source, "out", "--model", "other.safetensors"), "other.safetensors: no such weights file")
    assert not Path("out").exists()


@pytest.mark.parametrize("output", [".", "noisy.wav", "../work/noisy.wav"])
def test_the_input_is_never_overwritten(model: Path, command: Command, output: str) -> None:
    source = recorded(Path("noisy.wav"))
    before = source.read_bytes()
    assert_refused(command("denoise", source, output), "noisy.wav would be overwritten")
    assert source.read_bytes() == before


def test_a_folder_is_never_overwritten(model: Path, command: Command) -> None:
    source = recorded(Path("in/deep/noisy.wav"))
    before = source.read_bytes()
    Path("link").symlink_to("in")
    for output in ("in", "link", "in/../in"):
        assert_refused(command("denoise", "in", output), "noisy.wav would be overwritten")
    assert source.read_bytes() == before


# ---- the scores


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


def test_scores_that_are_not_there_are_missed(model: Path, command: Command) -> None:
    assert_refused(command("evaluate", "--show"), "metrics/evaluate.json is missing: run 'dvc repro' first")


# ---- real recordings


def test_every_sound_file_is_denoised_or_named(test_audio: Path, model: Path, command: Command) -> None:
    ended = command("denoise", test_audio / "zoo", "out", "--jobs", "1")
    assert "Traceback" not in ended.out + ended.err
    assert ended.code == 1
    found = [path for path in sorted((test_audio / "zoo").iterdir()) if path.suffix.lower() in SUFFIXES]
    good = [path for path in found if is_whole(path)]
    assert len(good) >= 15
    assert files(Path("out")) == [path.name for path in good]
    for path in good:
        assert_alike(path, Path("out") / path.name)
    assert [path.name for path in found if path not in good and path.name not in ended.err] == []


def test_every_other_file_is_named(test_audio: Path, model: Path, command: Command) -> None:
    ended = command("denoise", test_audio / "zoo", "out", "--jobs", "1")
    others = [path.name for path in (test_audio / "zoo").iterdir() if path.suffix.lower() not in SUFFIXES]
    assert len(others) >= 4
    assert [name for name in others if name not in ended.out + ended.err] == []


def is_whole(path: Path) -> bool:
    """Whether a file holds all that was once written to it, and numbers only."""
    # What is missing here libsndfile does not miss.
    if path.name.startswith(("truncated", "header-only")):
        return False
    try:
        waveform, _ = soundfile.read(path, always_2d=True)
    except soundfile.SoundFileError:
        return False
    return len(waveform) == soundfile.info(path).frames and bool(np.isfinite(waveform).all())


def test_real_recordings_go_through_the_whole_pipeline(test_audio: Path, repository_folder: Path, command: Command) -> None:
    speech, noise, pairs = Path("data/own/speech"), Path("data/own/noise"), Path("data/own/pairs")
    for speaker in sorted((test_audio / "speech/librispeech").iterdir())[:4]:
        (speech / speaker.name).mkdir(parents=True)
        for path in sorted(speaker.rglob("*.*"))[:2]:
            shutil.copy(path, speech / speaker.name / path.name)
    noise.mkdir(parents=True)
    for path in sorted((test_audio / "noise/open/speech-commands").iterdir())[:4]:
        shutil.copy(path, noise / path.name)
    rows = [f"noise/{path.name},{split}" for path, split in zip(sorted(noise.iterdir()), SPLITS, strict=True)]
    folders = zip(sorted(speech.iterdir()), SPLITS, strict=True)
    rows += [f"speech/{path.relative_to(speech)},{split}" for folder, split in folders for path in folder.iterdir()]
    Path("data/own/split.csv").write_text("\n".join(["path,split", *rows]) + "\n", encoding="utf-8")
    for side in ("clean", "noisy"):
        (pairs / side).mkdir(parents=True)
        for path in sorted((test_audio / "pairs/dns-no-reverb" / side).iterdir())[:3]:
            shutil.copy(path, pairs / side / path.name)
    values = {"corpora.speech": ["folder"], "corpora.noise": ["folder"], "evaluate.pairs": [str(pairs)], "mix.n_test": 3}
    put_parameters(Path("params.yaml"), values)
    stages = [("download", "speech"), ("download", "noise"), ("mix",), ("shard",), ("train",), ("evaluate",), ("denoise",)]
    for stage in stages:
        ended = command(*stage)
        assert ended.code == 0, (stage, ended.err)
    ended = command("evaluate", "--show")
    scored = {line.rsplit(maxsplit=6)[0].strip(): line.split()[-6:] for line in ended.out.splitlines()[1:]}
    assert {"pairs mixture", "pairs estimate", "pairs oracle"} <= {name for name in scored}
    assert all(cells[0] == "3" and "-" not in cells for name, cells in scored.items() if name.startswith("pairs "))


@pytest.mark.parametrize(("source", "target"), [("in", "in/out"), ("in/sub", "in")])
def test_folders_that_lie_in_each_other_are_refused(model: Path, command: Command, source: str, target: str) -> None:
    inputs = [recorded(Path("in/x.wav")), recorded(Path("in/sub/x.wav")), recorded(Path("in/out/x.wav"))]
    before = [path.read_bytes() for path in inputs]
    assert_refused(command("denoise", source, target, "--jobs", "1"), "lie in each other")
    assert [path.read_bytes() for path in inputs] == before


def test_an_output_with_another_suffix_is_refused(model: Path, command: Command) -> None:
    assert_refused(command("denoise", recorded(Path("a.wav")), "b.flac"), "the format stays that of a.wav")
    assert not Path("b.flac").exists()


def test_options_without_an_input_are_refused(model: Path, command: Command) -> None:
    assert_refused(command("denoise", "--model", "other.safetensors"), "name an input and an output", code=2)
    assert_refused(command("denoise", recorded(Path("a.wav")), "b.wav", "--jobs", "0"), "--jobs", code=2)


def test_names_that_are_not_utf8_are_denoised_and_rates_far_above_the_networks(model: Path, command: Command) -> None:
    recorded(Path("in/high.wav"), rate=384_000)
    Path("in/caf\udce9.wav").write_bytes(Path("in/high.wav").read_bytes())
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert ended.code == 0, ended.err
    assert {path.name for path in Path("out").iterdir()} == {"high.wav", "caf\udce9.wav"}


def test_a_link_to_a_folder_is_followed_once_and_a_dead_link_is_named(model: Path, command: Command) -> None:
    recorded(Path("far/y.wav"))
    recorded(Path("in/z.wav"))
    Path("in/sub").symlink_to(Path("far").resolve())
    Path("far/loop").symlink_to(Path("far").resolve())
    Path("in/dead.wav").symlink_to("nowhere.wav")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert "dead.wav: no such file" in ended.err
    assert sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.wav")) == ["sub/y.wav", "z.wav"]

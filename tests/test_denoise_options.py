"""What `python -m stages.denoise` is told: strength, engine, model, and wrong arguments."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from denoised_files import assert_refused, contents, counted, files, recorded, weights
from safetensors.numpy import save_file
from small_pipeline import CHECKPOINT, Command

pytest_plugins = ["pipeline_fixtures"]

EXPORTED = CHECKPOINT.with_suffix(".onnx")


def samples(path: str | Path) -> np.ndarray:
    """The samples of a file."""
    return np.asarray(soundfile.read(path)[0])


def written(command: Command, source: Path, *options: str | Path) -> np.ndarray:
    """What becomes of a recording, in floating point."""
    ended = command("denoise", source, "out.wav", *options)
    assert (ended.code, ended.err) == (0, "")
    return samples("out.wav")


@pytest.fixture
def noisy(untrained: Path) -> Path:
    """A recording in floating point, so that outputs are not rounded."""
    return recorded(Path("noisy.wav"), encoding="FLOAT", rate=48000, channels=2)


# ---- strength


def test_the_attenuation_limit_holds(noisy: Path, command: Command) -> None:
    wet, dry = written(command, noisy), samples(noisy)
    power = np.mean(dry**2)
    assert np.mean(wet**2) < 0.5 * power
    np.testing.assert_allclose(written(command, noisy, "--attenuation-limit", "0"), dry, rtol=0, atol=1e-5)
    # The gains of this model lie below -3 dB, mostly.
    limited = written(command, noisy, "--attenuation-limit", "3")
    assert np.mean(limited**2) == pytest.approx(10**-0.3 * power, rel=0.05)
    np.testing.assert_allclose(written(command, noisy, "--attenuation-limit", "200"), wet, rtol=0, atol=1e-6)


def test_the_mix_is_part_of_the_recording(noisy: Path, command: Command) -> None:
    wet, dry = written(command, noisy), samples(noisy)
    np.testing.assert_allclose(written(command, noisy, "--mix", "0.25"), 0.75 * wet + 0.25 * dry, rtol=0, atol=1e-5)
    np.testing.assert_allclose(written(command, noisy, "--mix", "1"), dry, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--attenuation-limit", "-1"], "error: The attenuation limit is -1 dB: expected 0 to 200 dB."),
        (["--attenuation-limit", "201"], "error: The attenuation limit is 201 dB: expected 0 to 200 dB."),
        (["--attenuation-limit", "inf"], "error: The attenuation limit is inf dB: expected 0 to 200 dB."),
        (["--mix", "nan"], "error: The share of the unprocessed sound (mix) is nan: expected 0 to 1."),
        (["--attenuation-limit", "nan"], "error: The attenuation limit is nan dB: expected 0 to 200 dB."),
        (["--mix", "1.5"], "error: The share of the unprocessed sound (mix) is 1.5: expected 0 to 1."),
        (["--mix", "-0.5"], "error: The share of the unprocessed sound (mix) is -0.5: expected 0 to 1."),
    ],
)
def test_a_strength_out_of_range_is_refused(noisy: Path, command: Command, options: list[str], text: str) -> None:
    assert_refused(command("denoise", noisy, "out.wav", *options), text, code=2)
    assert not Path("out.wav").exists()


# ---- engine and model


@pytest.mark.parametrize("changes", [{}, {"target": "crm", "cell": "lstm"}, {"bidirectional": True}], ids=str)
def test_both_engines_do_the_same(noisy: Path, command: Command, changes: dict[str, object]) -> None:
    weights(**changes)
    found = [written(command, noisy, "--engine", engine) for engine in ("torch", "onnx")]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found[1], written(command, noisy))


def test_an_exported_file_is_a_model_too(noisy: Path, command: Command) -> None:
    expected = written(command, noisy)
    assert command("export", CHECKPOINT).code == 0
    shutil.move(EXPORTED, "elsewhere.onnx")
    CHECKPOINT.unlink()
    np.testing.assert_array_equal(written(command, noisy, "--model", "elsewhere.onnx"), expected)
    assert_refused(
        command("denoise", noisy, "b.wav", "--model", "elsewhere.onnx", "--engine", "torch"),
        "elsewhere.onnx: PyTorch cannot run an ONNX file",
        code=2,
    )


def test_an_exported_file_beside_the_weights_is_used_only_if_it_is_theirs(noisy: Path, command: Command) -> None:
    assert command("export", CHECKPOINT).code == 0
    first = written(command, noisy)
    weights(seed=2)
    second = written(command, noisy)
    assert np.abs(second - first).max() > 1e-3
    np.testing.assert_allclose(written(command, noisy, "--engine", "torch"), second, rtol=0, atol=1e-4)
    EXPORTED.unlink()
    np.testing.assert_array_equal(written(command, noisy, "--overwrite"), second)


def test_a_damaged_exported_file_beside_the_weights_is_left_alone(noisy: Path, command: Command) -> None:
    expected = written(command, noisy)
    EXPORTED.write_bytes(b"no graph")
    np.testing.assert_array_equal(written(command, noisy, "--overwrite"), expected)
    assert EXPORTED.read_bytes() == b"no graph"


def test_a_model_that_looks_ahead_says_so(noisy: Path, command: Command) -> None:
    assert "looks ahead" not in command("denoise", noisy, "a.wav").out
    weights(bidirectional=True)
    assert "This model looks ahead: recordings are denoised in windows of 4 s" in command("denoise", noisy, "a.wav").out


@pytest.mark.parametrize("spoil", ["missing", "text", "another program's"])
def test_a_model_that_is_not_there_or_none_is_named(untrained: Path, command: Command, spoil: str) -> None:
    source = recorded(Path("noisy.wav"))
    if spoil == "missing":
        untrained.unlink()
    elif spoil == "text":
        untrained.write_text("no weights", encoding="utf-8")
    else:
        save_file({"weight": np.zeros(3)}, untrained)
    for engine in ("onnx", "torch"):
        assert_refused(command("denoise", source, "out", "--engine", engine), "error: models/denoiser.safetensors: ", code=2)
    for name, text in (("other.safetensors", "no such weights file"), ("other.onnx", "no such ONNX file")):
        assert_refused(command("denoise", source, "out", "--model", name), f"error: {name}: {text}", code=2)
    assert not Path("out").exists()


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a"])
def test_a_damaged_exported_file_is_named(untrained: Path, command: Command, content: bytes) -> None:
    Path("bad.onnx").write_bytes(content)
    ended = command("denoise", recorded(Path("noisy.wav")), "out", "--model", "bad.onnx")
    assert_refused(ended, "error: bad.onnx: ", code=2)
    assert not Path("out").exists()


# ---- wrong arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["noisy.wav"], "name an input and an output: python -m stages.denoise INPUT OUTPUT"),
        (["--model", "other.safetensors"], "name an input and an output"),
        (["noisy.wav", "b.wav", "--jobs", "0"], "argument --jobs: expected a whole number from 1, found '0'"),
        (["noisy.wav", "b.wav", "--jobs", "two"], "argument --jobs: expected a whole number from 1, found 'two'"),
        (["noisy.wav", "b.wav", "--mix", "half"], "argument --mix: invalid float value: 'half'"),
        (["noisy.wav", "b.wav", "--engine", "tensorflow"], "argument --engine: invalid choice: 'tensorflow'"),
        (["noisy.wav", "b.wav", "--sample-rate", "8000"], "unrecognized arguments: --sample-rate"),
        (["noisy.wav", "b.wav", "c.wav"], "unrecognized arguments: c.wav"),
        (["noisy.wav", "b.wav", "--rate", "16000"], "describe the raw samples of --stream: files say their own"),
        (["noisy.wav", "b.wav", "--channels", "1"], "describe the raw samples of --stream: files say their own"),
        (["--stream", "--channels", "2"], "--channels and --encoding describe raw samples: add --rate"),
        (["--stream", "--report", "r.csv"], "--overwrite, --report and --jobs are for files"),
        (["--stream", "--jobs", "2"], "--overwrite, --report and --jobs are for files"),
        (["--stream", "--overwrite"], "--overwrite, --report and --jobs are for files"),
        (["--stream", "--encoding", "f32"], "--channels and --encoding describe raw samples: add --rate"),
        (["noisy.wav", "b.wav", "--stream"], "--stream reads standard input and writes standard output"),
        (["--stream", "--rate", "0"], "argument --rate: expected a whole number from 1000 to 3000000, found '0'"),
        (["--stream", "--rate", "16k"], "argument --rate: expected a whole number from 1000 to 3000000, found '16k'"),
        (["--stream", "--rate", "99999999999999999999"], "argument --rate: expected a whole number from 1000 to 3000000"),
        (["--stream", "--rate", "8000", "--channels", "1025"], "argument --channels: expected a whole number from 1 to 1024"),
        (["--stream", "--encoding", "s17"], "argument --encoding: invalid choice: 's17'"),
    ],
)
def test_wrong_arguments_are_named(untrained: Path, command: Command, arguments: list[str], text: str) -> None:
    recorded(Path("noisy.wav"))
    ended = command("denoise", *arguments)
    assert_refused(ended, text, "usage: python -m stages.denoise", code=2)
    assert not Path("b.wav").exists()


def test_an_input_that_is_not_there_is_named(untrained: Path, command: Command) -> None:
    assert_refused(command("denoise", "nowhere.wav", "out"), "error: nowhere.wav: no such file or folder.", code=2)
    assert not Path("out").exists()


def test_a_file_as_the_place_of_a_folder_is_named(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    Path("out").write_text("mine", encoding="utf-8")
    assert_refused(
        command("denoise", "in", "out"), "error: out is a file: name a folder for what becomes of the folder in.", code=2
    )
    assert Path("out").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("noisy.wav", "noisy.wav: the report would replace noisy.wav or its output: name another file."),
        ("./clean.wav", "clean.wav: the report would replace noisy.wav or its output: name another file."),
        ("clean.wav.flac", "clean.wav.flac: the report would replace noisy.wav or its output: name another file."),
        (CHECKPOINT, f"{CHECKPOINT}: the report would replace the model: name another file."),
        ("models", "models: the report would be written here, but this is a folder: name a file."),
        ("noisy.wav/report.csv", "noisy.wav/report.csv: something else is in the place of its folder"),
    ],
)
def test_a_report_in_a_wrong_place_is_refused_before_the_work(
    untrained: Path, command: Command, report: str | Path, text: str
) -> None:
    recorded(Path("noisy.wav"))
    before = contents(Path())
    assert_refused(command("denoise", "noisy.wav", "clean.wav", "--report", report), f"error: {text}", code=2)
    assert {name: content for name, content in contents(Path()).items() if not name.startswith(".cache")} == before


def test_a_folder_in_the_place_of_an_output_is_named(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    Path("out/a.wav").mkdir(parents=True)
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "1 of 1 files failed")
    assert "out/a.wav is a folder, where a file is to be written: remove it, or name another place." in ended.out


def test_a_file_of_any_name_is_tried(untrained: Path, command: Command) -> None:
    """In a folder the suffix decides what is a recording; what is named is one."""
    recorded(Path("in/take.bin"))
    ended = command("denoise", "in/take.bin", "out")
    assert (ended.code, counted(ended)) == (0, {"denoised": 1})
    assert files(Path("out")) == ["take.bin"]
    Path("words.txt").write_text("no sound at all", encoding="utf-8")
    ended = command("denoise", "words.txt", "out")
    assert_refused(ended, "error: 1 of 1 files failed")
    assert "words.txt: not a sound" in ended.out

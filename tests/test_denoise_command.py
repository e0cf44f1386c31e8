"""`python -m stages.denoise` with files and folders, as its users run it."""

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from denoised_files import (
    REPORT,
    assert_alike,
    assert_refused,
    contents,
    counted,
    files,
    recorded,
    untouched,
    weights,
)
from media_specimens import media_file
from small_pipeline import CHECKPOINT, Command, Pipeline

from stages import denoise
from stages.core import media
from stages.core.files import PARTIAL

pytest_plugins = ["pipeline_fixtures"]

FORMATS = [
    ("WAV", "PCM_16", "wav", 16000, 1),
    ("WAV", "PCM_24", "wav", 48000, 2),
    ("WAV", "FLOAT", "wav", 44100, 1),
    ("WAV", "PCM_U8", "wav", 8000, 2),
    ("FLAC", "PCM_16", "flac", 44100, 2),
    ("OGG", "VORBIS", "ogg", 16000, 1),
    ("AIFF", "PCM_16", "aiff", 22050, 1),
]
CONTAINERS = ["aac.m4a", "aac.mp4", "opus.webm", "wma2.wma"]


def rows() -> dict[str, dict[str, str]]:
    """The report below `out`, by file."""
    table = pd.read_csv(Path("out") / REPORT, dtype=str, keep_default_na=False)
    assert list(table.columns) == ["file", "status", "output", "seconds", "remarks"]
    return {row["file"]: row for row in table.to_dict("records")}


# ---- one file


def test_a_file_is_denoised_to_the_path_that_is_named(untrained: Path, command: Command) -> None:
    source = recorded(Path("noisy.wav"))
    ended = command("denoise", source, "out/clean.wav")
    assert (ended.code, ended.err) == (0, "")
    assert counted(ended) == {"denoised": 1}
    assert_alike(source, Path("out/clean.wav"))
    assert files(Path("out")) == ["clean.wav"]
    noisy, clean = soundfile.read(source)[0], soundfile.read("out/clean.wav")[0]
    assert 0 < np.mean(clean**2) < 0.8 * np.mean(noisy**2)


def test_a_file_is_denoised_into_a_folder_under_its_name(untrained: Path, command: Command) -> None:
    source = recorded(Path("noisy.wav"))
    Path("there.d").mkdir()
    assert command("denoise", source, "there.d").code == 0
    assert command("denoise", source, "new").code == 0
    assert command("denoise", source, "v1.0/").code == 0
    assert files(Path("there.d")) == files(Path("new")) == files(Path("v1.0")) == ["noisy.wav"]


def test_what_a_killed_run_left_beside_a_file_is_cleared(untrained: Path, command: Command) -> None:
    recorded(Path("noisy.wav"))
    left = [Path(f"out/{folder}{PARTIAL}{'0' * 32}.wav") for folder in ("", "deep/")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert command("denoise", "noisy.wav", "out/clean.wav").code == 0
    # Only the folder that is written to is the command's.
    assert [path.exists() for path in left] == [False, True]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (".", "noisy-denoised.wav"),
        ("noisy.wav", "noisy-denoised.wav"),
        ("../work/noisy.wav", "../work/noisy-denoised.wav"),
    ],
)
def test_a_file_is_denoised_beside_itself(untrained: Path, command: Command, output: str, said: str) -> None:
    before = recorded(Path("noisy.wav")).read_bytes()
    ended = command("denoise", "noisy.wav", output)
    assert (ended.code, f"1 denoised into {said}," in ended.out) == (0, True)
    assert sorted(path.name for path in Path().glob("*.wav")) == ["noisy-denoised.wav", "noisy.wav"]
    assert Path("noisy.wav").read_bytes() == before
    assert_alike(Path("noisy.wav"), Path("noisy-denoised.wav"))


def test_no_more_than_twenty_files_that_are_no_sound_are_named(untrained: Path, command: Command) -> None:
    recorded(Path("in/noisy.wav"))
    for number in range(22):
        Path(f"in/{number:02d}.txt").touch()
    said = command("denoise", "in", "out").out
    assert "no sound or video (22): 00.txt, 01.txt," in said
    assert "19.txt and 2 more\n" in said


def test_a_file_is_never_written_over_through_a_link(untrained: Path, command: Command) -> None:
    before = recorded(Path("noisy.wav")).read_bytes()
    Path("link.wav").symlink_to("noisy.wav")
    assert command("denoise", "noisy.wav", "link.wav").code == 0
    assert Path("noisy.wav").read_bytes() == before


def test_an_input_is_never_written_over_under_the_name_of_another_format(untrained: Path, command: Command) -> None:
    before = recorded(Path("song.webm.flac"), "FLAC", rate=44100).read_bytes()
    ended = command("denoise", "song.webm.flac", "song.webm")
    assert ended.code == 0
    assert sorted(path.name for path in Path().glob("song*")) == ["song.webm.flac", "song.webm.wav"]
    assert Path("song.webm.flac").read_bytes() == before


def test_the_suffix_of_the_output_rules_its_format(untrained: Path, command: Command) -> None:
    source = recorded(Path("noisy.wav"), rate=44100, channels=2)
    assert command("denoise", source, "clean.flac").code == 0
    info = soundfile.info("clean.flac")
    assert (info.format, info.samplerate, info.channels) == ("FLAC", 44100, 2)
    assert info.frames == soundfile.info(source).frames


def test_the_command_as_a_program_denoises_and_explains_itself(finished: Pipeline, tmp_path: Path) -> None:
    source = recorded(tmp_path / "in" / "noisy.wav", channels=2, rate=8000)
    for status in ("denoised", "kept"):
        output = finished.done(sys.executable, "-m", "stages.denoise", str(source.parent), str(tmp_path / "out"), "--jobs", "1")
        assert f"1 {status}" in output
    assert_alike(source, tmp_path / "out" / "noisy.wav")


def test_help_of_every_command(command: Command) -> None:
    for stage in ("denoise", "evaluate", "export", "download"):
        ended = command(stage, "--help")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("usage: ")


def test_help_names_every_option_exit_codes_and_examples(command: Command) -> None:
    text = command("denoise", "--help").out
    options = ["--model", "--engine {onnx,torch}", "--attenuation-limit DB", "--mix SHARE", "--overwrite", "--jobs N"]
    options += ["--report CSV", "--stream", "--rate HZ", "--channels N", "--encoding"]
    assert [option for option in options if f"\n  {option}" not in text] == []
    for part in ("exit codes:", "examples:", "arecord", "default: best, and live for --stream", "0 to 200"):
        assert part in " ".join(text.split())
    # Such as a % of the text that argparse took for its own.
    assert "%" not in text


# ---- a folder


def test_a_folder_comes_back_with_its_folders_names_and_formats(untrained: Path, command: Command) -> None:
    sources = [
        recorded(Path(f"in/{place % 3}/deep/{form}-{rate}.{suffix}"), form, encoding, rate, channels)
        for place, (form, encoding, suffix, rate, channels) in enumerate(FORMATS)
    ]
    recorded(Path("in/top level, ümläut and 'quote'.WAV"))
    Path("in/notes.txt").write_text("not a recording", encoding="utf-8")
    recorded(Path("in/.hidden.wav"))
    recorded(Path("in/.hidden/one.wav"))
    before = untouched(Path("in"))
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert "passed over, by their names no sound or video (1): notes.txt" in ended.out
    names = [name for name in files(Path("in")) if not name.startswith(".") and name != "notes.txt"]
    assert files(Path("out")) == sorted([*names, REPORT])
    for source in sources:
        assert_alike(source, Path("out") / source.relative_to("in"))
    assert untouched(Path("in")) == before
    assert sorted(rows()) == names
    for name, row in rows().items():
        assert (row["status"], row["output"], row["remarks"]) == ("denoised", name, "")
        assert float(row["seconds"]) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_come_back_with_all_they_hold(untrained: Path, command: Command, name: str) -> None:
    Path("in").mkdir()
    source = media_file(Path("in") / name, n_channels=2)
    before = untouched(Path("in"))
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    found = [with_samples(path) for path in (source, Path("out") / name)]
    assert found[0][1:] == found[1][1:]
    assert np.mean(found[1][0] ** 2) < np.mean(found[0][0] ** 2)
    assert untouched(Path("in")) == before


def with_samples(path: Path) -> tuple[np.ndarray, int, tuple[int, ...], str, str]:
    with media.reader(path) as source:
        samples = np.concatenate(list(source.blocks(5000)))
        return samples, source.sample_rate, samples.shape, source.format.container, source.format.encoding


@pytest.mark.parametrize("output", ["in", "link", "in/../in"])
def test_in_the_same_folder_outputs_get_names_of_their_own(untrained: Path, command: Command, output: str) -> None:
    recorded(Path("in/a.wav"))
    recorded(Path("in/deep/b.flac"), "FLAC")
    Path("link").symlink_to("in")
    before = untouched(Path("in"))
    assert counted(command("denoise", "in", output, "--jobs", "1")) == {"denoised": 2}
    expected = ["a-denoised.wav", "a.wav", "deep/b-denoised.flac", "deep/b.flac", REPORT]
    assert files(Path("in")) == sorted(expected)
    outputs = contents(Path("in"))
    ended = command("denoise", "in", output, "--jobs", "1")
    assert counted(ended) == {"denoised": 0, "kept": 2}
    assert "passed over" not in ended.out
    assert contents(Path("in")) == outputs
    after = untouched(Path("in"))
    assert {name: after[name] for name in before} == before


def test_an_output_folder_inside_the_input_folder_is_no_input(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    for expected in ({"denoised": 1}, {"denoised": 0, "kept": 1}):
        assert counted(command("denoise", "in", "in/out", "--jobs", "1")) == expected
    assert files(Path("in")) == ["a.wav", "out/a.wav", f"out/{REPORT}"]


def test_an_input_folder_inside_the_output_folder_is_refused(untrained: Path, command: Command) -> None:
    for name in ("in/x.wav", "in/sub/x.wav"):
        recorded(Path(name))
    before = untouched(Path("in"))
    assert_refused(command("denoise", "in/sub", "in", "--jobs", "1"), "in/sub lies inside in", "name another folder", code=2)
    assert untouched(Path("in")) == before


def test_processes_change_nothing(untrained: Path, command: Command) -> None:
    for number in range(5):
        recorded(Path(f"in/{number}.wav"), rate=16000 + 50 * number)
    for jobs in ("1", "2"):
        assert command("denoise", "in", f"out{jobs}", "--jobs", jobs, "--overwrite").code == 0
    assert contents(Path("out1")) == contents(Path("out2"))
    assert len(files(Path("out1"))) == 6


def test_silence_and_very_short_recordings_come_back(untrained: Path, command: Command) -> None:
    Path("in").mkdir()
    for name, waveform in (("silence", np.zeros(16000)), ("one", np.full(1, 0.1)), ("none", np.zeros(0))):
        soundfile.write(f"in/{name}.wav", waveform, 16000)
    assert command("denoise", "in", "out", "--jobs", "1").code == 0
    for name in ("silence", "one", "none"):
        assert_alike(Path(f"in/{name}.wav"), Path(f"out/{name}.wav"))
    assert not soundfile.read("out/silence.wav")[0].any()


@pytest.mark.parametrize(("place", "said"), [("pipe", ""), ("full", "standard output cannot be written: No space left")])
def test_a_summary_that_nobody_reads_fails_nothing(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    recorded(Path("in/a.wav"))
    Path("in/notes.txt").touch()
    listening, writing = os.pipe()
    os.close(listening)
    with open(writing, "w", encoding="utf-8") as pipe, Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", pipe if place == "pipe" else full)
        ended = command("denoise", "in", "out", "--jobs", "1")
    assert ended.code == 0
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == bool(said)
    assert files(Path("out")) == ["a.wav", REPORT]


def test_clipping_is_said(untrained: Path, command: Command) -> None:
    # A model with gains of one, by the mix.
    soundfile.write("loud.wav", np.full(4000, 1.5), 16000, "FLOAT")
    ended = command("denoise", "loud.wav", "loud.flac", "--mix", "1")
    assert "loud.wav: 4000 values were clipped at full scale" in ended.out
    assert command("denoise", "loud.wav", "over.wav", "--mix", "1").code == 0
    np.testing.assert_allclose(soundfile.read("over.wav")[0], 1.5, atol=1e-4)


# ---- names and links


def test_names_that_are_not_utf8_are_denoised_and_rates_far_above_the_networks(untrained: Path, command: Command) -> None:
    recorded(Path("in/high.wav"), rate=384_000)
    recorded(Path("in/caf\udce9.wav"))
    recorded(Path("in/caf\udce9/deep.wav"))
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert ended.code == 0, ended.err
    assert files(Path("out")) == sorted(["caf\udce9.wav", "caf\udce9/deep.wav", "high.wav", REPORT])
    assert "caf\\xe9.wav" in rows()


@pytest.mark.parametrize("name", ["Take 1: a.m4a", "file:one.m4a", "-v.m4a", "100%d.m4a", "a#b?c.m4a"])
def test_names_that_look_like_something_else_are_names(untrained: Path, command: Command, name: str) -> None:
    Path("in").mkdir()
    media_file(Path("in/aac.m4a")).rename(Path("in") / name)
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert ended.code == 0, ended.out
    assert files(Path("out")) == sorted([name, REPORT])
    assert with_samples(Path("out") / name)[1:] == with_samples(Path("in") / name)[1:]


def test_a_link_to_a_folder_is_followed_once_and_a_dead_link_is_named(untrained: Path, command: Command) -> None:
    recorded(Path("far/y.wav"))
    recorded(Path("in/z.wav"))
    Path("in/sub").symlink_to(Path("far").resolve())
    Path("far/loop").symlink_to(Path("far").resolve())
    Path("in/dead.wav").symlink_to("nowhere.wav")
    Path("in/endless.wav").symlink_to("/dev/zero")
    Path("in/linked.wav").symlink_to(Path("far/y.wav").resolve())
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert ended.code == 1
    assert "in/dead.wav" in ended.out
    assert "No such file or directory" in ended.out
    assert "in/endless.wav is no regular file" in ended.out
    assert files(Path("out")) == sorted(["linked.wav", "sub/y.wav", "z.wav", REPORT])
    assert not Path("out/linked.wav").is_symlink()


def test_a_recording_that_is_the_input_through_a_link_is_never_replaced(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    before = recorded(Path("orig/a.wav"), rate=8000).read_bytes()
    Path("in/b.wav").symlink_to("../orig/a.wav")
    ended = command("denoise", "in", "orig", "--jobs", "1")
    assert_refused(ended, "1 of 2 files failed")
    assert "orig/a.wav is the recording b.wav, which a.wav would replace: name another folder." in ended.out
    assert Path("orig/a.wav").read_bytes() == before
    assert_alike(Path("orig/a.wav"), Path("orig/b.wav"))


def test_a_link_to_itself_fails_by_itself(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    Path("in/loop.wav").symlink_to("loop.wav")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "1 of 2 files failed")
    assert "in/loop.wav: Too many levels of symbolic links" in ended.out
    Path("loop").symlink_to("loop")
    assert_refused(command("denoise", "in", "loop", "--jobs", "1"), "loop", code=2)
    assert_refused(command("denoise", "loop", "out"), "error: loop: no such file or folder.", code=2)


# ---- what is done is not done again


def test_a_second_run_keeps_everything(untrained: Path, command: Command) -> None:
    for name in ("a.wav", "deep/b.wav"):
        recorded(Path("in") / name)
    assert counted(command("denoise", "in", "out", "--jobs", "1")) == {"denoised": 2}
    before = untouched(Path("out"))
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert counted(ended) == {"denoised": 0, "kept": 2}
    after = untouched(Path("out"))
    # The report is written anew, with the same text.
    assert {name: value[0] for name, value in after.items()} == {name: value[0] for name, value in before.items()}
    assert [name for name in before if after[name] != before[name] and name != REPORT] == []


def test_content_decides_and_not_dates(untrained: Path, command: Command) -> None:
    for name in ("a.wav", "b.wav"):
        recorded(Path("in") / name)
    command("denoise", "in", "out", "--jobs", "1")
    for path in (*Path("in").iterdir(), CHECKPOINT, Path("out/a.wav")):
        os.utime(path, (1, 1))
    assert counted(command("denoise", "in", "out", "--jobs", "1"))["kept"] == 2
    shutil.copy(recorded(Path("other/b.wav"), rate=8000), "in/b.wav")
    os.utime("in/b.wav", (1, 1))
    assert counted(command("denoise", "in", "out", "--jobs", "1")) == {"denoised": 1, "kept": 1}
    assert_alike(Path("in/b.wav"), Path("out/b.wav"))


@pytest.mark.parametrize(
    "change",
    [["--attenuation-limit", "6"], ["--mix", "0.1"], ["--engine", "torch"], ["--overwrite"], "model", "gone"],
)
def test_whatever_decides_the_output_makes_it_anew(untrained: Path, command: Command, change: list[str] | str) -> None:
    recorded(Path("in/a.wav"))
    command("denoise", "in", "out", "--jobs", "1")
    expected = Path("out/a.wav").read_bytes()
    if change == "model":
        weights(seed=2)
    elif change == "gone":
        Path("out/a.wav").unlink()
    options = change if isinstance(change, list) else []
    assert counted(command("denoise", "in", "out", "--jobs", "1", *options)) == {"denoised": 1}
    assert (Path("out/a.wav").read_bytes() == expected) is (change in (["--overwrite"], "gone"))
    kept = options if change != ["--overwrite"] else []
    assert counted(command("denoise", "in", "out", "--jobs", "1", *kept)) == {"denoised": 0, "kept": 1}


@pytest.mark.parametrize("edited", [True, False])
def test_files_that_are_no_outputs_keep_their_places(untrained: Path, command: Command, edited: bool) -> None:
    for name in ("a.wav", "b.wav"):
        recorded(Path("in") / name)
    if edited:
        command("denoise", "in", "out", "--jobs", "1")
        expected = Path("out/a.wav").read_bytes()
    Path("out").mkdir(exist_ok=True)
    Path("out/a.wav").write_bytes(b"what the user put there")
    for count in ({"kept": 1}, {"kept": 1}) if edited else ({"denoised": 1}, {"kept": 1}):
        ended = command("denoise", "in", "out", "--jobs", "1")
        assert_refused(ended, "error: 1 of 2 files failed")
        assert counted(ended) == {"denoised": 0, "failed": 1} | count
        assert "out/a.wav is there already, and was not made from here" in rows()["a.wav"]["remarks"]
        assert Path("out/a.wav").read_bytes() == b"what the user put there"
    assert counted(command("denoise", "in", "out", "--jobs", "1", "--overwrite")) == {"denoised": 2}
    if edited:
        assert Path("out/a.wav").read_bytes() == expected


def test_a_single_output_replaces_nothing_unasked(untrained: Path, command: Command) -> None:
    source, other = recorded(Path("a.wav")), recorded(Path("b.wav"))
    before = other.read_bytes()
    assert_refused(command("denoise", source, other), "error: 1 of 1 files failed")
    assert other.read_bytes() == before
    assert command("denoise", source, other, "--overwrite").code == 0
    assert_alike(source, other)
    assert other.read_bytes() != before


def test_a_report_replaces_nothing_but_a_report(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    notes, table = Path("notes.csv"), Path("table.csv")
    notes.write_text("name,remark\n", encoding="utf-8")
    table.touch()
    ended = command("denoise", "in", "out", "--jobs", "1", "--report", notes)
    assert_refused(ended, "notes.csv is there already, and was not made from here or was changed since: move it away", code=2)
    assert notes.read_text(encoding="utf-8") == "name,remark\n"
    for place, options in ((table, []), (table, []), (notes, ["--overwrite"])):
        assert command("denoise", "in", "out", "--jobs", "1", "--report", place, *options).code == 0
        assert "a.wav,denoised,a.wav" in place.read_text(encoding="utf-8")


def test_a_report_that_was_edited_is_not_replaced(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    assert command("denoise", "in", "out", "--jobs", "1").code == 0
    table = Path("out/denoise-report.csv")
    with table.open("a", encoding="utf-8") as file:
        file.write("checked by Anna\n")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "out/denoise-report.csv is there already, and was not made from here or was changed since", code=2)
    assert table.read_text(encoding="utf-8").endswith("checked by Anna\n")
    table.rename("checked.csv")
    assert command("denoise", "in", "out", "--jobs", "1").code == 0


def test_a_file_that_comes_into_the_place_of_the_report_stays(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(Path("in/a.wav"))
    monkeypatch.setattr(denoise, "report", lambda outcomes: Path("out/denoise-report.csv").write_text("mine") and "a table")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "error: No report was written: out/denoise-report.csv is there already")
    assert Path("out/denoise-report.csv").read_text() == "mine"
    assert counted(ended) == {"denoised": 1}


def test_a_report_that_the_disk_refuses_is_named_and_what_was_done_is_told(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(Path("in/a.wav"))

    def full(outcomes: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(denoise, "report", full)
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "error: No report was written: out/denoise-report.csv: No space left on device.")
    assert counted(ended) == {"denoised": 1}


def test_a_recording_that_is_changed_while_it_is_read_has_no_output(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = recorded(Path("in/a.wav"))
    states = iter([(1, 2, 3), (1, 2, 4)])
    monkeypatch.setattr(denoise, "_state", lambda path: next(states))
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert f"{source} was changed while it was read: denoise it again." in ended.out
    assert files(Path("out")) == ["denoise-report.csv"]


def test_a_file_without_a_suffix_keeps_its_name(untrained: Path, command: Command) -> None:
    recorded(Path("a.wav")).rename("take")
    assert command("denoise", "take", "out/").code == 0
    assert files(Path("out")) == ["take"]


@pytest.mark.parametrize("there", ["a pipe", "a link that leads nowhere"])
def test_a_report_replaces_nothing_that_is_no_file(untrained: Path, command: Command, there: str) -> None:
    recorded(Path("in/a.wav"))
    place = Path("report.csv")
    if there == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    ended = command("denoise", "in", "out", "--jobs", "1", "--report", place, "--overwrite")
    assert_refused(ended, "report.csv: the report would replace this, which is no file: name another one.", code=2)
    assert place.is_fifo() or place.is_symlink()


@pytest.mark.parametrize("place", ["out", "out/a.wav/report.csv"])
def test_a_report_is_not_in_the_way_of_an_output(untrained: Path, command: Command, place: str) -> None:
    recorded(Path("in/a.wav"))
    for named in (place, Path(place).absolute()):
        ended = command("denoise", "in", "out", "--jobs", "1", "--report", named)
        assert_refused(ended, f"{named}: the report would be in the way of the output of a.wav: name another file.", code=2)
    assert not Path("out").exists()


def test_recordings_of_one_name_in_two_folders_do_not_replace_each_other(untrained: Path, command: Command) -> None:
    for number, name in enumerate(("day1", "day2")):
        recorded(Path(name) / "r.wav", rate=(8000, 16000)[number])
    assert command("denoise", "day1", "out", "--jobs", "1").code == 0
    first = Path("out/r.wav").read_bytes()
    assert_refused(command("denoise", "day2", "out", "--jobs", "1"), "error: 1 of 1 files failed")
    assert "out/r.wav is there already, and was made from " in rows()["r.wav"]["remarks"]
    assert "day1/r.wav: move it away" in rows()["r.wav"]["remarks"]
    assert Path("out/r.wav").read_bytes() == first
    assert command("denoise", "day2", "out2", "--jobs", "1").code == 0


def test_a_moved_recording_is_denoised_to_its_new_place(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    command("denoise", "in", "out", "--jobs", "1")
    Path("in/a.wav").rename("in/b.wav")
    assert counted(command("denoise", "in", "out", "--jobs", "1")) == {"denoised": 1}
    assert Path("out/b.wav").read_bytes() == Path("out/a.wav").read_bytes()


# ---- failures


def test_a_file_that_fails_is_named_and_the_others_are_denoised(untrained: Path, command: Command) -> None:
    for name in ("a", "z/b"):
        recorded(Path(f"in/{name}.wav"))
    cut = recorded(Path("in/m/cut.wav"))
    cut.write_bytes(cut.read_bytes()[:9000])
    Path("in/words.flac").write_text("no sound", encoding="utf-8")
    Path("in/empty.mp3").touch()
    soundfile.write("in/nan.wav", np.array([0.1, np.nan]), 16000, "FLOAT")
    reasons = {
        "m/cut.wav": "in/m/cut.wav: truncated: expected ",
        "words.flac": "in/words.flac: not a sound file, or one without a single sample",
        "empty.mp3": "in/empty.mp3: the file is empty (0 bytes)",
        "nan.wav": "in/nan.wav: holds samples that are NaN, the first at 0.000 s",
    }
    for expected in ({"denoised": 2, "failed": 4}, {"denoised": 0, "kept": 2, "failed": 4}):
        ended = command("denoise", "in", "out", "--jobs", "1")
        assert_refused(ended, "error: 4 of 6 files failed, as listed above.")
        assert counted(ended) == expected
        assert files(Path("out")) == sorted(["a.wav", "z/b.wav", REPORT])
        assert {name: row["status"] for name, row in rows().items()} == {
            "a.wav": "denoised",
            "z/b.wav": "denoised",
            **dict.fromkeys(reasons, "failed"),
        }
        for name, reason in reasons.items():
            assert rows()[name]["remarks"].startswith(reason)
            assert reason in ended.out
            assert rows()[name]["output"] == ""


def test_the_report_goes_where_it_is_asked_for(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    ended = command("denoise", "in", "out", "--jobs", "1", "--report", "tables/all.csv")
    assert "report: tables/all.csv" in ended.out
    assert "a.wav,denoised,a.wav,0.6" in Path("tables/all.csv").read_text(encoding="utf-8")
    assert files(Path("out")) == ["a.wav"]


def test_an_output_that_cannot_be_written_is_named(untrained: Path, command: Command) -> None:
    recorded(Path("in/a.wav"))
    recorded(Path("in/b/c.wav"))
    Path("out").mkdir()
    Path("out/b").write_text("a file in the place of a folder", encoding="utf-8")
    ended = command("denoise", "in", "out", "--jobs", "1")
    assert_refused(ended, "1 of 2 files failed")
    assert counted(ended) == {"denoised": 1, "failed": 1}
    assert rows()["b/c.wav"]["remarks"].startswith("out/b/c.wav: a file is in the place of its folder: move that away")


@pytest.mark.parametrize("names", [[], ["notes.txt"], [".hidden.wav"]])
def test_a_folder_without_recordings_is_named(untrained: Path, command: Command, names: list[str]) -> None:
    Path("in").mkdir()
    for name in names:
        (Path("in") / name).write_text("words", encoding="utf-8")
    assert_refused(command("denoise", "in", "out"), "error: in: no sound or video files in this folder.", code=2)
    assert not Path("out").exists()

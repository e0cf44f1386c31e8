"""Which output belongs to which input, and the table of all."""

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import law

from stages.core.batch import BatchError, Job, Outcome, jobs, report
from stages.core.files import visible_files


def filled(folder: Path, **sizes: int) -> Path:
    """A folder with files of so many bytes; a__wav is a.wav, b___c__wav is b/c.wav."""
    for name, size in sizes.items():
        path = folder / name.replace("___", "/").replace("__", ".").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


def places(source: Path, target: Path) -> dict[str, str]:
    """Outputs by the names of their inputs, in the order of the jobs."""
    found, _ = jobs(source, target)
    return {job.name: job.target.as_posix() for job in found}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests work with relative paths, as commands mostly do."""
    monkeypatch.chdir(tmp_path)


# ---- jobs


def test_outputs_mirror_the_input_and_the_largest_come_first() -> None:
    source = filled(Path("in"), a__wav=5, b___c__FLAC=900, b___d__m4a=7, notes__txt=3, e__wav=5)
    found, others = jobs(source, Path("out"))
    assert [(job.name, job.target.as_posix(), job.n_bytes) for job in found] == [
        ("b/c.FLAC", "out/b/c.FLAC", 900),
        ("b/d.m4a", "out/b/d.m4a", 7),
        ("a.wav", "out/a.wav", 5),
        ("e.wav", "out/e.wav", 5),
    ]
    assert [job.source for job in found] == [source / job.name for job in found]
    assert others == ["notes.txt"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("out", "out/a.wav"),
        ("there.d", "there.d/a.wav"),
        ("out/b.wav", "out/b.wav"),
        ("b.flac", "b.flac"),
        ("in", "in/a-denoised.wav"),
        ("in/a.wav", "in/a-denoised.wav"),
        ("in/../in/a.wav", "in/../in/a-denoised.wav"),
    ],
)
def test_the_place_of_one_file(target: str, expected: str) -> None:
    filled(Path("in"), a__wav=1)
    Path("there.d").mkdir()
    assert places(Path("in/a.wav"), Path(target)) == {"a.wav": expected}


def test_outputs_in_the_same_folder_are_no_input() -> None:
    source = filled(Path("in"), a__wav=3, a_denoised__wav=3, b___c__wav=2, b___c_denoised__wav=2)
    (source / "denoise-report.csv").touch()
    expected = {"a.wav": "in/a-denoised.wav", "b/c.wav": "in/b/c-denoised.wav"}
    assert places(source, Path("in")) == expected
    assert jobs(source, Path("in"))[1] == []
    # In another folder they are recordings like any other.
    assert len(places(source, Path("out"))) == 4


def test_an_output_folder_inside_the_input_folder_is_no_input() -> None:
    source = filled(Path("in"), a__wav=1, out___a__wav=1, outer___a__wav=1)
    assert places(source, Path("in/out")) == {"a.wav": "in/out/a.wav", "outer/a.wav": "in/out/outer/a.wav"}
    Path("link").symlink_to("in/out")
    assert set(places(source, Path("link"))) == {"a.wav", "outer/a.wav"}


def test_outputs_in_the_same_folder_are_no_input_in_another_format_either() -> None:
    source = filled(Path("in"), a__ac3=3, a_denoised__ac3__flac=3, b_denoised__x__wav=3)
    assert places(source, Path("in")) == {"a.ac3": "in/a-denoised.ac3", "b-denoised.x.wav": "in/b-denoised.x-denoised.wav"}


def test_names_that_belong_to_other_recordings_are_taken() -> None:
    source = filled(Path("in"), x__ac3=4, x__ac3__flac=3, y__ac3=2, z__flac=1)
    taken = {job.name: job.taken for job in jobs(source, Path("out"))[0]}
    assert taken == {"x.ac3": (".flac",), "x.ac3.flac": (), "y.ac3": (), "z.flac": ()}
    assert jobs(Path("in/x.ac3.flac"), Path("in/x.ac3"))[0][0].taken == (".flac",)


def test_places_that_cannot_be_are_refused() -> None:
    filled(Path("in"), a__wav=1, sub___b__wav=1)
    with pytest.raises(BatchError, match=r"in/sub lies inside in, .*: name another folder"):
        jobs(Path("in/sub"), Path("in"))
    with pytest.raises(BatchError, match=r"nowhere: no such file or folder"):
        jobs(Path("nowhere"), Path("out"))
    with pytest.raises(BatchError, match=r"in/a.wav is a file: name a folder"):
        jobs(Path("in"), Path("in/a.wav"))


def test_a_recording_behind_a_link_is_never_replaced() -> None:
    filled(Path("orig"), a__wav=4, c__wav=1)
    source = filled(Path("in"), a__wav=3, d__wav=2)
    (source / "b.wav").symlink_to("../orig/a.wav")
    (source / "same.wav").symlink_to("../orig/a.wav")
    found = {job.name: (job.target.as_posix(), job.refusal) for job in jobs(source, Path("orig"))[0]}
    text = r"orig/a.wav is the recording (b|same).wav, which a.wav would replace: name another folder."
    assert re.fullmatch(text, found.pop("a.wav")[1])
    assert found == {name: (f"orig/{name}", "") for name in ("b.wav", "d.wav", "same.wav")}


def test_recordings_whose_outputs_would_be_one_file_are_refused() -> None:
    filled(Path("out"), a__wav=4)
    source = filled(Path("in"), a_denoised__wav=3, d__wav=2)
    (source / "a.wav").symlink_to("../out/a.wav")
    found = {job.name: job.refusal for job in jobs(source, Path("out"))[0]}
    assert found.pop("d.wav") == ""
    assert sorted(found) == ["a-denoised.wav", "a.wav"]
    for name, refusal in found.items():
        assert refusal.startswith(f"out/a-denoised.wav would be the output of several recordings, {name} among them")


def test_a_folder_has_its_own_name_and_not_that_of_a_link_to_it() -> None:
    for number, folder in enumerate(("in/x/deep", "in/z", "elsewhere")):
        Path(folder).mkdir(parents=True)
        (Path(folder) / f"{number}.wav").touch()
    for link, place in (
        ("in/a", "z"),
        ("in/y", "x/deep"),
        ("in/x/loop", ".."),
        ("in/b", "../elsewhere"),
        ("in/c", "../elsewhere"),
    ):
        Path(link).symlink_to(place)
    assert [str(path) for path in visible_files(Path("in"))] == ["in/b/2.wav", "in/x/deep/0.wav", "in/z/1.wav"]


def test_a_link_that_leads_nowhere_is_a_job() -> None:
    Path("in").mkdir()
    Path("in/dead.wav").symlink_to("gone.wav")
    found, _ = jobs(Path("in"), Path("out"))
    assert found == [Job("dead.wav", Path("in/dead.wav"), Path("out/dead.wav"), 0)]


def test_what_is_no_regular_file_is_refused() -> None:
    os.mkfifo("pipe")
    source = filled(Path("in"), a__wav=1)
    (source / "endless.wav").symlink_to("/dev/zero")
    (source / "pipe.wav").symlink_to("../pipe")
    expected = {
        name: f"in/{name} is no regular file, but a pipe, a device or the like." for name in ("endless.wav", "pipe.wav")
    }
    assert {job.name: job.refusal for job in jobs(source, Path("out"))[0]} == {"a.wav": "", **expected}
    for path in ("pipe", "/dev/zero"):
        with pytest.raises(BatchError, match=f"{path} is no regular file, .*; for a pipe use --stream"):
            jobs(Path(path), Path("out"))


def test_a_folder_that_cannot_be_read_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    source = filled(Path("in"), a__wav=1, shut___b__wav=1, shut___deep___c__wav=1)
    opened = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for target in ("out", "in"):
        found = {job.name: job.refusal for job in jobs(source, Path(target))[0]}
        assert found == {"a.wav": "", "shut": "in/shut: Permission denied: nothing in this folder was denoised."}
    # Whoever does not ask for the errors is not left to believe that all was found.
    with pytest.raises(PermissionError, match="in/shut"):
        visible_files(source)
    assert visible_files(Path("nowhere")) == []


# ---- the report


@law
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0\r"), min_size=1),
            st.sampled_from(["denoised", "kept", "failed"]),
            st.lists(st.text(st.characters(exclude_characters="\0\r")), max_size=2),
        ),
        unique_by=lambda row: row[0],
    )
)
def test_the_report_is_a_table_of_all_files(rows: list[tuple[str, Any, list[str]]]) -> None:
    outcomes = [Outcome(name, status, "x.wav", 0.12345, remarks) for name, status, remarks in rows]
    text = report(outcomes)
    assert text == report(outcomes[::-1])
    path = Path("report.csv")
    path.write_text(text, encoding="utf-8", newline="\n")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(table.columns) == ["file", "status", "output", "seconds", "remarks"]
    assert len(table) == len(rows)
    for row, (_, status, _) in zip(table.to_dict("records"), sorted(rows, key=lambda row: row[0]), strict=True):
        assert row["status"] == ("failed" if status == "failed" else "denoised")
        assert row["seconds"] == "0.123"


def test_the_report_is_the_same_however_often_a_run_was_broken_off() -> None:
    first = [Outcome("a.wav", "denoised", "a.wav", 1.0, ["said"]), Outcome("b.wav", "failed", "", 0.0, ["why"])]
    second = [Outcome("a.wav", "kept", "a.wav", 1.0, ["said"]), first[1]]
    assert report(first) == report(second)
    assert report(first).splitlines()[1:] == ["a.wav,denoised,a.wav,1.0,said", "b.wav,failed,,0.0,why"]


def test_names_that_are_not_utf8_are_shown_with_escapes() -> None:
    assert "caf\\xe9.wav,denoised" in report([Outcome("caf\udce9.wav", "denoised", "x", 1.0, [])])

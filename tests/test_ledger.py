"""What the ledger knows of outputs: which are made already, and which files are not to be replaced."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.batch import Job, Outcome
from stages.core.errors import DenoisingError
from stages.core.files import written
from stages.core.ledger import Ledger, LedgerError

OUTPUT = b"an output"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests work with relative paths, as commands mostly do."""
    monkeypatch.chdir(tmp_path)


def job(content: bytes = b"an input", name: str = "a.wav") -> Job:
    """A recording of these bytes."""
    path = Path("in") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Job(name, path, Path("out") / name, len(content))


def noted(ledger: Ledger, work: Job, suffix: str = "") -> str:
    """The key of a job whose output is there and noted."""
    output = work.target.with_name(work.target.name + suffix)
    output.parent.mkdir(exist_ok=True)
    output.write_bytes(OUTPUT)
    key = ledger.key(work, "settings")
    ledger.admit(work.source, output, output, overwrite=True)
    assert ledger.add(key, work, output, 1.5, ["a remark"]).status == "denoised"
    return key


def test_the_key_is_of_content_formats_and_settings() -> None:
    ledger = Ledger(Path("ledger"), copies=False)
    key = ledger.key(job(), "settings")
    os.utime("in/a.wav", (1, 1))
    assert ledger.key(job(name="other.WAV"), "settings") == key == ledger.key(job(), "settings")
    renamed = Job("a.wav", Path("in/a.wav"), Path("out/a.flac"), 1)
    others = {ledger.key(job(), "others"), ledger.key(job(b"another"), "settings"), ledger.key(renamed, "settings")}
    assert len({key, *others}) == 4


def test_a_suffix_that_is_not_utf8_has_a_key() -> None:
    ledger = Ledger(Path("ledger"), copies=False)
    keys = {ledger.key(job(name=name), "settings") for name in ("a.wav", "a.\udcff", "a.\udcfe")}
    assert len(keys) == 3


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("suffix", ["", ".flac"])
def test_what_is_done_is_found(copies: bool, suffix: str) -> None:
    ledger, work = Ledger(Path("ledger"), copies=copies), job()
    key = noted(ledger, work, suffix)
    expected = Outcome("a.wav", "kept", "a.wav" + suffix, 1.5, ["a remark"])
    assert ledger.found(key, work) == expected == Ledger(Path("ledger"), copies=copies).found(key, work)
    assert ledger.found("another", work) is None


def test_an_output_that_the_user_edited_or_took_away_is_not_found() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    key = noted(ledger, work)
    work.target.write_bytes(b"edited")
    assert ledger.found(key, work) is None
    assert work.target.read_bytes() == b"edited"
    work.target.unlink()
    assert ledger.found(key, work) is None
    assert not work.target.exists()


def test_an_output_is_not_found_under_a_name_that_is_taken() -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work, ".flac")
    assert ledger.found(key, replace(work, taken=(".wav",))) is not None
    assert ledger.found(key, replace(work, taken=(".flac",))) is None


def test_copies_are_put_back_wherever_they_are_asked_for() -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    work.target.unlink()
    moved = Job("b.wav", work.source, Path("out/deep/b.wav"), 8)
    for wanted in (work, moved):
        found = ledger.found(key, wanted)
        assert found == Outcome(wanted.name, "kept", wanted.target.name, 1.5, ["a remark"])
        assert wanted.target.read_bytes() == OUTPUT
        assert not wanted.target.is_symlink()
    assert not [path for path in Path().rglob(".partial-*")]


@pytest.mark.parametrize("linked", [True, False])
def test_an_edited_output_spoils_no_copy(linked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    if not linked:
        monkeypatch.setattr(os, "link", refused)
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    assert (Path("ledger") / key).samefile(work.target) is linked
    # Within the file, so that a link sees it too.
    with work.target.open("r+b") as file:
        file.write(b"edited")
    assert ledger.found(key, work) is None
    work.target.unlink()
    assert (ledger.found(key, work) is None) is linked
    assert work.target.exists() is not linked


def test_a_damaged_copy_is_never_put_in_place() -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    work.target.unlink()
    (Path("ledger") / key).write_bytes(OUTPUT[:3])
    assert ledger.found(key, work) is None
    assert not work.target.exists()
    noted(ledger, work)
    work.target.unlink()
    assert ledger.found(key, work) is not None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 50,
        b"[" * 10**6,
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"suffix": "", "content": "',
        b'{"suffix": "", "unknown": 1}',
    ],
)
def test_a_damaged_note_is_as_none(damage: bytes) -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    (Path("ledger") / f"{key}.json").write_bytes(damage)
    assert ledger.found(key, work) is None
    noted(ledger, work)
    assert ledger.found(key, work) is not None


@pytest.mark.parametrize("name", ["suffix", "content", "seconds", "remarks"])
@pytest.mark.parametrize("value", [None, ["x", 5], {}, "/"])
def test_a_note_with_a_wrong_value_is_as_none(name: str, value: Any) -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    path = Path("ledger") / f"{key}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {name: value}), encoding="utf-8")
    assert ledger.found(key, work) is None


def put(ledger: Ledger, work: Job, content: bytes = OUTPUT, *, overwrite: bool = False) -> None:
    """Writes an output as denoising does, without noting it as done."""
    ledger.check(work.source, work.target, overwrite=overwrite)
    with written(work.target, lambda made: ledger.admit(work.source, work.target, made, overwrite=overwrite)) as temporary:
        temporary.write_bytes(content)


def test_what_was_made_from_a_recording_is_replaced_by_what_is_made_from_it_later() -> None:
    for content in (b"first", b"of other settings", b"of a changed recording"):
        put(Ledger(Path("ledger"), copies=False), job(content), content)
        assert Path("out/a.wav").read_bytes() == content


def test_ledger_recordings_and_outputs_may_be_moved_together() -> None:
    put(Ledger(Path("all/ledger"), copies=False), replace(job(), source=Path("all/in/a.wav"), target=Path("all/out/a.wav")))
    Path("all").rename("moved")
    work = replace(job(), source=Path("moved/in/a.wav"), target=Path("moved/out/a.wav"))
    put(Ledger(Path("moved/ledger"), copies=False), work, b"of other settings")
    assert Path("moved/out/a.wav").read_bytes() == b"of other settings"


@pytest.mark.parametrize("there", ["another", "edited", "a copy of an output", "a link that leads nowhere"])
def test_what_was_not_made_from_here_keeps_its_place(there: str) -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    if there == "edited":
        put(ledger, work)
    if there == "a copy of an output":
        put(ledger, replace(work, target=Path("out/b.wav")), b"a take that is wanted")
    work.target.parent.mkdir(exist_ok=True)
    if there == "a link that leads nowhere":
        work.target.symlink_to("nowhere")
    else:
        work.target.write_bytes(b"a take that is wanted")
    why = "is a link" if "link" in there else "was not made from here or was changed since"
    with pytest.raises(LedgerError, match=rf"out/a\.wav is there already, and {why}: .* --overwrite"):
        ledger.check(work.source, work.target, overwrite=False)
    if there == "a link that leads nowhere":
        assert work.target.is_symlink()
    else:
        assert work.target.read_bytes() == b"a take that is wanted"
    for owner, overwrite in ((ledger, True), (Ledger(Path("ledger"), copies=True), False)):
        owner.check(work.source, work.target, overwrite=overwrite)


def test_a_link_to_what_was_made_keeps_its_place() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    key = noted(ledger, work)
    work.target.rename("kept.wav")
    work.target.symlink_to("../kept.wav")
    assert ledger.found(key, work) is not None
    with pytest.raises(LedgerError, match="is a link"):
        put(ledger, work, b"of other settings")
    assert work.target.is_symlink()


def test_an_empty_file_is_replaced() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    work.target.parent.mkdir()
    work.target.touch()
    put(ledger, work)
    assert work.target.read_bytes() == OUTPUT


def test_what_was_kept_for_another_recording_of_the_same_bytes_is_its_own() -> None:
    ledger, first, second = Ledger(Path("ledger"), copies=False), job(name="one/r.wav"), job(name="two/r.wav")
    first, second = (replace(work, target=Path("out/r.wav")) for work in (first, second))
    key = noted(ledger, first)
    assert ledger.found(key, second) is not None
    first.source.write_bytes(b"changed since")
    with pytest.raises(LedgerError, match=r"two/r\.wav"):
        put(ledger, first, b"of the changed one")
    put(ledger, second, b"of other settings")


def test_what_is_done_is_what_was_put_in_place_and_not_what_came_there_since() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    put(ledger, work)
    work.target.write_bytes(b"put there by the user")
    key = ledger.key(work, "settings")
    ledger.add(key, work, work.target, 1.5, [])
    assert ledger.found(key, work) is None


def test_what_was_made_from_another_recording_keeps_its_place() -> None:
    ledger, first, second = Ledger(Path("ledger"), copies=False), job(name="one/r.wav"), job(name="two/r.wav")
    place = Path("out/r.wav")
    put(ledger, replace(first, target=place), b"of the first")
    with pytest.raises(LedgerError, match=r"out/r\.wav is there already, and was made from in/one/r\.wav: .* --overwrite"):
        put(ledger, replace(second, target=place), b"of the second")
    assert place.read_bytes() == b"of the first"
    put(ledger, replace(second, target=place), b"of the second", overwrite=True)
    put(ledger, replace(second, target=place), b"of other settings")


@pytest.mark.parametrize("before", [None, b"of other settings"])
@pytest.mark.parametrize("put_in_place", [False, True])
def test_whenever_a_process_is_killed_the_place_is_known(before: bytes | None, put_in_place: bool) -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    if before:
        put(ledger, work, before)
    made = Path("made")
    made.write_bytes(OUTPUT)
    ledger.admit(work.source, work.target, made, overwrite=False)
    if put_in_place:
        work.target.parent.mkdir(exist_ok=True)
        made.rename(work.target)
    # The next process, after a file of the user's came, and without one.
    there = work.target.read_bytes() if work.target.exists() else None
    work.target.parent.mkdir(exist_ok=True)
    work.target.write_bytes(b"mine")
    with pytest.raises(LedgerError):
        put(ledger, work, b"of the next")
    assert work.target.read_bytes() == b"mine"
    work.target.unlink() if there is None else work.target.write_bytes(there)
    put(ledger, work, b"of the next")


def test_a_forced_run_that_was_killed_leaves_a_file_of_the_users_as_foreign_as_it_was() -> None:
    ledger, work, made = Ledger(Path("ledger"), copies=False), job(), Path("made")
    work.target.parent.mkdir()
    work.target.write_bytes(b"mine")
    made.write_bytes(OUTPUT)
    ledger.admit(work.source, work.target, made, overwrite=True)  # and killed before it is put in place
    with pytest.raises(LedgerError, match="was not made from here"):
        put(ledger, work)
    assert work.target.read_bytes() == b"mine"


def test_what_comes_while_an_output_is_made_stays() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()

    def late(made: Path) -> None:
        work.target.write_bytes(b"put there by the user")
        ledger.admit(work.source, work.target, made, overwrite=False)

    with pytest.raises(LedgerError, match="was not made from here"), written(work.target, late) as temporary:
        temporary.write_bytes(OUTPUT)
    assert work.target.read_bytes() == b"put there by the user"
    assert [path.name for path in Path("out").iterdir()] == ["a.wav"]


def test_what_is_kept_is_known_in_its_new_place() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    key = noted(ledger, work)
    Path("out").rename("moved")
    there = replace(work, target=Path("moved/a.wav"))
    with pytest.raises(LedgerError):
        ledger.check(there.source, there.target, overwrite=False)
    assert ledger.found(key, there) is not None
    ledger.check(there.source, there.target, overwrite=False)


def test_a_ledger_that_cannot_be_written_is_blamed_and_nothing_is_put_in_place() -> None:
    Path("ledger").write_text("a file", encoding="utf-8")
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    with pytest.raises(DenoisingError, match="ledger"):
        put(ledger, work)
    assert not work.target.exists()


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"source": 1, "contents": []}', '{"source": "a", "contents": 3}', '{"other": 1}']
)
def test_a_damaged_note_of_a_place_is_as_none(damage: str) -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    put(ledger, work)
    (note,) = Path("ledger").glob("*.place")
    note.write_text(damage, encoding="utf-8")
    with pytest.raises(LedgerError, match="was not made from here"):
        ledger.check(work.source, work.target, overwrite=False)

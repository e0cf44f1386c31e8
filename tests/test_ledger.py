"""What the ledger knows of outputs: which are made already, and which files are not to be replaced."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.batch import Job, Outcome
from stages.core.ledger import Ledger, LedgerError

OUTPUT = b"an output"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests work with relative paths, as commands mostly do."""
    monkeypatch.chdir(tmp_path)


def job(content: bytes = b"an input", name: str = "a.wav") -> Job:
    """A recording of these bytes."""
    path = Path("in") / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return Job(name, path, Path("out") / name, len(content))


def noted(ledger: Ledger, work: Job, suffix: str = "") -> str:
    """The key of a job whose output is there and noted."""
    output = work.target.with_name(work.target.name + suffix)
    output.parent.mkdir(exist_ok=True)
    output.write_bytes(OUTPUT)
    key = ledger.key(work, "settings")
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
    [b"", b"\0" * 50, b"\xff\xfe", b"[]", b"7", b"{}", b'{"suffix": "", "content": "', b'{"suffix": "", "unknown": 1}'],
)
def test_a_damaged_note_is_as_none(damage: bytes) -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    (Path("ledger") / f"{key}.json").write_bytes(damage)
    assert ledger.found(key, work) is None
    noted(ledger, work)
    assert ledger.found(key, work) is not None


@pytest.mark.parametrize("value", [None, 5, ["x"], "/"])
def test_a_note_with_a_wrong_value_is_as_none(value: Any) -> None:
    ledger, work = Ledger(Path("ledger"), copies=True), job()
    key = noted(ledger, work)
    path = Path("ledger") / f"{key}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"suffix": value}), encoding="utf-8")
    assert ledger.found(key, work) is None


def test_a_place_is_free_or_has_what_was_made_from_here() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    with ledger.claimed(work.target, overwrite=False):
        pass
    noted(ledger, work)
    # Made from here, whichever name it has now, and whoever asks.
    work.target.rename("out/b.wav")
    with Ledger(Path("ledger"), copies=False).claimed(Path("out/b.wav"), overwrite=False):
        pass


@pytest.mark.parametrize("there", ["another", "edited", "a link that leads nowhere"])
def test_what_was_not_made_from_here_keeps_its_place(there: str) -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    if there == "edited":
        noted(ledger, work)
    work.target.parent.mkdir(exist_ok=True)
    if there == "a link that leads nowhere":
        work.target.symlink_to("nowhere")
    else:
        work.target.write_bytes(b"a take that is wanted")
    with (
        pytest.raises(LedgerError, match=r"out/a\.wav is there already, and was not made from here .* --overwrite"),
        ledger.claimed(work.target, overwrite=False),
    ):
        pytest.fail("nothing is to be written there")
    for owner, overwrite in ((ledger, True), (Ledger(Path("ledger"), copies=True), False)):
        with owner.claimed(work.target, overwrite=overwrite):
            pass


def test_what_a_killed_process_was_writing_is_known() -> None:
    ledger, work = Ledger(Path("ledger"), copies=False), job()
    killed = ledger.claimed(work.target, overwrite=False)
    killed.__enter__()
    work.target.parent.mkdir(exist_ok=True)
    work.target.write_bytes(OUTPUT)
    with Ledger(Path("ledger"), copies=False).claimed(work.target, overwrite=False):
        noted(ledger, work)
    work.target.write_bytes(b"edited")
    with pytest.raises(LedgerError), ledger.claimed(work.target, overwrite=False):
        pytest.fail("the claim ended with the second run")


def test_a_claim_ends_with_an_error() -> None:
    ledger, place = Ledger(Path("ledger"), copies=False), Path("a.wav")
    with pytest.raises(ZeroDivisionError), ledger.claimed(place, overwrite=False):
        raise ZeroDivisionError
    place.write_bytes(b"put there by the user")
    with pytest.raises(LedgerError), ledger.claimed(place, overwrite=False):
        pytest.fail("the place is taken")

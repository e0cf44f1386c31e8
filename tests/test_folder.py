import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, hiss, law, stored

from stages.core.audio import read_audio
from stages.core.corpora.folder import FolderError, recordings
from stages.core.corpora.shares import drawn
from stages.core.files import file_digest
from stages.core.manifest import SPLITS, Recording
from stages.core.parameters import Folder

NAMES = [f"speaker{number}/en/take{take}.wav" for number in range(6) for take in range(2)]


def found(root: Path, **changes: Any) -> list[Recording]:
    values = {"path": str(root / "corpus"), "group": "^([^/]+)", "label": "/([a-z]+)/", "exclude": [], "seed": 1}
    values |= {"split_csv": str(root / "split.csv"), "valid_share": 0.2, "test_share": 0.2}
    return recordings(Folder.model_validate(values | changes), "speech", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six speakers with two recordings each, and a table without rows."""
    for seed, name in enumerate(NAMES):
        stored(tmp_path / "corpus" / name, hiss(400 + seed, seed), RATE if seed else 48000)
    (tmp_path / "split.csv").write_text("path,split\n", encoding="utf-8")
    return tmp_path


def table(root: Path, *rows: str, head: str = "path,split,speaker") -> None:
    (root / "split.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def test_every_recording_has_its_row(root: Path) -> None:
    rows = found(root)
    assert [row.id for row in rows] == [f"folder/{name}" for name in NAMES]
    for seed, (row, name) in enumerate(zip(rows, NAMES, strict=True)):
        path = root / "corpus" / name
        assert (row.path, row.start, row.n_samples) == (str(path), 0, 400 + seed)
        assert (row.sample_rate, row.corpus, row.label) == (RATE if seed else 48000, "folder", "en")
        assert row.group == f"folder/{name.split('/')[0]}"
        assert row.content == file_digest(path)


def test_a_path_that_is_relative_is_one_from_where_the_stage_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = found(root)
    monkeypatch.chdir(root)
    assert found(root, path="corpus", split_csv="split.csv") == expected


def test_rows_are_equal_for_any_number_of_jobs(root: Path) -> None:
    values = {"path": str(root / "corpus"), "group": "^([^/]+)", "label": "^([^/]+)", "exclude": [], "seed": 1}
    values |= {"split_csv": str(root / "split.csv"), "valid_share": 0.2, "test_share": 0.2}
    settings = Folder.model_validate(values)
    assert recordings(settings, "noise", 2) == recordings(settings, "noise", 1)


def test_a_speaker_is_in_one_split_and_every_split_has_one(root: Path) -> None:
    rows = found(root)
    homes = {(row.group, row.split) for row in rows}
    assert len(homes) == 6
    assert {split for _, split in homes} == set(SPLITS)


@law
@given(
    groups=st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=40),
    seed=st.integers(0, 999),
    shares=st.sampled_from([(0.1, 0.1), (0.0, 0.3), (0.2, 0.0), (0.0, 0.0), (0.3, 0.3)]),
)
def test_drawn_splits_keep_groups_and_shares(groups: list[str], seed: int, shares: tuple[float, float]) -> None:
    splits = drawn(groups, seed, *shares)
    homes = dict(zip(groups, splits, strict=True))
    assert [homes[group] for group in groups] == splits
    for name, share in zip(("valid", "test"), shares, strict=True):
        count = sum(split == name for split in homes.values())
        assert abs(count - share * len(homes)) <= 1
        if len(homes) >= 3:
            assert (count > 0) == (share > 0)
    assert drawn(groups[::-1], seed, *shares) == splits[::-1]


def test_another_seed_draws_other_splits() -> None:
    groups = [str(number) for number in range(30)]
    assert drawn(groups, 1, 0.2, 0.2) != drawn(groups, 2, 0.2, 0.2)


def test_files_of_other_kinds_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/talk.m4a", "a/second.M4A", "LICENCE", "take.1", "Dr. Smith, second part"):
        (root / "corpus" / name).parent.mkdir(exist_ok=True)
        (root / "corpus" / name).write_bytes(b"of another kind")
    assert len(found(root)) == len(NAMES)
    assert f"{root / 'corpus'}: passed over by their names: 2 .m4a, 3 without a suffix;" in capsys.readouterr().out
    found(root, exclude=["a/*", "LICENCE", "take.1", "Dr.*"])
    assert "passed over" not in capsys.readouterr().out


def test_what_is_left_out_may_have_any_name_and_is_named_literally_too(root: Path) -> None:
    for name in (b"a[1].wav", b"\xff.wav"):
        (root / "corpus" / os.fsdecode(name)).write_bytes(b"broken")
    with pytest.raises(FolderError, match=r"the name of .*\\xff\.wav is not UTF-8"):
        found(root)
    assert len(found(root, exclude=["a[1].wav", "?.wav"])) == len(NAMES)


def test_what_is_left_out_is_named_as_an_error_lists_it_or_by_its_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    place = {"path": "corpus", "label": "^([^/]+)"}
    (root / "corpus/talks[1]").mkdir()
    (root / "corpus/talks[1]" / os.fsdecode(b"\xff.wav")).write_bytes(b"broken")
    stored(root / "corpus/talks[1]/silent[1].wav", np.zeros(800, np.float32))
    with pytest.raises(FolderError, match=r"the name of corpus/talks\[1\]/\\xff\.wav is not UTF-8.*put this into .*exclude"):
        found(root, **place)
    exclude = ["corpus/talks[1]/\\xff.wav"]
    with pytest.raises(FolderError, match=r"folder\.exclude:\n  corpus/talks\[1\]/silent\[1\]\.wav: silent"):
        found(root, **place, exclude=exclude)
    assert len(found(root, **place, exclude=[*exclude, "corpus/talks[1]/silent[1].wav"])) == len(NAMES)
    for folder in ("talks[1]", "talks[1]/", "corpus/talks[1]"):
        assert len(found(root, **place, exclude=[folder, "speaker0"])) == len(NAMES) - 2
    assert len(found(root, **place, exclude=["talks[1]", str((Path("corpus") / NAMES[0]).absolute())])) == len(NAMES) - 1
    assert "matches no file" not in capsys.readouterr().out
    found(root, **place, exclude=["talks[1]", "talks", "speaker9/*", ""])
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"download.speech.folder.exclude: '{name}' matches no file in corpus" for name in ("talks", "speaker9/*", "")
    ]


def test_copies_are_told_and_those_between_splits_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found(root)
    assert "copies" not in capsys.readouterr().out
    corpus = root / "corpus"
    (corpus / "speaker0/en/again.wav").symlink_to(corpus / NAMES[0])
    found(root)
    one = f"1 recordings are copies of others, such as {corpus / NAMES[0]} of {corpus}/speaker0/en/again.wav, both in "
    assert one in capsys.readouterr().out
    (corpus / "speaker3/en/other.wav").write_bytes((corpus / NAMES[2]).read_bytes())
    rows = [
        f"corpus/{path.relative_to(corpus)},{'test' if 'speaker3' in str(path) else 'train'}" for path in corpus.rglob("*.wav")
    ]
    table(root, *rows, head="path,split")
    # The link and what it leads to are one place in the table.
    found(root)
    pair = f"{corpus}/speaker3/en/other.wav of {corpus / NAMES[2]}"
    assert f"2 recordings are copies of others, such as {pair}, in train and in test" in capsys.readouterr().out


def test_a_link_to_itself_is_no_row_of_the_table(root: Path) -> None:
    (root / "corpus/speaker0/en/loop.wav").symlink_to("loop.wav")
    table(root, *(f"corpus/{name},train" for name in NAMES), "corpus/speaker0/en/loop.wav,train", head="path,split")
    assert len(found(root, exclude=["speaker0/en/loop.wav"])) == len(NAMES)
    with pytest.raises(FolderError, match=r"loop\.wav: no such file"):
        found(root)


def test_patterns_decide_who_speaks_and_what_is_left_out(root: Path) -> None:
    rows = found(root, group=r"take(\d)", label="^(.*)/en")
    assert {row.group for row in rows} == {"folder/0", "folder/1"}
    assert {row.label for row in rows} == {f"speaker{number}" for number in range(6)}
    kept = found(root, exclude=["speaker0/*", "*/take1.wav"])
    assert [row.id for row in kept] == [f"folder/speaker{number}/en/take0.wav" for number in range(1, 6)]


@pytest.mark.parametrize("key", ["group", "label"])
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("([a-z", "is no regular expression"),
        ("^[^/]+", "finds no group in 'speaker0/en/take0.wav'"),
        ("^(person)", "finds no group"),
        ("^(x*)", "finds no group"),
    ],
)
def test_a_bad_pattern_names_its_key(root: Path, key: str, pattern: str, message: str) -> None:
    with pytest.raises(FolderError, match=rf"^download\.speech\.folder\.{key}: '{re.escape(pattern)}' {re.escape(message)}"):
        found(root, **{key: pattern})


def test_a_missing_and_an_empty_folder_are_named(root: Path) -> None:
    with pytest.raises(FolderError, match=r"download\.speech\.folder\.path: .*/gone is not a folder"):
        found(root, path=str(root / "gone"))
    (root / "empty" / "deep").mkdir(parents=True)
    (root / "empty" / "deep" / "notes.txt").write_text("no sound", encoding="utf-8")
    with pytest.raises(FolderError, match=r"download\.speech\.folder\.path: no sound files in .*/empty;"):
        found(root, path=str(root / "empty"))
    with pytest.raises(FolderError, match=r"no sound files in .*/corpus \(12 were left out by .*folder\.exclude\)"):
        found(root, exclude=["*"])


def test_a_table_gives_split_and_speaker_and_its_paths_start_at_its_folder(root: Path) -> None:
    rows = [f"corpus/{name},{SPLITS[place // 4]},person-{place // 2}" for place, name in enumerate(NAMES)]
    table(root, *rows)
    made = found(root)
    assert [row.split for row in made] == [SPLITS[place // 4] for place in range(12)]
    assert [row.group for row in made] == [f"folder/person-{place // 2}" for place in range(12)]
    (root / "tables").mkdir()
    text = (root / "split.csv").read_text(encoding="utf-8").replace("corpus/", "../corpus/")
    (root / "tables" / "split.csv").write_text(text, encoding="utf-8")
    assert found(root, split_csv=str(root / "tables" / "split.csv")) == made


def test_without_a_speaker_in_the_table_the_pattern_finds_it(root: Path) -> None:
    table(root, *(f"corpus/{name},train" for name in NAMES), head="path,split")
    assert {row.group for row in found(root)} == {f"folder/speaker{number}" for number in range(6)}
    table(root, *(f"corpus/{name},train,{'me' if '0' in name else ''}" for name in NAMES))
    groups = {row.id: row.group for row in found(root)}
    assert groups["folder/speaker0/en/take0.wav"] == "folder/me"
    assert groups["folder/speaker1/en/take1.wav"] == "folder/speaker1"


def test_the_table_may_list_more_than_there_is_and_hold_more_columns(root: Path) -> None:
    rows = [f"corpus/{name},test,3.5,s{name[7]}" for name in NAMES]
    table(root, *rows, "corpus/gone.wav,train,1,x", head="path,split,seconds,speaker")
    assert {row.split for row in found(root)} == {"test"}


def test_files_that_the_table_leaves_out_are_counted(root: Path) -> None:
    table(root, *(f"corpus/{name},train,a" for name in NAMES[3:]))
    with pytest.raises(FolderError, match=r"split\.csv: 3 of 12 files are not listed, the first is .*speaker0/en/take0\.wav"):
        found(root)
    assert len(found(root, exclude=["speaker0/*", "speaker1/en/take0.wav"])) == 9


@pytest.mark.parametrize("word", ["dev", "Train", "", "TEST "])
def test_a_word_that_is_no_split_is_named(root: Path, word: str) -> None:
    table(root, *(f"corpus/{name},{'train' if place else word},a" for place, name in enumerate(NAMES)))
    with pytest.raises(FolderError, match=rf"split\.csv: '{word}' is no split; use train, valid, test"):
        found(root)


def test_a_speaker_in_two_splits_is_named_with_both_files(root: Path) -> None:
    table(root, *(f"corpus/{name},{'valid' if name == NAMES[5] else 'train'}" for name in NAMES), head="path,split")
    with pytest.raises(
        FolderError, match=r"'speaker2' is in two splits: .*speaker2/en/take0\.wav in train, .*speaker2/en/take1\.wav in valid"
    ):
        found(root)


def test_a_table_that_is_missing_or_lacks_columns_is_named(root: Path) -> None:
    with pytest.raises(FolderError, match=r"download\.speech\.folder\.split_csv: .*gone\.csv is missing"):
        found(root, split_csv=str(root / "gone.csv"))
    table(root, "a,train", head="file,split")
    with pytest.raises(FolderError, match=r"split\.csv: expected the columns path and split, found file, split"):
        found(root)


@pytest.mark.parametrize("content", ["", "\n\n", 'path,split\n"a,train\n', "path,split\na,train,x,y\n"])
def test_a_table_that_is_no_table_is_named(root: Path, content: str) -> None:
    (root / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(FolderError, match=r"split\.csv"):
        found(root)


def test_a_table_that_is_no_text_is_named(root: Path) -> None:
    (root / "split.csv").write_bytes("path,split\nkäfer.wav,train\n".encode("latin-1"))
    with pytest.raises(FolderError, match=r"split\.csv"):
        found(root)


def test_files_that_cannot_be_used_are_all_named(root: Path) -> None:
    corpus = root / "corpus"
    stored(corpus / NAMES[0], np.zeros(800, np.float32))
    stored(corpus / NAMES[1], np.zeros(0, np.float32))
    stored(corpus / NAMES[2], np.full(800, np.nan, np.float32))
    (corpus / NAMES[3]).write_bytes(b"")
    (corpus / NAMES[4]).write_text("no sound", encoding="utf-8")
    (corpus / NAMES[5]).write_bytes((corpus / NAMES[5]).read_bytes()[:300])
    with pytest.raises(FolderError) as caught:
        found(root)
    message = str(caught.value)
    assert message.startswith("6 of 12 files cannot be used; mend, remove or list them in download.speech.folder.exclude:")
    reasons = [r"silent \(its first", "holds no samples", "NaN", r"empty \(0 bytes\)", "not a sound file", "truncated"]
    for name, reason in zip(NAMES, reasons, strict=False):
        assert re.search(rf"{name}: .*{reason}", message), message
    assert len(found(root, exclude=["speaker[012]/*"])) == 6


def test_very_quiet_is_not_silent(root: Path) -> None:
    stored(root / "corpus" / NAMES[0], hiss(800, level=10 ** (-80 / 20)))
    assert len(found(root)) == 12
    stored(root / "corpus" / NAMES[0], hiss(800, level=10 ** (-95 / 20)))
    with pytest.raises(FolderError, match="1 of 12 files"):
        found(root)


def test_real_recordings_are_taken_as_the_table_says(test_audio: Path) -> None:
    folder = test_audio / "noise"
    if not folder.is_dir() or not (test_audio / "split.csv").is_file():
        pytest.skip(f"no noise/ and split.csv in {test_audio}")
    changes = {"path": str(folder), "split_csv": str(test_audio / "split.csv"), "group": "^(.+)$", "label": "^([^/]+)"}
    rows = found(test_audio, **changes, exclude=["[!o]*", "*/ms-snsd/*"])
    assert rows
    for row in rows[:3]:
        assert len(read_audio(Path(row.path))[0]) == row.n_samples

from pathlib import Path

import numpy as np
import pytest
from specimens import RATE, hiss, stored

from stages.core.audio import AudioError
from stages.core.pairs import PairError, pairs, read_pair

NAMES = ["b.wav", "a.wav", "deep/a.wav"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs."""
    for seed, name in enumerate(NAMES):
        stored(tmp_path / "noisy" / name, hiss(500, seed))
        stored(tmp_path / "clean" / name, hiss(500, seed + 10))
    return tmp_path


def test_pairs_come_in_the_order_of_their_names(folder: Path) -> None:
    found = pairs(folder)
    assert [pair.name for pair in found] == ["a", "b", "deep/a"]
    assert [pair.noisy for pair in found] == [folder / "noisy" / f"{pair.name}.wav" for pair in found]
    assert [pair.clean for pair in found] == [folder / "clean" / f"{pair.name}.wav" for pair in found]


def test_a_pair_is_read_as_it_is_stored(folder: Path) -> None:
    noisy, clean, rate = read_pair(pairs(folder)[1])
    assert rate == RATE
    np.testing.assert_array_equal(noisy, hiss(500, 0))
    np.testing.assert_array_equal(clean, hiss(500, 10))


def test_only_the_first_channel_counts(folder: Path) -> None:
    stored(folder / "noisy" / "a.wav", np.stack([hiss(500, 1), hiss(500, 2)], axis=1))
    np.testing.assert_array_equal(read_pair(pairs(folder)[0])[0], hiss(500, 1))


def test_suffixes_may_differ(folder: Path) -> None:
    (folder / "clean" / "b.wav").rename(folder / "clean" / "b.aiff")
    assert pairs(folder)[1].clean == folder / "clean" / "b.aiff"


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_a_recording_without_counterpart_is_named(folder: Path, side: str) -> None:
    (folder / side / "b.wav").unlink()
    with pytest.raises(PairError, match=f"{folder}: 1 recordings are in only one of clean and noisy, the first is 'b'"):
        pairs(folder)


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_a_missing_side_is_named(folder: Path, side: str) -> None:
    (folder / side).rename(folder / "other")
    with pytest.raises(PairError, match=f"{folder}: expected a folder with clean and noisy inside, found no {side}"):
        pairs(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PairError, match="nowhere: expected a folder with clean and noisy inside, there is no such folder"):
        pairs(tmp_path / "nowhere")
    with pytest.raises(PairError, match="found no clean and no noisy"):
        pairs(tmp_path)


def test_folders_without_sound_files_are_named(tmp_path: Path) -> None:
    for side in ("clean", "noisy"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "notes.txt").touch()
    with pytest.raises(PairError, match=f"{tmp_path}: no sound files in clean and noisy"):
        pairs(tmp_path)


@pytest.mark.parametrize(("n_samples", "rate"), [(499, RATE), (500, 8000)])
def test_pairs_that_differ_in_length_or_rate_are_named(folder: Path, n_samples: int, rate: int) -> None:
    stored(folder / "clean" / "a.wav", hiss(n_samples), rate)
    with pytest.raises(PairError, match=rf"noisy/a\.wav: 500 samples at 16000 Hz, .*a\.wav has {n_samples} at {rate} Hz"):
        read_pair(pairs(folder)[0])


def test_a_broken_recording_is_named(folder: Path) -> None:
    (folder / "clean" / "a.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"clean/a\.wav: the file is empty"):
        read_pair(pairs(folder)[0])


def test_two_recordings_of_one_name_are_not_mixed_up(folder: Path) -> None:
    stored(folder / "noisy" / "a.flac", hiss(500, 5))
    with pytest.raises(PairError, match=r"'a' is there twice, a\.flac and a\.wav"):
        pairs(folder)


def test_real_pairs_are_found(test_audio: Path) -> None:
    folders = sorted(path for path in (test_audio / "pairs").glob("*") if path.is_dir())
    assert folders
    for folder in folders:
        noisy, clean, _ = read_pair(pairs(folder)[0])
        assert len(noisy) == len(clean) > 0

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import law, snr_db, spectrum, stored_items

from stages.core.shards import INDEX, ShardError, ShardReader, packed, unpacked, write_index, write_shard

BINS = 17


def spectra(frames: int, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    mixture, speech = spectrum(2, frames, BINS, seed=seed, scale=scale).numpy()
    return mixture, speech


ITEMS = [(f"train-{place:06d}", *spectra(frames, place, 10.0 ** (place - 1))) for place, frames in enumerate((12, 12, 9, 20))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four mixtures of different lengths and levels in three shards."""
    parts = {"shard-00000.npy": ITEMS[:2], "shard-00001.npy": ITEMS[2:3], "shard-00002.npy": ITEMS[3:]}
    write_index(
        tmp_path, [entry for name, items in parts.items() for entry in write_shard(tmp_path / name, stored_items(items))]
    )
    return tmp_path


def test_equal_spectra_give_equal_bytes(folder: Path) -> None:
    entries = write_shard(folder / "again" / "shard-00000.npy", stored_items(ITEMS[:2]))
    assert (folder / "again" / "shard-00000.npy").read_bytes() == (folder / "shard-00000.npy").read_bytes()
    assert entries == ShardReader(folder).entries[:2]


def test_a_changed_mixture_changes_the_content_in_the_index(folder: Path) -> None:
    other = write_shard(folder / "other.npy", stored_items([ITEMS[0], ("b", *spectra(12, 77))]))
    assert other[0].content != ShardReader(folder).entries[0].content


def test_a_batch_is_its_mixtures_one_by_one(folder: Path) -> None:
    reader = ShardReader(folder)
    assert len(reader) == 4
    assert [entry.id for entry in reader.entries] == [item[0] for item in ITEMS]
    for places in ([0], [3], [2, 0], [3, 1, 2, 0], [1, 1]):
        batch = reader.batch(places)
        shortest = min(len(ITEMS[place][1]) for place in places)
        assert batch.shape == (len(places), shortest, 2, BINS)
        for row, place in zip(batch, places, strict=True):
            expected = unpacked(*packed(*ITEMS[place][1:]))[:shortest]
            np.testing.assert_array_equal(row, expected)
            np.testing.assert_allclose(row[:, 0], ITEMS[place][1][:shortest], rtol=0, atol=2e-3 * 10.0 ** (place - 1))
            assert snr_db(ITEMS[place][2][:shortest], row[:, 1] - ITEMS[place][2][:shortest]) > 60


@law
@given(seed=st.integers(0, 999), exponent=st.floats(-12, 4), quiet_db=st.floats(0, 60), speech_db=st.floats(-40, 5))
def test_half_precision_costs_less_than_60_db_also_in_quiet_frames(
    seed: int, exponent: float, quiet_db: float, speech_db: float
) -> None:
    mixture, speech = spectra(20, seed, 10**exponent)
    quiet = np.float32(10 ** (-quiet_db / 20))
    mixture[10:], speech[10:] = mixture[10:] * quiet, speech[10:] * quiet
    speech = speech * np.float32(10 ** (speech_db / 20))
    numbers, scale = packed(mixture, speech)
    assert np.isfinite(numbers).all()
    stored = unpacked(numbers, scale)
    for place, wanted in enumerate((mixture, speech)):
        for frame in range(20):
            assert snr_db(wanted[frame], stored[frame, place] - wanted[frame]) > 60


@law
@given(seed=st.integers(0, 999), exponent=st.floats(-12, 6))
def test_the_scale_is_a_power_of_two_that_uses_the_range(seed: int, exponent: float) -> None:
    numbers, scale = packed(*spectra(3, seed, 10**exponent))
    assert math.frexp(scale)[0] == 0.5
    assert 16384 <= np.abs(numbers.astype(np.float32)).max() <= 32768


def test_numbers_170_db_below_the_largest_keep_their_precision() -> None:
    mixture = np.full((1, BINS), 0.7e-3 + 0.3e-3j, np.complex64)
    mixture[0, 0] = 0.9
    mixture[0, 1] = 0.9 * 10 ** (-170 / 20)
    stored = unpacked(*packed(mixture, mixture))
    assert abs(stored[0, 0, 1] / mixture[0, 1] - 1) < 2**-11


def test_silence_stays_silence() -> None:
    silent = np.zeros((4, BINS), np.complex64)
    numbers, scale = packed(silent, silent)
    assert scale == 1
    assert not unpacked(numbers, scale).any()
    mixture, _ = spectra(4)
    assert not unpacked(*packed(mixture, silent))[:, 1].any()


def test_a_missing_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"index\.csv is missing: run 'dvc repro shard'"):
        ShardReader(tmp_path)


@pytest.mark.parametrize(("content", "reason"), [("id,shard,start", "lists no mixtures"), ("", "cannot be read")])
def test_an_index_without_mixtures_is_named(folder: Path, content: str, reason: str) -> None:
    (folder / INDEX).write_text(content, encoding="utf-8")
    with pytest.raises(ShardError, match=rf"{INDEX}: {reason}.*; run 'dvc repro -f shard'"):
        ShardReader(folder)


def test_shards_of_another_transform_are_named(folder: Path) -> None:
    reader = ShardReader(folder)
    reader.check_bins(BINS)
    with pytest.raises(ShardError, match=r"shard-00000\.npy: expected 257 bins .*found 17; run 'dvc repro shard'"):
        reader.check_bins(257)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "shard-00001.npy").unlink()
    with pytest.raises(ShardError, match=r"shard-00001\.npy: cannot be read"):
        ShardReader(folder)


@pytest.mark.parametrize("size", [0, 10, 64, 500, -2])
def test_a_truncated_shard_is_named(folder: Path, size: int) -> None:
    path = folder / "shard-00000.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardError, match=r"shard-00000\.npy: cannot be read .* run 'dvc repro -f shard'"):
        ShardReader(folder)


def test_a_shard_of_another_run_that_is_shorter_is_named(folder: Path) -> None:
    write_shard(folder / "shard-00000.npy", stored_items(ITEMS[:1]))
    with pytest.raises(ShardError, match=r"shard-00000\.npy: shorter than its index says"):
        ShardReader(folder)


def test_no_pickled_object_is_loaded(folder: Path) -> None:
    np.save(folder / "shard-00000.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ShardError, match=r"shard-00000\.npy: cannot be read"):
        ShardReader(folder)


def test_only_the_index_and_the_shards_are_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [INDEX, *(f"shard-0000{place}.npy" for place in range(3))]

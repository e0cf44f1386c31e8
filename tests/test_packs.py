from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, hiss, law, voiced

from stages.core.audio import AudioError
from stages.core.packs import STEPS, read_pack, rounded, write_pack, write_wav

N_SAMPLES = 700
PAIRS = [
    (rounded(STEPS * hiss(N_SAMPLES, place)), rounded(STEPS * voiced(N_SAMPLES, pitch=100.0 + place))) for place in range(3)
]


def test_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_pack(tmp_path / name, PAIRS, RATE)
        write_wav(tmp_path / f"single-{name}", PAIRS[1][0], RATE)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert (tmp_path / "single-a.wav").read_bytes() == (tmp_path / "single-b.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "single-a.wav", "single-b.wav"]


def test_every_pair_reads_back_rounded_and_nothing_else(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.wav", PAIRS, RATE)
    start = 0
    for mixture, speech in PAIRS:
        found = read_pack(tmp_path / "pack.wav", start, len(mixture))
        np.testing.assert_array_equal(found[0], mixture / STEPS)
        np.testing.assert_array_equal(found[1], speech / STEPS)
        start += len(mixture)
    info = soundfile.info(tmp_path / "pack.wav")
    assert (info.frames, info.channels, info.subtype, info.samplerate) == (start, 2, "PCM_16", RATE)


def test_a_single_waveform_reads_back_rounded(tmp_path: Path) -> None:
    write_wav(tmp_path / "one.wav", PAIRS[2][1], RATE)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "one.wav", dtype="float32")[0], PAIRS[2][1] / STEPS)


@law
@given(values=st.lists(st.floats(-32767, 32767, width=32), min_size=1, max_size=50), others=st.randoms())
def test_numbers_of_either_sign_are_rounded_and_stored_side_by_side(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], others: Random
) -> None:
    left = np.array(values, np.float32)
    right = np.array(others.sample(values, len(values)), np.float32)
    whole = rounded(left.copy()), rounded(right.copy())
    for before, after in zip((left, right), whole, strict=True):
        assert (np.abs(after - before) <= 0.5).all()
        np.testing.assert_array_equal(after, np.round(after))
    path = tmp_path_factory.mktemp("packs") / "pack.wav"
    write_pack(path, [whole], RATE)
    np.testing.assert_array_equal(read_pack(path, 0, len(left)) * STEPS, np.stack(whole))


def test_reading_beyond_the_end_names_the_pack(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.wav", PAIRS, RATE)
    for start, n_samples in ((0, 2101), (2000, 101), (5000, 10)):
        with pytest.raises(AudioError, match=r"pack\.wav"):
            read_pack(tmp_path / "pack.wav", start, n_samples)
    path = tmp_path / "pack.wav"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(AudioError, match=r"pack\.wav: truncated"):
        read_pack(path, 700, 700)


def test_a_pack_that_fails_leaves_the_former_one(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.wav", PAIRS, RATE)
    before = (tmp_path / "pack.wav").read_bytes()

    def broken() -> object:
        yield PAIRS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_pack(tmp_path / "pack.wav", broken(), RATE)
    assert (tmp_path / "pack.wav").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pack.wav"]

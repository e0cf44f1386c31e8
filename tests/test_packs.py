from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, hiss, law, voiced

from stages.core.audio import AudioError
from stages.core.packs import STEPS, integers, read_pack, write_pack, write_wav

N_SAMPLES = 700
PAIRS = [(integers(hiss(N_SAMPLES, place)), integers(voiced(N_SAMPLES, pitch=100.0 + place))) for place in range(3)]


def rounded(waveform: np.ndarray) -> np.ndarray:
    """What a file gives back."""
    whole = waveform if waveform.dtype == np.int16 else integers(waveform)
    return whole.astype(np.float32) / np.float32(STEPS)


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
        np.testing.assert_array_equal(found[0], rounded(mixture))
        np.testing.assert_array_equal(found[1], rounded(speech))
        start += len(mixture)
    info = soundfile.info(tmp_path / "pack.wav")
    assert (info.frames, info.channels, info.subtype, info.samplerate) == (start, 2, "PCM_16", RATE)


def test_a_single_waveform_reads_back_rounded(tmp_path: Path) -> None:
    write_wav(tmp_path / "one.wav", PAIRS[2][1], RATE)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "one.wav", dtype="float32")[0], rounded(PAIRS[2][1]))


@law
@given(values=st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50))
def test_rounding_is_to_the_nearest_step_within_full_scale(values: list[float]) -> None:
    waveform = np.array(values, np.float32)
    found = rounded(waveform)
    assert found.min() >= -1
    assert found.max() <= 32767 / 32768
    inside = np.abs(waveform) < 0.9999
    assert (np.abs(found - waveform)[inside] <= 0.5 / 32768 + 1e-9).all()
    np.testing.assert_array_equal(rounded(found), found)
    np.testing.assert_array_equal(found * 32768, np.round(found * 32768))


def test_values_beyond_full_scale_do_not_wrap(tmp_path: Path) -> None:
    loud = np.array([1.5, -1.5, 1.0, -1.0], np.float32)
    write_pack(tmp_path / "pack.wav", [(integers(loud), integers(loud))], RATE)
    np.testing.assert_allclose(read_pack(tmp_path / "pack.wav", 0, 4)[0], [1, -1, 1, -1], atol=4e-5)


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

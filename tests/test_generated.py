from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
from scipy import signal

from stages.core.corpora import espeak, generated
from stages.core.files import file_digest
from stages.core.manifest import SPLITS, Recording
from stages.core.parameters import Generated, NoiseKind

KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)
IMPULSIVE = ("keyboard", "bursts")
N_SAMPLES = 4 * generated.SAMPLE_RATE


def made(parent: Path, n_jobs: int = 1, **changes: object) -> tuple[Path, list[Recording]]:
    folder = parent / "generated"
    folder.mkdir(parents=True)
    values = {"seed": 1, "kinds": list(KINDS), "n_recordings": 3, "seconds": 1.0, "valid_share": 0.2, "test_share": 0.2}
    return folder, generated.obtain(folder, Generated.model_validate(values | changes), n_jobs)


def content(folder: Path, row: Recording) -> bytes:
    samples, _ = soundfile.read(folder.parent / row.path, row.n_samples, row.start, dtype="int16")
    return bytes(samples.tobytes())


@pytest.fixture(scope="module")
def noises() -> dict[str, list[np.ndarray]]:
    """Three recordings of four seconds of each kind."""
    return {kind: [generated.noise(kind, 1, number, N_SAMPLES).astype(np.float64) for number in range(1, 4)] for kind in KINDS}


def octaves_db(wave: np.ndarray) -> np.ndarray:
    """Mean density (dB) in the octaves around 125 to 4000 Hz."""
    frequency, power = signal.welch(wave, generated.SAMPLE_RATE, nperseg=4096)
    centres = 125 * 2.0 ** np.arange(6)
    return np.array([10 * np.log10(power[(frequency > c / 2**0.5) & (frequency < c * 2**0.5)].mean()) for c in centres])


def slope_db(wave: np.ndarray) -> float:
    return float(np.polyfit(np.arange(6), octaves_db(wave), 1)[0])


def crest_db(wave: np.ndarray) -> float:
    return float(20 * np.log10(np.abs(wave).max() / wave.std()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_recording_is_finite_level_and_without_offset(kind: str, noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises[kind]:
        assert wave.shape == (N_SAMPLES,)
        assert np.isfinite(wave).all()
        assert abs(wave.mean()) < 1e-4
        peak, level = np.abs(wave).max(), 20 * np.log10(wave.std())
        assert peak <= 0.5 + 1e-6
        assert level == pytest.approx(-26, abs=0.05) or (peak == pytest.approx(0.5) and -38 < level < -26)
        if kind not in (*IMPULSIVE, "rain"):
            assert level == pytest.approx(-26, abs=0.05)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in IMPULSIVE])
def test_continuous_kinds_never_fall_silent(kind: str, noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises[kind]:
        windows = wave.reshape(-1, generated.SAMPLE_RATE // 2)
        assert 20 * np.log10(windows.std(axis=1).min() / wave.std()) > -12


@pytest.mark.parametrize("kind", KINDS)
def test_recordings_of_a_kind_differ(kind: str, noises: dict[str, list[np.ndarray]]) -> None:
    spectra = [octaves_db(wave) for wave in noises[kind]]
    for first in range(3):
        for second in range(first):
            assert np.abs(spectra[first] - spectra[second]).mean() > (0.2 if kind == "white" else 0.4)


@pytest.mark.parametrize(("kind", "expected", "tolerance"), [("white", 0, 1.3), ("pink", -3, 1), ("brown", -6, 1.3)])
def test_coloured_noise_has_its_slope(
    kind: str, expected: float, tolerance: float, noises: dict[str, list[np.ndarray]]
) -> None:
    for wave in noises[kind]:
        assert slope_db(wave) == pytest.approx(expected, abs=tolerance)


def test_hum_is_harmonics_of_the_mains(noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises["hum"]:
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        frequency = np.fft.rfftfreq(len(wave), 1 / generated.SAMPLE_RATE)
        shares = []
        for mains in (50, 60):
            order = np.maximum(np.round(frequency / mains), 1)
            shares.append(power[np.abs(frequency - order * mains) < 0.005 * order * mains + 1].sum() / power.sum())
        assert max(shares) > 0.9


def test_babble_is_in_the_voice_band_and_sways_like_speech(noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises["babble"]:
        power = np.abs(np.fft.rfft(wave)) ** 2
        frequency = np.fft.rfftfreq(len(wave), 1 / generated.SAMPLE_RATE)
        assert power[(frequency > 100) & (frequency < 4000)].sum() > 0.85 * power.sum()
        assert wave.reshape(-1, 320).std(axis=1).std() > 2 * noises["white"][0].reshape(-1, 320).std(axis=1).std()


@pytest.mark.parametrize("kind", IMPULSIVE)
def test_impulsive_kinds_have_high_crests(kind: str, noises: dict[str, list[np.ndarray]]) -> None:
    steady = max(crest_db(wave) for wave in noises["white"] + noises["engine"] + noises["fan"])
    for wave in noises[kind]:
        assert crest_db(wave) > steady + 3


def test_siren_moves_and_engine_does_not_leave_the_low_end(noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises["siren"]:
        frequency, _, power = signal.spectrogram(wave, generated.SAMPLE_RATE, nperseg=1024)
        strongest = frequency[power.argmax(axis=0)]
        assert np.percentile(strongest, 95) / np.percentile(strongest, 5) > 1.2
    for wave in noises["engine"]:
        assert slope_db(wave) < -2


def test_rain_lies_higher_than_brown_and_fan(noises: dict[str, list[np.ndarray]]) -> None:
    for wave in noises["rain"]:
        assert slope_db(wave) > -2


def test_babble_has_no_voice_of_the_speech_corpus() -> None:
    speakers = {variant for both in espeak.VARIANTS.values() for pool in both for variant in pool}
    assert not speakers & set(generated._BABBLERS)


def test_rows_cover_their_files_and_every_kind_is_in_every_split(tmp_path: Path) -> None:
    folder, rows = made(tmp_path, n_recordings=4)
    assert len({row.id for row in rows}) == len(rows) == 4 * len(KINDS)
    for kind in KINDS:
        mine = [row for row in rows if row.label == kind]
        info = soundfile.info(folder / f"{kind}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (generated.SAMPLE_RATE, 1, "PCM_16")
        assert [row.start for row in mine] == [0, 16000, 32000, 48000]
        assert sum(row.n_samples for row in mine) == info.frames
        assert {row.split for row in mine} == set(SPLITS)
        assert {row.content for row in mine} == {file_digest(folder / f"{kind}.wav")}
        assert all(row.group == row.id for row in mine)


def test_every_babbler_speaks_the_same_each_time() -> None:
    for variant in generated._BABBLERS:
        voice = espeak.Voice("en-us", variant, 50, 50, 160)
        first, second = (espeak.speech("She sells fresh fish on Fridays.", voice) for _ in range(2))
        assert first.tobytes() == second.tobytes(), variant


def test_equal_bytes_for_any_number_of_jobs(tmp_path: Path) -> None:
    assert made(tmp_path / "one", n_jobs=1)[1] == made(tmp_path / "two", n_jobs=2)[1]


def test_more_recordings_and_fewer_kinds_change_no_other(tmp_path: Path) -> None:
    few_folder, few = made(tmp_path / "few", kinds=["rain", "babble"])
    more_folder, more = made(tmp_path / "more", kinds=["babble", "white", "rain"], n_recordings=5)
    found = {row.id: row for row in more}
    for row in few:
        assert found[row.id].split == row.split
        assert content(more_folder, found[row.id]) == content(few_folder, row)

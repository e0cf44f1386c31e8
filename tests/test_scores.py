"""Scores against closed forms, against the packages themselves, and what is missing with a reason."""

import json
import warnings
from dataclasses import asdict

import numpy as np
import pesq
import pystoi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.scores import METRICS, ScoreError, estoi, pesq_wb, scores, si_sdr_db, snr_db, stoi, versions

RATE = 16000


def voice(seconds: float, sample_rate: int = RATE) -> np.ndarray:
    """A buzz of 24 harmonics that swell and fade at rates of their own: enough like speech for PESQ to find it."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 2 * np.pi * 140 * t + 6 * np.sin(2 * np.pi * 0.7 * t)
    swells = [1 + np.cos(2 * np.pi * (2 + k % 5) * t + k * k) for k in range(1, 25)]
    return 0.05 * sum(swell * np.sin(k * pitch + k) / k for k, swell in enumerate(swells, 1))


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n_samples)


def plain_si_sdr_db(s: np.ndarray, s_hat: np.ndarray) -> float:
    """Le Roux et al. by another route: SI-SDR depends on the correlation coefficient r alone, as r^2 / (1 - r^2)."""
    r = np.corrcoef(s, s_hat)[0, 1]
    return float(10 * np.log10(r**2 / (1 - r**2)))


CLEAN = voice(3.0)
NOISY = CLEAN + 0.001 * noise(CLEAN.size)
# What pesq 0.0.4 and pystoi 0.4.1 gave for these two; the first two follow from the equations.
GOLDEN = {"snr_db": 34.7743, "si_sdr_db": 34.7753, "pesq_wb": 1.7092, "stoi": 0.9843, "estoi": 0.9826}


@pytest.mark.parametrize("asked_db", [-20.0, -3.0, 0.0, 5.0, 40.0])
def test_snr_of_a_mixture_made_for_it(asked_db: float) -> None:
    added = noise(CLEAN.size)
    added *= np.sqrt(np.sum(CLEAN**2) / np.sum(added**2) / 10 ** (asked_db / 10))
    assert snr_db(reference=CLEAN, estimate=CLEAN + added) == pytest.approx(asked_db, abs=1e-9)


def test_snr_of_a_halved_and_of_a_silent_estimate() -> None:
    assert snr_db(reference=CLEAN, estimate=CLEAN / 2) == pytest.approx(20 * np.log10(2))
    assert snr_db(reference=CLEAN, estimate=np.zeros_like(CLEAN)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("asked_db", [-20.0, 0.0, 13.8, 60.0])
def test_si_sdr_of_a_scaled_reference_plus_orthogonal_noise(asked_db: float) -> None:
    s = noise(4000, 1)
    s -= s.mean()
    added = noise(4000, 2)
    added -= added.mean()
    added -= (added @ s) / (s @ s) * s
    added *= np.sqrt(s @ s / (added @ added) / 10 ** (asked_db / 10))
    assert si_sdr_db(reference=s, estimate=-0.3 * (s + added) + 0.7) == pytest.approx(asked_db, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_samples=st.integers(8, 500),
    gain=st.floats(1e-4, 1e4) | st.floats(-1e4, -1e-4),
    offset=st.floats(-1, 1),
)
def test_si_sdr_ignores_scale_and_offset(seed: int, n_samples: int, gain: float, offset: float) -> None:
    s, s_hat = noise(2 * n_samples, seed).reshape(2, n_samples)
    expected = plain_si_sdr_db(s, s_hat)
    for reference, estimate in ((s, s_hat), (s, gain * (s_hat + offset)), (gain * (s + offset), s_hat)):
        assert si_sdr_db(reference=reference, estimate=estimate) == pytest.approx(expected, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), gain=st.floats(1e-3, 1e3))
def test_snr_depends_on_the_scale_of_both_together_only(seed: int, gain: float) -> None:
    s, s_hat = noise(200, seed).reshape(2, 100)
    expected = snr_db(reference=s, estimate=s_hat)
    assert snr_db(reference=gain * s, estimate=gain * s_hat) == pytest.approx(expected, abs=1e-9)


def test_values_are_those_of_the_packages_and_of_earlier_versions() -> None:
    found = scores(reference=CLEAN, estimate=NOISY, sample_rate=RATE)
    assert found.reasons == {}
    assert found.pesq_wb == pytest.approx(pesq.pesq(RATE, CLEAN, NOISY, "wb"), abs=1e-3)
    assert found.stoi == pytest.approx(pystoi.stoi(CLEAN, NOISY, RATE), abs=1e-9)
    assert found.estoi == pytest.approx(pystoi.stoi(CLEAN, NOISY, RATE, extended=True), abs=1e-6)
    assert found.si_sdr_db == pytest.approx(plain_si_sdr_db(CLEAN, NOISY), abs=1e-9)
    assert {name: getattr(found, name) for name in METRICS} == pytest.approx(GOLDEN, abs=1e-3)


def test_float32_signals_score_like_float64_ones() -> None:
    single = scores(reference=CLEAN.astype(np.float32), estimate=NOISY.astype(np.float32), sample_rate=RATE)
    double = scores(reference=CLEAN, estimate=NOISY, sample_rate=RATE)
    for name in METRICS:
        assert getattr(single, name) == pytest.approx(getattr(double, name), abs=1e-3)


def test_estoi_is_the_same_each_time_and_leaves_the_global_generator_alone() -> None:
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    first = estoi(reference=CLEAN, estimate=NOISY, sample_rate=RATE)
    assert np.random.random() == expected
    assert estoi(reference=CLEAN, estimate=NOISY, sample_rate=RATE) == first


@pytest.mark.parametrize("sample_rate", [8000, 44100, 48000])
def test_other_sample_rates_are_resampled_for_pesq(sample_rate: int) -> None:
    clean = voice(3.0, sample_rate)
    dull = np.convolve(clean, np.ones(8) / 8, mode="same")
    same = pesq_wb(reference=clean, estimate=clean, sample_rate=sample_rate)
    assert same == pytest.approx(4.644, abs=0.001)
    assert 1.0 < pesq_wb(reference=clean, estimate=dull + 0.01 * noise(clean.size), sample_rate=sample_rate) < 3.0


def test_less_noise_scores_higher_in_every_metric() -> None:
    loud = scores(reference=CLEAN, estimate=CLEAN + 0.05 * noise(CLEAN.size), sample_rate=RATE)
    soft = scores(reference=CLEAN, estimate=CLEAN + 0.0005 * noise(CLEAN.size), sample_rate=RATE)
    for name in METRICS:
        assert getattr(soft, name) > getattr(loud, name)


def broken(value: float) -> np.ndarray:
    signal = CLEAN.copy()
    signal[100] = value
    return signal


SILENCE = np.zeros_like(CLEAN)
CLICK = np.eye(1, CLEAN.size, 24000)[0]
ALL = set(METRICS)
INTELLIGIBILITY = {"stoi", "estoi"}


@pytest.mark.parametrize(
    ("reference", "estimate", "missing", "reason"),
    [
        (SILENCE, NOISY, ALL, "reference is silent"),
        (SILENCE, SILENCE, ALL, "reference is silent"),
        (CLEAN, SILENCE, ALL - {"snr_db"}, "estimate is silent"),
        (broken(np.nan), NOISY, ALL, "reference holds NaN"),
        (CLEAN, broken(np.inf), ALL, "estimate holds NaN or infinity"),
        (CLEAN[:0], NOISY[:0], ALL, "no samples"),
        (CLEAN[:3000], NOISY[:3000], {"pesq_wb"} | INTELLIGIBILITY, "0.188 s is too short"),
        (CLEAN[:6000], NOISY[:6000], INTELLIGIBILITY, "0.375 s is too short: "),
        (np.tile(CLEAN, 7), np.tile(NOISY, 7), {"pesq_wb"}, "21.0 s is too long"),
        (CLICK, NOISY, INTELLIGIBILITY, "less than 0.4 s of the reference is speech"),
        (CLEAN, CLEAN, {"snr_db", "si_sdr_db"}, "estimate equals the reference"),
        (CLEAN, 0.3 * CLEAN, {"si_sdr_db"}, "estimate equals the reference"),
        (np.full_like(CLEAN, 0.1), NOISY, {"si_sdr_db"}, "reference is constant"),
        (CLEAN, np.full_like(CLEAN, 0.1), {"si_sdr_db"}, "estimate is constant"),
    ],
)
def test_what_has_no_value_is_missing_with_a_reason(
    reference: np.ndarray, estimate: np.ndarray, missing: set[str], reason: str
) -> None:
    found = scores(reference=reference, estimate=estimate, sample_rate=RATE)
    assert {name for name in METRICS if getattr(found, name) is None} == missing
    assert set(found.reasons) == missing
    assert all(reason in text for text in found.reasons.values()), found.reasons
    json.dumps(asdict(found), allow_nan=False)


def test_si_sdr_of_an_estimate_that_holds_nothing_of_the_reference() -> None:
    with pytest.raises(ScoreError, match="holds nothing of the reference"):
        si_sdr_db(reference=np.array([1.0, -1.0, 0.0, 0.0]), estimate=np.array([0.0, 0.0, 1.0, -1.0]))


def test_pesq_without_an_utterance_says_so() -> None:
    # A reference far below the estimate: both are scaled together, and nothing is left of it in float32.
    with pytest.raises(ScoreError, match="PESQ found no utterance"):
        pesq_wb(reference=1e-46 * CLEAN, estimate=CLEAN, sample_rate=RATE)


def test_an_estimate_in_which_pesq_hears_nothing_is_a_reason_and_no_crash() -> None:
    with pytest.raises(ScoreError, match="PESQ could not compare the signals"):
        pesq_wb(reference=CLEAN, estimate=1e-46 * CLEAN, sample_rate=RATE)


def test_many_utterances_within_20_s_are_safe() -> None:
    # Bursts as short and as close as pesq counts them: 50 of them fit. Some more, and its C code writes out of bounds.
    t = np.arange(20 * RATE)
    bursts = np.tile(voice(1.0), 20) * ((t % 6800) < 3400)
    assert 1.0 < pesq_wb(reference=bursts, estimate=bursts + 0.001 * noise(t.size), sample_rate=RATE) < 4.65


@pytest.mark.parametrize(
    "pair",
    [
        (CLEAN, NOISY[:-1]),
        (CLEAN[:, None], NOISY[:, None]),
        ((CLEAN * 1000).astype(np.int16), (NOISY * 1000).astype(np.int16)),
    ],
)
def test_signals_that_do_not_go_together_are_a_mistake_of_the_program(pair: tuple[np.ndarray, np.ndarray]) -> None:
    # TypeError where the checks of array annotations are switched on, which come first.
    with pytest.raises((ValueError, TypeError)):
        scores(reference=pair[0], estimate=pair[1], sample_rate=RATE)


def test_no_warning_leaves_the_scores() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores(reference=CLICK, estimate=NOISY, sample_rate=RATE)
        scores(reference=CLEAN, estimate=np.where(np.arange(CLEAN.size) < 20000, CLEAN, 0), sample_rate=RATE)
    assert caught == []


def test_stoi_of_the_reference_itself_is_one() -> None:
    assert stoi(reference=CLEAN, estimate=CLEAN, sample_rate=RATE) == pytest.approx(1)
    assert estoi(reference=CLEAN, estimate=CLEAN, sample_rate=RATE) == pytest.approx(1)


def test_versions_name_the_packages() -> None:
    assert set(versions()) == {"pesq", "pystoi"}
    assert all(text[0].isdigit() for text in versions().values())

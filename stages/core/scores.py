"""Scores of an estimate against its reference; what cannot be computed is missing with a reason, never made up."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pesq
import pystoi
from jaxtyping import Float, Float64

from stages.core.audio import resampled
from stages.core.errors import DenoisingError

METRICS: tuple[str, ...] = ("snr_db", "si_sdr_db", "pesq_wb", "stoi", "estoi")

# Beyond this a ratio of two energies shows how float64 rounds and nothing of the signals.
_ROUNDING_DB = 250.0
_PESQ_RATE = 16000
# The C code of pesq has room for 50 utterances and does not look whether they fit: more overwrite its memory, which
# ends in a wrong score or a segmentation fault. An utterance and a pause last at least 0.2 s each, so 20 s always fit.
_PESQ_MAX_S = 20.0
_PESQ_MIN_S = 0.25
# STOI compares stretches of 30 frames of 256 samples, 128 apart, at 10 kHz (Taal et al. 2011, section II).
_STOI_MIN_S = 0.4


class ScoreError(DenoisingError):
    """A score that has no value for these signals; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The value of each metric, None where it has none; `reasons` says why, by the metric's name."""

    snr_db: float | None
    si_sdr_db: float | None
    pesq_wb: float | None
    stoi: float | None
    estoi: float | None
    reasons: dict[str, str]


def scores(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"], sample_rate: int) -> Scores:
    """All metrics of `estimate` against `reference`, both at `sample_rate` Hz.

    Raises:
        ValueError: the signals differ in length, are not one-dimensional or hold no floating-point numbers.
    """
    attempts: dict[str, Callable[[], float]] = {
        "snr_db": lambda: snr_db(reference=reference, estimate=estimate),
        "si_sdr_db": lambda: si_sdr_db(reference=reference, estimate=estimate),
        "pesq_wb": lambda: pesq_wb(reference=reference, estimate=estimate, sample_rate=sample_rate),
        "stoi": lambda: stoi(reference=reference, estimate=estimate, sample_rate=sample_rate),
        "estoi": lambda: estoi(reference=reference, estimate=estimate, sample_rate=sample_rate),
    }
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    reasons = {}
    for name in METRICS:
        try:
            values[name] = attempts[name]()
        except ScoreError as error:
            reasons[name] = str(error)
    return Scores(**values, reasons=reasons)


def snr_db(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"]) -> float:
    """The signal-to-noise ratio 10 log10(sum s^2 / sum (s - s_hat)^2) in dB; that of a silent estimate is 0 dB.

    Raises:
        ScoreError: the reference is silent, a sample is NaN or infinite, or the estimate equals the reference.
    """
    s, s_hat = _checked(reference, estimate)
    return _ratio_db(s, s - s_hat)


def si_sdr_db(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"]) -> float:
    """The scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Equation 3, 10 log10(|a s|^2 / |a s - s_hat|^2) with a = <s_hat, s> / |s|^2, after both means are removed.

    Raises:
        ScoreError: either signal is silent or constant, a sample is NaN or infinite, the estimate is a multiple of the
            reference, or it holds nothing of it.
    """
    s, s_hat = _checked(reference, estimate, silent_estimate=False)
    for name, signal in (("reference", s), ("estimate", s_hat)):
        if np.ptp(signal) == 0:
            raise ScoreError(f"the {name} is constant, so nothing is left without its mean")
    s, s_hat = s - s.mean(), s_hat - s_hat.mean()
    target = (s_hat @ s) / (s @ s) * s
    return _ratio_db(target, target - s_hat)


def pesq_wb(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO, 1.0 to 4.64) by the package pesq; other rates are resampled to 16 kHz.

    Raises:
        ScoreError: either signal is silent, a sample is NaN or infinite, the signals are shorter than 0.25 s or longer
            than 20 s, or pesq finds no utterance in them.
    """
    s, s_hat = _checked(reference, estimate, silent_estimate=False)
    _check_duration(s.size / sample_rate, _PESQ_MIN_S, "PESQ")
    if s.size / sample_rate > _PESQ_MAX_S:
        raise ScoreError(f"{s.size / sample_rate:.1f} s is too long: PESQ is only safe up to {_PESQ_MAX_S:g} s")
    pair = [resampled(signal.astype(np.float32), sample_rate, _PESQ_RATE) for signal in (s, s_hat)]
    try:
        value = float(pesq.pesq(_PESQ_RATE, *pair, "wb"))
    except pesq.NoUtterancesError:
        raise ScoreError("PESQ found no utterance in the reference") from None
    # What pesq raises for an estimate in which it hears nothing is a ValueError about NaN.
    except (pesq.PesqError, ValueError) as error:
        raise ScoreError(f"PESQ could not compare the signals: {_text(error)}") from None
    return _finite(value, "PESQ")


def stoi(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), -1 to 1, by the package pystoi.

    Raises:
        ScoreError: either signal is silent, a sample is NaN or infinite, or less than 0.4 s of speech is there.
    """
    return _stoi(reference, estimate, sample_rate, extended=False)


def estoi(*, reference: Float[np.ndarray, " samples"], estimate: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Extended short-time objective intelligibility (Jensen and Taal 2016), -1 to 1, by the package pystoi.

    Raises:
        ScoreError: as for `stoi`.
    """
    return _stoi(reference, estimate, sample_rate, extended=True)


def versions() -> dict[str, str]:
    """The versions of the packages whose scores differ from those of other implementations."""
    return {package: version(package) for package in ("pesq", "pystoi")}


def _stoi(reference: np.ndarray, estimate: np.ndarray, sample_rate: int, *, extended: bool) -> float:
    name = "ESTOI" if extended else "STOI"
    s, s_hat = _checked(reference, estimate, silent_estimate=False)
    _check_duration(s.size / sample_rate, _STOI_MIN_S, name)
    # pystoi returns 1e-5 with a warning where it has no score, and NaN with one of numpy's.
    with warnings.catch_warnings(), _fixed_global_randomness():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            value = float(pystoi.stoi(s, s_hat, sample_rate, extended=extended))
        except RuntimeWarning as warning:
            if "Not enough STFT frames" not in str(warning):
                raise ScoreError(f"{name} could not compare the signals: {warning}") from None
            raise ScoreError(f"less than {_STOI_MIN_S:g} s of the reference is speech, which {name} needs") from None
    return _finite(value, name)


@contextmanager
def _fixed_global_randomness() -> Iterator[None]:
    """Seeds numpy's global generator for the block: pystoi draws noise from it, which shows in the last digits."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _checked(
    reference: np.ndarray, estimate: np.ndarray, *, silent_estimate: bool = True
) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, " samples"]]:
    if reference.ndim != 1 or reference.shape != estimate.shape:
        raise ValueError(f"expected two signals of one length, found shapes {reference.shape} and {estimate.shape}")
    pair = {"reference": reference, "estimate": estimate}
    for name, signal in pair.items():
        if not np.issubdtype(signal.dtype, np.floating):
            raise ValueError(f"expected floating-point samples, found {signal.dtype} in the {name}")
        if not signal.size:
            raise ScoreError("the signals have no samples")
        if not np.isfinite(signal).all():
            raise ScoreError(f"the {name} holds NaN or infinity")
        if not signal.any() and (name == "reference" or not silent_estimate):
            raise ScoreError(f"the {name} is silent")
    return reference.astype(np.float64), estimate.astype(np.float64)


def _check_duration(seconds: float, least: float, name: str) -> None:
    if seconds < least:
        raise ScoreError(f"{seconds:.3f} s is too short: {name} needs {least:g} s")


def _ratio_db(signal: np.ndarray, distortion: np.ndarray) -> float:
    limit = 10 ** (_ROUNDING_DB / 10)
    wanted, unwanted = float(signal @ signal), float(distortion @ distortion)
    if unwanted * limit <= wanted:
        raise ScoreError("the estimate equals the reference")
    if wanted * limit <= unwanted:
        raise ScoreError("the estimate holds nothing of the reference")
    return float(10 * np.log10(wanted / unwanted))


def _finite(value: float, name: str) -> float:
    if not np.isfinite(value):
        raise ScoreError(f"{name} came out as {value}")
    return value


def _text(error: Exception) -> str:
    found = error.args[0] if error.args else type(error).__name__
    return found.decode() if isinstance(found, bytes) else str(found)

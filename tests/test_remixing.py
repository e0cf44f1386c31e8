import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import few, remix, snr_db, spectrum

from stages.core.remixing import remixed
from stages.core.seeds import generator
from stages.core.training_parameters import Remix

BATCH = 6


def batch() -> np.ndarray:
    """Mixtures and their speech, each of another level."""
    speech, noise = (spectrum(BATCH, 40, 17, seed=seed).numpy() for seed in (1, 2))
    speech *= np.linspace(0.1, 3, BATCH, dtype=np.float32)[:, None, None]
    return np.stack([speech + noise, speech], axis=2)


def made(seed: int = 0, **changes: object) -> np.ndarray:
    return remixed(batch(), generator(seed), Remix.model_validate(remix(probability=1.0) | changes))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other))


@few
@given(seed=st.integers(0, 999), low=st.floats(-20, 30), width=st.floats(0, 20))
def test_the_ratio_of_powers_is_within_its_range(seed: int, low: float, width: float) -> None:
    for mixture, speech in made(seed, snr_db=[low, low + width], equalisation_db=6.0).transpose(0, 2, 1, 3):
        assert low - 0.01 <= snr_db(speech, mixture - speech) <= low + width + 0.01


def test_speech_stays_in_its_place_and_noise_comes_from_another() -> None:
    before, after = batch(), made()
    np.testing.assert_array_equal(after[:, :, 1], before[:, :, 1])
    old, new = (both[:, :, 0] - both[:, :, 1] for both in (before, after))
    found = np.array([[correlation(one, other) for other in old] for one in new])
    assert (found.max(1) > 0.999).all()
    assert sorted(found.argmax(1)) == list(range(BATCH))
    assert (found.argmax(1) != np.arange(BATCH)).any()


def test_none_is_changed_without_probability_and_some_with_half_of_it() -> None:
    np.testing.assert_array_equal(made(probability=0.0), batch())
    changed = [(made(seed, probability=0.5) != batch()).any((1, 2, 3)).sum() for seed in range(20)]
    assert 0.3 < np.mean(changed) / BATCH < 0.7


@pytest.mark.parametrize(("share", "silent"), [("speech_only_share", "noise"), ("noise_only_share", "speech")])
def test_one_part_alone(share: str, silent: str) -> None:
    mixture, speech = made(**{share: 1.0}).transpose(2, 0, 1, 3)
    parts = {"noise": mixture - speech, "speech": speech}
    assert (parts.pop(silent) == 0).all()
    assert (np.abs(next(iter(parts.values()))).max((1, 2)) > 0).all()


def test_colours_stay_in_their_range_and_are_smooth() -> None:
    gain = np.abs(made(equalisation_db=6.0)[:, :, 1] / batch()[:, :, 1])
    decibels = 20 * np.log10(gain)
    assert np.ptp(decibels, axis=1).max() < 1e-3, "the same in every frame"
    curves = decibels[:, 0]
    assert np.abs(curves).max() <= 6.001
    assert np.abs(np.diff(curves, axis=1)).max() < 12 * 5 / 16 + 0.01
    assert np.ptp(curves, axis=1).min() > 0.5
    assert not np.allclose(curves[0], curves[1])


def test_it_depends_on_the_generator_alone_and_keeps_what_it_is_given() -> None:
    given = batch()
    settings = Remix.model_validate(remix(probability=0.7, speech_only_share=0.2, equalisation_db=3.0))
    first, again, other = (remixed(given, generator(seed), settings) for seed in (1, 1, 2))
    np.testing.assert_array_equal(given, batch())
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.complex64
    assert (first != other).any()


def test_silence_stays_finite() -> None:
    both = batch()
    both[0] = 0
    both[1, :, 0] = both[1, :, 1]
    found = remixed(both, generator(3), Remix.model_validate(remix(probability=1.0, equalisation_db=6.0)))
    assert np.isfinite(found).all()

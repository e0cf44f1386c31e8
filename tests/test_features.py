import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import law, spectrum

from stages.core.features import features, magnitude, running_level

PER_SECOND = 62.5


def mixture(frames: int, seed: int = 0, batch: int = 2) -> np.ndarray:
    found: np.ndarray = spectrum(batch, frames, 9, seed=seed).numpy()
    return found


@law
@given(frames=st.integers(1, 60), seed=st.integers(0, 999))
def test_level_is_the_weighted_mean_of_the_powers_so_far(frames: int, seed: int) -> None:
    wave = mixture(frames, seed)
    level, _ = running_level(wave, PER_SECOND)
    assert level.shape == (2, frames, 1)
    power = np.mean(np.abs(wave.astype(np.complex128)) ** 2, axis=-1)
    for frame in range(frames):
        weight = np.exp(-np.arange(frame, -1, -1) / (2.0 * PER_SECOND))
        expected = np.sqrt((power[:, : frame + 1] * weight).sum(-1) / weight.sum())
        np.testing.assert_allclose(level[:, frame, 0], expected, rtol=1e-5)


@law
@given(frames=st.integers(2, 60), seed=st.integers(0, 999), data=st.data())
def test_level_is_causal(frames: int, seed: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, frames - 1))
    wave = mixture(frames, seed)
    changed = wave.copy()
    changed[:, place:] *= 100
    before, after = running_level(wave, PER_SECOND)[0], running_level(changed, PER_SECOND)[0]
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    assert (after[:, place] > before[:, place]).all()


@law
@given(seed=st.integers(0, 999), gain_db=st.floats(-80, 40))
def test_level_scales_with_the_input(seed: int, gain_db: float) -> None:
    gain = np.float32(10 ** (gain_db / 20))
    wave = mixture(30, seed)
    np.testing.assert_allclose(running_level(wave * gain, PER_SECOND)[0], gain * running_level(wave, PER_SECOND)[0], rtol=1e-5)


@law
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(1, 49), max_size=5, unique=True))
def test_level_in_blocks_is_that_of_the_whole(seed: int, cuts: list[int]) -> None:
    wave = mixture(50, seed)
    state, found = None, []
    for block in np.split(wave, sorted(cuts), axis=1):
        level, state = running_level(block, PER_SECOND, state)
        found.append(level)
    whole, end = running_level(wave, PER_SECOND)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, rtol=1e-6)
    assert state is not None
    np.testing.assert_allclose(state.power, end.power, rtol=1e-12)
    np.testing.assert_allclose(state.weight, end.weight, rtol=1e-12)


def test_mixtures_of_a_batch_have_levels_of_their_own() -> None:
    wave = mixture(20)
    wave[0] *= 10
    np.testing.assert_array_equal(running_level(wave, PER_SECOND)[0][1:], running_level(wave[1:], PER_SECOND)[0])


def test_level_follows_within_seconds_and_not_within_syllables() -> None:
    wave = np.ones((1, round(12 * PER_SECOND), 9), np.complex64)
    wave[:, round(6 * PER_SECOND) :] *= 10
    level = running_level(wave, PER_SECOND)[0][0, :, 0]
    change = round(6 * PER_SECOND)
    assert level[change + round(0.02 * PER_SECOND)] < 2
    assert level[change + round(5.9 * PER_SECOND)] > 9


def test_level_of_silence_is_above_zero() -> None:
    level, state = running_level(np.zeros((1, 40, 9), np.complex64), PER_SECOND)
    assert (level > 0).all()
    assert np.isfinite(running_level(mixture(5, batch=1), PER_SECOND, state)[0]).all()


@pytest.mark.parametrize("phase", [False, True])
@pytest.mark.parametrize("compression", [0.1, 0.3, 1.0])
def test_features_are_compressed_magnitudes_and_parts_of_the_same_size(phase: bool, compression: float) -> None:
    wave = spectrum(2, 7, 9)
    found = features(wave, compression, phase=phase)
    assert found.shape == (2, 7, 27 if phase else 9)
    expected = wave.abs().pow(compression)
    torch.testing.assert_close(found[..., :9], expected, rtol=1e-4, atol=1e-5)
    if phase:
        parts = torch.complex(found[..., 9:18], found[..., 18:])
        torch.testing.assert_close(parts.abs(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parts.angle(), wave.angle(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("phase", [False, True])
@pytest.mark.parametrize("compression", [0.1, 0.3, 1.0])
def test_features_and_their_gradients_are_finite_at_zero(phase: bool, compression: float) -> None:
    wave = torch.zeros(1, 3, 9, dtype=torch.complex64, requires_grad=True)
    found = features(wave, compression, phase=phase)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(torch.view_as_real(wave.grad)).all()


@law
@given(exponent=st.floats(-5, 5), seed=st.integers(0, 999))
def test_magnitude_is_the_absolute_value(exponent: float, seed: int) -> None:
    wave = spectrum(40, seed=seed, scale=10**exponent)
    torch.testing.assert_close(magnitude(wave), wave.abs(), rtol=1e-5, atol=1e-6)

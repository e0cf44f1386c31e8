from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, STFT, few, hiss, law, level_db, model, snr_db, spectrum, voiced

from stages.core.denoiser import Denoiser
from stages.core.enhancement import enhanced
from stages.core.oracle import oracle
from stages.core.parameters import Stft
from stages.core.streaming import scaled

RATES = [8000, 11025, 16000, 22050, 44100, 48000]
TARGETS = ["magnitude", "subtraction", "irm", "ibm", "crm"]


def denoiser(target: str = "irm", stft: Stft = STFT) -> Denoiser:
    torch.manual_seed(1)
    made = Denoiser(model(target=target), stft, RATE).eval()
    made.standardise([spectrum(2, 60, stft.n_fft // 2 + 1, seed=1)])
    return made


def fixed(gain: float | Callable[[torch.Tensor], torch.Tensor], stft: Stft = STFT) -> Denoiser:
    """A denoiser whose estimate is its input times `gain`, or a function of it."""
    made = denoiser(stft=stft)
    function = gain if callable(gain) else lambda given: given * gain
    made.denoised = lambda given, state=None: (function(given), state)  # type: ignore[method-assign]
    return made


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.stack([left, right], axis=1))


@law
@given(n_samples=st.integers(0, 700), sample_rate=st.sampled_from(RATES), channels=st.sampled_from([1, 2, 6]))
def test_the_estimate_has_the_shape_of_the_recording(n_samples: int, sample_rate: int, channels: int) -> None:
    noisy = hiss(n_samples * channels).reshape(n_samples, channels)
    found = enhanced(noisy, sample_rate, denoiser())
    assert found.shape == noisy.shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize("sample_rate", [*RATES, 12345, 96000, 192000])
@pytest.mark.parametrize("n_samples", [0, 1, 2, 3, 31, 700])
def test_the_shortest_recordings_keep_their_shape(n_samples: int, sample_rate: int) -> None:
    for target in ("irm", "crm"):
        noisy = hiss(n_samples * 2).reshape(n_samples, 2)
        assert enhanced(noisy, sample_rate, denoiser(target)).shape == noisy.shape


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("target", TARGETS)
def test_silence_stays_silence(sample_rate: int, target: str) -> None:
    assert not enhanced(np.zeros((500, 2), np.float32), sample_rate, denoiser(target)).any()


@pytest.mark.parametrize("target", TARGETS)
def test_sound_after_silence_is_finite(target: str) -> None:
    noisy = np.concatenate([np.zeros(3000), voiced(3000), np.zeros(3000)]).astype(np.float32)[:, None]
    assert np.isfinite(enhanced(noisy, RATE, denoiser(target))).all()


@pytest.mark.parametrize("sample_rate", [16000, 32000, 48000])
@pytest.mark.parametrize("stft", [STFT, Stft(n_fft=512, win_length=512, hop_length=256)])
def test_a_gain_of_one_changes_nothing_at_multiples_of_the_rate(sample_rate: int, stft: Stft) -> None:
    # Noise holds all frequencies, so those above the network's band are heard as well.
    noisy = stereo(hiss(5000), hiss(5000, 1))
    np.testing.assert_allclose(enhanced(noisy, sample_rate, fixed(1.0, stft)), noisy, atol=2e-5)
    np.testing.assert_allclose(enhanced(noisy, sample_rate, fixed(0.25, stft)), 0.25 * noisy, atol=2e-5)


@pytest.mark.parametrize("sample_rate", RATES)
def test_a_gain_of_one_changes_no_sound_below_the_resampler_s_edge(sample_rate: int) -> None:
    noisy = voiced(sample_rate // 2, sample_rate)[:, None]
    found = enhanced(noisy, sample_rate, fixed(1.0))
    inner = slice(200, -200)
    assert snr_db(noisy[inner], found[inner] - noisy[inner]) > 60


@pytest.mark.parametrize("sample_rate", [16000, 22050, 24000, 44100, 48000])
def test_no_band_of_the_recording_is_lost(sample_rate: int) -> None:
    # Rates between the network's and its double go up, not down to it.
    time = np.arange(sample_rate // 2) / sample_rate
    noisy = (0.3 * np.sin(2 * np.pi * 0.43 * sample_rate * time)).astype(np.float32)[:, None]
    found = enhanced(noisy, sample_rate, fixed(1.0))
    inner = slice(300, -300)
    assert snr_db(noisy[inner], found[inner] - noisy[inner]) > 50


def test_bins_above_the_network_s_band_follow_its_upper_half() -> None:
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    gains = torch.ones(257)
    gains[128:] = 0.1
    noisy = hiss(48000)[:, None]
    found = enhanced(noisy, 48000, fixed(lambda given: given * gains, stft))[:, 0]
    before, after = (np.abs(np.fft.rfft(wave.astype(np.float64))) ** 2 for wave in (noisy[:, 0], found))
    for low, high, gain in ((100, 3900, 1.0), (4100, 23900, 0.1)):
        assert np.sqrt(after[low:high].sum() / before[low:high].sum()) == pytest.approx(gain, rel=0.02)


@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000])
@pytest.mark.parametrize("target", ["irm", "crm"])
def test_a_panned_source_stays_where_it_is(sample_rate: int, target: str) -> None:
    mono = voiced(6000, sample_rate) + hiss(6000, level=0.02)
    found = enhanced(stereo(mono, np.float32(0.3) * mono), sample_rate, denoiser(target))
    np.testing.assert_allclose(found[:, 1], 0.3 * found[:, 0], atol=1e-4 * np.abs(found).max())
    alone = enhanced(mono[:, None], sample_rate, denoiser(target))
    np.testing.assert_allclose(found[:, 0], alone[:, 0], rtol=0, atol=1e-3 * np.abs(alone).max())


@pytest.mark.parametrize("channels", [2, 6])
def test_one_gain_serves_all_channels(channels: int) -> None:
    noisy = hiss(4000 * channels).reshape(4000, channels)
    noisy[:, 0] += voiced(4000)
    mask = torch.rand(257, generator=torch.Generator().manual_seed(3))
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    found = enhanced(noisy, RATE, fixed(lambda given: given * mask, stft))
    for channel in range(channels):
        alone = enhanced(noisy[:, channel : channel + 1], RATE, fixed(lambda given: given * mask, stft))
        np.testing.assert_allclose(found[:, channel], alone[:, 0], atol=1e-5)


def test_equal_channels_are_denoised_as_one() -> None:
    mono = voiced(4000) + hiss(4000)
    found = enhanced(np.repeat(mono[:, None], 6, axis=1), RATE, denoiser())
    alone = enhanced(mono[:, None], RATE, denoiser())
    np.testing.assert_allclose(found, np.repeat(alone, 6, axis=1), atol=1e-5)


@pytest.mark.parametrize("share", [-1.0, -0.95, -0.8])
def test_channels_out_of_phase_are_not_lost(share: float) -> None:
    mono = voiced(4000) + hiss(4000, level=0.02)
    found = enhanced(stereo(mono, np.float32(share) * mono), RATE, denoiser())
    alone = enhanced(mono[:, None], RATE, denoiser())[:, 0]
    np.testing.assert_allclose(found[:, 0], alone, atol=1e-3 * np.abs(alone).max())
    np.testing.assert_allclose(found[:, 1], share * found[:, 0], atol=1e-4 * np.abs(alone).max())


def test_a_silent_channel_stays_silent() -> None:
    found = enhanced(stereo(voiced(4000) + hiss(4000), np.zeros(4000, np.float32)), RATE, denoiser())
    assert not found[:, 1].any()
    assert found[:, 0].any()


@few
@given(gain_db=st.floats(-30, 10), sample_rate=st.sampled_from([8000, 16000, 44100, 48000]), target=st.sampled_from(TARGETS))
def test_louder_in_is_louder_out_and_nothing_else(gain_db: float, sample_rate: int, target: str) -> None:
    gain = np.float32(10 ** (gain_db / 20))
    noisy = (voiced(5000, sample_rate) + hiss(5000, level=0.05))[:, None]
    found, louder = (enhanced(wave, sample_rate, denoiser(target)) for wave in (noisy, gain * noisy))
    assert snr_db(gain * found, louder - gain * found) > 60


def test_quieter_by_30_db_is_quieter_by_30_db() -> None:
    noisy = (voiced(5000) + hiss(5000, level=0.05))[:, None]
    gain = np.float32(10 ** (-30 / 20))
    found = enhanced(noisy, RATE, denoiser())
    np.testing.assert_allclose(enhanced(gain * noisy, RATE, denoiser()), gain * found, atol=1e-3 * gain * np.abs(found).max())


def test_a_scaled_transform_has_equal_times_and_frequencies() -> None:
    assert scaled(STFT, 1) == STFT
    assert scaled(STFT, 3) == Stft(n_fft=192, win_length=192, hop_length=96)


def test_the_recording_itself_is_not_changed() -> None:
    noisy = hiss(2000)[:, None]
    before = noisy.copy()
    enhanced(noisy, RATE, denoiser())
    np.testing.assert_array_equal(noisy, before)
    empty = np.zeros((0, 2), np.float32)
    assert enhanced(empty, RATE, denoiser()) is not empty


@pytest.mark.parametrize(("target", "least_db"), [("irm", 5), ("crm", 15)])
def test_the_oracle_is_better_than_the_noisy_recording(target: str, least_db: float) -> None:
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    clean = voiced(16000)
    noisy = clean + hiss(16000, level=10 ** (level_db(clean) / 20))
    found = oracle(noisy, clean, denoiser(target, stft))
    assert found.shape == noisy.shape
    assert snr_db(clean, found - clean) > snr_db(clean, noisy - clean) + least_db

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, hiss, law, snr_db, spectrum, voiced

from stages.core.features import running_level
from stages.core.parameters import Stft
from stages.core.spectra import spectrogram
from stages.core.targets import TARGETS, Target

COMPRESSION = 0.3
NAMES = list(TARGETS)


def target(name: str, compression: float = COMPRESSION) -> Target:
    return TARGETS[name](compression)


def levelled(snr: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A levelled mixture of harmonics and hiss, and the harmonics."""
    speech = voiced(RATE, pitch=100 + 10 * seed)
    noise = hiss(RATE, seed, 1.0)
    noise *= np.float32(np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20))
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    both = spectrogram(torch.from_numpy(np.stack([speech + noise, speech])), stft)
    level, _ = running_level(both[:1].numpy(), RATE / 256)
    mixture, clean = (both / torch.from_numpy(level)).split(1)
    return mixture, clean


def ideal_estimate(name: str, mixture: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
    found = target(name)
    return found.estimate(found.ideal(mixture, speech), mixture)


# What the ideal output gives back of speech in as much noise: all but the complex mask keep the noisy phase.
@pytest.mark.parametrize(("name", "least_db"), [("magnitude", 5), ("subtraction", 5), ("irm", 6), ("ibm", 6), ("crm", 20)])
@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
def test_the_ideal_output_brings_the_speech_back(name: str, least_db: float, snr: float) -> None:
    mixture, speech = levelled(snr)
    before = snr_db(speech.numpy(), (mixture - speech).numpy())
    after = snr_db(speech.numpy(), (ideal_estimate(name, mixture, speech) - speech).numpy())
    assert after > before + least_db * (0.6 if snr > 5 else 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_ideal_output_of_clean_speech_is_the_speech(name: str) -> None:
    _, speech = levelled()
    assert snr_db(speech.numpy(), (ideal_estimate(name, speech, speech) - speech).numpy()) > 40


@pytest.mark.parametrize("name", ["magnitude", "crm"])
def test_a_network_that_puts_out_nothing_changes_nothing(name: str) -> None:
    mixture, _ = levelled()
    found = target(name)
    raw = torch.zeros(*mixture.shape[:2], mixture.shape[2] * found.outputs_per_bin)
    assert snr_db(mixture.numpy(), (found.estimated(raw, mixture) - mixture).numpy()) > 60


@law
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 10))
def test_the_complex_mask_is_nearly_exact_where_it_is_moderate(seed: int, scale: float) -> None:
    mixture, speech = spectrum(1, 9, 33, seed=seed), spectrum(1, 9, 33, seed=seed + 1000, scale=scale)
    mask = torch.view_as_real(speech / mixture)
    moderate = (mask.abs().amax(-1) < 5) & (mixture.abs() > 0.01)
    error = (ideal_estimate("crm", mixture, speech) - speech).abs()
    assert (error[moderate] <= 1e-3 * speech.abs()[moderate] + 1e-3 * mixture.abs()[moderate]).all()


def test_the_complex_mask_is_bounded_where_it_is_not_moderate() -> None:
    mixture, speech = spectrum(1, 4, 5, scale=1e-3), spectrum(1, 4, 5, seed=1, scale=10)
    found = ideal_estimate("crm", mixture, speech)
    assert (found.abs() <= 15 * mixture.abs()).all()
    mask, wanted = found / mixture, speech / mixture
    assert (torch.sign(mask.real) == torch.sign(wanted.real)).all()
    assert (torch.sign(mask.imag) == torch.sign(wanted.imag)).all()


@law
@given(seed=st.integers(0, 999), scale=st.floats(0, 10))
def test_real_masks_lie_between_0_and_1(seed: int, scale: float) -> None:
    mixture, speech = spectrum(1, 9, 33, seed=seed), spectrum(1, 9, 33, seed=seed + 1000, scale=scale)
    for name in ("irm", "ibm"):
        mask = target(name).ideal(mixture, speech)
        assert mask.shape == (1, 9, 33)
        assert mask.min() >= 0
        assert mask.max() <= 1
    assert set(target("ibm").ideal(mixture, speech).unique().tolist()) <= {0.0, 1.0}
    clean, noise = speech.abs().square(), (mixture - speech).abs().square()
    torch.testing.assert_close(target("irm").ideal(mixture, speech), (clean / (clean + noise)).sqrt(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(target("ibm").ideal(mixture, speech), (clean > noise).float())


@law
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 10), compression=st.sampled_from([0.2, 0.3, 0.5, 1.0]))
def test_magnitude_is_that_of_the_speech_with_the_phase_of_the_mixture(seed: int, scale: float, compression: float) -> None:
    mixture, speech = spectrum(1, 9, 33, seed=seed), spectrum(1, 9, 33, seed=seed + 1000, scale=scale)
    wanted = target("magnitude", compression)
    found = wanted.estimate(wanted.ideal(mixture, speech), mixture)
    heard = mixture.abs() > 0.01
    torch.testing.assert_close(found.abs()[heard], speech.abs()[heard], rtol=1e-3, atol=1e-5)
    turned = found * mixture.conj()
    assert (turned.imag.abs() <= 1e-4 * turned.abs() + 1e-6).all()


@law
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 3), compression=st.sampled_from([0.2, 0.3, 0.5, 1.0]))
def test_subtraction_takes_the_magnitude_of_the_noise_away(seed: int, scale: float, compression: float) -> None:
    mixture, speech = spectrum(1, 9, 33, seed=seed), spectrum(1, 9, 33, seed=seed + 1000, scale=scale)
    wanted = target("subtraction", compression)
    found = wanted.estimate(wanted.ideal(mixture, speech), mixture)
    expected = (mixture.abs() - (mixture - speech).abs()).clamp_min(0)
    assert ((found.abs() - expected).abs() <= 0.0695 * mixture.abs() + 1e-4).all()  # ln 2 / 10 where nothing is left
    clear = expected > 0.6 * mixture.abs()
    assert ((found.abs() - expected)[clear].abs() <= 1e-3 * mixture.abs()[clear] + 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_outputs_are_in_the_range_of_the_ideal(name: str, size: float) -> None:
    wanted = target(name)
    mixture, speech = levelled()
    raw = size * torch.randn(1, 20, 257 * wanted.outputs_per_bin, generator=torch.Generator().manual_seed(1))
    ideal = wanted.ideal(mixture, speech)
    assert ideal.shape[-1] == 257 * wanted.outputs_per_bin
    low, high = {"irm": (0, 1), "ibm": (0, 1), "crm": (-2, 2)}.get(name, (0, float("inf")))
    for numbers in (wanted.activated(raw, mixture[:, :20]), ideal):
        assert torch.isfinite(numbers).all()
        assert numbers.min() >= low
        assert numbers.max() <= high
    assert torch.isfinite(wanted.estimated(raw, mixture[:, :20]).abs()).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0])
def test_the_estimate_of_raw_numbers_is_that_of_the_output(name: str, size: float) -> None:
    wanted, (mixture, _) = target(name), levelled()
    raw = size * torch.randn(1, mixture.shape[1], 257 * wanted.outputs_per_bin, generator=torch.Generator().manual_seed(1))
    expected = wanted.estimate(wanted.activated(raw, mixture), mixture)
    # Close to its bounds a compressed mask is rounded.
    torch.testing.assert_close(wanted.estimated(raw, mixture), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_mixture_of_silence_gives_silence_and_finite_ideals(name: str) -> None:
    silent = torch.zeros(1, 3, 9, dtype=torch.complex64)
    wanted = target(name)
    assert torch.isfinite(wanted.ideal(silent, silent)).all()
    raw = torch.randn(1, 3, 9 * wanted.outputs_per_bin)
    assert not wanted.estimated(raw, silent).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_of_the_estimate_are_finite(name: str, size: float, scale: float) -> None:
    wanted = target(name)
    mixture = spectrum(1, 3, 9, scale=scale)
    raw = (size * torch.randn(1, 3, 9 * wanted.outputs_per_bin, generator=torch.Generator().manual_seed(2))).requires_grad_()
    estimate = wanted.estimated(raw, mixture)
    torch.view_as_real(estimate).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_an_untrained_network_gives_the_mixture_as_magnitude() -> None:
    mixture, _ = levelled()
    wanted = target("magnitude")
    estimate = wanted.estimated(torch.zeros(mixture.shape), mixture)
    torch.testing.assert_close(estimate, mixture, rtol=1e-3, atol=1e-4)

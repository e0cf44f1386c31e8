import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from specimens import hiss, law, spectrum

from stages.core.parameters import Stft
from stages.core.spectra import _FramePower, _Power, bin_power, n_bins, n_frames, power_spectrogram, spectrogram, waveform

TRANSFORMS = [
    Stft(n_fft=512, win_length=512, hop_length=256),
    Stft(n_fft=512, win_length=512, hop_length=128),
    Stft(n_fft=512, win_length=384, hop_length=128),
    Stft(n_fft=1024, win_length=400, hop_length=100),
    Stft(n_fft=64, win_length=60, hop_length=20),
    Stft(n_fft=33, win_length=32, hop_length=16),
]
transforms = st.sampled_from(TRANSFORMS)


def overlap(stft: Stft) -> int:
    return stft.win_length // stft.hop_length


@law
@given(n_samples=st.integers(0, 5000), stft=transforms)
def test_there_and_back_for_any_length(n_samples: int, stft: Stft) -> None:
    wave = torch.from_numpy(hiss(n_samples, level=0.3))
    found = spectrogram(wave, stft)
    assert found.shape == (n_frames(n_samples, stft), n_bins(stft))
    back = waveform(found, n_samples, stft)
    assert back.shape == (n_samples,)
    assert torch.allclose(back, wave, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stft", TRANSFORMS)
@pytest.mark.parametrize("n_samples", [0, 1, 2, 15, 16, 17])
def test_there_and_back_at_the_shortest_lengths(n_samples: int, stft: Stft) -> None:
    wave = torch.from_numpy(hiss(n_samples, level=0.3))
    assert torch.allclose(waveform(spectrogram(wave, stft), n_samples, stft), wave, rtol=0, atol=1e-5)


@law
@given(n_samples=st.integers(1, 3000), stft=transforms)
def test_equal_to_scipy_on_the_padded_waveform(n_samples: int, stft: Stft) -> None:
    wave = hiss(n_samples)
    window = np.sqrt(signal.get_window("hann", stft.win_length, fftbins=True))
    lead = stft.win_length - stft.hop_length
    tail = lead + (-n_samples) % stft.hop_length
    _, _, expected = signal.stft(
        np.pad(wave.astype(np.float64), (lead, tail)),
        window=window,
        nperseg=stft.win_length,
        noverlap=lead,
        nfft=stft.n_fft,
        boundary=None,
        padded=False,
    )
    found = spectrogram(torch.from_numpy(wave), stft).numpy()
    assert found.shape == expected.T.shape
    np.testing.assert_allclose(found, expected.T * window.sum(), atol=1e-4)


@law
@given(n_samples=st.integers(1, 3000), stft=transforms)
def test_the_power_of_the_waveform_is_that_of_the_spectrogram(n_samples: int, stft: Stft) -> None:
    wave = hiss(n_samples)
    power = np.abs(spectrogram(torch.from_numpy(wave), stft).numpy().astype(np.complex128)) ** 2
    once = [0] if stft.n_fft % 2 else [0, -1]
    total = (2 * power.sum() - power[:, once].sum()) / stft.n_fft
    assert total == pytest.approx(overlap(stft) / 2 * np.sum(np.square(wave, dtype=np.float64)), rel=1e-4)


@pytest.mark.parametrize("stft", TRANSFORMS)
def test_every_sample_counts_alike_also_at_the_borders(stft: Stft) -> None:
    n_samples = 3 * stft.win_length + 7
    places = [0, 1, stft.hop_length - 1, stft.win_length, n_samples - 2, n_samples - 1]
    power = spectrogram(torch.eye(n_samples)[places], stft).abs().square()
    once = [0] if stft.n_fft % 2 else [0, -1]
    total = (2 * power.sum((1, 2)) - power[:, :, once].sum((1, 2))) / stft.n_fft
    assert torch.allclose(total, torch.full_like(total, overlap(stft) / 2), rtol=1e-4)


@law
@given(n_samples=st.integers(1, 2000), stft=transforms, seed=st.integers(0, 99))
def test_no_spectrogram_gives_more_power_than_it_has(n_samples: int, stft: Stft, seed: int) -> None:
    changed = spectrum(n_frames(n_samples, stft), n_bins(stft), seed=seed)
    power = changed.abs().square().sum().item() * 2 / stft.n_fft
    assert waveform(changed, n_samples, stft).square().sum().item() <= power * 2 / overlap(stft) * 1.0001


@pytest.mark.parametrize("stft", TRANSFORMS)
def test_errors_in_a_spectrogram_are_no_louder_at_the_borders(stft: Stft) -> None:
    n_samples = 8 * stft.win_length + 5
    errors = spectrum(64, n_frames(n_samples, stft), n_bins(stft))
    wave = waveform(errors, n_samples, stft).numpy()
    edge = stft.hop_length // 4
    middle = wave[:, stft.win_length : -stft.win_length].std()
    for part in (wave[:, :edge], wave[:, -edge:], wave[:, :2], wave[:, -2:]):
        assert 0.75 < part.std() / middle < 1.25


@pytest.mark.parametrize("stft", TRANSFORMS)
def test_a_shift_by_one_hop_is_a_shift_by_one_frame(stft: Stft) -> None:
    wave = torch.from_numpy(hiss(1000))
    later = torch.cat([torch.zeros(stft.hop_length), wave])
    assert torch.allclose(spectrogram(later, stft)[1:], spectrogram(wave, stft), atol=1e-5)


def test_a_batch_is_its_waveforms_one_by_one() -> None:
    waves = torch.stack([torch.from_numpy(hiss(700, seed)) for seed in range(6)]).reshape(2, 3, 700)
    stft = TRANSFORMS[2]
    found = spectrogram(waves, stft)
    assert found.shape == (2, 3, n_frames(700, stft), n_bins(stft))
    assert torch.allclose(found[1, 2], spectrogram(waves[1, 2], stft), atol=1e-6)
    assert torch.allclose(waveform(found, 700, stft)[1, 0], waves[1, 0], atol=1e-5)


def test_a_tone_is_in_its_bin() -> None:
    stft = TRANSFORMS[0]
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16000)
    assert spectrogram(tone, stft)[10].abs().argmax() == 1000 * 512 // 16000


@pytest.mark.parametrize("stft", TRANSFORMS, ids=str)
def test_powers_are_those_of_the_spectrogram(stft: Stft) -> None:
    samples = torch.from_numpy(hiss(3000)).view(2, -1)
    expected = spectrogram(samples, stft).abs().square()
    for found in (power_spectrogram(samples, stft), bin_power(spectrogram(samples, stft))):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("length", "n_fft"), [(8, 8), (8, 9), (6, 12), (7, 11)])
def test_gradients_of_powers_are_those_of_small_differences(length: int, n_fft: int) -> None:
    frames = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda part: _FramePower.apply(part, n_fft), (frames,))
    assert torch.autograd.gradcheck(lambda part: _Power.apply(torch.fft.rfft(part, n_fft)), (frames,))

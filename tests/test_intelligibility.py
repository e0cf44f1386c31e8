from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pystoi import stoi
from specimens import hiss, voiced
from torch import Tensor

from stages.core.intelligibility import intelligibilities


def speech(rate: int = 10000) -> Tensor:
    return torch.from_numpy(voiced(2 * rate, pitch=140.0 * 16000 / rate)).unsqueeze(0)


def swaying(n_samples: int) -> Tensor:
    """Hiss that is now loud, now faint, in all bands of any rate."""
    places = np.arange(n_samples)
    sway = 1.7 + np.sin(places / 700) + 0.5 * np.sin(places / 311)
    return torch.from_numpy((hiss(n_samples, 5, 0.1) * sway).astype(np.float32)).unsqueeze(0)


def noisy(snr_db: float, clean: Tensor) -> Tensor:
    noise = torch.from_numpy(hiss(clean.shape[1], 1, 0.1)).unsqueeze(0)
    return clean + noise * clean.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (-snr_db / 20)


def found(estimate: Tensor, clean: Tensor, rate: int = 10000) -> float:
    return float(intelligibilities(estimate, clean, rate))


def test_speech_itself_is_understood_at_any_level() -> None:
    assert found(speech(), speech()) == pytest.approx(1, abs=1e-3)
    for level in (0.05, 3.0):
        assert found(level * noisy(5, speech()), speech()) == pytest.approx(found(noisy(5, speech()), speech()), abs=0.01)


@pytest.mark.parametrize("snr_db", [15, 5, 0, -5])
def test_without_pauses_the_numbers_are_those_of_pystoi(snr_db: float) -> None:
    clean = swaying(30000)
    estimate = noisy(snr_db, clean)
    expected = stoi(clean[0].numpy(), estimate[0].numpy(), 10000, extended=True)
    assert found(estimate, clean) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_more_noise_hides_more(rate: int) -> None:
    clean = swaying(2 * rate)
    numbers = [found(noisy(snr_db, clean), clean, rate) for snr_db in (40, 20, 10, 0, -10)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0.95
    assert numbers[-1] < 0.6


def test_pauses_do_not_count() -> None:
    clean, quiet = speech(), torch.zeros(1, 20000)
    estimate, noise = noisy(10, clean), 0.1 * torch.from_numpy(hiss(20000, 7, 0.1)).unsqueeze(0)
    with_pause = found(torch.cat([estimate, noise], 1), torch.cat([clean, quiet], 1))
    assert with_pause == pytest.approx(found(estimate, clean), abs=0.02)


@pytest.mark.parametrize("n_samples", [1, 1000, 3000])
def test_without_speech_or_with_too_little_nothing_is_missing(n_samples: int) -> None:
    noise = torch.from_numpy(hiss(20000, 7, 0.1)).unsqueeze(0)
    assert found(noise, torch.zeros(1, 20000)) == 1
    assert found(noise[:, :n_samples], speech()[:, :n_samples]) == 1


@pytest.mark.parametrize("estimate", ["speech", "nothing", "noise"])
def test_gradients_are_finite(estimate: str) -> None:
    clean = torch.cat([speech(), torch.zeros(1, 4000)], 1)
    given = {"speech": clean.clone(), "nothing": torch.zeros_like(clean), "noise": noisy(-20, clean)}[estimate]
    given.requires_grad_()
    intelligibilities(given, clean, 10000).sum().backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())


def test_a_step_along_the_gradient_is_understood_better() -> None:
    clean = speech()
    estimate = noisy(0, clean).requires_grad_()
    before = intelligibilities(estimate, clean, 10000)
    (gradient,) = torch.autograd.grad(before.sum(), estimate)
    assert found((estimate + 0.5 * gradient / gradient.norm()).detach(), clean) > before.item() + 0.005


def test_over_real_mixtures_the_numbers_go_with_those_of_pystoi(test_audio: Path) -> None:
    folder = test_audio / "pairs" / "dns-no-reverb"
    theirs, ours = [], []
    for path in sorted((folder / "noisy").iterdir())[:20]:
        clean, mixture = (soundfile.read(folder / side / path.name, dtype="float32")[0] for side in ("clean", "noisy"))
        theirs.append(stoi(clean, mixture, 16000, extended=True))
        ours.append(found(torch.from_numpy(mixture).unsqueeze(0), torch.from_numpy(clean).unsqueeze(0), 16000))
    assert np.corrcoef(theirs, ours)[0, 1] > 0.98
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.02)

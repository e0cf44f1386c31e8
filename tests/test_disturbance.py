import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pesq import pesq
from specimens import hiss, voiced
from torch import Tensor

from stages.core.disturbance import disturbances


def speech(rate: int = 16000) -> Tensor:
    return torch.from_numpy(voiced(2 * rate, pitch=140.0)).unsqueeze(0)


def noisy(snr_db: float, rate: int = 16000) -> Tensor:
    clean, noise = speech(rate), torch.from_numpy(hiss(2 * rate, 1, 0.1)).unsqueeze(0)
    return clean + noise * clean.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (-snr_db / 20)


def points(estimate: Tensor, clean: Tensor, rate: int = 16000) -> float:
    return float(disturbances(estimate, clean, rate))


def test_speech_itself_does_not_disturb() -> None:
    assert points(speech(), speech()) == pytest.approx(0, abs=1e-3)


def test_the_level_of_an_estimate_does_not_matter() -> None:
    assert points(0.1 * noisy(10), speech()) == pytest.approx(points(noisy(10), speech()), rel=1e-3)
    assert points(noisy(10), 0.1 * speech()) == pytest.approx(points(noisy(10), speech()), rel=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_more_noise_disturbs_more(rate: int) -> None:
    found = [points(noisy(snr_db, rate), speech(rate), rate) for snr_db in (40, 30, 20, 10, 0)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.5


def test_what_is_added_disturbs_more_than_what_is_missing() -> None:
    bursts = torch.zeros_like(speech())
    bursts[:, 8000:12000] = 1
    noise = torch.from_numpy(hiss(32000, 3, 0.3)).unsqueeze(0)
    more, less = speech() + noise * bursts, speech() * (1 - 0.9 * bursts)
    assert points(more, speech()) > points(less, speech()) > 0.05


def test_what_cannot_be_heard_does_not_disturb() -> None:
    assert points(speech() + 0.3, speech()) < 0.05
    noise_beside_offsets = points(noisy(10) + 0.3, speech() - 0.2)
    assert noise_beside_offsets == pytest.approx(points(noisy(10), speech()), rel=0.05)


@pytest.mark.parametrize("first", [0, 9600, 27200])
def test_a_burst_disturbs_wherever_it_is_and_the_last_frames_count(first: int) -> None:
    burst = torch.zeros_like(speech())
    burst[:, first : first + 4800] = torch.from_numpy(hiss(4800, 3, 0.3))
    assert points(speech() + burst, speech()) > 0.5


def test_examples_without_speech_count_nothing_and_each_example_counts_for_itself() -> None:
    clean = torch.cat((speech(), torch.zeros_like(speech()), speech()))
    found = disturbances(torch.cat((noisy(0), noisy(0), noisy(20))), clean, 16000)
    assert found[1] == 0
    assert found[[0, 2]].tolist() == pytest.approx([points(noisy(0), speech()), points(noisy(20), speech())], rel=1e-5)


@pytest.mark.parametrize("estimate", ["silence", "the speech", "noisy", "faint", "loud"])
@pytest.mark.parametrize("reference", ["speech", "silence"])
def test_slopes_are_finite_whatever_there_is(estimate: str, reference: str) -> None:
    sounds = {"silence": torch.zeros_like(speech()), "the speech": speech(), "noisy": noisy(5)}
    sounds |= {"faint": 1e-7 * noisy(5), "loud": 1e4 * noisy(5)}
    heard = sounds[estimate].clone().requires_grad_()
    disturbances(heard, speech() if reference == "speech" else torch.zeros_like(speech()), 16000).sum().backward()
    assert heard.grad is not None
    assert bool(heard.grad.isfinite().all())
    assert bool(heard.grad.abs().sum() > 0) == (reference == "speech" and estimate in ("noisy", "faint", "loud"))


def test_downhill_is_towards_better_pesq() -> None:
    heard, clean = noisy(5).requires_grad_(), speech()
    disturbances(heard, clean, 16000).sum().backward()
    assert heard.grad is not None
    step = 0.02 * heard.detach().norm() / heard.grad.norm()
    better = (heard - step * heard.grad).detach()
    assert points(better, clean) < points(heard.detach(), clean)


@pytest.mark.skipif("DENOISE_TEST_AUDIO" not in os.environ, reason="DENOISE_TEST_AUDIO is not set: no real pairs here")
def test_points_of_real_pairs_go_with_pesq() -> None:
    folder = Path(os.environ["DENOISE_TEST_AUDIO"]) / "pairs" / "dns-no-reverb"
    measured, modelled = [], []
    for path in sorted((folder / "noisy").iterdir())[:6]:
        mixture, clean = (soundfile.read(folder / side / path.name, dtype="float32")[0][:64000] for side in ("noisy", "clean"))
        for share in (0.0, 0.5, 0.9):
            estimate = share * clean + (1 - share) * mixture
            score = pesq(16000, clean, estimate, "wb")
            # Back from the scale of listeners (ITU-T P.862.2, eq. 1) to points.
            measured.append((math.log(4 / (score - 0.999) - 1) - 3.8224) / -1.3669)
            modelled.append(4.5 - points(*(torch.from_numpy(part).unsqueeze(0) for part in (estimate, clean))))
    assert np.corrcoef(measured, modelled)[0, 1] > 0.9
    slope, _ = np.polyfit(measured, modelled, 1)
    assert 0.6 < slope < 1.1

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ruamel.yaml import YAML
from specimens import RATE, STFT, hiss, model, spectrum, train, voiced

from stages.core.denoiser import Denoiser
from stages.core.disturbance import disturbances
from stages.core.features import running_level
from stages.core.intelligibility import intelligibilities
from stages.core.losses import LOSSES, Batch, Loss, consistent
from stages.core.parameter_file import ParameterError, read_parameters
from stages.core.parameters import Model, Stft
from stages.core.spectra import spectrogram, waveform
from stages.core.targets import TARGETS, Target
from stages.core.training_parameters import Train

ALLOWED = {
    "magnitude": ["mse", "compressed"],
    "subtraction": ["mse", "compressed"],
    "irm": ["mse", "compressed"],
    "ibm": ["bce"],
    "crm": ["mse", "compressed"],
}
PAIRS = [(target, loss) for target, losses in ALLOWED.items() for loss in losses]
REFUSED = [(target, loss) for target in ALLOWED for loss in LOSSES if loss not in ALLOWED[target]]


def loss_of(name: str, target: Target | str, **changes: Any) -> Loss:
    return LOSSES[name](train(loss=name, **changes), TARGETS[target](0.3) if isinstance(target, str) else target, STFT, RATE)


def batch() -> Batch:
    """Two levelled mixtures and their speech."""
    speech = torch.stack([torch.from_numpy(voiced(2000, pitch=pitch)) for pitch in (110.0, 190.0)])
    noise = torch.stack([torch.from_numpy(hiss(2000, seed, 0.1)) for seed in range(2)])
    mixture, clean = (spectrogram(part, STFT) for part in (speech + noise, speech))
    level = mixture.abs().square().mean((1, 2), keepdim=True).sqrt()
    return Batch(mixture / level, clean / level, level.expand(-1, mixture.shape[1], -1))


def test_every_name_in_the_parameters_is_there() -> None:
    assert set(LOSSES) == set(get_args(Train.model_fields["loss"].annotation))
    assert set(TARGETS) == set(get_args(Model.model_fields["target"].annotation)) == set(ALLOWED)


@pytest.mark.parametrize(("target", "loss"), PAIRS)
def test_an_allowed_pair_is_accepted(target: str, loss: str, repository: Path, tmp_path: Path) -> None:
    read = read_parameters(changed(repository, tmp_path, target, loss))
    assert (read.model.target, read.train.loss) == (target, loss)


@pytest.mark.parametrize(("target", "loss"), REFUSED)
def test_any_other_pair_is_refused_with_the_reason(target: str, loss: str, repository: Path, tmp_path: Path) -> None:
    reason = {
        "bce": "scores yes-or-no decisions, which only the binary mask",
        "mse": "vanishing gradients",
        "compressed": "no gradient",
    }[loss]
    with pytest.raises(ParameterError) as caught:
        read_parameters(changed(repository, tmp_path, target, loss))
    message = str(caught.value)
    assert f"train.loss {loss} does not go with model.target {target}" in message
    assert reason in message
    assert f"use train.loss={' or '.join(ALLOWED[target])}" in message


def changed(repository: Path, folder: Path, target: str, loss: str) -> Path:
    values = YAML(typ="safe", pure=True).load(repository / "params.yaml")
    values["model"]["target"], values["train"]["loss"] = target, loss
    YAML(typ="safe", pure=True).dump(values, folder / "params.yaml")
    return folder / "params.yaml"


@pytest.mark.parametrize(("target", "loss"), PAIRS)
def test_loss_is_finite_and_falls(target: str, loss: str) -> None:
    torch.manual_seed(3)
    mixture, _, _ = given = batch()
    denoiser = Denoiser(model(target=target), STFT, 16000)
    denoiser.standardise([mixture])
    judged, optimizer = loss_of(loss, denoiser.target), torch.optim.Adam(denoiser.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        value = judged(denoiser(mixture)[0], given)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert all(torch.isfinite(torch.tensor(values)))
    assert values[-1] < values[0] - 0.02 * abs(values[0])
    assert min(values[20:]) < min(values[:5])


@pytest.mark.parametrize(("target", "loss"), PAIRS)
def test_the_ideal_output_is_better_than_others(target: str, loss: str) -> None:
    # Found by descent on the output itself, so that the range of the activation is met as well.
    mixture, speech, _ = given = batch()
    wanted = TARGETS[target](0.3)
    raw = torch.full((*mixture.shape[:2], mixture.shape[2] * wanted.outputs_per_bin), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    judged = loss_of(loss, wanted)
    first = judged(raw, given).item()
    for _ in range(60):
        value = judged(raw, given)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value.item() < first
    if loss != "compressed":
        error = (wanted.activated(raw, mixture) - wanted.ideal(mixture, speech)).abs().mean()
        assert error < 0.25 * (wanted.activated(torch.zeros_like(raw), mixture) - wanted.ideal(mixture, speech)).abs().mean()
    else:
        estimate = wanted.estimated(raw, mixture)
        assert (estimate - speech).abs().square().sum() < 0.6 * (mixture - speech).abs().square().sum()


@pytest.mark.parametrize(("target", "loss"), PAIRS)
@pytest.mark.parametrize("silent", ["mixture and speech", "speech"])
def test_gradients_are_finite_where_all_is_zero(target: str, loss: str, silent: str) -> None:
    wanted = TARGETS[target](0.3)
    speech = torch.zeros(2, 4, 33, dtype=torch.complex64)
    mixture = speech if silent == "mixture and speech" else spectrum(2, 4, 33)
    raw = torch.zeros(2, 4, 33 * wanted.outputs_per_bin, requires_grad=True)
    value = loss_of(loss, wanted)(raw, Batch(mixture, speech, torch.ones(2, 4, 1)))
    value.backward()
    assert torch.isfinite(value)
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_the_compressed_loss_is_best_at_the_speech_itself() -> None:
    mixture, speech, _ = given = batch()
    wanted = TARGETS["crm"](0.3)
    values = []
    for share in (1.0, 0.9, 0.5, 0.0):
        mask = wanted.ideal(mixture, speech * share + mixture * (1 - share)) / 2
        values.append(loss_of("compressed", wanted)(torch.atanh(mask.clamp(-0.999, 0.999)), given).item())
    assert values == sorted(values)


def test_the_squared_error_is_that_of_numpy() -> None:
    mixture, speech, _ = given = batch()
    wanted = TARGETS["irm"](0.3)
    raw = torch.randn(mixture.shape, generator=torch.Generator().manual_seed(1))
    expected = ((1 / (1 + (-raw.double()).exp()) - wanted.ideal(mixture, speech)) ** 2).mean().item()
    assert loss_of("mse", wanted)(raw, given).item() == pytest.approx(expected, rel=1e-4)


def test_the_cross_entropy_is_that_of_the_formula() -> None:
    mixture, speech, _ = given = batch()
    wanted = TARGETS["ibm"](0.3)
    raw = torch.randn(mixture.shape, generator=torch.Generator().manual_seed(1))
    chance, mask = 1 / (1 + (-raw.double()).exp()), wanted.ideal(mixture, speech).double()
    expected = -(mask * chance.log() + (1 - mask) * (1 - chance).log()).mean().item()
    assert loss_of("bce", wanted)(raw, given).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("target", ["magnitude", "subtraction", "irm", "crm"])
@pytest.mark.parametrize("alone", ["speech", "noise"])
def test_speech_alone_and_noise_alone_have_a_finite_loss_that_asks_for_the_right_thing(target: str, alone: str) -> None:
    mixture, _, level = batch()
    speech = mixture.clone() if alone == "speech" else torch.zeros_like(mixture)
    wanted = TARGETS[target](0.3)
    raw = torch.zeros(*mixture.shape[:2], mixture.shape[2] * wanted.outputs_per_bin, requires_grad=True)
    judged, optimizer = loss_of("compressed", wanted), torch.optim.Adam([raw], lr=0.2)
    values = []
    for _ in range(60):
        value = judged(raw, Batch(mixture, speech, level))
        optimizer.zero_grad()
        value.backward()
        assert raw.grad is not None
        assert bool(raw.grad.isfinite().all())
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] or values[0] < -0.11, "a mask that starts at 1 has nothing to learn from clean speech"
    power = wanted.estimated(raw, mixture).abs().square().sum() / mixture.abs().square().sum()
    assert (power > 0.9) if alone == "speech" else (power < 0.05)


def test_the_weight_of_the_snr_is_that_of_its_term() -> None:
    mixture, speech, _ = given = batch()
    raw = torch.randn(mixture.shape, generator=torch.Generator().manual_seed(1))
    none, little, much = (loss_of("compressed", "irm", snr_weight=weight)(raw, given).item() for weight in (0.0, 0.03, 0.5))
    estimate = mixture * raw.sigmoid()
    decades = (speech.abs().square().sum((1, 2)) / (speech - estimate).abs().square().sum((1, 2))).log10().mean().item()
    assert none - little == pytest.approx(0.03 * decades, rel=1e-3)
    assert none - much == pytest.approx(0.5 * decades, rel=1e-3)
    wanted = TARGETS["irm"](1.0)
    parts = (estimate.abs() - speech.abs()).square().mean(), (estimate - speech).abs().square().mean()
    whole = loss_of("compressed", wanted, snr_weight=0.0)(raw, given).item()
    assert whole == pytest.approx((0.7 * parts[0] + 0.3 * parts[1]).item(), rel=1e-4), "nothing but the error of spectra"


LAPPED = Stft(n_fft=128, win_length=96, hop_length=24)


def test_the_points_of_pesq_are_those_of_the_waveforms_that_spectra_become() -> None:
    given, raw = batch(), torch.zeros(2, batch().mixture.shape[1], 2 * batch().mixture.shape[2], requires_grad=True)
    without, with_points = (loss_of("compressed", "crm", pesq_weight=weight)(raw, given) for weight in (0.0, 0.1))
    n_samples = (given.mixture.shape[1] - STFT.win_length // STFT.hop_length + 1) * STFT.hop_length
    target = TARGETS["crm"](0.3)
    estimate = target.estimated(raw.detach(), given.mixture)
    heard, wanted = (waveform(part * given.level, n_samples, STFT) for part in (estimate, given.speech))
    points = disturbances(heard, wanted, RATE).mean().item()
    assert with_points.item() - without.item() == pytest.approx(0.1 * points, rel=1e-4)
    with_points.backward()
    assert raw.grad is not None
    assert bool(raw.grad.isfinite().all())


def test_what_is_missing_to_be_understood_is_that_of_the_waveforms() -> None:
    speech = torch.stack([torch.from_numpy(voiced(16000, pitch=pitch)) for pitch in (110.0, 190.0)])
    mixture = speech + 0.05 * torch.randn(speech.shape, generator=torch.Generator().manual_seed(1))
    spectra = [spectrogram(part, LAPPED) for part in (mixture, speech)]
    given = Batch(*spectra, torch.ones(*spectra[0].shape[:2], 1))
    raw = torch.full((*spectra[0].shape[:2], 2 * spectra[0].shape[2]), 0.1, requires_grad=True)
    settings = [train(estoi_weight=weight, pesq_weight=points) for weight, points in ((0.0, 0.1), (0.2, 0.1))]
    without, with_it = (LOSSES["compressed"](one, TARGETS["crm"](0.3), LAPPED, RATE)(raw, given) for one in settings)
    target = TARGETS["crm"](0.3)
    estimate = waveform(target.estimated(raw.detach(), spectra[0]), 16008, LAPPED)
    missing = 1 - intelligibilities(estimate[:, :16000], speech, RATE).mean().item()
    assert missing > 0.01
    assert with_it.item() - without.item() == pytest.approx(0.2 * missing, rel=0.02)
    with_it.backward()
    assert raw.grad is not None
    assert bool(raw.grad.isfinite().all())


def test_a_piece_too_short_to_become_a_waveform_has_no_points() -> None:
    speech, level = cut(LAPPED, 3)
    given = Batch(2 * speech, speech, level)
    judged = [
        LOSSES["compressed"](train(pesq_weight=weight, estoi_weight=weight), TARGETS["crm"](0.3), LAPPED, RATE)(
            torch.zeros(2, 3, 130), given
        )
        for weight in (0.0, 0.1)
    ]
    assert judged[0] == judged[1]


def cut(stft: Stft, n_frames: int, first: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """Speech in a piece of a longer mixture, levelled, and the levels, which rise and fall."""
    speech = torch.stack([torch.from_numpy(voiced(3000, pitch=pitch)) for pitch in (110.0, 190.0)])
    piece = spectrogram(speech, stft)[:, first : first + n_frames]
    level = 0.05 * (1.5 + torch.sin(torch.arange(n_frames) / 5)).expand(2, -1).unsqueeze(-1)
    return piece / level, level


@pytest.mark.parametrize("stft", [STFT, LAPPED])
def test_a_consistent_estimate_is_left_alone_even_where_its_piece_is_cut(stft: Stft) -> None:
    speech, level = cut(stft, 40)
    assert (consistent(speech, level, stft) - speech).abs().max() < 1e-5 * speech.abs().max()


@pytest.mark.parametrize("stft", [STFT, LAPPED])
def test_an_estimate_becomes_the_spectrogram_of_its_waveform_inside_and_stays_at_the_ends(stft: Stft) -> None:
    speech, level = cut(stft, 40)
    level = level[:, :1].expand(-1, 40, -1)
    n_shared = stft.win_length // stft.hop_length - 1
    estimate = speech * torch.rand(speech.shape, generator=torch.Generator().manual_seed(2))
    found = consistent(estimate, level, stft)
    assert torch.equal(found[:, :n_shared], estimate[:, :n_shared])
    assert torch.equal(found[:, -n_shared:], estimate[:, -n_shared:])
    inner = slice(n_shared, -n_shared)
    expected = spectrogram(waveform(estimate * level, (40 - n_shared) * stft.hop_length, stft), stft) / level
    torch.testing.assert_close(found[:, inner], expected[:, inner], rtol=1e-4, atol=1e-5)
    assert (found - estimate)[:, inner].abs().mean() > 0.05 * estimate.abs().mean()


@pytest.mark.parametrize("n_frames", [1, 3, 6, 7])
def test_a_piece_without_a_frame_of_known_neighbours_stays_as_it_is(n_frames: int) -> None:
    speech, level = cut(LAPPED, n_frames)
    estimate = speech * torch.rand(speech.shape, generator=torch.Generator().manual_seed(2))
    changed = (consistent(estimate, level, LAPPED) != estimate).any(dim=2).any(dim=0)
    assert changed.nonzero().flatten().tolist() == ([3] if n_frames == 7 else [])


def test_consistency_costs_a_consistent_estimate_nothing_and_others_something() -> None:
    tones = torch.sin(2 * torch.pi * torch.tensor([[1000.0], [2500.0]]) * torch.arange(3000) / 16000)
    level = torch.full((2, 40, 1), 0.1)
    speech = spectrogram(tones, STFT)[:, 17:57] / level
    # Where the network puts out 0, the estimate is the mixture: the speech itself, or its magnitudes with phases that are a
    # little off and do not go together. Their waveform has sound in bins where the estimate has none.
    turned = speech * torch.exp(0.5j * torch.rand(speech.shape, generator=torch.Generator().manual_seed(2)))
    wanted = TARGETS["magnitude"](0.3)
    losses = {}
    for name, mixture in (("true", speech), ("turned", turned)):
        for consistency in (False, True):
            judged = loss_of("compressed", wanted, snr_weight=0.0, consistency=consistency)
            raw = torch.zeros(speech.shape, requires_grad=True)
            value = judged(raw, Batch(mixture, speech, level))
            value.backward()
            assert raw.grad is not None
            assert bool(raw.grad.isfinite().all())
            losses[name, consistency] = value.item(), raw.grad.abs().sum().item()
    assert losses["true", True][0] == pytest.approx(losses["true", False][0], abs=1e-5)
    assert losses["turned", True][0] > 1.5 * losses["turned", False][0]
    assert losses["turned", True][1] > 0


@pytest.mark.parametrize("target", ["magnitude", "subtraction", "irm", "crm"])
@pytest.mark.parametrize("sound", ["speech after digital silence", "digital silence"])
def test_consistency_stays_small_and_finite_around_digital_silence(target: str, sound: str) -> None:
    speech = torch.from_numpy(voiced(3000)).repeat(2, 1)
    speech[:, : 1500 if sound == "speech after digital silence" else None] = 0
    both = spectrogram(speech, STFT)
    level = torch.from_numpy(running_level(both.numpy(), 500.0)[0])
    given, wanted = Batch(both / level, both / level, level), TARGETS[target](0.3)
    values = []
    for consistency in (False, True):
        raw = torch.zeros(*both.shape[:2], both.shape[2] * wanted.outputs_per_bin, requires_grad=True)
        value = loss_of("compressed", wanted, consistency=consistency)(raw, given)
        value.backward()
        assert raw.grad is not None
        assert bool(raw.grad.isfinite().all())
        values.append(value.item())
    assert values[1] == pytest.approx(values[0], abs=0.03)

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from ruamel.yaml import YAML
from specimens import STFT, hiss, model, spectrum, train, voiced

from stages.core.denoiser import Denoiser
from stages.core.losses import LOSSES, Batch, Loss
from stages.core.parameter_file import ParameterError, read_parameters
from stages.core.parameters import Model, Train
from stages.core.spectra import spectrogram
from stages.core.targets import TARGETS, Target

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
    return LOSSES[name](train(loss=name, **changes), TARGETS[target](0.3) if isinstance(target, str) else target)


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
        estimate = wanted.estimate(wanted.activated(raw, mixture), mixture)
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
    power = wanted.estimate(wanted.activated(raw, mixture), mixture).abs().square().sum() / mixture.abs().square().sum()
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

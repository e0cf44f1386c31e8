import itertools

import numpy as np
import pytest
import torch
from specimens import RATE, STFT, model, spectrum

from stages.core.denoiser import Denoiser
from stages.core.network import RecurrentNetwork, n_weights
from stages.core.parameters import Model

BINS = STFT.n_fft // 2 + 1
CELLS = ["gru", "lstm", "mingru"]
SHAPES = list(itertools.product(CELLS, [1, 2, 3]))


def network(settings: Model, n_inputs: int = 5, n_outputs: int = 4) -> RecurrentNetwork:
    torch.manual_seed(4)
    return RecurrentNetwork(settings, n_inputs, n_outputs).eval()


def inputs(frames: int = 20, n_inputs: int = 5) -> torch.Tensor:
    return torch.randn(2, frames, n_inputs, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_outputs_and_state_have_their_shapes(cell: str, layers: int, bidirectional: bool) -> None:
    made = network(model(cell=cell, layers=layers, bidirectional=bidirectional))
    outputs, state = made(inputs())
    assert outputs.shape == (2, 20, 4)
    tensors = state if cell == "lstm" else (state,)
    assert len(tensors) == {"gru": 1, "lstm": 2, "mingru": 1}[cell]
    assert all(tensor.shape == (layers * (2 if bidirectional else 1), 2, 8) for tensor in tensors)


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
def test_a_later_frame_changes_no_earlier_output(cell: str, layers: int) -> None:
    made = network(model(cell=cell, layers=layers))
    first, second = inputs(), inputs()
    second[:, 12] += 1
    before, after = made(first)[0], made(second)[0]
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=0)
    assert ((before - after).abs().amax((0, 2))[12:] > 0).all()


def test_lstm_layers_begin_with_open_forget_gates() -> None:
    made = network(model(cell="lstm", layers=2))
    for layer in (0, 1):
        bias = getattr(made.recurrent, f"bias_ih_l{layer}") + getattr(made.recurrent, f"bias_hh_l{layer}")
        inward, forget, candidate, outward = bias.detach().chunk(4)
        assert (forget > 0.5).all()
        assert (torch.cat([inward, candidate, outward]).abs() < 0.8).all()


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_look_ahead(cell: str) -> None:
    made = network(model(cell=cell, bidirectional=True))
    second = inputs()
    second[:, -1] += 1
    assert ((made(inputs())[0] - made(second)[0]).abs().amax((0, 2)) > 0).all()


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
@pytest.mark.parametrize("cuts", [[1], [7, 8], [5, 10, 15]])
def test_blocks_that_hand_on_their_state_are_the_whole(cell: str, layers: int, cuts: list[int]) -> None:
    made = network(model(cell=cell, layers=layers))
    state, found = None, []
    for block in inputs().tensor_split(cuts, dim=1):
        outputs, state = made(block, state)
        found.append(outputs)
    torch.testing.assert_close(torch.cat(found, dim=1), made(inputs())[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_number_of_weights_is_that_of_the_formula(cell: str, gates: int, bidirectional: bool) -> None:
    made = network(model(cell=cell, layers=2, hidden=6, bidirectional=bidirectional))
    ways = 2 if bidirectional else 1
    layers = sum(ways * gates * (6 * (n + 6) + 2 * 6) for n in (5, 6 * ways))
    assert n_weights(made) == layers + (6 * ways + 1) * 4


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_weights_of_each_gate_are_orthogonal_at_first(cell: str) -> None:
    made = network(model(cell=cell, layers=2, bidirectional=True))
    found = [weight for name, weight in made.recurrent.named_parameters() if name.startswith("weight_hh")]
    assert len(found) == 4
    for weight in found:
        for gate in weight.split(8):
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), rtol=0, atol=1e-5)


def test_dropout_is_between_layers_and_in_training_only() -> None:
    made = network(model(layers=2, dropout=0.5))
    torch.testing.assert_close(made(inputs())[0], made(inputs())[0], rtol=0, atol=0)
    made.train()
    assert not torch.equal(made(inputs())[0], made(inputs())[0])
    torch.manual_seed(1)
    first = made(inputs())[0]
    torch.manual_seed(1)
    torch.testing.assert_close(made(inputs())[0], first, rtol=0, atol=0)


def test_dropout_on_one_layer_does_nothing_and_warns_of_nothing() -> None:
    made = network(model(layers=1, dropout=0.5)).train()
    torch.testing.assert_close(made(inputs())[0], made(inputs())[0], rtol=0, atol=0)


# ---- with features and target around it


def denoiser(target: str, **changes: object) -> Denoiser:
    torch.manual_seed(6)
    made = Denoiser(model(target=target, **changes), STFT, RATE).eval()
    made.standardise([spectrum(2, 40, BINS, seed=1)])
    return made


@pytest.mark.parametrize("target", ["magnitude", "subtraction", "irm", "ibm", "crm"])
def test_denoising_is_causal_and_scales(target: str) -> None:
    made = denoiser(target)
    noisy = spectrum(1, 30, BINS, seed=2)
    found, _ = made.denoised(noisy)
    assert found.shape == noisy.shape
    changed = noisy.clone()
    changed[:, 20:] *= 5
    torch.testing.assert_close(made.denoised(changed)[0][:, :20], found[:, :20], rtol=0, atol=0)
    torch.testing.assert_close(made.denoised(noisy * 0.01)[0], found * 0.01, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("target", ["irm", "crm"])
def test_denoising_in_blocks_is_that_of_the_whole(target: str) -> None:
    made = denoiser(target, layers=2)
    noisy = spectrum(1, 30, BINS, seed=2)
    level, state, found = None, None, []
    with torch.inference_mode():
        for block in noisy.tensor_split([3, 4, 17], dim=1):
            levels, level = made.levels(block.numpy(), level)
            raw, state = made(block / torch.from_numpy(levels), state)
            mixture = block / torch.from_numpy(levels)
            found.append(made.target.estimated(raw, mixture) * torch.from_numpy(levels))
    torch.testing.assert_close(torch.cat(found, dim=1), made.denoised(noisy)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["irm", "crm"])
def test_standardised_features_have_mean_0_and_spread_1(target: str) -> None:
    torch.manual_seed(6)
    made = Denoiser(model(target=target), STFT, RATE)
    seen: list[torch.Tensor] = []
    made.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    mixture = spectrum(4, 50, BINS, seed=3) * torch.linspace(0.1, 3, BINS)
    made.standardise([mixture[:2], mixture[2:]])
    made(mixture)
    np.testing.assert_allclose(seen[0].mean((0, 1)).numpy(), 0, atol=1e-3)
    np.testing.assert_allclose(seen[0].std((0, 1)).numpy(), 1, atol=0.02)


def test_frames_per_second() -> None:
    assert denoiser("irm").frames_per_second == RATE / 32

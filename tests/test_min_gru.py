import pytest
import torch

from stages.core.min_gru import MinGru, _Leaking


def inputs(frames: int = 12, rows: int = 3, numbers: int = 5) -> torch.Tensor:
    return torch.randn(frames, rows, numbers, generator=torch.Generator().manual_seed(2))


def layers(**changes: int | bool | float) -> MinGru:
    torch.manual_seed(1)
    return MinGru(5, 4, **changes)  # type: ignore[arg-type]


def test_a_layer_is_that_of_the_formula() -> None:
    made, state = layers(), torch.randn(1, 3, 4)
    found, last = made(inputs(), state)
    hidden = state[0]
    for frame, outputs in zip(inputs(), found, strict=True):
        kept, new, opened = made.gates["l0"](frame).chunk(3, -1)
        hidden = kept.sigmoid() * hidden + (1 - kept.sigmoid()) * new.tanh()
        torch.testing.assert_close(outputs, hidden * opened * opened.sigmoid())
    torch.testing.assert_close(last[0], hidden)


def test_the_second_direction_hears_the_end_first() -> None:
    made, mirrored = layers(bidirectional=True), layers(bidirectional=True)
    for one, other in (("l0", "l0_reverse"), ("l0_reverse", "l0")):
        mirrored.gates[one].load_state_dict(made.gates[other].state_dict())
    forward, backward = made(inputs())[0].chunk(2, -1)
    swapped = torch.cat([backward, forward], -1).flip(0)
    torch.testing.assert_close(mirrored(inputs().flip(0))[0], swapped)


def test_rows_may_come_before_frames() -> None:
    first, made = layers(num_layers=2, batch_first=True), layers(num_layers=2)
    torch.testing.assert_close(first(inputs().transpose(0, 1))[0], made(inputs())[0].transpose(0, 1), rtol=0, atol=0)


def test_gradients_are_those_of_small_differences() -> None:
    kept = torch.rand(6, 2, 3, dtype=torch.float64, requires_grad=True)
    new, before = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 2, 3), (2, 3)))
    assert torch.autograd.gradcheck(_Leaking.apply, (kept, new, before))


def test_units_forget_fast_and_slowly_at_first() -> None:
    (gates,) = layers().gates.values()
    half_lives = -1 / torch.log2(gates.bias[:4].sigmoid())  # type: ignore[operator,union-attr]
    torch.testing.assert_close(half_lives, torch.tensor([1.0, 60 ** (1 / 3), 60 ** (2 / 3), 60.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_states_stay_exact_where_products_are_rounded(dtype: torch.dtype) -> None:
    made, frames = layers(), inputs(400).to(dtype)
    with torch.no_grad():
        # A half-life of 460 frames: what is kept of one is 1 in bfloat16.
        made.gates["l0"].bias[:4] = 6.5  # type: ignore[index,operator]
        exact, _ = made(frames.float())
        with torch.autocast("cpu", torch.bfloat16):
            rounded, state = made(frames)
    assert (rounded.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < float((rounded - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize("training", [False, True])
def test_dropout_is_between_layers_and_in_training_only(training: bool) -> None:
    made = layers(num_layers=2, dropout=0.5).train(training)
    assert torch.equal(made(inputs())[0], made(inputs())[0]) is not training

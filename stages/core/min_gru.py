"""The minGRU (Feng et al. 2024): gated layers that multiply all frames at once, since their gates do not see the state."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

# Half of what a unit holds is forgotten after so many frames at first, from the first unit to the last.
_HALF_LIVES = (1, 60)

Sequence = Float[Tensor, "frames rows _"]


class MinGru(nn.Module):
    """Layers over time with the interface of `nn.GRU`, each in one direction or in both, side by side.

    In every layer and direction, of inputs x: what is kept z = σ(W_z x + b_z), what is new n = tanh(W_n x + b_n), the state
    h_t = z h_{t-1} + (1 - z) n, as in a GRU without weights of the state; and out of it comes h · silu(W_o x + b_o), a gate
    as in Mamba (Gu and Dao 2023). What is left to do frame by frame is one multiplication and one sum for each unit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        """Builds the layers; dropout is between them."""
        super().__init__()
        self.hidden_size, self.batch_first, self.bidirectional = hidden_size, batch_first, bidirectional
        self.directions = ["", "_reverse"] if bidirectional else [""]
        sizes = [input_size, *[hidden_size * len(self.directions)] * (num_layers - 1)]
        # Named as PyTorch names those of its layers.
        self.layers = [[f"l{layer}{direction}" for direction in self.directions] for layer in range(num_layers)]
        self.gates = nn.ModuleDict(
            {name: _gates(size, hidden_size) for size, names in zip(sizes, self.layers, strict=True) for name in names}
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Sequence, state: Float[Tensor, "layers _ hidden"] | None = None) -> tuple[Sequence, Tensor]:
        """The outputs (frames, rows, directions · hidden), and the states (layers · directions, rows, hidden) after the end.

        With `batch_first` rows come before frames, in and out. The end of a backward direction is the first frame.
        """
        sequence = inputs.transpose(0, 1) if self.batch_first else inputs
        # States are exact where products are rounded: bfloat16 takes most of what is kept in each of a hundred frames for all.
        zeros = sequence.new_zeros(len(self.gates), sequence.shape[1], self.hidden_size, dtype=torch.float32)
        befores = iter(zeros if state is None else state)
        afters: list[Tensor] = []
        for names in self.layers:
            found = [self._direction(sequence, name, next(befores)) for name in names]
            sequence = torch.cat([outputs for outputs, _ in found], -1)
            if names is not self.layers[-1]:
                sequence = self.dropout(sequence)
            afters += [after for _, after in found]
        return (sequence.transpose(0, 1) if self.batch_first else sequence), torch.stack(afters)

    def _direction(self, sequence: Sequence, name: str, before: Tensor) -> tuple[Sequence, Tensor]:
        """One direction of a layer and its last state."""
        backward = name.endswith("_reverse")
        gates: Tensor = self.gates[name](sequence.flip(0) if backward else sequence)
        kept, new, opened = gates.chunk(3, -1)
        kept, new = kept.to(before.dtype).sigmoid(), new.to(before.dtype)
        # tanh by σ, which takes a fifth of the time.
        states: Tensor = _Leaking.apply(kept, 2 * (2 * new).sigmoid() - 1, before)  # type: ignore[no-untyped-call]
        outputs = states.to(opened.dtype) * silu(opened)
        return (outputs.flip(0) if backward else outputs), states[-1]


class _Leaking(torch.autograd.Function):
    """h_t = kept_t · h_{t-1} + (1 - kept_t) · new_t, all (frames, rows, units), from the state `before` (rows, units)."""

    @staticmethod
    def forward(ctx: Any, kept: Tensor, new: Tensor, before: Tensor) -> Tensor:
        """All states."""
        states, last = torch.empty_like(new), before
        for frame, state in enumerate(states.unbind(0)):
            torch.lerp(new[frame], last, kept[frame], out=state)
            last = state
        ctx.save_for_backward(kept, new, states, before)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of a state leaks backward as states leak forward; the others follow from it at once."""
        kept, new, states, before = ctx.saved_tensors
        of_states = gradients[0].clone(memory_format=torch.contiguous_format)
        for frame in range(len(kept) - 2, -1, -1):
            of_states[frame].addcmul_(kept[frame + 1], of_states[frame + 1])
        of_kept = torch.empty_like(of_states)
        torch.sub(before, new[0], out=of_kept[0])
        torch.sub(states[:-1], new[1:], out=of_kept[1:])
        of_before = kept[0] * of_states[0]
        return of_kept.mul_(of_states), of_states.addcmul_(kept, of_states, value=-1), of_before


def _gates(n_inputs: int, hidden: int) -> nn.Linear:
    """Weights of what is kept, what is new and what is let out, in this order."""
    layer = nn.Linear(n_inputs, 3 * hidden)
    shortest, longest = (math.log10(frames) for frames in _HALF_LIVES)
    kept = 0.5 ** (1 / torch.logspace(shortest, longest, hidden))
    layer.bias.data[:hidden] = torch.logit(kept)
    layer.weight.data[:hidden] *= 0.5
    return layer

"""The band network: a gated recurrence over time in every band, and gated sums across the bands of every frame, in turn."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from stages.core.network import State, recurrent_layer
from stages.core.parameters import Model

# A band takes at least so many bins: harmonics of a low voice lie three to four bins of 31 Hz apart.
_NARROWEST = 2

Bands = Float[Tensor, "bands rows hidden"]  # a row is a frame of a mixture: frames outermost, then the batch


class BandNetwork(nn.Module):
    """(batch, frames, inputs_per_bin · bins) to (batch, frames, outputs_per_bin · bins), by a dual path (Luo et al. 2020).

    The bins of a band become `hidden` numbers by a layer of the band's own (band split, Luo and Yu 2023). Each of `layers`
    rounds then lets every band remember, by a recurrence over time with weights that all bands share, and lets the bands of
    a frame hear each other, by gated sums over all of them. Layers of the bands' own lead back to bins.
    """

    def __init__(self, settings: Model, n_bins: int, sample_rate: int, inputs_per_bin: int, outputs_per_bin: int) -> None:
        """Builds the layers; all bins' first numbers come before all bins' second ones, in inputs and in outputs."""
        super().__init__()
        self.inputs_per_bin, self.outputs_per_bin = inputs_per_bin, outputs_per_bin
        edges = band_edges(settings.n_bands, n_bins, sample_rate)
        self.widest = max(upper - lower for lower, upper in pairwise(edges))
        self.bin_of_place: Tensor  # (bands · widest,): which bin each place of each band holds; places left over hold n_bins
        self.place_of_bin: Tensor  # (bins,): where each bin is found again
        self.register_buffer("bin_of_place", torch.full((settings.n_bands * self.widest,), n_bins), persistent=False)
        self.register_buffer("place_of_bin", torch.zeros(n_bins, dtype=torch.int64), persistent=False)
        for band, (lower, upper) in enumerate(pairwise(edges)):
            places = band * self.widest + torch.arange(upper - lower)
            self.bin_of_place[places] = torch.arange(lower, upper)
            self.place_of_bin[lower:upper] = places
        self.split = BandwiseLinear(settings.n_bands, self.widest * inputs_per_bin, settings.hidden)
        self.rounds = nn.ModuleList(Round(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.hidden)
        self.merge = BandwiseLinear(settings.n_bands, settings.hidden, settings.hidden)
        self.output = BandwiseLinear(settings.n_bands, settings.hidden, self.widest * outputs_per_bin)
        # Close to 0 at first, so that training starts from the mask that the target gives for 0.
        self.output.weight.data *= 0.1

    def forward(
        self, inputs: Float[Tensor, "batch frames inputs"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch frames outputs"], State]:
        """The outputs and the state after the last frame: (layers, batch, bands · hidden), two such tensors for LSTM."""
        batch = inputs.shape[0]
        bands = self.split(self._banded(inputs))  # (bands, frames · batch, hidden)
        parts = (state,) if isinstance(state, Tensor) else state
        befores = zip(*(part.chunk(len(self.rounds)) for part in parts), strict=True) if parts else [None] * len(self.rounds)
        afters = []
        for round_, before in zip(self.rounds, befores, strict=True):
            bands, after = round_(bands, batch, before)
            afters.append(after)
        numbers = self.output(silu(self.merge(self.norm(bands))))
        first, *second = (torch.cat(part) for part in zip(*afters, strict=True))
        return self._unbanded(numbers, batch), (first, second[0]) if second else first

    @torch.no_grad()
    def pass_on(self, first: int) -> None:
        """Makes what goes into the rounds from `first` on come out as it was, until training changes that."""
        for round_ in list(self.rounds)[first:]:
            for name, weight in round_.named_parameters():
                if name.startswith("time_output.") or name == "across.outward":
                    weight.zero_()

    def _banded(self, inputs: Float[Tensor, "batch frames inputs"]) -> Float[Tensor, "bands rows numbers"]:
        """The numbers of each band's bins, zeros where a band is narrower than the widest."""
        batch, frames, _ = inputs.shape
        bins = inputs.transpose(0, 1).reshape(frames * batch, self.inputs_per_bin, -1)
        places = pad(bins, (0, 1)).index_select(2, self.bin_of_place)
        banded: Tensor = places.unflatten(2, (-1, self.widest)).permute(2, 0, 1, 3).flatten(2)
        return banded

    def _unbanded(self, numbers: Float[Tensor, "bands rows numbers"], batch: int) -> Float[Tensor, "batch frames outputs"]:
        places: Tensor = numbers.unflatten(2, (self.outputs_per_bin, self.widest)).permute(1, 2, 0, 3).flatten(2)
        bins = places.index_select(2, self.place_of_bin)  # (frames · batch, outputs_per_bin, bins)
        return bins.reshape(-1, batch, bins.shape[1] * bins.shape[2]).transpose(0, 1)


class Round(nn.Module):
    """A recurrence over time and sums across bands, each added to what goes in, after a layer norm (Ba et al. 2016)."""

    def __init__(self, settings: Model) -> None:
        """Builds both."""
        super().__init__()
        hidden = settings.hidden
        self.time_norm, self.band_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.time = recurrent_layer(settings.cell, hidden, hidden, bidirectional=settings.bidirectional)
        self.time_output = nn.Linear(hidden * (2 if settings.bidirectional else 1), hidden)
        self.across = GatedSums(settings.n_bands)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, bands: Bands, batch: int, state: tuple[Tensor, ...] | None) -> tuple[Bands, tuple[Tensor, ...]]:
        """The bands of all frames after this round, and the state of its recurrence over time."""
        n_bands, _, hidden = bands.shape
        steps = self.time_norm(bands).reshape(n_bands, -1, batch, hidden).permute(1, 2, 0, 3).flatten(1, 2)
        rows = [part.reshape(len(part), batch * n_bands, hidden) for part in state or ()]
        remembered, after = self.time(steps, (tuple(rows) if len(rows) > 1 else rows[0]) if rows else None)
        change = self.time_output(remembered).unflatten(1, (batch, n_bands)).permute(2, 0, 1, 3).flatten(1, 2)
        bands = bands + self.dropout(change)
        bands = bands + self.dropout(self.across(self.band_norm(bands)))
        after = (after,) if isinstance(after, Tensor) else after
        return bands, tuple(part.reshape(len(part), batch, -1) for part in after)


class GatedSums(nn.Module):
    """Weighted sums over all bands of a frame, each opened and closed by another such sum (Dauphin et al. 2017).

    A GRU along the bands in both directions did as well at equal cost in training, but its many small steps make a single
    frame of a live stream four times as expensive.
    """

    def __init__(self, n_bands: int) -> None:
        """Begins with numbers whose sums have the spread of the inputs."""
        super().__init__()
        self.inward = nn.Parameter(torch.randn(4 * n_bands, n_bands) / math.sqrt(n_bands))
        self.inward_bias = nn.Parameter(torch.zeros(4 * n_bands, 1))
        self.outward = nn.Parameter(torch.randn(n_bands, 2 * n_bands) / math.sqrt(2 * n_bands))

    def forward(self, bands: Bands) -> Bands:
        """Sums of the same unit of all bands, in which no unit meets another."""
        sums, gates = torch.addmm(self.inward_bias, self.inward, bands.flatten(1)).chunk(2)
        return (self.outward @ (sums * gates.sigmoid())).view_as(bands)


class BandwiseLinear(nn.Module):
    """A linear layer with weights of its own for every band."""

    def __init__(self, n_bands: int, n_inputs: int, n_outputs: int) -> None:
        """Begins with numbers whose sums have the spread of the inputs."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_bands, n_inputs, n_outputs) / math.sqrt(n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_bands, 1, n_outputs))

    def forward(self, inputs: Float[Tensor, "bands rows inputs"]) -> Float[Tensor, "bands rows outputs"]:
        """Each band's inputs times its weights, plus its bias."""
        return torch.baddbmm(self.bias, inputs, self.weight)


def band_edges(n_bands: int, n_bins: int, sample_rate: int) -> list[int]:
    """The first bin of each band, and `n_bins`: equally wide on the ERB scale (Glasberg and Moore 1990) from two bins up."""
    top = math.log1p(0.00437 * sample_rate / 2)
    edges = [0]
    for band in range(1, n_bands):
        share = math.expm1(top * band / n_bands) / (0.00437 * sample_rate / 2)
        most = n_bins - _NARROWEST * (n_bands - band)
        edges.append(min(max(edges[-1] + _NARROWEST, round(share * (n_bins - 1))), most))
    return [*edges, n_bins]

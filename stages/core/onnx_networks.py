"""The networks as nodes of an ONNX graph, with their states as inputs and outputs."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor, nn

from stages.core.band_network import BandNetwork, GatedSums, Round
from stages.core.denoiser import Denoiser
from stages.core.min_gru import MinGru
from stages.core.network import Recurrence, RecurrentNetwork
from stages.core.onnx_nodes import Graph

# Blocks of rows in a layer's weights, as numbers of PyTorch's blocks: it keeps r, z, n and i, f, g, o; ONNX wants
# z, r, n and i, o, f, g.
_GATES = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
# What a layer carries over time, in the order of PyTorch and of ONNX.
_STATES = {"gru": ("hidden",), "lstm": ("hidden", "cell"), "mingru": ("hidden",)}


def network_states(denoiser: Denoiser) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the states of a network that runs forward in time."""
    model = denoiser.model
    return dict.fromkeys(_STATES[model.cell], (model.layers, 1, _rows(denoiser) * model.hidden))


def _rows(denoiser: Denoiser) -> int:
    """How many recurrences with the same weights run side by side."""
    return denoiser.model.n_bands if denoiser.model.network == "bands" else 1


def network(graph: Graph, denoiser: Denoiser, features: str) -> str:
    """The raw output (1, frames, outputs) of the denoiser's network for features (1, frames, features)."""
    if isinstance(denoiser.network, BandNetwork):
        return _bands(graph, denoiser, denoiser.network, features)
    assert isinstance(denoiser.network, RecurrentNetwork)
    return _stack(graph, denoiser, denoiser.network, features)


def array(weight: Tensor) -> np.ndarray:
    """A weight as a constant of a graph."""
    return np.asarray(weight.detach().cpu().numpy(), np.float32)


def _stack(graph: Graph, denoiser: Denoiser, network: RecurrentNetwork, features: str) -> str:
    sequence = graph.add("Transpose", features, perm=[1, 0, 2])
    ends = []
    for layer, start in enumerate(_starts(graph, denoiser)):
        sequence, end = _recurrence(graph, denoiser, network.recurrent, layer, sequence, start)
        ends.append(end)
    _name_ends(graph, denoiser, ends)
    return graph.add("Transpose", _linear(graph, denoiser, network.output, sequence), perm=[1, 0, 2])


def _bands(graph: Graph, denoiser: Denoiser, network: BandNetwork, features: str) -> str:
    """As BandNetwork.forward, with a batch of one; between the layers of the bands' own, frames are outermost.

    Bins are taken as whole rows (inputs, frames), so a band has all numbers of its first place before those of the second.
    """
    n_bands, widest = denoiser.model.n_bands, network.widest
    n_inputs, n_outputs, n_bins = network.inputs_per_bin, network.outputs_per_bin, len(network.place_of_bin)
    bin_of_place = network.bin_of_place.numpy()
    # Places left over take any bin, times weights of 0.
    is_taken = (bin_of_place < n_bins).reshape(n_bands, 1, widest, 1)
    bins = graph.add("Transpose", graph.reshaped(features, -1, n_inputs, n_bins), perm=[2, 1, 0])
    places = graph.add("Gather", bins, np.minimum(bin_of_place, n_bins - 1), axis=0)
    inputs = graph.add("Transpose", graph.reshaped(places, n_bands, widest * n_inputs, -1), perm=[0, 2, 1])
    weights = _by_place(is_taken * array(network.split.weight).reshape(n_bands, n_inputs, widest, -1), 1)
    split = _bandwise(graph, inputs, weights, array(network.split.bias))
    bands = graph.add("Transpose", split, perm=[1, 0, 2])  # (frames, bands, hidden)
    ends = []
    for round_, start in zip(network.rounds, _starts(graph, denoiser), strict=True):
        assert isinstance(round_, Round)
        bands, end = _round(graph, denoiser, round_, bands, start)
        ends.append(end)
    _name_ends(graph, denoiser, ends)
    last = graph.add("Transpose", _normalised(graph, network.norm, bands), perm=[1, 0, 2])
    merged = _bandwise(graph, last, array(network.merge.weight), array(network.merge.bias))
    weights, biases = (
        _by_place(array(part).reshape(n_bands, -1, n_outputs, widest), 2)
        for part in (network.output.weight, network.output.bias)
    )
    numbers = _bandwise(graph, graph.add("Mul", merged, graph.add("Sigmoid", merged)), weights, biases)
    rows = graph.reshaped(graph.add("Transpose", numbers, perm=[0, 2, 1]), n_bands * widest, n_outputs, -1)
    found = graph.add("Transpose", graph.add("Gather", rows, network.place_of_bin.numpy(), axis=0), perm=[2, 1, 0])
    return graph.reshaped(found, 1, -1, n_outputs * n_bins)


def _by_place(weights: np.ndarray, axis: int) -> np.ndarray:
    """Weights (…, numbers of a bin, places, …) as (…, places · numbers, …); `axis` is that of the numbers."""
    swapped = weights.swapaxes(axis, axis + 1)
    return swapped.reshape(*swapped.shape[:axis], -1, *swapped.shape[axis + 2 :])


def _round(graph: Graph, denoiser: Denoiser, round_: Round, bands: str, start: list[str]) -> tuple[str, list[str]]:
    steps = _normalised(graph, round_.time_norm, bands)
    remembered, end = _recurrence(graph, denoiser, round_.time, 0, steps, start)
    bands = graph.add("Add", bands, _linear(graph, denoiser, round_.time_output, remembered))
    return graph.add("Add", bands, _gated_sums(graph, round_.across, _normalised(graph, round_.band_norm, bands))), end


def _gated_sums(graph: Graph, across: GatedSums, bands: str) -> str:
    both = graph.add("Add", graph.add("MatMul", array(across.inward), bands), array(across.inward_bias))
    sums, gates = graph.add_many("Split", both, n_outputs=2, axis=1)
    return graph.add("MatMul", array(across.outward), graph.add("Mul", sums, graph.add("Sigmoid", gates)))


def _bandwise(graph: Graph, inputs: str, weights: np.ndarray, biases: np.ndarray) -> str:
    return graph.add("Add", graph.add("MatMul", inputs, weights), biases)


def _normalised(graph: Graph, norm: nn.LayerNorm, numbers: str) -> str:
    return graph.add("LayerNormalization", numbers, array(norm.weight), array(norm.bias), axis=-1, epsilon=norm.eps)


def _linear(graph: Graph, denoiser: Denoiser, layer: nn.Linear, inputs: str) -> str:
    return _product(graph, denoiser, inputs, array(layer.weight.T), array(layer.bias))


def _product(graph: Graph, denoiser: Denoiser, inputs: str, weights: np.ndarray, biases: np.ndarray) -> str:
    """Numbers (frames, rows, inputs) times weights (inputs, outputs), plus biases; Gemm adds these in the same go."""
    flat = graph.add("Gemm", graph.reshaped(inputs, -1, len(weights)), weights, biases)
    return graph.reshaped(flat, -1, _rows(denoiser), len(biases))


def _recurrence(
    graph: Graph, denoiser: Denoiser, recurrent: Recurrence, layer: int, sequence: str, start: list[str]
) -> tuple[str, list[str]]:
    """One layer over (frames, rows, inputs) from states (rows, hidden), if there are any; its last states."""
    if isinstance(recurrent, MinGru):
        return _min_gru(graph, denoiser, recurrent, layer, sequence, start)
    cell, rows = denoiser.model.cell, np.array([0], np.int64)
    hidden, *end = graph.add_many(
        "LSTM" if cell == "lstm" else "GRU",
        sequence,
        *_layer_weights(recurrent, layer, _GATES[cell]),
        *(["", *(graph.add("Unsqueeze", state, rows) for state in start)] if start else []),
        n_outputs=1 + len(_STATES[cell]),
        hidden_size=recurrent.hidden_size,
        direction="bidirectional" if recurrent.bidirectional else "forward",
        # PyTorch's GRU applies the reset gate after the product, like cuDNN.
        **({"linear_before_reset": 1} if cell == "gru" else {}),
    )
    # (frames, directions, rows, hidden) to (frames, rows, directions · hidden)
    outputs = graph.reshaped(graph.add("Transpose", hidden, perm=[0, 2, 1, 3]), 0, 0, -1)
    return outputs, [graph.add("Squeeze", state, rows) for state in end] if start else []


def _min_gru(
    graph: Graph, denoiser: Denoiser, recurrent: MinGru, layer: int, sequence: str, start: list[str]
) -> tuple[str, list[str]]:
    """As MinGru.forward: the gates of all frames at once, then a step for each frame without a product of matrices."""
    weights, biases = _min_gru_weights(recurrent, layer)
    products = _product(graph, denoiser, sequence, weights, biases)
    kept, new, out = graph.add_many("Split", products, n_outputs=3, axis=-1)
    kept, new = graph.add("Sigmoid", kept), graph.add("Tanh", new)
    added = graph.add("Sub", new, graph.add("Mul", kept, new))
    before = start[0] if start else graph.constant(np.zeros((_rows(denoiser), recurrent.hidden_size), np.float32))
    n_directions = len(recurrent.layers[layer])
    shares, parts = (_split(graph, numbers, n_directions) for numbers in (kept, added))
    found = [
        graph.add_many(
            "Scan",
            before,
            share,
            part,
            n_outputs=2,
            body=_leaking(recurrent.hidden_size),
            num_scan_inputs=2,
            scan_input_directions=[backward] * 2,
            scan_output_directions=[backward],
        )
        for backward, (share, part) in enumerate(zip(shares, parts, strict=True))
    ]
    ends, states = ([direction[place] for direction in found] for place in range(2))
    remembered = graph.add("Concat", *states, axis=-1) if n_directions > 1 else states[0]
    return graph.add("Mul", remembered, graph.add("Mul", out, graph.add("Sigmoid", out))), ends


def _split(graph: Graph, numbers: str, count: int) -> list[str]:
    return graph.add_many("Split", numbers, n_outputs=count, axis=-1) if count > 1 else [numbers]


def _leaking(size: int) -> onnx.GraphProto:
    """One frame of (rows, size): the state becomes kept · state + added, and is the frame's output as well."""
    names = ("state", "kept", "added", "next", "output")
    state, kept, added, after, output = (
        helper.make_tensor_value_info(f"leaking_{name}", TensorProto.FLOAT, ["rows", size]) for name in names
    )
    nodes = [
        helper.make_node("Mul", [state.name, kept.name], ["leaking_left"]),
        helper.make_node("Add", ["leaking_left", added.name], [after.name]),
        helper.make_node("Identity", [after.name], [output.name]),
    ]
    return helper.make_graph(nodes, "leaking", [state, kept, added], [after, output])


def _starts(graph: Graph, denoiser: Denoiser) -> list[list[str]]:
    """The states (rows, hidden) of each layer at the beginning of a call; none for a network that looks ahead."""
    n_layers, names = denoiser.model.layers, _STATES[denoiser.model.cell]
    if denoiser.looks_ahead:
        return [[] for _ in range(n_layers)]
    states = [graph.reshaped(name, n_layers, _rows(denoiser), denoiser.model.hidden) for name in names]
    layers = [np.array(layer, np.int64) for layer in range(n_layers)]
    return [[graph.add("Gather", state, layer, axis=0) for state in states] for layer in layers]


def _name_ends(graph: Graph, denoiser: Denoiser, ends: Sequence[Sequence[str]]) -> None:
    """Makes the states of all layers after the last frame outputs of the graph."""
    if denoiser.looks_ahead:
        return
    for name, last in zip(_STATES[denoiser.model.cell], zip(*ends, strict=True), strict=True):
        states = graph.add("Concat", *last, axis=0)
        graph.rename(graph.reshaped(states, denoiser.model.layers, 1, -1), f"next_{name}")


def _layer_weights(recurrent: nn.Module, layer: int, gates: Sequence[int]) -> list[np.ndarray]:
    """Weights of the input, of the state, and both biases side by side, each (directions, …) in ONNX's order of gates."""
    found: list[list[np.ndarray]] = []
    for direction in ("", "_reverse")[: 2 if recurrent.bidirectional else 1]:
        arrays = [
            array(getattr(recurrent, f"{kind}_l{layer}{direction}"))
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        ordered = [np.concatenate([np.split(part, len(gates))[gate] for gate in gates]) for part in arrays]
        found.append([*ordered[:2], np.concatenate(ordered[2:])])
    return [np.stack(arrays) for arrays in zip(*found, strict=True)]


def _min_gru_weights(recurrent: MinGru, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of what is kept in all directions, then of what is new in them, then of what is let out."""
    found: list[list[np.ndarray]] = [[], []]
    for kind in range(3):
        for name in recurrent.layers[layer]:
            gates = recurrent.gates[name]
            assert isinstance(gates, nn.Linear)
            for arrays, part in zip(found, (gates.weight, gates.bias), strict=True):
                arrays.append(np.split(array(part), 3)[kind])
    weights, biases = (np.concatenate(arrays) for arrays in found)
    return weights.T, biases

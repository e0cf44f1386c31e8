"""The denoiser as an ONNX graph, from the parts of a noisy spectrogram to those of the estimate, in real numbers only.

The graph is put together node by node: the exporters of PyTorch know neither complex numbers nor the running level, and
the nodes, their names and the bytes of the file are then the same with every version of PyTorch.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from stages.core.denoiser import Denoiser
from stages.core.features import POWER_FLOOR, level_decay
from stages.core.onnx_model import FORMAT, OnnxError
from stages.core.onnx_networks import array, network, network_states
from stages.core.onnx_nodes import Graph
from stages.core.spectra import n_bins
from stages.core.targets import TINY, ComplexMask

# ONNX Runtime reads this opset from 1.13 on, most other programs as well; nothing in the graph needs a newer one.
OPSET = 17
_IR_VERSION = 8
# A file is one protobuf message, which ends at 2 GiB; a little is left for everything but the weights.
_MOST_BYTES = 2**31 - 2**20
# Under the root of the magnitude, as in features.magnitude.
_MAGNITUDE_FLOOR = 1e-12
_CALLS = {
    True: "One frame per call, or any number; states are zeros before the first call, then the outputs next_... of the last.",
    False: "The whole signal in one call.",
}
_FRAMES = """noisy, estimate: the last axis holds real and imaginary part.
Frame: win_length samples, hop_length after the frame before, times the window, then a Fourier transform of n_fft points,
not normalised. The first frame ends with the first hop_length samples, after zeros.
Back: inverse transform, its first win_length samples times the window times 2 * hop_length / win_length, overlap and add;
the first win_length - hop_length samples are those of the zeros.
Window: the square root of a periodic Hann window. Full scale is 1.0.
A constant offset is no sound, and none was heard in training: take it out before."""


def onnx_graph(denoiser: Denoiser, weights: str) -> onnx.ModelProto:
    """The graph of a denoiser for any number of frames, with all states as inputs and outputs.

    `weights` is the SHA-256 of the file that the denoiser comes from, by which others can see whether the graph is its.

    Shapes are noisy and estimate (1, frames, bins, 2), level (1, 1, 2), hidden and, of an LSTM, cell (layers, 1, units).
    The graph of a bidirectional denoiser has no states: it takes a whole signal.

    Raises:
        OnnxError: the weights do not fit into one file.
    """
    n_bytes = 4 * sum(weight.numel() for weight in denoiser.parameters())
    if n_bytes > _MOST_BYTES:
        raise OnnxError(f"The weights have {n_bytes / 2**30:.1f} GiB, an ONNX file at most 2: use fewer layers or units.")
    graph = Graph()
    states = state_shapes(denoiser)
    level = _level(graph, denoiser, streaming=bool(states))
    mixture = graph.add("Div", "noisy", level)
    magnitude = graph.add(
        "Sqrt", graph.add("Add", graph.add("ReduceSumSquare", mixture, axes=[-1], keepdims=0), _MAGNITUDE_FLOOR)
    )
    raw = network(graph, denoiser, _features(graph, denoiser, mixture, magnitude))
    estimate = _ESTIMATES[denoiser.model.target](graph, denoiser, raw, mixture, magnitude)
    graph.rename(graph.add("Mul", estimate, level), "estimate")
    return _finished(graph, denoiser, states, weights)


def state_shapes(denoiser: Denoiser) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the states of a denoiser's graph, in the order of its inputs."""
    if denoiser.looks_ahead:
        return {}
    return {"level": (1, 1, 2), **network_states(denoiser)}


def _level(graph: Graph, denoiser: Denoiser, *, streaming: bool) -> str:
    """The running level (1, frames, 1, 1).

    Its two sums are a small recurrent layer, h = relu(Wx + b + decay·h), which leaves positive numbers as they are: one node
    for any number of frames.
    """
    decay = level_decay(denoiser.frames_per_second)
    power = graph.add("ReduceMean", graph.add("ReduceSumSquare", "noisy", axes=[-1], keepdims=0), axes=[-1], keepdims=1)
    weights = [np.array([[[1], [0]]], np.float32), (decay * np.eye(2)[None]).astype(np.float32)]
    bias = np.array([[0, 1, 0, 0]], np.float32)
    state = ["", "level"] if streaming else []
    sums, last = graph.add_many(
        "RNN",
        graph.add("Transpose", power, perm=[1, 0, 2]),
        *weights,
        bias,
        *state,
        n_outputs=2,
        hidden_size=2,
        activations=["Relu"],
    )
    if streaming:
        graph.rename(last, "next_level")
    total, weight = graph.parts(sums)
    mean = graph.add("Max", graph.add("Div", total, weight), POWER_FLOOR)
    return graph.add("Transpose", graph.add("Sqrt", mean), perm=[1, 0, 2, 3])


def _features(graph: Graph, denoiser: Denoiser, mixture: str, magnitude: str) -> str:
    """What the network sees, (1, frames, features), standardised."""
    found = graph.add("Pow", magnitude, denoiser.model.compression)
    if denoiser.target.needs_phase:
        share = graph.add("Unsqueeze", graph.add("Div", found, magnitude), np.array([-1], np.int64))
        found = graph.add("Concat", found, _flat(graph, graph.add("Mul", mixture, share), denoiser), axis=-1)
    centred = graph.add("Sub", found, array(denoiser.feature_mean))
    return graph.add("Div", centred, array(denoiser.feature_scale))


def _magnitude_estimate(graph: Graph, denoiser: Denoiser, raw: str, mixture: str, magnitude: str) -> str:
    """As Magnitude.activated and Magnitude.estimate."""
    compressed = graph.add("Pow", magnitude, denoiser.model.compression)
    # log(1 - exp(-x)), without expm1, which ONNX lacks: x is at least 1e-6 to the power of the compression.
    rest = graph.add("Log", graph.add("Sub", 1.0, graph.add("Exp", graph.add("Neg", compressed))))
    return _scaled(
        graph, mixture, _share(graph, denoiser, graph.add("Add", raw, graph.add("Add", compressed, rest)), magnitude)
    )


def _subtraction_estimate(graph: Graph, denoiser: Denoiser, raw: str, mixture: str, magnitude: str) -> str:
    """As Subtraction.estimate; the factors of 10 are the beta of its softplus."""
    rest = graph.add("Mul", graph.add("Sub", 1.0, _share(graph, denoiser, raw, magnitude)), 10.0)
    return _scaled(graph, mixture, graph.add("Div", graph.add("Softplus", rest), 10.0))


def _mask_estimate(graph: Graph, denoiser: Denoiser, raw: str, mixture: str, magnitude: str) -> str:
    """As RatioMask.estimate."""
    return _scaled(graph, mixture, graph.add("Sigmoid", raw))


def _complex_estimate(graph: Graph, denoiser: Denoiser, raw: str, mixture: str, magnitude: str) -> str:
    """As ComplexMask.estimated."""
    bins = n_bins(denoiser.stft)
    one = np.concatenate([np.full(bins, 1 / ComplexMask.LIMIT), np.zeros(bins)]).astype(np.float32)
    clipped = graph.add("Clip", graph.add("Add", raw, one), -ComplexMask.FURTHEST, ComplexMask.FURTHEST)
    pairs = graph.reshaped(graph.add("Mul", clipped, ComplexMask.LIMIT), 1, -1, 2, bins)
    (a, b), (c, d) = graph.parts(mixture), graph.parts(graph.add("Transpose", pairs, perm=[0, 1, 3, 2]))
    real = graph.add("Sub", graph.add("Mul", a, c), graph.add("Mul", b, d))
    imaginary = graph.add("Add", graph.add("Mul", a, d), graph.add("Mul", b, c))
    return graph.add("Concat", real, imaginary, axis=-1)


_ESTIMATES: dict[str, Callable[[Graph, Denoiser, str, str, str], str]] = {
    "magnitude": _magnitude_estimate,
    "subtraction": _subtraction_estimate,
    "irm": _mask_estimate,
    "ibm": _mask_estimate,
    "crm": _complex_estimate,
}


def _share(graph: Graph, denoiser: Denoiser, raw: str, magnitude: str) -> str:
    """The estimated magnitude as a share of the mixture's."""
    size = graph.add("Pow", graph.add("Max", graph.add("Softplus", raw), TINY), 1 / denoiser.model.compression)
    return graph.add("Div", size, graph.add("Add", magnitude, TINY))


def _scaled(graph: Graph, mixture: str, gain: str) -> str:
    return graph.add("Mul", mixture, graph.add("Unsqueeze", gain, np.array([-1], np.int64)))


def _flat(graph: Graph, pairs: str, denoiser: Denoiser) -> str:
    """(1, frames, bins, 2) to (1, frames, 2 · bins), all real parts first."""
    return graph.reshaped(graph.add("Transpose", pairs, perm=[0, 1, 3, 2]), 1, -1, 2 * n_bins(denoiser.stft))


def _finished(graph: Graph, denoiser: Denoiser, states: dict[str, tuple[int, ...]], weights: str) -> onnx.ModelProto:
    spectrum = (1, "frames", n_bins(denoiser.stft), 2)
    inputs = [_value("noisy", spectrum), *(_value(name, shape) for name, shape in states.items())]
    outputs = [_value("estimate", spectrum), *(_value(f"next_{name}", shape) for name, shape in states.items())]
    body = helper.make_graph(graph.nodes, "denoiser", inputs, outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=FORMAT.split("/")[0])
    model.ir_version, model.doc_string = _IR_VERSION, f"{_CALLS[bool(states)]}\n{_FRAMES}"
    helper.set_model_props(model, _properties(denoiser, states) | {"weights": weights})
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _properties(denoiser: Denoiser, states: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """All that a program has to know of the denoiser, so that it needs nothing but the file."""
    stft, model = denoiser.stft, denoiser.model
    found: dict[str, Any] = {
        "format": FORMAT,
        "streaming": not denoiser.looks_ahead,
        "sample_rate": denoiser.sample_rate,
        **stft.model_dump(),
        "window": "sqrt_hann_periodic",
        "bins": n_bins(stft),
        "target": model.target,
        "network": model.network,
        "cell": model.cell,
        "compression": model.compression,
        "level_decay": level_decay(denoiser.frames_per_second),
        "level_power_floor": POWER_FLOOR,
        "states": {name: list(shape) for name, shape in states.items()},
    }
    if not denoiser.looks_ahead:
        found |= {"delay_samples": stft.win_length - 1, "delay_ms": 1000 * (stft.win_length - 1) / denoiser.sample_rate}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}

"""An exported denoiser does what the original does, one frame at a time or many, and its file explains itself."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from onnx import TensorProto, helper

import stages.core.onnx_graph
import stages.export
from stages.core.checkpoint import save_checkpoint
from stages.core.denoiser import Denoiser
from stages.core.enhancement import enhanced
from stages.core.errors import DenoisingError
from stages.core.onnx_graph import onnx_graph
from stages.core.onnx_model import FORMAT, OnnxDenoiser, OnnxError, load_onnx
from stages.core.parameters import Model, Stft
from stages.core.spectra import spectrogram, waveform
from stages.core.streaming import StreamingDenoiser
from stages.core.targets import TARGETS
from stages.export import ExportError, run

# The networks here are so small that threads only wait for each other.
torch.set_num_threads(1)

RATE = 16000
STFT = Stft(n_fft=64, win_length=48, hop_length=16)
N_FRAMES = 250
CELLS = ("gru", "lstm", "mingru")


WEIGHTS = "0" * 64


def denoiser(*, seed: int = 0, **changes: Any) -> Denoiser:
    """A small denoiser whose weights are large enough for its gates to open and close."""
    values = {"network": "stack", "n_bands": 4, "target": "irm", "cell": "gru", "layers": 2, "hidden": 8}
    values |= {"bidirectional": False, "dropout": 0.0}
    torch.manual_seed(seed)
    found = Denoiser(Model.model_validate(values | {"compression": 0.3} | changes), STFT, RATE).eval()
    with torch.no_grad():
        found.feature_mean.normal_()
        found.feature_scale.uniform_(0.5, 2)
        for weight in found.network.parameters():
            # With open forget gates as well, cells would grow chaotic, and rounding with them.
            weight.mul_(2 if weight.ndim > 1 else 0.1)
    return found


def signal(n_frames: int = N_FRAMES) -> torch.Tensor:
    """A spectrogram with silence at its beginning, then loud, faint and silent parts."""
    generator = torch.Generator().manual_seed(1)
    found = torch.randn(1, n_frames, STFT.n_fft // 2 + 1, dtype=torch.complex64, generator=generator)
    levels = torch.tensor([0, 1, 1e3, 1e-4, 0, 1]).repeat_interleave(-(-n_frames // 6))[:n_frames]
    return found * levels[None, :, None]


def exported(original: Denoiser, folder: Path) -> OnnxDenoiser:
    path = folder / "model.onnx"
    path.write_bytes(onnx_graph(original, WEIGHTS).SerializeToString(deterministic=True))
    return load_onnx(path)


def in_blocks(engine: Denoiser | OnnxDenoiser, spectrum: torch.Tensor, n_frames: int) -> torch.Tensor:
    state, found = None, []
    for block in spectrum.split(n_frames, dim=1):
        estimate, state = engine.denoised(block, state)
        found.append(estimate)
    return torch.cat(found, dim=1)


def difference(one: torch.Tensor, other: torch.Tensor, spectrum: torch.Tensor) -> float:
    """The largest difference in any frame as a share of its largest number."""
    scale = torch.maximum(spectrum.abs(), one.abs()).amax(-1).clamp_min(1e-6)
    return float(((one - other).abs().amax(-1) / scale).max())


# ---- the same numbers


@pytest.mark.parametrize(("target", "cell", "network"), list(product(TARGETS, CELLS, ("stack", "bands"))))
def test_steps_and_blocks_are_those_of_pytorch(tmp_path: Path, target: str, cell: str, network: str) -> None:
    original = denoiser(target=target, cell=cell, layers=1 if cell == "lstm" else 3, network=network)
    found, spectrum = exported(original, tmp_path), signal()
    reference, _ = original.denoised(spectrum)
    for n_frames in (1, 7, N_FRAMES):
        assert difference(reference, in_blocks(found, spectrum, n_frames), spectrum) <= 1e-4


@pytest.mark.parametrize("network", ["stack", "bands"])
@pytest.mark.parametrize(("target", "cell"), [("crm", "gru"), ("magnitude", "lstm"), ("irm", "mingru")])
def test_a_network_that_looks_ahead_takes_whole_signals(tmp_path: Path, target: str, cell: str, network: str) -> None:
    original = denoiser(target=target, cell=cell, bidirectional=True, network=network)
    found, spectrum = exported(original, tmp_path), signal()
    assert found.looks_ahead
    estimate, state = found.denoised(spectrum)
    assert state == ()
    assert difference(original.denoised(spectrum)[0], estimate, spectrum) <= 1e-4


@pytest.mark.parametrize("compression", [0.2, 1.0])
def test_other_compressions_are_exported(tmp_path: Path, compression: float) -> None:
    original, spectrum = denoiser(target="subtraction", compression=compression), signal()
    estimate, _ = exported(original, tmp_path).denoised(spectrum)
    assert difference(original.denoised(spectrum)[0], estimate, spectrum) <= 1e-4


def test_a_saturated_complex_mask_is_exported(tmp_path: Path) -> None:
    original, spectrum = denoiser(target="crm"), signal()
    with torch.no_grad():
        original.network.output.bias.copy_(20 * original.network.output.bias.sign())
    reference, _ = original.denoised(spectrum)
    assert float((reference.abs() / spectrum.abs().clamp_min(1e-9)).max()) > 10
    assert difference(reference, exported(original, tmp_path).denoised(spectrum)[0], spectrum) <= 1e-4


def test_the_state_carries_over_thousands_of_steps(tmp_path: Path) -> None:
    original, spectrum = denoiser(cell="lstm"), signal(3000)
    found = exported(original, tmp_path)
    assert difference(original.denoised(spectrum)[0], in_blocks(found, spectrum, 1), spectrum) <= 1e-4


def test_signals_do_not_mix(tmp_path: Path) -> None:
    found, spectrum = exported(denoiser(), tmp_path), signal(20)[:, 5:]
    first, state = found.denoised(spectrum)
    found.denoised(spectrum * 100, state)
    again, _ = found.denoised(spectrum)
    assert torch.equal(first, again)


def test_silence_stays_silent_and_loudness_does_not_matter(tmp_path: Path) -> None:
    found, spectrum = exported(denoiser(target="crm"), tmp_path), signal()[:, 50:80]
    assert not found.denoised(torch.zeros_like(spectrum))[0].any()
    loud, faint = found.denoised(spectrum)[0], found.denoised(spectrum * 1e-3)[0]
    torch.testing.assert_close(faint * 1e3, loud, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("sample_rate", [RATE, 44100])
def test_recordings_come_out_the_same(tmp_path: Path, sample_rate: int, bidirectional: bool) -> None:
    original = denoiser(target="crm", bidirectional=bidirectional)
    noisy = (0.1 * np.random.default_rng(0).standard_normal((sample_rate // 2, 2))).astype(np.float32)
    expected = enhanced(noisy, sample_rate, original)
    np.testing.assert_allclose(enhanced(noisy, sample_rate, exported(original, tmp_path)), expected, atol=1e-5)


# ---- a file that explains itself


def denoised_elsewhere(path: Path, noisy: np.ndarray) -> np.ndarray:
    """What a program does that knows nothing but the file: one frame at a time, in numpy."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    n_fft, length, hop = int(about["n_fft"]), int(about["win_length"]), int(about["hop_length"])
    assert about["window"] == "sqrt_hann_periodic"
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length))
    states = {name: np.zeros(shape, np.float32) for name, shape in json.loads(about["states"]).items()}
    lead, n_frames = length - hop, -(-len(noisy) // hop) + length // hop - 1
    padded = np.pad(noisy, (lead, length))
    output = np.zeros(len(padded))
    for start in range(0, n_frames * hop, hop):
        frame = np.fft.rfft(padded[start : start + length] * window, n_fft)
        parts = np.stack([frame.real, frame.imag], axis=-1).astype(np.float32)[None, None]
        estimate, *after = session.run(None, {"noisy": parts} | states)
        states = dict(zip(states, after, strict=True))
        back = np.fft.irfft(estimate[0, 0, :, 0] + 1j * estimate[0, 0, :, 1], n_fft)[:length]
        output[start : start + length] += back * window * 2 * hop / length
    return output[lead : lead + len(noisy)]


@pytest.mark.parametrize(("target", "cell"), [("irm", "gru"), ("crm", "lstm")])
def test_another_program_needs_nothing_but_the_file(tmp_path: Path, target: str, cell: str) -> None:
    original = denoiser(target=target, cell=cell)
    exported(original, tmp_path)
    noisy = (0.1 * np.random.default_rng(0).standard_normal(4001)).astype(np.float32)
    estimate, _ = original.denoised(spectrogram(torch.from_numpy(noisy), STFT).unsqueeze(0))
    expected = waveform(estimate[0], len(noisy), STFT).numpy()
    np.testing.assert_allclose(denoised_elsewhere(tmp_path / "model.onnx", noisy), expected, atol=1e-5)


def properties(original: Denoiser) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx_graph(original, WEIGHTS).metadata_props}


def test_the_metadata_are_complete() -> None:
    original = denoiser(target="crm", cell="lstm", layers=3)
    delay = StreamingDenoiser(original, RATE, 1).delay
    assert properties(original) == {
        "format": FORMAT,
        "streaming": "true",
        "sample_rate": "16000",
        "n_fft": "64",
        "win_length": "48",
        "hop_length": "16",
        "window": "sqrt_hann_periodic",
        "bins": "33",
        "target": "crm",
        "network": "stack",
        "weights": WEIGHTS,
        "cell": "lstm",
        "compression": "0.3",
        "level_decay": repr(float(np.exp(-16 / 16000 / 2))),
        "level_power_floor": "1e-14",
        "states": '{"level": [1, 1, 2], "hidden": [3, 1, 8], "cell": [3, 1, 8]}',
        "delay_samples": str(delay),
        "delay_ms": repr(1000 * delay / RATE),
    }


def test_the_metadata_of_a_network_that_looks_ahead_promise_no_delay() -> None:
    found = properties(denoiser(bidirectional=True))
    assert (found["streaming"], found["states"]) == ("false", "{}")
    assert not {"delay_samples", "delay_ms"} & set(found)


@pytest.mark.parametrize("cell", CELLS)
def test_inputs_and_outputs_are_those_of_the_metadata(cell: str) -> None:
    model = onnx_graph(denoiser(cell=cell), WEIGHTS)
    states = json.loads({entry.key: entry.value for entry in model.metadata_props}["states"])
    shapes = [
        {value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
        for values in (model.graph.input, model.graph.output)
    ]
    assert shapes[0] == {"noisy": [1, "frames", 33, 2]} | states
    assert shapes[1] == {"estimate": [1, "frames", 33, 2]} | {f"next_{name}": shape for name, shape in states.items()}


def test_old_programs_can_read_the_file() -> None:
    model = onnx_graph(denoiser(target="crm", cell="lstm", bidirectional=True), WEIGHTS)
    # ONNX Runtime 1.17 knows opset 20 and IR version 9.
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    types = {constant.data_type for constant in model.graph.initializer}
    assert types <= {TensorProto.FLOAT, TensorProto.INT64}


# ---- the stage


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "models/denoiser.safetensors"
    save_checkpoint(path, denoiser(), {})
    return path


def test_the_stage_writes_the_same_bytes_again(tmp_path: Path, checkpoint: Path) -> None:
    model, metrics = tmp_path / "models/denoiser.onnx", tmp_path / "metrics/export.json"
    run(checkpoint, tmp_path / "none", model, metrics)
    first = model.read_bytes(), metrics.read_bytes()
    command = [sys.executable, "-W", "error", "-m", "stages.export"]
    path = str(Path(stages.export.__file__).parents[1])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": path}
    environment.pop("DVC_STAGE", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (model.read_bytes(), metrics.read_bytes()) == first
    assert sorted(path.name for path in model.parent.iterdir()) == ["denoiser.onnx", "denoiser.safetensors"]


def test_the_stage_checks_on_test_mixtures_too(tmp_path: Path, checkpoint: Path) -> None:
    mixtures = tmp_path / "noisy"
    mixtures.mkdir()
    for number, rate in enumerate((16000, 8000)):
        noise = np.random.default_rng(number).standard_normal(rate // 10)
        soundfile.write(mixtures / f"{number}.wav", 0.1 * noise, rate)
    run(checkpoint, mixtures, tmp_path / "model.onnx", tmp_path / "export.json")
    found = json.loads((tmp_path / "export.json").read_text(encoding="utf-8"))
    differences = found.pop("difference_below")
    assert set(differences) == {"whole", "frame_by_frame"}
    assert all(0 < difference <= 1e-5 for difference in differences.values())
    assert found == {
        "streaming": True,
        "delay_ms": 2.9375,
        "n_bytes": (tmp_path / "model.onnx").stat().st_size,
        "opset": 17,
        "n_signals_checked": 3,
        "n_frames_checked": 322 + 2 * 102,
    }


def test_the_stage_exports_a_network_that_looks_ahead(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "denoiser.safetensors", denoiser(bidirectional=True), {})
    run(tmp_path / "denoiser.safetensors", tmp_path / "none", tmp_path / "model.onnx", tmp_path / "export.json")
    found = json.loads((tmp_path / "export.json").read_text(encoding="utf-8"))
    assert not found["streaming"]
    assert "bidirectional" in found["reason"]
    assert set(found["difference_below"]) == {"whole"}
    assert load_onnx(tmp_path / "model.onnx").looks_ahead


def test_a_graph_that_does_something_else_is_refused(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_text("as it was")
    monkeypatch.setattr(stages.export, "onnx_graph", lambda *_: onnx_graph(denoiser(seed=1), WEIGHTS))
    with pytest.raises(ExportError, match=r"differs from PyTorch by \d\.\de-0[12] of .* at most 1e-04"):
        run(checkpoint, tmp_path / "none", tmp_path / "model.onnx", tmp_path / "export.json")
    assert (tmp_path / "model.onnx").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "models"]


def test_weights_that_come_to_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = denoiser()
    broken.feature_scale.fill_(1e-38)
    save_checkpoint(tmp_path / "denoiser.safetensors", broken, {})
    with pytest.raises(ExportError, match="differs from PyTorch by nan"):
        run(tmp_path / "denoiser.safetensors", tmp_path / "none", tmp_path / "model.onnx", None)
    assert not (tmp_path / "model.onnx").exists()


def test_weights_are_not_written_over(tmp_path: Path) -> None:
    weights = tmp_path / "mine.onnx"
    save_checkpoint(weights, denoiser(), {})
    before = weights.read_bytes()
    with pytest.raises(
        ExportError, match=r"mine\.onnx: the ONNX file would be written over these weights; give them another name"
    ):
        run(weights, tmp_path / "none", weights, None)
    assert weights.read_bytes() == before


def test_too_many_weights_for_one_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.core.onnx_graph, "_MOST_BYTES", 1000)
    with pytest.raises(OnnxError, match="an ONNX file at most 2"):
        onnx_graph(denoiser(), WEIGHTS)


# ---- files that are not what they should be


def foreign(path: Path, **about: str) -> None:
    """Writes a graph that does nothing, with the metadata `about`."""
    value = helper.make_tensor_value_info("noisy", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("estimate", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["noisy"], ["estimate"])], "other", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, about)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, "found an ONNX file of another program"),
        ({"format": "audio-denoising-rnn/onnx-9"}, "found the format audio-denoising-rnn/onnx-9"),
        ({"format": FORMAT}, "its description is damaged .*'sample_rate'"),
        ({"format": FORMAT, "sample_rate": "fast"}, "its description is damaged .*fast"),
    ],
)
def test_a_file_of_another_program_is_named(tmp_path: Path, about: dict[str, str], expected: str) -> None:
    foreign(tmp_path / "other.onnx", **about)
    with pytest.raises(OnnxError, match=rf"other\.onnx: .*{expected}"):
        load_onnx(tmp_path / "other.onnx")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_is_named(tmp_path: Path, share: float) -> None:
    whole = onnx_graph(denoiser(), WEIGHTS).SerializeToString(deterministic=True)
    (tmp_path / "cut.onnx").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(OnnxError, match=r"cut\.onnx: "):
        load_onnx(tmp_path / "cut.onnx")


def test_text_that_is_no_text_is_named(tmp_path: Path) -> None:
    whole = onnx_graph(denoiser(), WEIGHTS).SerializeToString(deterministic=True)
    (tmp_path / "bent.onnx").write_bytes(whole.replace(b"sqrt_hann", b"sqrt\xffhann"))
    with pytest.raises(OnnxError, match=r"bent\.onnx: damaged"):
        load_onnx(tmp_path / "bent.onnx")


def test_what_is_no_onnx_file_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(OnnxError, match=r"damaged or not an ONNX file .*export it again"):
        load_onnx(checkpoint)
    with pytest.raises(OnnxError, match=r"none\.onnx: no such ONNX file; make it with 'dvc repro export'"):
        load_onnx(tmp_path / "none.onnx")
    assert issubclass(OnnxError, DenoisingError)

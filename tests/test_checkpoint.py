import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from specimens import RATE, STFT, model, spectrum
from torch import Tensor

from stages.core.checkpoint import (
    PRETRAINED,
    CheckpointError,
    load_checkpoint,
    named_weights,
    save_checkpoint,
    start_from,
    worker_denoiser,
)
from stages.core.denoiser import Denoiser

TRAINING = {"seed": 1, "loss": "compressed", "epoch": 4}
N_BINS = 33
NOISY = spectrum(1, 20, N_BINS, seed=2)


def denoiser(**changes: object) -> Denoiser:
    torch.manual_seed(1)
    made = Denoiser(model(**changes), STFT, RATE)
    made.standardise([spectrum(2, 40, 33, seed=1)])
    return made.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "models" / "denoiser.safetensors", denoiser(), TRAINING)
    return tmp_path / "models" / "denoiser.safetensors"


@pytest.mark.parametrize("target", ["magnitude", "subtraction", "irm", "ibm", "crm"])
@pytest.mark.parametrize("changes", [{}, {"cell": "lstm", "layers": 2, "bidirectional": True, "dropout": 0.5}])
def test_what_is_loaded_denoises_as_what_was_saved(target: str, changes: dict[str, object], tmp_path: Path) -> None:
    made = denoiser(target=target, **changes)
    save_checkpoint(tmp_path / "a.safetensors", made, TRAINING)
    found, training = load_checkpoint(tmp_path / "a.safetensors")
    assert training == TRAINING
    assert (found.model, found.stft, found.sample_rate) == (made.model, made.stft, made.sample_rate)
    assert not found.training
    torch.testing.assert_close(found.denoised(NOISY), made.denoised(NOISY), rtol=0, atol=0)
    assert [name for name, _ in found.named_buffers()] == ["feature_mean", "feature_scale"]
    torch.testing.assert_close(found.feature_mean, made.feature_mean, rtol=0, atol=0)


def test_equal_denoisers_give_equal_bytes_and_no_other_file(path: Path) -> None:
    before = path.read_bytes()
    save_checkpoint(path, denoiser(), TRAINING)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_file_says_how_to_rebuild_the_denoiser(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["denoiser"])
    assert description == {
        "format": "audio-denoising-rnn/1",
        "model": model().model_dump(),
        "stft": STFT.model_dump(),
        "sample_rate": RATE,
        "training": TRAINING,
    }


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no-such\.safetensors: no such weights file; train one with 'dvc repro train'"):
        load_checkpoint(tmp_path / "no-such.safetensors")
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 8, 100, 1000, -1])
def test_a_truncated_file_is_named(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors: damaged or not a safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"RIFF not weights at all", b"\x00" * 64, b"{}" * 40])
def test_a_file_that_is_something_else_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors: damaged or not a safetensors file"):
        load_checkpoint(path)


def test_weights_of_another_program_are_refused(path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
        with pytest.raises(CheckpointError, match=r"expected weights written by .*, found .* of another program"):
            load_checkpoint(path)


def described(path: Path, text: str) -> None:
    """Writes the same weights anew with another description."""
    save_file(load_file(path), path, metadata={"denoiser": text})


@pytest.mark.parametrize(
    "change",
    [
        {"model": model(hidden=16).model_dump()},
        {"model": model().model_dump() | {"target": "wavelet"}},
        {"model": model().model_dump() | {"attention": True}},
        {"model": None},
        {"stft": {"n_fft": 64}},
        {"stft": {"n_fft": 128, "win_length": 128, "hop_length": 64}},
        {"sample_rate": None},
        {"sample_rate": 0},
        {"training": None},
    ],
)
def test_weights_that_this_version_cannot_rebuild_are_refused(path: Path, change: dict[str, object]) -> None:
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["denoiser"])
    described(path, json.dumps({name: value for name, value in (description | change).items() if value is not None}))
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors: expected weights written by the train stage") as caught:
        load_checkpoint(path)
    assert len(str(caught.value).replace(str(path), "")) < 200
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(path: Path) -> None:
    made = denoiser()
    made.network.output.bias.data[3] = float("nan")
    save_checkpoint(path, made, TRAINING)
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors: expected weights .* \(some are NaN or infinite\)"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_scale": torch.zeros(N_BINS)}, "a feature_scale of 0 or less"),
        ({"feature_mean": torch.full((N_BINS,), 1e300, dtype=torch.float64)}, "some are not in single precision"),
        ({"feature_mean": torch.zeros(N_BINS, dtype=torch.int64)}, "some are not in single precision"),
    ],
)
def test_weights_that_would_be_others_once_loaded_are_refused(path: Path, change: dict[str, Tensor], reason: str) -> None:
    with safe_open(path, framework="pt") as file:
        description = file.metadata()
    save_file(load_file(path) | change, path, metadata=description)
    with pytest.raises(CheckpointError, match=rf"expected weights .* \({reason}\)"):
        load_checkpoint(path)


def test_weights_are_named_by_a_word_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {name: named_weights(name) for name in PRETRAINED} == PRETRAINED
    assert named_weights("other/weights") == Path("other/weights")
    assert named_weights("weights.safetensors") == Path("weights.safetensors")
    Path("weights").touch()
    assert named_weights("weights") == Path("weights")
    for name in ("", "beste", "Live"):
        with pytest.raises(CheckpointError, match=rf"'{name}': no such weights file, and not one of best and live"):
            named_weights(name)


@pytest.mark.parametrize("suffix", [".onnx", ".ONNX"])
def test_an_exported_network_is_told_from_damaged_weights(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"denoiser{suffix}").write_bytes(b"\x08\x07 of another kind")
    with pytest.raises(CheckpointError, match=r"denoiser\.(onnx|ONNX): expected weights, found an exported network"):
        load_checkpoint(tmp_path / f"denoiser{suffix}")


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "3", '{"model": 3, "stft": 4, "sample_rate": 5}'])
def test_a_damaged_description_is_refused(path: Path, text: str) -> None:
    described(path, text)
    with pytest.raises(CheckpointError, match=r"denoiser\.safetensors: expected weights written by the train stage"):
        load_checkpoint(path)


class Malicious:
    """An object that writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.mark, "run")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_code_in_a_file_is_run(tmp_path: Path, how: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "denoiser.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
        pickle.loads(path.read_bytes())
    else:
        torch.save({"weights": Malicious(mark)}, path)
        torch.load(path, weights_only=False)
    assert mark.exists(), "the object does nothing, so this test would show nothing"
    mark.unlink()
    path = path.rename(tmp_path / "denoiser.safetensors")
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load_checkpoint(path)
    assert not mark.exists()


def test_what_cannot_be_written_leaves_the_former_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(path, denoiser(), {"loss": float("nan")})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_worker_reads_its_denoiser_once(path: Path) -> None:
    assert worker_denoiser(path) is worker_denoiser(path)
    torch.testing.assert_close(worker_denoiser(path).denoised(NOISY), denoiser().denoised(NOISY), rtol=0, atol=0)


def test_a_denoiser_starts_from_the_weights_and_statistics_of_another(path: Path) -> None:
    torch.manual_seed(9)
    made = Denoiser(model(dropout=0.5, n_bands=7), STFT, RATE).eval()
    start_from(path, made)
    torch.testing.assert_close(made.denoised(NOISY), denoiser().denoised(NOISY), rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{"network": "bands"}, {"layers": 3}, {"cell": "lstm", "layers": 2}])
def test_a_causal_network_starts_one_that_looks_ahead(changes: dict[str, object], tmp_path: Path) -> None:
    causal = denoiser(**changes)
    save_checkpoint(tmp_path / "causal.safetensors", causal, TRAINING)
    torch.manual_seed(3)
    made = Denoiser(model(bidirectional=True, **changes), STFT, RATE).eval()
    start_from(tmp_path / "causal.safetensors", made)
    (found, _), (wanted, _) = made.denoised(NOISY), causal.denoised(NOISY)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    made(NOISY)[0].abs().sum().backward()
    backward = {name: weight.grad for name, weight in made.named_parameters() if weight.grad is not None}
    widened = [grad for name, grad in backward.items() if grad.shape != dict(causal.named_parameters()).get(name, grad).shape]
    assert widened
    assert all(bool(grad[..., grad.shape[-1] // 2 :].any()) for grad in widened)


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bands_start_bands_of_more_rounds(cell: str, bidirectional: bool, tmp_path: Path) -> None:
    fewer = denoiser(network="bands", layers=1, cell=cell)
    save_checkpoint(tmp_path / "fewer.safetensors", fewer, TRAINING)
    torch.manual_seed(3)
    made = Denoiser(model(network="bands", layers=3, cell=cell, bidirectional=bidirectional), STFT, RATE).eval()
    start_from(tmp_path / "fewer.safetensors", made)
    torch.testing.assert_close(made.denoised(NOISY)[0], fewer.denoised(NOISY)[0], rtol=1e-4, atol=1e-5)
    made(NOISY)[0].abs().sum().backward()
    ways_out = [getattr(made.network.rounds[place], name) for place in (1, 2) for name in ("time_output", "across")]
    assert all(
        bool(part.get_parameter(name).grad.any()) for part, name in zip(ways_out, 2 * ["weight", "outward"], strict=True)
    )


def test_fewer_rounds_or_a_deeper_stack_start_nothing(tmp_path: Path) -> None:
    for network, theirs, ours in (("bands", 2, 1), ("stack", 1, 2)):
        save_checkpoint(tmp_path / "theirs.safetensors", denoiser(network=network, layers=theirs), TRAINING)
        with pytest.raises(CheckpointError, match=rf"have model\.layers={theirs}; set"):
            start_from(tmp_path / "theirs.safetensors", denoiser(network=network, layers=ours))


def test_a_network_that_looks_ahead_starts_no_causal_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "both.safetensors", denoiser(bidirectional=True), TRAINING)
    with pytest.raises(CheckpointError, match=r"have model\.bidirectional=True; set"):
        start_from(tmp_path / "both.safetensors", denoiser())


def test_weights_of_another_model_are_refused_and_the_parameters_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"have model\.target=irm, model\.hidden=8; set the same") as caught:
        start_from(path, denoiser(target="crm", hidden=9))
    assert str(caught.value).startswith(str(path))
    save_checkpoint(tmp_path / "bands.safetensors", denoiser(network="bands"), TRAINING)
    with pytest.raises(CheckpointError, match=r"have model\.n_bands=4; set"):
        start_from(tmp_path / "bands.safetensors", denoiser(network="bands", n_bands=5))
    with pytest.raises(CheckpointError, match=r"have model\.network=bands, model\.n_bands=4; set"):
        start_from(tmp_path / "bands.safetensors", denoiser(network="stack", n_bands=5))
    with pytest.raises(CheckpointError, match=r"have audio\.sample_rate=16000, stft\.n_fft=64; set"):
        start_from(path, Denoiser(model(), STFT.model_copy(update={"n_fft": 128}), 8000))
    with pytest.raises(CheckpointError, match="no such weights file"):
        start_from(tmp_path / "absent.safetensors", denoiser())

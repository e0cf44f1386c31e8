"""Checkpoints: weights, and in the same file all that is needed to rebuild the denoiser, read without running any code."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stages.core.band_network import BandNetwork
from stages.core.denoiser import Denoiser
from stages.core.errors import DenoisingError
from stages.core.files import written
from stages.core.parameters import Audio, Model, Stft

_FORMAT = "audio-denoising-rnn/1"
# Weights that come with the project, by the names that `--model` knows.
PRETRAINED = {
    name: Path(__file__).parents[2] / "models" / "pretrained" / name / "denoiser.safetensors" for name in ("best", "live")
}
_ADVICE = "train one with 'dvc repro train' or name another, such as models/pretrained/best/denoiser.safetensors"


class CheckpointError(DenoisingError):
    """A weights file that is absent, damaged or not one of this project."""


def save_checkpoint(path: Path, denoiser: Denoiser, training: dict[str, Any]) -> None:
    """Writes a denoiser atomically to a safetensors file; `training` (JSON values) says how it came about."""
    description = {
        "format": _FORMAT,
        "model": denoiser.model.model_dump(),
        "stft": denoiser.stft.model_dump(),
        "sample_rate": denoiser.sample_rate,
        "training": training,
    }
    weights = {name: weight.detach().cpu().contiguous() for name, weight in denoiser.state_dict().items()}
    with written(path) as temporary:
        save_file(weights, temporary, metadata={"denoiser": json.dumps(description, sort_keys=True, allow_nan=False)})


def named_weights(name: str) -> Path:
    """The file that `name` means: one of PRETRAINED, or a path.

    Raises:
        CheckpointError: a word that is neither, or nothing.
    """
    path = PRETRAINED.get(name, Path(name))
    if not name or (path.name == name and not path.suffix and not path.exists()):
        raise CheckpointError(f"'{name}': no such weights file, and not one of {' and '.join(PRETRAINED)}.")
    return path


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser in a file that `save_checkpoint` wrote, in evaluation mode on `device`, and how it came about.

    Raises:
        CheckpointError: no such file, a damaged one, or one that something else wrote.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file; {_ADVICE}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get("denoiser")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        if path.suffix.lower() == ".onnx":
            raise CheckpointError(f"{path}: expected weights, found an exported network; name what it was made of.") from None
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error}); {_ADVICE}.") from None
    try:
        description = json.loads(text or "{}")
        if description["format"] != _FORMAT:
            raise ValueError(f"format {description['format']}, expected {_FORMAT}")
        sample_rate = Audio(sample_rate=description["sample_rate"]).sample_rate
        denoiser = Denoiser(Model(**description["model"]), Stft(**description["stft"]), sample_rate)
        denoiser.load_state_dict(weights)
        training = description["training"]
        if any(weight.dtype != torch.float32 for weight in weights.values()):
            raise ValueError("some are not in single precision")
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise ValueError("some are NaN or infinite")
        if not bool((denoiser.feature_scale > 0).all()):
            raise ValueError("a feature_scale of 0 or less")
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        found = "a safetensors file of another program" if text is None else f"one that cannot be used ({_reason(error)})"
        raise CheckpointError(f"{path}: expected weights written by the train stage, found {found}.") from None
    return denoiser.to(device).eval(), training


def _reason(error: Exception) -> str:
    """What is wrong with a description, or with weights that are not those of the network that it describes, in a line."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    if isinstance(error, KeyError):
        return f"no {error}"
    return "weights of another size than it describes" if isinstance(error, RuntimeError) else str(error)


def start_from(path: Path, denoiser: Denoiser) -> None:
    """Gives a denoiser the weights and the feature statistics of the file `path`.

    Weights of a causal network start a bidirectional one as well: at first it does not hear its backward direction. Those of
    bands with fewer rounds start more: at first the last ones pass on what they are given.

    Raises:
        CheckpointError: no such file, a damaged one, or weights of another model; the parameters that differ are named.
    """
    found, _ = load_checkpoint(path)
    differences = [f"audio.sample_rate={found.sample_rate}"] if found.sample_rate != denoiser.sample_rate else []
    for name, theirs, ours in (("model", found.model, denoiser.model), ("stft", found.stft, denoiser.stft)):
        bands = found.model.network == "bands"
        free = {"dropout"} if bands else {"dropout", "n_bands"}
        free |= {"bidirectional"} if denoiser.model.bidirectional else set()
        free |= {"layers"} if bands and found.model.layers < denoiser.model.layers else set()
        wanted, values = ours.model_dump(), theirs.model_dump(exclude=free)
        differences += [f"{name}.{key}={value}" for key, value in values.items() if value != wanted[key]]
    if differences:
        raise CheckpointError(
            f"{path}: train.init_from needs weights of the same model, and these have {', '.join(differences)}; "
            "set the same in params.yaml, or name other weights."
        )
    if isinstance(denoiser.network, BandNetwork):
        denoiser.network.pass_on(found.model.layers)
    weights = denoiser.state_dict()
    for name, weight in found.state_dict().items():
        # Numbers of the backward direction come after those of the forward one.
        n_more = weights[name].numel() // weight.numel() - 1
        weights[name] = torch.cat([weight, *n_more * [torch.zeros_like(weight)]], dim=-1) if n_more else weight
    denoiser.load_state_dict(weights)


@cache
def worker_denoiser(path: Path) -> Denoiser:
    """The denoiser in `path` on the CPU, read once in each process and run on one thread: its items run side by side."""
    torch.set_num_threads(1)
    return load_checkpoint(path)[0]

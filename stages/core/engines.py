"""What runs the network: PyTorch, or ONNX Runtime on an exported step."""

from functools import cache
from pathlib import Path
from typing import Literal

from stages.core.checkpoint import worker_denoiser
from stages.core.denoiser import Denoiser
from stages.core.onnx_model import OnnxDenoiser, load_onnx

Engine = Literal["torch", "onnx"]


@cache
def loaded(model: Path, engine: Engine) -> Denoiser | OnnxDenoiser:
    """The denoiser in a weights file, or in the ONNX file beside it, read once in each process and run on one thread.

    Raises:
        CheckpointError: no such weights, or damaged ones.
        OnnxError: the weights were not exported, or to a damaged file.
    """
    if engine == "torch":
        return worker_denoiser(model)
    return load_onnx(model.with_suffix(".onnx"))

"""What runs the network: ONNX Runtime, about twice as fast on a CPU, or PyTorch."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

from stages.core.checkpoint import load_checkpoint, worker_denoiser
from stages.core.denoiser import Denoiser
from stages.core.files import file_digest
from stages.core.onnx_graph import onnx_graph
from stages.core.onnx_model import OnnxDenoiser, OnnxError, load_onnx, onnx_denoiser

Engine = Literal["onnx", "torch"]


@cache
def loaded(model: Path, engine: Engine) -> Denoiser | OnnxDenoiser:
    """The denoiser in a weights file, or in an ONNX file, read once in each process and run on one thread.

    For ONNX the file that was exported beside the weights is used, if it says that it was made from these weights; otherwise
    they are exported in memory, to the same graph.

    Raises:
        CheckpointError: no such weights, or damaged ones.
        OnnxError: a damaged ONNX file, or one that PyTorch is to run.
    """
    if model.suffix.lower() == ".onnx":
        if engine == "torch":
            raise OnnxError(f"{model}: PyTorch cannot run an ONNX file; name the weights, or leave out the engine.")
        return load_onnx(model)
    if engine == "torch":
        return worker_denoiser(model)
    denoiser, _ = load_checkpoint(model)
    exported = model.with_suffix(".onnx")
    if exported.is_file():
        # One that cannot be read, or is of another program, is none of these weights.
        with suppress(OnnxError):
            found = load_onnx(exported)
            if found.weights == file_digest(model):
                return found
    return onnx_denoiser(onnx_graph(denoiser, file_digest(model)).SerializeToString(deterministic=True), model)

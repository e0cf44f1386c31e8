"""Exported denoisers: an ONNX file with a denoiser and all that is needed to use it, run by ONNX Runtime."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from jaxtyping import Complex64
from onnxruntime.capi import onnxruntime_pybind11_state as failures
from torch import Tensor

from stages.core.errors import DenoisingError
from stages.core.parameters import Stft

FORMAT = "audio-denoising-rnn/onnx-1"
Spectrum = Complex64[Tensor, "1 frames bins"]
# The arrays that go from one call to the next, in the order of the graph's inputs.
OnnxState = tuple[np.ndarray, ...]
# ONNX Runtime has no base class for what it raises about a file.
_FAILURES = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
)
# Its log goes past sys.stderr, and what it says of errors is in the exceptions too; 4 leaves what ends the process.
_LOG_FATAL = 4


class OnnxError(DenoisingError):
    """An exported file that cannot be made, or is absent, damaged or not one of this project."""


class OnnxDenoiser:
    """A denoiser in an ONNX file; to a signal's gains it is the same as the `Denoiser` that was exported."""

    def __init__(self, session: onnxruntime.InferenceSession, properties: dict[str, str]) -> None:
        """Raises KeyError or ValueError (ValidationError is one) for properties that the exporter does not write."""
        self._session = session
        self.sample_rate = int(properties["sample_rate"])
        self.stft = Stft(**{name: int(properties[name]) for name in Stft.model_fields})
        self.looks_ahead = not json.loads(properties["streaming"])
        self.weights = properties["weights"]
        shapes: dict[str, list[int]] = json.loads(properties["states"])
        self._names = list(shapes)
        self._start = tuple(np.zeros(shape, np.float32) for shape in shapes.values())

    @property
    def frames_per_second(self) -> float:
        """Frames of its spectrograms in one second."""
        return self.sample_rate / self.stft.hop_length

    def denoised(self, spectrum: Spectrum, state: OnnxState | None = None) -> tuple[Spectrum, OnnxState]:
        """The clean spectrogram estimated from the next frames of a noisy one, and the state after them."""
        parts = torch.view_as_real(spectrum.cpu().resolve_conj().contiguous()).numpy()
        feeds = dict(zip(self._names, self._start if state is None else state, strict=True))
        estimate, *after = self._session.run(None, {"noisy": parts, **feeds})
        return torch.view_as_complex(torch.from_numpy(estimate)).to(spectrum.device), tuple(after)


def load_onnx(path: Path) -> OnnxDenoiser:
    """The denoiser in a file that the export stage wrote, run on one thread of the CPU.

    Raises:
        OnnxError: no such file, a damaged one, or one that something else wrote.
    """
    if not path.is_file():
        raise OnnxError(
            f"{path}: no such ONNX file; make it with 'dvc repro export', or with 'python -m stages.export' and your weights."
        )
    return onnx_denoiser(str(path), path)


def onnx_denoiser(content: str | bytes, path: Path) -> OnnxDenoiser:
    """The denoiser in the ONNX file called `content`, or in the bytes of one; errors are those of `load_onnx`, for `path`."""
    options = onnxruntime.SessionOptions()
    # It would keep twice of what the longest window ever took.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL
    try:
        # Its fallback would print about the failure and then fail once more.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=False)
        properties: dict[str, str] = session.get_modelmeta().custom_metadata_map
    except (*_FAILURES, UnicodeDecodeError) as error:
        raise OnnxError(f"{path}: damaged or not an ONNX file ({_first_line(error)}); export it again.") from None
    found = properties.get("format")
    if found != FORMAT:
        kind = "an ONNX file of another program" if found is None else f"the format {found}"
        raise OnnxError(f"{path}: expected the format {FORMAT}, which the export stage writes, found {kind}.")
    try:
        return OnnxDenoiser(session, properties)
    except (KeyError, ValueError) as error:
        raise OnnxError(f"{path}: its description is damaged ({_first_line(error)}); export it again.") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

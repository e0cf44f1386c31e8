"""Small parameters, signals and recordings that several tests work with, and the settings of property tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hypothesis import settings

from stages.core.manifest import Recording, Split
from stages.core.parameters import Mix, Model, Stft
from stages.core.shards import packed
from stages.core.training_parameters import Train

# The networks here are so small that threads only wait for each other.
torch.set_num_threads(1)

RATE = 16000
STFT = Stft(n_fft=64, win_length=64, hop_length=32)
# Examples are drawn from the name of the test, so that a run on another day or machine draws the same ones.
law = settings(derandomize=True, deadline=None, max_examples=25)
few = settings(law, max_examples=8)


def model(**changes: Any) -> Model:
    """A network small enough for a test."""
    values = {"network": "stack", "n_bands": 4, "target": "irm", "cell": "gru", "layers": 1, "hidden": 8}
    values |= {"bidirectional": False, "dropout": 0.0, "compression": 0.3}
    return Model.model_validate(values | changes)


def train(**changes: Any) -> Train:
    """A training small enough for a test."""
    values = {"seed": 1, "init_from": "", "loss": "compressed", "n_epochs": 3, "batch_size": 4, "learning_rate": 0.01}
    values |= {"optimizer": "adamw", "precision": "auto"}
    values |= {"warmup_share": 0.1, "final_learning_rate_share": 0.02, "weight_decay": 0.0001, "clip_norm": 1.0, "patience": 5}
    values |= {"snr_weight": 0.03, "pesq_weight": 0.0, "estoi_weight": 0.0, "consistency": False, "averaging": 0.0}
    return Train.model_validate(values | {"crop_s": 0.0, "remix": remix()} | changes)


def remix(**changes: Any) -> dict[str, Any]:
    """Remixing that does nothing unless `changes` say otherwise, as params.yaml has it."""
    values = {"probability": 0.0, "snr_db": [-5, 20], "speech_only_share": 0.0, "noise_only_share": 0.0}
    return values | {"equalisation_db": 0.0} | changes


def mix(**changes: Any) -> Mix:
    """Mixtures small enough for a test, without band limits and rooms."""
    values = {"seed": 1, "n_train": 6, "n_valid": 4, "n_test": 4, "seconds": 0.5, "snr_db": [-5, 15]}
    values |= {"snr_grid_db": [-5, 0, 5], "n_noises": [1, 2], "level_dbfs": [-35, -15], "short_noise": "refuse"}
    values |= {"speech_evenly_by": "recording", "noise_evenly_by": "recording"}
    values |= {"speed": {"probability": 0.0, "factor": [0.9, 1.1]}, "clipping": {"probability": 0.0, "excess_db": [3, 15]}}
    values |= {"low_pass": {"probability": 0.0, "cutoff_hz": [2000, 4000]}}
    values |= {"reverberation": {"probability": 0.0, "rt60_s": [0.1, 0.3], "drr_db": [0, 10]}}
    return Mix.model_validate(values | changes)


def hiss(n_samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """White noise, float32, with `level` as its root mean square."""
    return (level * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def voiced(n_samples: int, sample_rate: int = RATE, pitch: float = 140.0) -> np.ndarray:
    """Harmonics up to 3 kHz that swell and fade like syllables, float32."""
    time = np.arange(n_samples) / sample_rate
    tones = sum(np.sin(2 * np.pi * pitch * n * time + n * n) / n for n in range(1, int(3000 / pitch)))
    return (0.1 * tones * (1.2 + np.sin(2 * np.pi * 4 * time))).astype(np.float32)


def spectrum(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Complex Gaussian numbers of unit mean power times `scale` squared."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.view_as_complex(torch.randn(*shape, 2, generator=generator)) / 2**0.5


def recording(name: str, split: Split = "train", group: str | None = None, **changes: Any) -> Recording:
    """A row of a manifest; two seconds at RATE unless `changes` say otherwise."""
    values = {"corpus": "specimen", "path": f"/nowhere/{name}.wav", "start": 0, "n_samples": 2 * RATE, "sample_rate": RATE}
    values |= {"group": group or name, "label": name.split("-")[0], "content": "0" * 64}
    return Recording(**{"id": name, "split": split} | values | changes)


def stored_items(items: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> list[tuple[str, np.ndarray, float]]:
    """(id, mixture, speech) as write_shard takes them."""
    return [(name, *packed(mixture, speech)) for name, mixture, speech in items]


def stored(path: Path, waveform: np.ndarray, sample_rate: int = RATE, subtype: str = "FLOAT") -> Path:
    """Writes a WAV file, its folder too, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, sample_rate, subtype, format="WAV")
    return path


def level_db(waveform: np.ndarray) -> float:
    """Root mean square in dB."""
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64))))


def snr_db(signal: np.ndarray, noise: np.ndarray) -> float:
    """Power of the one against that of the other."""
    powers = [float(np.sum(np.abs(part.astype(np.complex128)) ** 2)) for part in (signal, noise)]
    return float(10 * np.log10(powers[0] / max(powers[1], 1e-300)))

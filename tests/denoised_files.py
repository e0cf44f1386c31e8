"""What tests that denoise files work with: a small model, recordings, and how to compare what comes out."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from small_pipeline import CHECKPOINT, Ended
from specimens import RATE, model, spectrum

from stages.core.checkpoint import save_checkpoint
from stages.core.denoiser import Denoiser
from stages.core.parameters import Stft

QUALITIES = ("frames", "samplerate", "channels", "format", "subtype")
REPORT = "denoise-report.csv"


def weights(path: Path = CHECKPOINT, seed: int = 1, **changes: object) -> Path:
    """Writes a denoiser that nobody trained: its gains depend on the sound, and lie around a half."""
    torch.manual_seed(seed)
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    made = Denoiser(model(**changes), stft, RATE).eval()
    made.standardise([spectrum(2, 60, 257, seed=seed)])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, made, {"n_epochs": 0})
    return path


def recorded(path: Path, form: str = "WAV", encoding: str = "PCM_16", rate: int = 16000, channels: int = 1) -> Path:
    """A noisy recording of an odd length, another under each name."""
    random = np.random.default_rng(sum(path.name.encode(errors="surrogateescape")) + rate + channels)
    time = np.arange(rate * 6 // 10 + 7)[:, None] / rate
    waveform = 0.2 * np.sin(2 * np.pi * 220 * time) + 0.05 * random.standard_normal((len(time), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    # libsndfile takes no names that are not UTF-8 as text.
    with path.open("wb") as file:
        soundfile.write(file, waveform, rate, encoding, format=form)
    return path


def files(folder: Path) -> list[str]:
    """The names of all files below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their bytes."""
    return {name: (folder / name).read_bytes() for name in files(folder)}


def untouched(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and date of all files below a folder."""
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in files(folder)}


def assert_alike(before: Path, after: Path) -> None:
    """Both sound files have one format, sample rate, number of channels and length."""
    first, second = soundfile.info(before), soundfile.info(after)
    assert {name: getattr(first, name) for name in QUALITIES} == {name: getattr(second, name) for name in QUALITIES}
    assert len(soundfile.read(after)[0]) == first.frames


def assert_refused(ended: Ended, *parts: str, code: int = 1) -> None:
    """A mistake of the user's: the code, no traceback, and what stderr says of it."""
    assert ended.code == code
    assert "Traceback" not in ended.out + ended.err
    for part in parts:
        assert part in ended.err


def counted(ended: Ended) -> dict[str, int]:
    """How many files were denoised, kept and failed, by the table at the end."""
    words = [line.split() for line in ended.out.splitlines()]
    return {line[1].strip(",:"): int(line[0]) for line in words if len(line) > 1 and line[0].isdigit()}

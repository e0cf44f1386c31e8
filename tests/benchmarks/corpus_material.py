"""A simulated LibriSpeech and DEMAND, in official archives, and a copy of the repository that takes them for the real ones."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from ruamel.yaml import YAML

from stages.core.audio import read_audio, sound_files
from stages.core.corpora.entries import Archive, PublishedCorpus
from stages.core.corpora.names import DEMAND_OTHERS, DEMAND_TEST

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000
# LibriSpeech train-clean-100: 28,539 utterances of 251 speakers, 12.7 s on average.
N_UTTERANCES, N_SPEAKERS, MEAN_S = 28539, 251, 12.69
NAMES = {"speech": "librispeech-train-clean-100", "noise": "demand"}


def material(folder: Path, n_utterances: int) -> None:
    """Writes the archives into `folder`: speech by speakers in turn, and 18 places with 300 s of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    speech, noise = (_recordings(role) for role in ("speech", "noise"))
    utterances = [_flac(piece) for piece in _pieces(speech)]
    # Level 0: FLAC does not get smaller, and to try takes longer than all else here.
    with tarfile.open(folder / "train-clean-100.tar.gz", "w:gz", compresslevel=0) as tar:
        for number in range(n_utterances):
            speaker, count = 1000 + number % N_SPEAKERS, number // N_SPEAKERS
            info = tarfile.TarInfo(
                f"LibriSpeech/train-clean-100/{speaker}/{count // 50}/{speaker}-{count // 50}-{count:04d}.flac"
            )
            data = utterances[number % len(utterances)]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for place, name in enumerate((*DEMAND_OTHERS, *DEMAND_TEST)):
        # From another start for each, so that no two are alike.
        wave = np.resize(np.roll(noise, place * 7 * RATE), 300 * RATE)
        file = io.BytesIO()
        soundfile.write(file, wave, RATE, "PCM_16", format="WAV")
        with zipfile.ZipFile(folder / f"{name}_16k.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
            zipped.writestr(f"{name}/ch01.wav", file.getvalue())


def copied_repository(
    folder: Path, archives: Path, n_mixtures: int, root: str = "http://127.0.0.1", members: str | None = None
) -> None:
    """A copy of this repository whose catalogue has the archives in `archives` in place of the published ones.

    They are said to be at `root`, and of those with noise only `members` are asked for.
    """
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "data/own", "data/inbox"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    entries = {NAMES["speech"]: _entry("speech", "librispeech", sorted(archives.glob("*.tar.gz")), root, None)}
    entries[NAMES["noise"]] = _entry("noise", "demand", sorted(archives.glob("*.zip")), root, members)
    with (folder / "stages/core/corpora/catalogue.py").open("a", encoding="utf-8") as file:
        file.write(f"\nPUBLISHED |= {entries!r}\n")
    yaml = YAML(pure=True)
    parameters = yaml.load(folder / "params.yaml")
    parameters["corpora"] |= {role: [name] for role, name in NAMES.items()}
    parameters["mix"] |= {"n_train": n_mixtures, "n_valid": 64, "n_test": 64}
    yaml.dump(parameters, folder / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["dvc", "init", "--quiet"], cwd=folder, check=True)
    # Linked, not copied: a hundred hours of corpus, mixtures and shards twice over is more than many a disk holds.
    for setting in (("core.analytics", "false"), ("cache.type", "hardlink,copy")):
        subprocess.run(["dvc", "config", *setting], cwd=folder, check=True)


def surroundings(archives: Path) -> dict[str, str]:
    """The environment in which the copy runs: archives from a folder, and the Python that runs this."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "DENOISE_ARCHIVES": str(archives), "PATH": path, "PYTHONPATH": ""}


def _recordings(role: str) -> np.ndarray:
    """Real recordings one after another where DENOISE_TEST_AUDIO has them, else what eSpeak NG says and synthetic noise."""
    home = os.environ.get("DENOISE_TEST_AUDIO")
    if home:
        folder = Path(home) / ("speech/librispeech" if role == "speech" else "noise/open/ms-snsd")
        paths = sound_files(folder)[:200]
        return np.concatenate([read_audio(path)[0][:, 0] for path in paths])
    if role == "noise":
        from stages.core.corpora.generated import noise

        return np.concatenate([noise(kind, 1, 1, 8 * RATE) for kind in ("rain", "fan", "engine", "keyboard")])
    from stages.core.corpora import espeak
    from stages.core.corpora.sentences import sentences
    from stages.core.seeds import generator

    voice = espeak.voice_of("en-us", "Andy", generator(1, "benchmark"))
    return np.concatenate([espeak.speech(text, voice) for text in sentences("en-us")[:60]])


def _pieces(speech: np.ndarray) -> Iterator[np.ndarray]:
    """Up to 100 pieces, 4 to 16.5 s long and as long on average as LibriSpeech's."""
    random, start = np.random.default_rng(1), 0
    for _ in range(100):
        length = round(RATE * min(16.5, max(4.0, random.normal(MEAN_S + 0.4, 3.5))))
        if start + length > len(speech):
            start = 0
        yield speech[start : start + length]
        start += length


def _flac(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, "PCM_16", format="FLAC")
    return file.getvalue()


def _entry(role: str, layout: str, paths: list[Path], root: str, members: str | None) -> PublishedCorpus:
    archives = tuple(
        Archive(path.name, (f"{root}/{path.name}",), path.stat().st_size, _digest(path), "the benchmark", members)
        for path in paths
    )
    return PublishedCorpus(NAMES[role], role, "simulated", archives, "CC BY 4.0", "", "", layout)  # type: ignore[arg-type]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

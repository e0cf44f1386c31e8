"""Archives in the layouts of published corpora, made from signals or from recordings that are there, and their entries."""

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from specimens import RATE, hiss, voiced

from stages.core.corpora.entries import Archive, PublishedCorpus, Role

DEMAND = ("DKITCHEN", "NPARK", "TCAR", "TBUS", "SCAFE")
# Class, clip at Freesound, take: two takes of one clip.
ESC50 = (("dog", 100, "A"), ("dog", 100, "B"), ("rain", 101, "A"), ("crying_baby", 102, "A"), ("church_bells", 103, "A"))


def sound(waveform: np.ndarray, rate: int = RATE, form: str = "FLAC") -> bytes:
    """A sound file of 16 bits in memory."""
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, "PCM_16", format=form)
    return file.getvalue()


@cache
def utterance(number: int, rate: int = RATE, seconds: float = 1.5) -> np.ndarray:
    """A recording of speech where there are some, else a sound with harmonics."""
    folder = Path(os.environ.get("DENOISE_TEST_AUDIO", "/nonexistent")) / "speech/librispeech"
    found = sorted(folder.rglob("*.flac"))[number::7] if folder.is_dir() else []
    if found and rate == RATE:
        return soundfile.read(found[0], dtype="float32")[0][: round(seconds * rate)]
    return voiced(round(seconds * rate), rate, 100.0 + 11 * number)


def librispeech(subset: str, speakers: tuple[int, ...] = (103, 1034, 27), n_utterances: int = 2) -> dict[str, bytes]:
    """LibriSpeech/SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac, and the texts beside."""
    members = {"LibriSpeech/SPEAKERS.TXT": b"; no audio\n"}
    for place, speaker in enumerate(speakers):
        folder = f"LibriSpeech/{subset}/{speaker}/1240"
        members[f"{folder}/{speaker}-1240.trans.txt"] = b"NO AUDIO\n"
        for number in range(n_utterances):
            members[f"{folder}/{speaker}-1240-{number:04d}.flac"] = sound(utterance(5 * place + number))
    return members


def demand(place: str, rate: int = RATE, seconds: float = 2.5) -> dict[str, bytes]:
    """PLACE/ch01.wav … of an environment."""
    channels = (hiss(round(seconds * rate), sum(map(ord, place)) + channel) for channel in range(3))
    return {f"{place}/ch{number:02d}.wav": sound(wave, rate, "WAV") for number, wave in enumerate(channels, 1)}


def esc50() -> dict[str, bytes]:
    """The zip of the repository at one commit: audio/FOLD-CLIP-TAKE-TARGET.wav and meta/esc50.csv."""
    root, lines, members = "ESC-50-33c8ce9eb2cf", ["filename,fold,target,category,esc10,src_file,take"], {}
    for place, (category, clip, take) in enumerate(ESC50):
        name = f"1-{clip}-{take}-{place}.wav"
        lines.append(f"{name},1,{place},{category},False,{clip},{take}")
        members[f"{root}/audio/{name}"] = sound(hiss(round(2.5 * 44100), place), 44100, "WAV")
    return {f"{root}/README.md": b"no audio", f"{root}/meta/esc50.csv": "\n".join(lines).encode(), **members}


def voicebank(side: str, *, test: bool = True, n_utterances: int = 2) -> dict[str, bytes]:
    """SIDE_SET_wav/SPEAKER_NUMBER.wav at 48 kHz."""
    speakers = ("p232", "p257") if test else ("p226", "p287")
    folder = f"{side}_{'testset' if test else 'trainset_28spk'}_wav"
    members = {}
    for place, speaker in enumerate(speakers):
        for number in range(n_utterances):
            wave = utterance(3 * place + number, 48000, 1.0)
            wave = wave + (0 if side == "clean" else hiss(len(wave), number, 0.03))
            members[f"{folder}/{speaker}_{number + 1:03d}.wav"] = sound(wave.astype(np.float32), 48000, "WAV")
    return members


def musan() -> dict[str, bytes]:
    """musan/noise/SOURCE/NAME.wav, beside music and speech."""
    wave = sound(hiss(3 * RATE), RATE, "WAV")
    names = ("noise/free-sound/noise-free-sound-0000", "noise/sound-bible/noise-sound-bible-0001", "music/fma/music-fma-0000")
    return {f"musan/{name}.wav": wave for name in names} | {"musan/README": b"no audio"}


def rirs() -> dict[str, bytes]:
    """Simulated and recorded room responses, beside noises."""
    response = np.zeros((RATE // 4, 2), np.float32)
    response[100] = 0.5
    response[1500] = 0.25
    mono, stereo = sound(response[:, 0], RATE, "WAV"), sound(response, RATE, "WAV")
    real = "RIRS_NOISES/real_rirs_isotropic_noises"
    return {
        "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav": mono,
        "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00002.wav": mono,
        f"{real}/RVB2014_type1_rir_largeroom1_far_angla.wav": stereo,
        f"{real}/RVB2014_type1_noise_largeroom1_1.wav": stereo,
        "RIRS_NOISES/pointsource_noises/noise-free-sound-0000.wav": mono,
        f"{real}/rir_list": b"no audio",
    }


def packed(name: str, members: Mapping[str, bytes]) -> bytes:
    """An archive of members; what kind is said by its name."""
    file = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for member, data in members.items():
                zipped.writestr(member, data)
    else:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return gzip.compress(file.getvalue(), 1, mtime=0) if name.endswith("gz") else file.getvalue()


def entry(name: str, role: Role, layout: str, archives: tuple[Archive, ...]) -> PublishedCorpus:
    """An entry of the catalogue."""
    page = "http://127.0.0.1/"
    return PublishedCorpus(name, role, f"{name} of the tests", archives, "CC0", page, page, layout)


def archive(name: str, body: bytes, address: str, members: str | None = None) -> Archive:
    """An archive with its true size and checksum."""
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return Archive(name, (address,), len(body), checksum, "the test", members)

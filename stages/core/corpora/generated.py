"""Synthetic noise as a corpus: eleven kinds, made on the spot, every recording unlike the others of its kind."""

from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32
from scipy import signal

from stages.core.audio import resampled
from stages.core.corpora import espeak
from stages.core.corpora.noises import NOISES, SAMPLE_RATE, Waveform
from stages.core.corpora.sentences import sentences
from stages.core.corpora.shares import dealt
from stages.core.files import file_digest, written
from stages.core.manifest import Recording
from stages.core.parameters import Generated, NoiseKind
from stages.core.runtime import parallel
from stages.core.seeds import generator

LICENCE = (
    "The noise is made by this project and free to use; eSpeak NG, the program that speaks for the babble, is under "
    "GPL-3.0-or-later."
)
LEVEL_DBFS = -26.0  # root mean square of every recording, or what the peak allows
PEAK = 0.5  # highest sample, so that impulsive noise keeps room for gain

# Of eSpeak NG, those that no speaker of the speech corpus has, so that babble is never one of the voices to be kept.
_BABBLERS = ("steph2", "steph3", "aunty", "Nguyen", "mike2", "klatt5", "Mike", "Andy", "grandpa", "klatt3")
_LANGUAGES = ("en-us", "en-gb", "de", "fr", "es", "it", "pl", "tr")


def obtain(folder: Path, settings: Generated, n_jobs: int) -> list[Recording]:
    """Makes one WAV file (PCM_16, mono, 16 kHz) for each kind, with all its recordings, in the existing `folder`.

    Every recording is at LEVEL_DBFS without offset, impulsive ones lower where their peak would pass PEAK. Returns a
    row for each, the paths relative to the parent of `folder`. Every kind is in every split. More kinds or recordings
    change no other, and no result hangs on `n_jobs`.

    Raises:
        EspeakError: eSpeak NG, which speaks for the babble, cannot be loaded.
    """
    make = partial(_recorded, folder, settings)
    # Babble takes longest and so goes first.
    kinds = sorted(settings.kinds, key=lambda kind: kind != "babble")
    rows = parallel(make, kinds, n_jobs=n_jobs, description="synthetic noise")
    return [row for of_kind in rows for row in of_kind]


def noise(kind: NoiseKind, seed: int, number: int, n_samples: int) -> Float32[np.ndarray, " samples"]:
    """Recording `number` of a kind: `n_samples` samples at 16 kHz, without offset, full scale 1.0, never above PEAK."""
    random = generator(seed, "generated", kind, number)
    wave = babble(random, n_samples) if kind == "babble" else NOISES[kind](random, n_samples)
    wave = wave - wave.mean()
    gain = min(10 ** (LEVEL_DBFS / 20) / float(np.sqrt(np.mean(wave**2))), PEAK / float(np.abs(wave).max()))
    return np.asarray(gain * wave, dtype=np.float32)


def babble(random: np.random.Generator, n_samples: int) -> Waveform:
    """Four to eight voices at 16 kHz that talk at once, some nearer than others; the level is left free.

    Raises:
        EspeakError: eSpeak NG cannot be loaded.
    """
    variants = random.permutation(_BABBLERS)[: random.integers(4, 9)]
    language = str(random.choice(_LANGUAGES))
    total = np.zeros(n_samples)
    for variant in variants:
        voice = espeak.voice_of(language, str(variant), random)
        total += 10 ** (random.uniform(-6, 0) / 20) * _monologue(voice, random, n_samples)
    # The further away the crowd, the duller it is.
    distance = signal.butter(1, random.uniform(1000, 6000), fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(distance, total))


def _monologue(voice: espeak.Voice, random: np.random.Generator, n_samples: int) -> Waveform:
    """One voice at unit level that reads sentence after sentence and is in the midst of one at the start."""
    texts = sentences(voice.language)
    skipped = int(random.integers(0, SAMPLE_RATE))
    said: list[Float32[np.ndarray, " part"]] = []
    while sum(map(len, said)) < skipped + n_samples:
        spoken = espeak.speech(texts[random.integers(len(texts))], voice)
        said.append(resampled(spoken, espeak.SAMPLE_RATE, SAMPLE_RATE))
    wave = np.concatenate(said)[skipped : skipped + n_samples].astype(np.float64)
    return wave / float(np.sqrt(np.mean(wave**2)))


def _recorded(folder: Path, settings: Generated, kind: NoiseKind) -> list[Recording]:
    path = folder / f"{kind}.wav"
    n_samples = round(settings.seconds * SAMPLE_RATE)
    with written(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for number in range(1, settings.n_recordings + 1):
            file.write(noise(kind, settings.seed, number, n_samples))
    content = file_digest(path)
    splits = dealt(settings.n_recordings, settings.valid_share, settings.test_share)
    return [
        Recording(
            id=f"generated/{kind}/{index + 1:03d}",
            corpus="generated",
            path=f"{folder.name}/{path.name}",
            start=index * n_samples,
            n_samples=n_samples,
            sample_rate=SAMPLE_RATE,
            group=f"generated/{kind}/{index + 1:03d}",
            label=kind,
            split=split,
            content=content,
        )
        for index, split in enumerate(splits)
    ]

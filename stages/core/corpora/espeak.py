"""Speech by eSpeak NG: as many speakers and sentences as wanted, made on the spot, with nothing to fetch.

The library is driven through ctypes. Its voices are plainly synthetic: they serve a first run, tests and teaching.
"""

import _ctypes  # ctypes has no public way to unload a library
import ctypes
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
from jaxtyping import Float32

from stages.core.corpora.sentences import sentences
from stages.core.corpora.shares import dealt
from stages.core.errors import DenoisingError
from stages.core.files import file_digest, written
from stages.core.manifest import Recording, Split
from stages.core.parameters import Espeak
from stages.core.runtime import parallel
from stages.core.seeds import generator

LICENCE = (
    "The speech and its texts are made by this project and free to use; eSpeak NG, the program that speaks them, is "
    "under GPL-3.0-or-later."
)
SAMPLE_RATE = 22050  # Hz; what eSpeak NG puts out, kept as it is
LEVEL_DBFS = -26.0  # root mean square of every utterance; the usual active speech level of ITU-T P.56 material

# Of the variants of eSpeak NG 1.52, those that sound like speech: no whisper, robot, chipmunk, cave or demon, and none
# that moves a formant to where its neighbour is. Variants made from one another (f1 and f4, or Diogo, Henrique and
# michel) stand in the same split, so that no voice of the test is a slight change of one in training.
# Women first, then men. Never Reed, whose breath comes from the C library's rand(), which nothing here seeds.
# fmt: off
VARIANTS: dict[Split, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": (
        ("f1", "f2", "f4", "f5", "belinda", "linda", "Andrea", "steph"),
        (
            "m1", "m3", "m4", "m6", "m8", "max", "klatt4", "klatt6", "adam", "benjamin", "edward2", "david", "Diogo",
            "Henrique", "miguel", "michel", "iven3", "iven4", "Gene", "Mario", "rob", "robert", "quincy", "norbert",
        ),
    ),
    "valid": (("Annie", "shelby", "anika"), ("m7", "paul", "Alex", "antonio", "pedro")),
    "test": (("f3", "Alicia", "grandma"), ("m2", "m5", "Storm", "john", "sandro", "victor")),
}
# fmt: on
ENGLISH = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-029", "en-us-nyc")
OTHERS = ("de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "fi", "fr-be", "es-419", "pt-br", "fr-ch")

# eSpeak NG clips its loudest variants by itself at its usual volume of 100.
_VOLUME = 30
_RATE, _VOLUME_KEY, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: to the callback, on this thread; RETRIEVAL would use a thread of its own
_DONT_EXIT = 0x8000  # without it the library ends the process when its data are missing
_UTF8 = 1
_TRIM_DB = -60.0  # below the peak of an utterance, what comes before and after counts as silence
_KEPT_SILENCE = SAMPLE_RATE // 50  # samples of silence left at either end
_PEAK = 0.99

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class EspeakError(DenoisingError):
    """eSpeak NG that cannot be loaded, or a voice that it lacks."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How eSpeak NG speaks: a language code, a variant, pitch and its range (0 to 100, 50 as designed), speed."""

    language: str
    variant: str
    pitch: int
    pitch_range: int
    words_per_minute: int


@dataclass(frozen=True, slots=True)
class Speaker:
    """One speaker of the corpus, called for instance 'speaker-001'."""

    name: str
    voice: Voice
    split: Split


def obtain(folder: Path, settings: Espeak, n_jobs: int) -> list[Recording]:
    """Makes one WAV file (PCM_16, mono, SAMPLE_RATE Hz) for each speaker in the existing `folder`.

    Every utterance is at LEVEL_DBFS. Returns a row for each utterance, the paths relative to the parent of `folder`.
    More speakers or utterances change no other, and no result hangs on `n_jobs`.

    Raises:
        EspeakError: eSpeak NG cannot be loaded, or lacks a voice.
    """
    work = speakers(settings)
    make = partial(_recorded, folder, settings.seed, settings.n_utterances)
    rows = parallel(make, work, n_jobs=n_jobs, description="speech by eSpeak NG")
    return [row for of_speaker in rows for row in of_speaker]


def speakers(settings: Espeak) -> list[Speaker]:
    """The speakers that `settings` ask for, no two with the same voice and no variant in two splits.

    In each split women and men, and English and other languages, alternate; variants and languages are used evenly.
    """
    uses: Counter[tuple[str, ...]] = Counter()
    places: Counter[Split] = Counter()
    taken: set[Voice] = set()
    found = []
    splits = dealt(settings.n_speakers, settings.valid_share, settings.test_share)
    for number, split in enumerate(splits, start=1):
        name = f"speaker-{number:03d}"
        random = generator(settings.seed, "espeak", name)
        place = places[split] % 4  # English woman, other man, other woman, English man
        languages = ENGLISH if place in (0, 3) else OTHERS
        variant = _least(VARIANTS[split][place % 2], [(split,)], uses, random)
        language = _least(languages, [(split, variant), (split,), ()], uses, random)
        voice = voice_of(language, variant, random)
        while voice in taken:
            voice = voice_of(language, variant, random)
        taken.add(voice)
        places[split] += 1
        uses.update([(split, variant), (split, variant, language), (split, language), (language,)])
        found.append(Speaker(name, voice, split))
    return found


def voice_of(language: str, variant: str, random: np.random.Generator) -> Voice:
    """A voice of this language and variant whose pitch, range and speed are drawn from `random`."""
    return Voice(
        language=language,
        variant=variant,
        pitch=int(random.integers(35, 66)),
        pitch_range=int(random.integers(35, 71)),
        words_per_minute=int(random.integers(120, 166)),
    )


def speech(text: str, voice: Voice) -> Float32[np.ndarray, " samples"]:
    """`text` spoken by `voice` at SAMPLE_RATE Hz, with at most 50 ms of silence at either end; full scale is 1.0.

    The same text and voice give the same samples at all times. Not to be called from two threads at once.

    Raises:
        EspeakError: eSpeak NG cannot be loaded, lacks the voice, or says nothing.
    """
    _check_variant(voice.variant)
    with _loaded() as library:
        waveform = _spoken(library, text, voice)
    return _trimmed(waveform, text)


def levelled(waveform: Float32[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """A waveform that is not silent, scaled to LEVEL_DBFS, or lower where its peak would pass 0.99."""
    level = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    gain = min(10 ** (LEVEL_DBFS / 20) / level, _PEAK / float(np.max(np.abs(waveform))))
    return waveform * np.float32(gain)


def _least(
    options: Sequence[str], contexts: list[tuple[str, ...]], uses: Counter[tuple[str, ...]], random: np.random.Generator
) -> str:
    """The option used least in the first context, among equals in the second …; lots are drawn between the rest."""
    shuffled: list[str] = [options[index] for index in random.permutation(len(options))]
    return min(shuffled, key=lambda option: [uses[(*context, option)] for context in contexts])


def _recorded(folder: Path, seed: int, n_utterances: int, speaker: Speaker) -> list[Recording]:
    path = folder / f"{speaker.name}.wav"
    texts = sentences(speaker.voice.language)
    order = generator(seed, "espeak", speaker.name, "sentences").permutation(len(texts))
    bounds = [0]
    with written(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for index in range(n_utterances):
            waveform = levelled(speech(texts[order[index % len(texts)]], speaker.voice))
            file.write(waveform)
            bounds.append(bounds[-1] + len(waveform))
    content = file_digest(path)
    return [
        Recording(
            id=f"espeak/{speaker.name}/{index + 1:03d}",
            corpus="espeak",
            path=f"{folder.name}/{path.name}",
            start=bounds[index],
            n_samples=bounds[index + 1] - bounds[index],
            sample_rate=SAMPLE_RATE,
            group=f"espeak/{speaker.name}",
            label=speaker.voice.language,
            split=speaker.split,
            content=content,
        )
        for index in range(n_utterances)
    ]


@contextmanager
def _loaded() -> Iterator[ctypes.CDLL]:
    """The library as if the process had just started.

    What it said before colours what it says next: phases and flutter of the voice are kept in variables that neither
    espeak_Terminate nor espeak_Initialize resets. So it is loaded anew for each utterance, which takes 3 ms.
    """
    path = espeakng_loader.get_library_path()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise EspeakError(f"eSpeak NG cannot be loaded from {path}: {error}. Reinstall espeakng-loader.") from None
    try:
        # The rate is set by the first espeak_Initialize, so it tells whether the library was really loaded anew.
        if library.espeak_ng_GetSampleRate() != 0:
            raise EspeakError(f"{path} is in use elsewhere in this process, which would change what it says. End that use.")
        data = espeakng_loader.get_data_path()
        if library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT) != SAMPLE_RATE:
            raise EspeakError(f"eSpeak NG cannot use its data in {data}: reinstall espeakng-loader, in a shorter path.")
        yield library
        library.espeak_Terminate()
    finally:
        _unload(library)


def _unload(library: ctypes.CDLL) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _check_variant(variant: str) -> None:
    # eSpeak NG speaks with its plain voice, without a word, when it lacks a variant.
    path = Path(espeakng_loader.get_data_path()) / "voices" / "!v" / variant
    if not path.is_file():
        raise EspeakError(f"eSpeak NG lacks the variant '{variant}': expected {path}. Reinstall espeakng-loader.")


def _spoken(library: ctypes.CDLL, text: str, voice: Voice) -> Float32[np.ndarray, " samples"]:
    said = bytearray()

    def heard(samples: int | None, n_samples: int, _events: int | None) -> int:
        if samples and n_samples > 0:
            said.extend(ctypes.string_at(samples, 2 * n_samples))
        return 0

    callback = _Callback(heard)
    library.espeak_SetSynthCallback(callback)
    # Breath is noise, and Initialize seeds it by the clock.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    language = "en" if voice.language == "en-gb" else voice.language  # the only file that is not called by its code
    if library.espeak_SetVoiceByName(f"{language}+{voice.variant}".encode()) != 0:
        raise EspeakError(f"eSpeak NG lacks the language '{voice.language}': name a file below its lang folder.")
    settings = (voice.words_per_minute, _VOLUME, voice.pitch, voice.pitch_range)
    for key, value in zip((_RATE, _VOLUME_KEY, _PITCH, _RANGE), settings, strict=True):
        library.espeak_SetParameter(key, value, 0)
    data = text.encode() + b"\0"
    status = library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
    if status != 0:
        raise EspeakError(f"eSpeak NG cannot speak '{text}' with the voice {voice} (status {status}).")
    return (np.frombuffer(said, dtype=np.int16) / np.float32(32768)).astype(np.float32)


def _trimmed(waveform: Float32[np.ndarray, " samples"], text: str) -> Float32[np.ndarray, " trimmed"]:
    peak = float(np.max(np.abs(waveform), initial=0.0))
    if peak == 0:
        raise EspeakError(f"eSpeak NG says nothing for the text '{text}'.")
    (loud,) = np.nonzero(np.abs(waveform) > peak * 10 ** (_TRIM_DB / 20))
    return waveform[max(loud[0] - _KEPT_SILENCE, 0) : loud[-1] + 1 + _KEPT_SILENCE]

"""The plan of mixtures: who meets which noise at which SNR and level, decided in one cheap, seeded, serial pass."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TextIO

import numpy as np

from stages.core.errors import DenoisingError
from stages.core.manifest import SPLITS, Recording, Split
from stages.core.parameters import Mix
from stages.core.pools import Pool
from stages.core.seeds import generator

# What is so of most mixtures, and not written down for each.
_USUAL: dict[str, object] = {"within": None, "response": None, "speed": 1.0, "clipping_db": 0.0}


class PlanError(DenoisingError):
    """Corpora from which the mixtures that were asked for cannot be made."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording: `n_samples` samples of the file `path` from `start`, at the file's own `sample_rate` (Hz).

    The recording occupies `whole` = (first sample, samples) of its file. A stretch that reaches beyond the end of the
    recording goes on at its beginning. `gain_db` is relative to the other segments of the same mixture. `within` are the
    first byte and the number of bytes of the recording where `path` is a bundle.
    """

    id: str
    path: str
    sample_rate: int
    whole: tuple[int, int]
    start: int
    n_samples: int
    gain_db: float
    within: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Reverberation:
    """A room: recorded, as its response; else synthetic, as reverberation time, direct-to-reverberant ratio and a seed."""

    rt60_s: float
    drr_db: float
    seed: int
    response: Segment | None = None


@dataclass(frozen=True, slots=True)
class Mixture:
    """One mixture of the plan; rendering is a pure function of this row and of the files that it names.

    Its speech is played `speed` times as fast. What is above its highest peak less `clipping_db` is cut off the mixture.
    """

    id: str
    split: Split
    speaker: str
    language: str
    noise: str
    n_samples: int
    snr_db: float
    level_dbfs: float
    speech: tuple[Segment, ...]
    noises: tuple[Segment, ...]
    low_pass_hz: float | None
    reverberation: Reverberation | None
    speed: float = 1.0
    clipping_db: float = 0.0


def planned(
    speech: Sequence[Recording],
    noise: Sequence[Recording],
    settings: Mix,
    sample_rate: int,
    rooms: Sequence[Recording] = (),
) -> Iterator[Mixture]:
    """All mixtures, train before valid before test, `settings.seconds` long at `sample_rate` Hz, one after the other.

    Each is drawn by a generator of its own, so more mixtures leave the earlier ones as they are. SNRs are drawn evenly from
    a range in training and taken in turn from a grid in validation and test. Rooms are synthetic unless there are responses.
    What is wrong is found before the first mixture comes.

    Raises:
        PlanError: a split has no speech or no noise, or a noise is too short and may not be repeated.
    """
    _check_lengths(noise, settings)
    for split in SPLITS:
        for what, found in (("speech", speech), ("noise", noise)):
            if not any(recording.split == split for recording in found):
                raise PlanError(
                    f"The {split} split has no {what}: the {what} corpora need more speakers or sources, or other shares."
                )
    return _mixtures(speech, noise, settings, sample_rate, [room for room in rooms if room.split == "train"])


def recorded(mixtures: Iterable[Mixture], file: TextIO) -> Iterator[Mixture]:
    """The mixtures as they come; each is also written to `file` as a JSON object in one line.

    What most have not is left out where it is not: a place in a bundle, the response of a room, a speed of its own, clipping.
    """
    told = json.JSONEncoder(default=_told, allow_nan=False).encode
    for mixture in mixtures:
        file.write(told(mixture) + "\n")
        yield mixture


def _told(part: Mixture | Segment | Reverberation) -> dict[str, object]:
    # Not asdict, which copies every value and took longer than all choices.
    values = ((name, getattr(part, name)) for name in part.__slots__)
    return {name: value for name, value in values if name not in _USUAL or value != _USUAL[name]}


def _mixtures(
    speech: Sequence[Recording], noise: Sequence[Recording], settings: Mix, sample_rate: int, rooms: Sequence[Recording]
) -> Iterator[Mixture]:
    counts = {"train": settings.n_train, "valid": settings.n_valid, "test": settings.n_test}
    for split in SPLITS:
        utterances, noises = (
            Pool.of([recording for recording in found if recording.split == split], evenly_by)
            for found, evenly_by in ((speech, settings.speech_evenly_by), (noise, settings.noise_evenly_by))
        )
        # A label that one of its recordings stands for is heard in all of the mixture.
        alike = defaultdict(list)
        for utterance in utterances.recordings:
            alike[utterance.group, utterance.label].append(utterance)
        for index in range(counts[split]):
            yield _mixture(split, index, utterances, noises, alike, settings, sample_rate, rooms)


def _mixture(
    split: Split,
    index: int,
    utterances: Pool,
    noises: Pool,
    alike: dict[tuple[str, str], list[Recording]],
    settings: Mix,
    sample_rate: int,
    rooms: Sequence[Recording],
) -> Mixture:
    random = generator(settings.seed, "mix", split, index)
    n_samples = round(settings.seconds * sample_rate)
    utterance = utterances.one(random)
    chosen = noises.drawn(random, int(random.integers(settings.n_noises[0], settings.n_noises[1] + 1)))
    grid = settings.snr_grid_db
    snr_db = _within(random, settings.snr_db) if split == "train" else grid[index % len(grid)]
    speed, clipping_db = 1.0, 0.0
    if split == "train":
        speed = _effect(settings, "speed", index, settings.speed.probability, settings.speed.factor) or 1.0
        clipping_db = _effect(settings, "clipping", index, settings.clipping.probability, settings.clipping.excess_db) or 0.0
    return Mixture(
        id=f"{split}-{index:06d}",
        split=split,
        speaker=utterance.group,
        language=utterance.label,
        noise="+".join(sorted({recording.label for recording in chosen})),
        n_samples=n_samples,
        snr_db=snr_db,
        level_dbfs=_within(random, settings.level_dbfs),
        speech=_speech(random, utterance, alike[utterance.group, utterance.label], settings.seconds * speed),
        noises=tuple(_stretch(random, recording, settings.seconds, _within(random, (-5, 5))) for recording in chosen),
        low_pass_hz=_low_pass(random, settings) if split == "train" else None,
        reverberation=_reverberation(random, settings, rooms) if split == "train" else None,
        speed=speed,
        clipping_db=clipping_db,
    )


def _speech(random: np.random.Generator, first: Recording, alike: Sequence[Recording], seconds: float) -> tuple[Segment, ...]:
    """Utterances of one speaker and label until `seconds` are filled; a longer one is cut at a random place."""
    order = random.permutation(len(alike) - 1)
    segments, remaining = [], seconds
    for recording in _turns(first, alike, order):
        length = min(remaining, recording.n_samples / recording.sample_rate)
        if round(length * recording.sample_rate) == 0:  # less than half a sample is left
            break
        segments.append(_stretch(random, recording, length, 0.0))
        remaining -= length
        if remaining <= 1e-6:
            break
    return tuple(segments)


def _turns(first: Recording, alike: Sequence[Recording], order: np.ndarray) -> Iterator[Recording]:
    """One utterance, the others in the order given, and all over again; most mixtures take no more than the first."""
    yield first
    others = [recording for recording in alike if recording.id != first.id]
    yield from cycle([*(others[place] for place in order), first])


def _stretch(random: np.random.Generator, recording: Recording, seconds: float, gain_db: float) -> Segment:
    n_samples = round(seconds * recording.sample_rate)
    last = recording.n_samples - n_samples
    start = int(random.integers(last + 1)) if last >= 0 else int(random.integers(recording.n_samples))
    return Segment(
        id=recording.id,
        path=recording.path,
        sample_rate=recording.sample_rate,
        whole=(recording.start, recording.n_samples),
        start=start,
        n_samples=n_samples,
        gain_db=gain_db,
        within=recording.within,
    )


def _low_pass(random: np.random.Generator, settings: Mix) -> float | None:
    hit, cutoff_hz = random.random() < settings.low_pass.probability, _within(random, settings.low_pass.cutoff_hz)
    return cutoff_hz if hit else None


def _reverberation(random: np.random.Generator, settings: Mix, rooms: Sequence[Recording]) -> Reverberation | None:
    if settings.reverberation.probability == 0:
        return None
    hit = random.random() < settings.reverberation.probability
    rt60_s, drr_db = _within(random, settings.reverberation.rt60_s), _within(random, settings.reverberation.drr_db)
    seed = int(random.integers(2**31))
    if not hit:
        return None
    response = None
    if rooms:
        chosen = rooms[int(random.integers(len(rooms)))]
        response = _stretch(random, chosen, chosen.n_samples / chosen.sample_rate, 0.0)
    return Reverberation(rt60_s, drr_db, seed, response)


def _effect(settings: Mix, name: str, index: int, probability: float, ends: Sequence[float]) -> float | None:
    """How strong an effect is on a training mixture; drawn beside all else, so that mixtures without it stay as they are."""
    if probability == 0:
        return None
    random = generator(settings.seed, name, index)
    return _within(random, ends) if random.random() < probability else None


def _within(random: np.random.Generator, ends: Sequence[float]) -> float:
    """A number drawn evenly between two ends, rounded so that the plan reads well."""
    # What uniform() draws, in a third of its time.
    return round(ends[0] + (ends[1] - ends[0]) * random.random(), 6)


def _check_lengths(noise: Sequence[Recording], settings: Mix) -> None:
    short = [recording for recording in noise if recording.n_samples < settings.seconds * recording.sample_rate - 1]
    if short and settings.short_noise == "refuse":
        first = min(short, key=lambda recording: recording.n_samples / recording.sample_rate)
        raise PlanError(
            f"{len(short)} of {len(noise)} noise recordings are shorter than the mixtures (mix.seconds = "
            f"{settings.seconds:g}); the shortest, {first.id}, lasts {first.n_samples / first.sample_rate:.2f} s. "
            "Set mix.short_noise=repeat to loop them, or lower mix.seconds."
        )

"""From one row of the plan to waveforms: the mixture and the speech in it."""

import math
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stages.core.audio import AudioError, energy, resampled
from stages.core.bundles import read_clip
from stages.core.errors import DenoisingError
from stages.core.plan import Mixture, Reverberation, Segment

Waveform = Float32[np.ndarray, "samples"]
# Peaks stay below this; the rest of full scale is left to resampling and to lossy encoders.
_PEAK = 0.98
# In place of nothing, where speech and noise cancel each other (then their peaks decide) or one of several noises is cut away.
_NO_POWER = 1e-30
# A stretch below this power, -80 dBFS, is a pause: an SNR against it would blow rounding noise up to the level of speech.
_PAUSE = 1e-8
# Whole recordings that are not above -100 dBFS hold nothing.
_SILENCE = 1e-10
# Mixtures name few files again and again, and to take a name apart is slow.
_path = lru_cache(maxsize=1024)(Path)


class RenderingError(DenoisingError):
    """A mixture that cannot be made from the files that the plan names."""


class Sound:
    """A waveform and, once it is asked for, its energy, which takes as long to find as a good part of decoding."""

    def __init__(self, waveform: Waveform) -> None:
        self.waveform = waveform

    @cached_property
    def energy(self) -> float:
        """The sum of the squares of all samples."""
        return energy(self.waveform)

    @cached_property
    def peak(self) -> float:
        """The largest absolute value of a sample."""
        return max(float(self.waveform.max()), -float(self.waveform.min()))

    def is_above(self, power: float) -> bool:
        """Whether the mean of the squares is higher, and a number."""
        return power < self.energy / max(1, self.waveform.size) < math.inf


def rendered(mixture: Mixture, sample_rate: int, full_scale: float = 1.0) -> tuple[Waveform, Waveform]:
    """The mixture and its speech, (samples,) each at `sample_rate` Hz, both with the same gain; peaks are below `full_scale`.

    The noise is scaled so that 10·log10(Σ speech² / Σ noise²) over the whole mixture is exactly `mixture.snr_db`. The
    level of the mixture is `mixture.level_dbfs` unless that would clip: then both are lower by the same gain.
    The reference of a reverberated mixture is the reverberated speech: removing noise is asked for, not removing rooms.
    """
    parts = [_segment(part, sample_rate, mixture.speed) for part in mixture.speech]
    joined = Sound(np.concatenate([part.waveform for part in parts])) if len(parts) > 1 else parts[0]
    speech = _fitted(joined, mixture.n_samples)
    noise = _noise(mixture, sample_rate)
    if mixture.reverberation:
        speech = Sound(_reverberated(speech.waveform, mixture.reverberation, sample_rate))
    if mixture.low_pass_hz and mixture.low_pass_hz < sample_rate / 2:
        speech, noise = (Sound(_low_passed(part.waveform, mixture.low_pass_hz, sample_rate)) for part in (speech, noise))
    return _mixed(speech, noise, mixture, full_scale)


def clipped(noisy: np.ndarray, excess_db: float) -> np.ndarray:
    """A mixture of 16-bit samples without what is above its highest peak less `excess_db`, as a level set too high cuts it."""
    if excess_db == 0:
        return noisy
    highest = max(1, int(10 ** (-excess_db / 20) * max(int(noisy.max()), -int(noisy.min()))))
    return noisy.clip(-highest, highest)


def _noise(mixture: Mixture, sample_rate: int) -> Sound:
    """All noises of a mixture, which stand to each other as their gains, at the level that the first has in its file."""
    sounds = [_fitted(_segment(segment, sample_rate), mixture.n_samples) for segment in mixture.noises]
    if len(sounds) == 1:
        return sounds[0]
    parts = zip(sounds, mixture.noises, strict=True)
    shares = [10 ** (segment.gain_db / 20) / math.sqrt(max(sound.energy, _NO_POWER)) for sound, segment in parts]
    total = sounds[0].waveform
    for sound, share in zip(sounds[1:], shares[1:], strict=True):
        sound.waveform *= np.float32(share / shares[0])
        total += sound.waveform
    return Sound(total)


def _mixed(speech: Sound, noise: Sound, mixture: Mixture, full_scale: float) -> tuple[Waveform, Waveform]:
    """The sum of both at the SNR and the level that are asked for, and the speech in it; their waveforms are used up.

    The level of the sum is known from its parts, so that they are scaled and added just once.
    """
    if not (0 < speech.energy < math.inf and 0 < noise.energy < math.inf):
        raise RenderingError(
            f"{mixture.id}: nothing is left of its speech or its noise, or they are far beyond full scale; "
            "set another mix.seed or mix.low_pass, or look at its recordings in the plan."
        )
    share = math.sqrt(speech.energy / noise.energy) * 10 ** (-mixture.snr_db / 20)
    apart = speech.energy + share**2 * noise.energy
    power = apart + 2 * share * float(np.dot(speech.waveform, noise.waveform))
    rms = 10 ** (mixture.level_dbfs / 20) * math.sqrt(mixture.n_samples)
    gain = rms / math.sqrt(max(power, _NO_POWER))
    if power < apart / 100 or gain * (speech.peak + share * noise.peak) > _PEAK:
        # They nearly cancel each other, or are perhaps too loud: the peaks need not meet.
        noisy = Sound(speech.waveform + noise.waveform * np.float32(share))
        gain = min(rms / math.sqrt(max(noisy.energy, _NO_POWER)), _PEAK / max(noisy.peak, speech.peak))
    speech.waveform *= np.float32(full_scale * gain)
    noise.waveform *= np.float32(full_scale * gain * share)
    noise.waveform += speech.waveform
    return noise.waveform, speech.waveform


def _segment(segment: Segment, sample_rate: int, speed: float = 1.0) -> Sound:
    """A stretch of a file's first channel, resampled; a stretch without sound moves to where the recording is loudest.

    Played `speed` times as fast, it is that much shorter and higher.
    """
    first, length = segment.whole
    if segment.start + segment.n_samples <= length:
        sound = Sound(_first_channel(segment, first + segment.start, segment.n_samples, check=False))
        if sound.is_above(_PAUSE):
            return _at(sample_rate, sound, segment.sample_rate * speed)
    whole = _first_channel(segment, first, length)
    places = (segment.start + np.arange(segment.n_samples)) % length
    sound = Sound(whole[places])
    if not sound.is_above(_PAUSE):
        loudest = int(np.argmax(np.abs(whole)))
        sound = Sound(whole[(places - segment.start + loudest - segment.n_samples // 2) % length])
    if not sound.is_above(_SILENCE):
        raise RenderingError(
            f"{segment.path}: {segment.id} is silent, or far beyond full scale, and cannot be mixed at an SNR; "
            "remove it from its corpus."
        )
    return _at(sample_rate, sound, segment.sample_rate * speed)


def _at(sample_rate: int, sound: Sound, played_rate: float) -> Sound:
    if played_rate == sample_rate:
        return sound
    return Sound(resampled(sound.waveform, played_rate, sample_rate))


def _first_channel(segment: Segment, start: int, n_samples: int, check: bool = True) -> Waveform:
    try:
        waveform, sample_rate = read_clip(_path(segment.path), segment.within, start=start, n_samples=n_samples, check=check)
    except AudioError as error:
        raise RenderingError(f"{segment.id}: {error}") from None
    if sample_rate != segment.sample_rate:
        raise RenderingError(
            f"{segment.path}: expected {segment.sample_rate} Hz as in the manifest, found {sample_rate}; run 'dvc repro' again."
        )
    return np.ascontiguousarray(waveform[:, 0])


def _fitted(sound: Sound, n_samples: int) -> Sound:
    """Exactly `n_samples` samples: resampling can be a sample or two off."""
    short = n_samples - len(sound.waveform)
    if short == 0:
        return sound
    return Sound(np.pad(sound.waveform, (0, short)) if short > 0 else sound.waveform[:n_samples])


def _low_passed(waveform: Waveform, cutoff_hz: float, sample_rate: int) -> Waveform:
    from scipy import signal  # half the time that mixing takes to start; most mixtures do without

    sections = signal.butter(8, cutoff_hz, fs=sample_rate, output="sos")
    return np.asarray(signal.sosfilt(sections, waveform), dtype=np.float32)


def _reverberated(waveform: Waveform, room: Reverberation, sample_rate: int) -> Waveform:
    """The waveform in a recorded room, or in a synthetic one: a direct path and decaying noise 3 ms behind (Polack 1988)."""
    from scipy import signal

    response = _recorded_response(room.response, sample_rate) if room.response else _synthetic_response(room, sample_rate)
    return np.asarray(signal.oaconvolve(waveform, response)[: len(waveform)], dtype=np.float32)


def _recorded_response(segment: Segment, sample_rate: int) -> np.ndarray:
    """A measured response from its direct path on, which keeps its place and its level: speech is neither later nor louder."""
    waveform = resampled(_first_channel(segment, *segment.whole), segment.sample_rate, sample_rate)
    direct = int(np.argmax(np.abs(waveform)))
    if waveform[direct] == 0:
        raise RenderingError(f"{segment.path}: the room response {segment.id} is silent; remove it from its corpus.")
    return np.asarray(waveform[direct:] / waveform[direct], dtype=np.float64)


def _synthetic_response(room: Reverberation, sample_rate: int) -> np.ndarray:
    random = np.random.default_rng(room.seed)
    delay, length = round(0.003 * sample_rate), round(room.rt60_s * sample_rate)
    tail = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= 10 ** (-room.drr_db / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate([[1.0], np.zeros(delay), tail])

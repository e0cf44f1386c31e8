"""Synthetic noises at 16 kHz: each function draws one recording of a kind, its level left free.

All parameters come from the generator that is given, within ranges that are wide enough for two recordings of a kind to
sound like two places or two machines.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64
from scipy import fft, signal

from stages.core.parameters import NoiseKind

SAMPLE_RATE = 16000  # Hz
Waveform = Float64[np.ndarray, " samples"]
_SIRENS = {"wail": (0.15, 0.5), "yelp": (2.0, 5.0), "two tones": (0.5, 1.2)}  # turns per second
_HIGHEST_HZ = 7600.0  # harmonics above it are left out, so that none folds back at half the sample rate


def white(random: np.random.Generator, n_samples: int) -> Waveform:
    """Noise whose density is even up to a tilt of 0.75 dB per octave and gentle colouring."""
    return _coloured(random, n_samples, random.uniform(-0.75, 0.75), ripple_db=1.5)


def pink(random: np.random.Generator, n_samples: int) -> Waveform:
    """Noise whose density falls by about 3 dB per octave."""
    return _coloured(random, n_samples, random.uniform(-3.5, -2.5), ripple_db=1.5)


def brown(random: np.random.Generator, n_samples: int) -> Waveform:
    """Noise whose density falls by about 6 dB per octave."""
    return _coloured(random, n_samples, random.uniform(-6.7, -5.3), ripple_db=1.5)


def hum(random: np.random.Generator, n_samples: int) -> Waveform:
    """Mains hum: 50 or 60 Hz with harmonics and a slight drift, over a faint noise."""
    mains = random.choice([50.0, 60.0]) * (1 + 0.001 * _slow(random, n_samples, 0.2))
    orders = np.arange(1, 41)
    # Transformers hum in even orders, chopped currents buzz in odd ones.
    parity = np.where(orders % 2 == 0, random.uniform(0.2, 1), random.uniform(0.2, 1))
    gains = parity * orders ** -random.uniform(0.6, 1.8) * _scattered(random, len(orders), 6.0)
    tones = _harmonics(random, mains, orders, gains)
    floor = _coloured(random, n_samples, random.uniform(-6, -1), ripple_db=2.0)
    return _sum((tones, 0.0), (floor, random.uniform(-40, -25)))


def fan(random: np.random.Generator, n_samples: int) -> Waveform:
    """A fan or ventilation: broad noise that breathes slowly, and the tones of its blades."""
    turns = random.uniform(10, 45) * (1 + 0.005 * _slow(random, n_samples, 0.5))  # revolutions per second
    blades = int(random.integers(3, 10))
    orders = np.arange(1, 9)
    tones = _harmonics(random, turns * blades, orders, orders ** -random.uniform(0.8, 2.0) * _scattered(random, 8, 4.0))
    air = _coloured(random, n_samples, random.uniform(-6, -2), ripple_db=4.0)
    phase = 2 * np.pi * np.cumsum(turns) / SAMPLE_RATE
    air *= 1 + random.uniform(0.05, 0.3) * np.sin(phase) + random.uniform(0.03, 0.15) * _slow(random, n_samples, 1.0)
    return _sum((air, 0.0), (tones, random.uniform(-20, -4)))


def engine(random: np.random.Generator, n_samples: int) -> Waveform:
    """A piston engine: harmonics of half a turn under a varying speed, and noise that pulses with the ignitions."""
    speed = random.uniform(0.02, 0.2) * _slow(random, n_samples, random.uniform(0.2, 1))
    turns = random.uniform(12, 60) * np.exp(speed)  # revolutions per second
    cylinders = int(random.choice([1, 2, 3, 4, 6, 8]))
    orders = np.arange(1, 61)
    # Half orders are there in every four-stroke engine; those of the ignitions stand out.
    ignition = np.where(orders % cylinders == 0, 1.0, random.uniform(0.1, 0.4))
    gains = ignition * orders ** -random.uniform(0.7, 1.4) * _scattered(random, len(orders), 5.0)
    tones = _harmonics(random, turns / 2, orders, gains)
    phase = np.pi * cylinders * np.cumsum(turns) / SAMPLE_RATE
    noise = _coloured(random, n_samples, random.uniform(-5, -2), ripple_db=4.0)
    noise *= 1 + random.uniform(0.3, 0.9) * np.sin(phase)
    return _sum((tones, 0.0), (noise, random.uniform(-18, -5)))


def siren(random: np.random.Generator, n_samples: int) -> Waveform:
    """A siren that wails, yelps or alternates between two tones, with overtones, over faint street noise."""
    low = random.uniform(350, 800)
    high = low * random.uniform(1.3, 2.4)
    style = random.choice(list(_SIRENS))
    turn = np.arange(n_samples) / SAMPLE_RATE * random.uniform(*_SIRENS[style]) + random.uniform()
    # A horn goes from tone to tone in an instant, yet not in one sample: the steep tangent keeps it from clicking.
    sweep = np.tanh(30 * np.sin(2 * np.pi * turn)) if style == "two tones" else np.sin(2 * np.pi * turn)
    frequency = np.sqrt(low * high) * (high / low) ** (sweep / 2)
    orders = np.arange(1, 7)
    tones = _harmonics(random, frequency, orders, orders ** -random.uniform(1.0, 2.0) * _scattered(random, 6, 3.0))
    tones *= 1 + 0.2 * _slow(random, n_samples, 0.5)
    street = _coloured(random, n_samples, random.uniform(-6, -3), ripple_db=3.0)
    return _sum((tones, 0.0), (street, random.uniform(-30, -15)))


def keyboard(random: np.random.Generator, n_samples: int) -> Waveform:
    """Typing: strokes and releases of keys that each have a ring of their own, in words with pauses between them."""
    rate = random.uniform(4, 9)  # strokes per second within a word
    n_strokes = int(2 * rate * n_samples / SAMPLE_RATE) + 8
    gaps = random.lognormal(np.log(1 / rate), 0.35, n_strokes)
    gaps[random.random(n_strokes) < 0.15] += random.uniform(0.15, 0.4)
    strokes = np.cumsum(gaps) - gaps[0] * random.uniform()
    releases = strokes + random.uniform(0.06, 0.12, n_strokes)
    loudness = random.lognormal(0, 0.2, n_strokes)
    keys = random.integers(0, 6, n_strokes)
    body = random.uniform(150, 450)  # Hz, what the table adds
    clicks = np.zeros(n_samples)
    for key in range(6):
        mine = keys == key
        times = np.concatenate([strokes[mine], releases[mine]])
        heights = np.concatenate([loudness[mine], loudness[mine] * random.uniform(0.2, 0.5)])
        ring = _ring(random, random.uniform(1500, 5500), random.uniform(0.003, 0.012))
        ring += 0.5 * _ring(random, body, 0.015, len(ring))
        clicks += _struck(times, heights, ring, n_samples)
    room = _coloured(random, n_samples, random.uniform(-6, -3), ripple_db=2.0)
    return _sum((clicks, 0.0), (room, random.uniform(-35, -25)))


def rain(random: np.random.Generator, n_samples: int) -> Waveform:
    """Rain: single drops on a surface over the hiss of all the others."""
    drops = np.zeros(n_samples)
    seconds = n_samples / SAMPLE_RATE
    rate = random.uniform(40, 400)  # drops per second
    centre = random.uniform(1200, 4500)  # Hz, of the surface they fall on
    for _ in range(6):
        n_drops = random.poisson(rate * seconds / 6)
        ring = _ring(random, centre * random.uniform(0.6, 1.6), random.uniform(0.001, 0.005))
        drops += _struck(random.uniform(0, seconds, n_drops), random.lognormal(0, 0.5, n_drops), ring, n_samples)
    hiss = _coloured(random, n_samples, random.uniform(-2.5, 1.0), ripple_db=4.0)
    hiss *= 1 + 0.15 * _slow(random, n_samples, 0.5)
    return _sum((hiss, 0.0), (drops, random.uniform(-12, 0)))


def bursts(random: np.random.Generator, n_samples: int) -> Waveform:
    """Bursts of noise, each with a band, a length and a rise and fall of its own, over a faint floor."""
    wave = np.zeros(n_samples)
    start = random.uniform(0, 0.3)  # s
    pause = random.uniform(0.15, 0.5)  # s, on average
    while start < n_samples / SAMPLE_RATE:
        length = int(SAMPLE_RATE * np.exp(random.uniform(np.log(0.03), np.log(0.4))))
        low = np.exp(random.uniform(np.log(100), np.log(3500)))
        burst = _band(random, length, low, min(low * random.uniform(1.5, 5), _HIGHEST_HZ))
        rise = random.uniform(0.02, 0.4)
        place = (np.arange(length) + 0.5) / length
        burst *= np.minimum(place / rise, 1) * np.exp(-random.uniform(0, 4) * place) * (1 - place) * random.lognormal(0, 0.3)
        first = int(start * SAMPLE_RATE)
        wave[first : first + length] += burst[: n_samples - first]
        start += length / SAMPLE_RATE + random.exponential(pause)
    floor = _coloured(random, n_samples, random.uniform(-6, 0), ripple_db=2.0)
    return _sum((wave, 0.0), (floor, random.uniform(-40, -28)))


NOISES: dict[NoiseKind, Callable[[np.random.Generator, int], Waveform]] = {
    "white": white,
    "pink": pink,
    "brown": brown,
    "hum": hum,
    "fan": fan,
    "engine": engine,
    "siren": siren,
    "keyboard": keyboard,
    "rain": rain,
    "bursts": bursts,
}


def _coloured(random: np.random.Generator, n_samples: int, slope_db: float, ripple_db: float) -> Waveform:
    """Gaussian noise at unit level that falls by `slope_db` per octave, with random bumps of `ripple_db` on average.

    Below 40 Hz, where loudspeakers and microphones end, it falls off, or brown noise would be nothing but rumble.
    """
    size = fft.next_fast_len(n_samples, real=True)
    octaves = np.log2(np.maximum(fft.rfftfreq(size, 1 / SAMPLE_RATE), 1e-3) / 1000)
    knots = np.arange(-5, 4)
    shape_db = slope_db * octaves + np.interp(octaves, knots, random.normal(0, ripple_db, len(knots)))
    shape_db -= np.logaddexp2(0, -4 * (octaves - np.log2(0.04))) * 6
    spectrum = fft.rfft(random.standard_normal(size)) * 10 ** (shape_db / 20)
    return _unit(fft.irfft(spectrum, size)[:n_samples])


def _band(random: np.random.Generator, n_samples: int, low: float, high: float) -> Waveform:
    """Gaussian noise at unit level between `low` and `high` Hz."""
    filtering = signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
    return _unit(np.asarray(signal.sosfilt(filtering, random.standard_normal(n_samples))))


def _slow(random: np.random.Generator, n_samples: int, rate: float) -> Waveform:
    """A smooth random curve of about unit level that turns `rate` times a second."""
    n_knots = int(np.ceil(n_samples / SAMPLE_RATE * 2 * rate)) + 4
    places = np.arange(n_samples) * (2 * rate / SAMPLE_RATE) + random.uniform(0, 1)
    knots = np.clip(random.standard_normal(n_knots), -2, 2)
    index = places.astype(np.int64)
    blend = (1 - np.cos(np.pi * (places - index))) / 2
    return np.asarray(knots[index] * (1 - blend) + knots[index + 1] * blend)


def _scattered(random: np.random.Generator, n_values: int, spread_db: float) -> Float64[np.ndarray, " values"]:
    return np.asarray(10 ** (random.normal(0, spread_db, n_values) / 20))


def _harmonics(
    random: np.random.Generator, frequency: Waveform, orders: Sequence[int] | np.ndarray, gains: np.ndarray
) -> Waveform:
    """The sum of `orders` of a tone whose frequency (Hz) varies over time, each with its gain and a random phase."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    highest = float(frequency.max())
    total = np.zeros(len(frequency))
    for order, gain, offset in zip(orders, gains, random.uniform(0, 2 * np.pi, len(gains)), strict=True):
        if order * highest < _HIGHEST_HZ:
            total += gain * np.sin(order * phase + offset)
    return total


def _ring(random: np.random.Generator, frequency: float, decay: float, n_samples: int | None = None) -> Waveform:
    """A struck resonance at `frequency` (Hz) that falls to a third in `decay` seconds, with the noise of the blow."""
    n_samples = n_samples or int(8 * decay * SAMPLE_RATE) + 16
    time = np.arange(n_samples) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * min(frequency, _HIGHEST_HZ) * time) * np.exp(-time / decay)
    blow = random.standard_normal(n_samples) * np.exp(-time / (decay / 4))
    return tone + 0.5 * blow


def _struck(times: np.ndarray, heights: np.ndarray, ring: Float64[np.ndarray, " ring"], n_samples: int) -> Waveform:
    """`ring` at each of the `times` (s) that fall within `n_samples`, each time as high as `heights` says."""
    places = (times * SAMPLE_RATE).astype(np.int64)
    inside = (places >= 0) & (places < n_samples)
    impulses = np.bincount(places[inside], heights[inside], minlength=n_samples)
    return np.asarray(signal.oaconvolve(impulses, ring))[:n_samples]


def _sum(*parts: tuple[Waveform, float]) -> Waveform:
    """Waveforms added, each brought to the level that is given with it (dB)."""
    return np.asarray(sum(_unit(wave) * 10 ** (level_db / 20) for wave, level_db in parts))


def _unit(wave: Waveform) -> Waveform:
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-12)

"""Denoising block by block: the same samples however a signal is cut, of exact length, with a delay that is as it is said."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, STFT, few, hiss, law, model, snr_db, spectrum, voiced

from stages.core.denoiser import AnyDenoiser, Denoiser
from stages.core.enhancement import enhanced
from stages.core.errors import DenoisingError
from stages.core.gains import GainSource
from stages.core.onnx_graph import onnx_graph
from stages.core.onnx_model import onnx_denoiser
from stages.core.parameters import Stft
from stages.core.spectra import spectrogram, waveform
from stages.core.streaming import StreamingDenoiser, Strength, StrengthError, scaled

LONG = Stft(n_fft=512, win_length=512, hop_length=256)
# An overlap of three quarters, and a transform that is longer than its window.
DENSE = Stft(n_fft=96, win_length=64, hop_length=16)
RATES = [8000, 16000, 44100, 48000]
BLOCKS = """
import numpy as np, os, sys, torch
from stages.core.streaming import BlockError, StreamingDenoiser
sys.path.append("tests")
from test_streaming import Fixed

stream = StreamingDenoiser(Fixed(torch.ones_like), 16000, 2)
for block in (np.zeros((5, 2), np.int16), np.zeros((5, 2)), np.zeros(5, np.float32), np.zeros((5, 3), np.float32)):
    try:
        stream.process(block)
    except BlockError as error:
        print(error)
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
LENGTHS = """
import numpy as np, sys, torch
sys.path.append("tests")
from specimens import hiss
from test_streaming import Fixed
from stages.core.streaming import StreamingDenoiser

# Up and down in turn, so that no beginning of it has an offset, but for the first sample alone, which is nothing else.
signal = ((0.3 + hiss(5000)) * np.resize([1, -1], 5000)).astype(np.float32)[:, None]
stream = StreamingDenoiser(Fixed(lambda given: torch.full_like(given, 0.5)), 16000, 1)
for n_samples in range(5001):
    found = np.concatenate([stream.process(signal[:n_samples]), stream.flush()])
    assert found.shape == (n_samples, 1)
    gain = 0.0 if n_samples == 1 else 0.5
    assert not n_samples or np.abs(found - gain * signal[:n_samples]).max() < 2e-5
print(n_samples + 1, "lengths")
"""
# Largest difference between two ways to cut a signal, of samples up to 1: what sums of float32 in another order differ by.
ROUNDING = 2e-5


def denoiser(stft: Stft = LONG, **changes: Any) -> Denoiser:
    """An untrained denoiser whose gains depend on all that it has heard."""
    torch.manual_seed(1)
    made = Denoiser(model(**changes), stft, RATE).eval()
    made.standardise([spectrum(2, 60, stft.n_fft // 2 + 1, seed=1)])
    return made


def engine(name: str, stft: Stft = LONG, **changes: Any) -> AnyDenoiser:
    """The same denoiser, by PyTorch or by ONNX Runtime."""
    original = denoiser(stft, **changes)
    if name == "torch":
        return original
    return onnx_denoiser(onnx_graph(original, "0" * 64).SerializeToString(), Path("specimen.onnx"))


class Fixed:
    """A denoiser with gains of one's own making: `gain` takes all frames that are seen at once."""

    def __init__(self, gain: Callable[[torch.Tensor], torch.Tensor], stft: Stft = STFT, *, looks_ahead: bool = False) -> None:
        self.gain, self.stft, self.sample_rate, self.looks_ahead = gain, stft, RATE, looks_ahead
        self.frames_per_second = RATE / stft.hop_length

    def denoised(self, spectrum: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """The frames times their gains."""
        return spectrum * self.gain(spectrum), state


def noisy(n_samples: int, sample_rate: int, n_channels: int = 2) -> np.ndarray:
    """A voice in noise that is another in each channel, with a pause in it."""
    signal = hiss(n_samples * n_channels, level=0.05).reshape(n_samples, n_channels) + voiced(n_samples, sample_rate)[:, None]
    signal[n_samples // 3 : n_samples // 2] = 0
    return signal.astype(np.float32)


def in_blocks(stream: StreamingDenoiser, signal: np.ndarray, sizes: list[int]) -> np.ndarray:
    """The signal denoised in blocks of `sizes` samples, again and again."""
    found, first, number = [], 0, 0
    while first < len(signal):
        size = sizes[number % len(sizes)]
        found.append(stream.process(signal[first : first + size]))
        first, number = first + size, number + 1
    return np.concatenate([*found, stream.flush()])


def random_sizes(seed: int, sample_rate: int) -> list[int]:
    """Sizes of blocks from 1 sample to 10 s, as many short ones as long ones."""
    random = np.random.default_rng(seed)
    return [1, *np.exp(random.uniform(0, np.log(10 * sample_rate), 30)).astype(int).tolist()]


# ---- blocks


def test_blocks_of_another_type_or_shape_are_named(repository: Path) -> None:
    """In a process in which annotations are not checked, as at a user's."""
    ended = subprocess.run([sys.executable, "-c", BLOCKS], cwd=repository, capture_output=True, text=True, check=True)
    found = [line.split("found ")[1].split(";")[0] for line in ended.stdout.splitlines()]
    assert found == [
        "int16 of the shape (5, 2)",
        "float64 of the shape (5, 2)",
        "float32 of the shape (5,)",
        "float32 of the shape (5, 3)",
    ]


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_random_blocks_give_the_samples_of_the_whole(name: str, bidirectional: bool, sample_rate: int) -> None:
    # Longer than two windows of a network that looks ahead, and than the longest block that is taken at once.
    signal = noisy(23 * sample_rate + 77, sample_rate)
    made = engine(name, bidirectional=bidirectional)
    whole = enhanced(signal, sample_rate, made)
    assert whole.shape == signal.shape
    assert np.abs(whole).max() > 0.05
    sizes = random_sizes(sample_rate + bidirectional, sample_rate)
    found = in_blocks(StreamingDenoiser(made, sample_rate, 2), signal, sizes)
    np.testing.assert_allclose(found, whole, rtol=0, atol=ROUNDING)


@few
@given(
    target=st.sampled_from(["magnitude", "subtraction", "irm", "ibm", "crm"]),
    cell=st.sampled_from(["gru", "lstm", "mingru"]),
    stft=st.sampled_from([STFT, DENSE, LONG]),
    seed=st.integers(0, 1000),
    strength=st.sampled_from([None, Strength(12.0, 0.0), Strength(None, 0.2)]),
)
def test_any_network_and_strength_gives_the_samples_of_the_whole(
    target: str, cell: str, stft: Stft, seed: int, strength: Strength | None
) -> None:
    signal = noisy(6000 + seed, RATE)
    made = denoiser(stft, target=target, cell=cell)
    whole = enhanced(signal, RATE, made, strength=strength)
    found = in_blocks(StreamingDenoiser(made, RATE, 2, strength=strength), signal, random_sizes(seed, RATE)[:12])
    np.testing.assert_allclose(found, whole, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_single_samples_give_the_samples_of_the_whole(sample_rate: int) -> None:
    signal, made = noisy(700, sample_rate), denoiser(STFT)
    whole = enhanced(signal, sample_rate, made)
    found = in_blocks(StreamingDenoiser(made, sample_rate, 2), signal, [1])
    np.testing.assert_allclose(found, whole, rtol=0, atol=ROUNDING)


def test_windows_of_a_network_that_looks_ahead_give_what_the_whole_signal_does() -> None:
    made = denoiser(LONG, bidirectional=True, hidden=16)
    signal = voiced(30 * RATE) + hiss(30 * RATE, level=0.02)
    whole, _ = made.denoised(spectrogram(torch.from_numpy(signal), LONG).unsqueeze(0))
    expected = waveform(whole[0], len(signal), LONG).numpy()
    found = enhanced(signal[:, None], RATE, made)[:, 0]
    assert snr_db(expected, found - expected) > 38


def test_there_is_no_seam_where_windows_of_a_network_that_looks_ahead_meet() -> None:
    """Gains go over from one window to the next, however much they differ, and the longest way takes a second."""
    random = np.random.default_rng(1)
    gains: list[float] = []

    def another(given: torch.Tensor) -> torch.Tensor:
        gains.append(float(random.uniform(0, 1)))
        return torch.full_like(given, gains[-1])

    source = GainSource(Fixed(another, LONG, looks_ahead=True))
    frames = spectrum(2000, 257).numpy()
    found = np.concatenate([source.pushed(frames), source.finished()])[:, 0].real
    per_second = RATE / LONG.hop_length
    assert len(gains) == 8
    assert float(np.abs(np.diff(gains)).max()) > 0.3
    assert float(np.abs(np.diff(found)).max()) < 1 / per_second
    for number, expected in enumerate(gains):
        assert float(found[round((4 * number + 1.5) * per_second)]) == pytest.approx(expected)


# ---- lengths


def test_every_length_up_to_5000_samples_is_exact(repository: Path) -> None:
    # Outside of this process, where every call is checked against its annotations, which takes three times as long.
    ended = subprocess.run([sys.executable, "-c", LENGTHS], cwd=repository, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "5001 lengths\n", "")


@pytest.mark.parametrize("name", ["torch", "onnx"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100, 192_000])
def test_lengths_are_exact_where_the_rate_is_another(name: str, bidirectional: bool, sample_rate: int) -> None:
    stream = StreamingDenoiser(engine(name, STFT, bidirectional=bidirectional), sample_rate, 2)
    for n_samples in [*range(12), *range(12, 5001, 311), 5000]:
        found = in_blocks(stream, noisy(n_samples, sample_rate), [n_samples // 3 + 1])
        assert found.shape == (n_samples, 2)
        assert np.isfinite(found).all()


# ---- silence and reset


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_silence_stays_silence(name: str, sample_rate: int) -> None:
    for changes in ({}, {"bidirectional": True}, {"target": "crm"}, {"target": "subtraction"}):
        stream = StreamingDenoiser(engine(name, STFT, **changes), sample_rate, 2)
        assert not in_blocks(stream, np.zeros((3 * sample_rate // 10, 2), np.float32), [1, 700, 31]).any(), changes


def test_silence_after_sound_is_silence_once_the_window_has_passed() -> None:
    signal = np.concatenate([noisy(8000, RATE), np.zeros((8000, 2), np.float32)])
    found = enhanced(signal, RATE, denoiser())
    assert np.abs(found[:8000]).max() > 0.01
    assert not found[8000 + LONG.win_length :].any()


@pytest.mark.parametrize("end", ["reset", "flush"])
@pytest.mark.parametrize("sample_rate", [16000, 44100])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_after_its_end_a_signal_is_forgotten(bidirectional: bool, sample_rate: int, end: str) -> None:
    made = denoiser(bidirectional=bidirectional)
    stream = StreamingDenoiser(made, sample_rate, 2)
    stream.process(5 * noisy(9000, sample_rate))
    getattr(stream, end)()
    signal = noisy(7000, sample_rate)[::-1].copy()
    np.testing.assert_array_equal(in_blocks(stream, signal, [7000]), enhanced(signal, sample_rate, made))


# ---- offsets


@pytest.mark.parametrize("offset", [(0.9, 0.9), (0.5, -0.5), (0.0, -0.97), (0.05, 0.05)])
@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_a_constant_offset_changes_nothing_from_the_first_sample_to_the_last(
    bidirectional: bool, sample_rate: int, offset: tuple[float, float]
) -> None:
    made = denoiser(bidirectional=bidirectional)
    voice = 0.1 * noisy(sample_rate // 2 + 77, sample_rate)
    # Out of phase, as well as in phase: channels are put together without their offsets.
    for signal in (voice, voice * np.float32([1, -1])):
        expected, found = (enhanced(wave, sample_rate, made) for wave in (signal, signal + np.float32(offset)))
        assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.parametrize("sample_rate", RATES)
def test_nothing_is_left_of_an_offset_alone_but_what_the_strength_keeps(sample_rate: int) -> None:
    signal = np.full((sample_rate // 3, 2), 0.5, np.float32) * np.float32([1, -0.5])
    assert np.abs(enhanced(signal, sample_rate, denoiser())).max() < 1e-4
    halved = enhanced(signal, sample_rate, denoiser(), strength=Strength(dry=0.5))
    # Resampling there and back rings at a step.
    np.testing.assert_allclose(halved, 0.5 * signal, atol=0.08)


# ---- delay


def first_change(stream: StreamingDenoiser, signal: np.ndarray, place: int) -> int:
    """The first sample of the output that changes when all of the input from `place` on is changed."""
    changed = signal.copy()
    changed[place:] += 10
    outputs = [in_blocks(stream, wave, [len(wave)]) for wave in (signal, changed)]
    return int(np.argmax(np.any(outputs[0] != outputs[1], axis=1)))


def instant(given: torch.Tensor) -> torch.Tensor:
    """Gains that depend on the frame itself."""
    return (0.5 + 0.4 * torch.tanh(given.abs().mean(-1, keepdim=True))).expand(given.shape).to(given.dtype)


def followed(given: torch.Tensor) -> torch.Tensor:
    """Gains that depend on the last frame that is seen, in every frame."""
    return (0.5 + 0.4 * torch.tanh(given[:, -1:].abs().mean())).expand(given.shape).to(given.dtype)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("stft", [STFT, DENSE])
def test_the_delay_is_what_a_sample_of_the_output_waits_for(stft: Stft, factor: int) -> None:
    stream = StreamingDenoiser(Fixed(instant, stft), factor * RATE, 1)
    assert stream.delay == factor * stft.win_length - 1
    signal = hiss(20 * factor * stft.win_length)[:, None]
    waits = [place - first_change(stream, signal, place) for place in range(900, 900 + factor * stft.hop_length)]
    # The window begins with a zero, and with small numbers, which rounding may hide.
    assert stream.delay - factor <= max(waits) < stream.delay


@pytest.mark.parametrize("factor", [1, 2])
def test_the_delay_of_a_network_that_looks_ahead_is_no_longer_than_it_has_to_be(factor: int) -> None:
    # Frames of 0.1 s, so that a window of 4 s is short.
    stft = Stft(n_fft=3200, win_length=3200, hop_length=1600)
    stream = StreamingDenoiser(Fixed(followed, stft, looks_ahead=True), factor * RATE, 1)
    signal = hiss(21 * factor * RATE)[:, None]
    # The second window is that of frames 80 to 159, and sees 2 s more, to the end of frame 179: its weight is small there.
    place = factor * (180 * 1600 - 200)
    wait = place - first_change(stream, signal, place)
    assert stream.delay - factor * 400 < wait <= stream.delay
    # What comes behind it is seen by the third window, which begins with frame 160.
    assert first_change(stream, signal, factor * (180 * 1600 + 200)) >= factor * 159 * 1600


@few
@given(seed=st.integers(0, 1000), size=st.integers(1, 2000))
def test_output_comes_as_soon_as_the_delay_allows(seed: int, size: int) -> None:
    stream = StreamingDenoiser(denoiser(STFT), RATE, 1)
    n_given = n_taken = 0
    for block in np.array_split(noisy(4000 + seed, RATE, 1), 4000 // size + 1):
        n_taken += len(block)
        n_given += len(stream.process(block))
        # A frame is complete once in every hop.
        assert n_taken - stream.delay - STFT.hop_length < n_given <= n_taken


@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050, 44100])
def test_the_delay_of_resampling_is_what_it_holds_back(sample_rate: int) -> None:
    stream = StreamingDenoiser(denoiser(), sample_rate, 1)
    n_held = []
    for block in np.array_split(noisy(2 * sample_rate, sample_rate, 1), 200):
        n_held.append((n_held[-1] if n_held else 0) + len(block) - len(stream.process(block)))
    assert 0 < stream.resampling_delay < 0.25 * sample_rate
    # Frames wait for their last sample, blocks for the next one.
    assert stream.resampling_delay <= max(n_held) < stream.delay + stream.resampling_delay + 0.06 * sample_rate


def test_nothing_is_resampled_at_a_multiple_of_the_rate() -> None:
    assert [StreamingDenoiser(denoiser(), factor * RATE, 1).resampling_delay for factor in (1, 3)] == [0, 0]


def test_sound_that_is_far_too_loud_makes_no_warnings() -> None:
    stream = StreamingDenoiser(denoiser(), RATE, 2)
    loud = np.full((RATE, 2), 1e30, np.float32)
    assert len(stream.process(loud)) + len(stream.flush()) == RATE


# ---- strength


@law
@given(limit=st.floats(0, 200), dry=st.floats(0, 1), seed=st.integers(0, 1000))
def test_no_bin_is_lowered_by_more_than_the_limit(limit: float, dry: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = 10 ** random.uniform(-12, 0.5, (20, 9))
    gains = (sizes * np.exp(2j * np.pi * random.uniform(0, 1, (20, 9)))).astype(np.complex64)
    gains[0] = 0
    floor = 10 ** (-limit / 20)
    found = Strength(limit).applied(gains)
    assert float(np.abs(found).min()) >= floor * (1 - 1e-5)
    above = np.abs(gains) >= floor
    assert np.array_equal(found[above], gains[above])
    np.testing.assert_allclose(found[~above], floor, rtol=1e-6)
    np.testing.assert_allclose(Strength(limit, dry).applied(gains), found * (1 - dry) + dry, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000])
@pytest.mark.parametrize("target", ["irm", "ibm"])
def test_a_limit_of_0_db_and_a_mix_of_1_are_the_recording_itself(target: str, sample_rate: int) -> None:
    signal, made = noisy(9000, sample_rate), denoiser(target=target)
    same = enhanced(signal, sample_rate, Fixed(lambda given: torch.ones_like(given), LONG))
    # Resampling takes what lies above nine tenths of the band, of which noise has some.
    assert np.abs(same - signal).max() < (ROUNDING if sample_rate % RATE == 0 else 0.1)
    for strength in (Strength(0.0), Strength(None, 1.0), Strength(30.0, 1.0)):
        # Where the signal is digital silence, rounding alone is left.
        np.testing.assert_allclose(enhanced(signal, sample_rate, made, strength=strength), same, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("limit", [3.0, 12.0, 40.0])
def test_a_denoiser_that_would_silence_everything_lowers_by_the_limit(limit: float) -> None:
    signal = noisy(9000, 48000)
    found = enhanced(signal, 48000, Fixed(torch.zeros_like, LONG), strength=Strength(limit))
    np.testing.assert_allclose(found, 10 ** (-limit / 20) * signal, rtol=0, atol=ROUNDING)


def test_the_mix_is_a_part_of_the_recording_itself() -> None:
    signal, made = noisy(9000, RATE), denoiser()
    wet, found = enhanced(signal, RATE, made), enhanced(signal, RATE, made, strength=Strength(None, 0.3))
    np.testing.assert_allclose(found, 0.7 * wet + 0.3 * signal, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("limit", [-0.1, 200.1, float("nan"), float("inf"), -float("inf")])
def test_a_limit_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(StrengthError, match=r"The attenuation limit is .* dB: expected 0 to 200 dB") as caught:
        Strength(limit)
    assert isinstance(caught.value, DenoisingError)


@pytest.mark.parametrize("dry", [-0.1, 1.1, float("nan")])
def test_a_mix_out_of_range_is_refused(dry: float) -> None:
    with pytest.raises(StrengthError, match=r"The share of the unprocessed sound \(mix\) is .*: expected 0 to 1"):
        Strength(None, dry)


# ---- the band above the network's


def test_the_transform_keeps_its_grid() -> None:
    for factor in (1, 2, 3, 12):
        made = scaled(LONG, factor)
        assert factor * RATE / made.n_fft == RATE / LONG.n_fft
        assert made.win_length / made.hop_length == LONG.win_length / LONG.hop_length

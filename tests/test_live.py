"""`--stream`: raw samples and WAV on pipes, denoised as they come."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from denoised_files import recorded, weights
from hypothesis import given
from hypothesis import strategies as st
from small_pipeline import ROOT, Command, environment
from specimens import RATE, STFT, few, hiss, law, model, spectrum, voiced

from stages.core.container_rest import Source
from stages.core.denoiser import Denoiser
from stages.core.enhancement import enhanced
from stages.core.live import (
    ENCODINGS,
    LiveError,
    PcmFormat,
    decoded,
    denoise_stream,
    encoded,
    standard_streams,
    wav_format,
    wav_header,
)
from stages.core.streaming import StreamingDenoiser

pytest_plugins = ["pipeline_fixtures"]

WIDTHS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}
# One step of the encoding, and float32's own where that is coarser.
STEPS = {"u8": 2**-7, "s16": 2**-15, "s24": 2**-22, "s32": 2**-22, "f32": 1e-6, "f64": 1e-6}


class Trickle:
    """A pipe that gives a few bytes at a time, however many are asked for."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.rest, self.random = data, np.random.default_rng(seed)

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        n_bytes = min(size, int(self.random.integers(1, 2000)))
        piece, self.rest = self.rest[:n_bytes], self.rest[n_bytes:]
        return piece


def denoiser() -> Denoiser:
    """An untrained denoiser, the same one every time."""
    import torch

    torch.manual_seed(1)
    made = Denoiser(model(), STFT, RATE).eval()
    made.standardise([spectrum(2, 60, 33, seed=1)])
    return made


def signal(n_samples: int, n_channels: int = 2) -> np.ndarray:
    """A voice in noise, far from full scale."""
    noise = hiss(n_samples * n_channels, level=0.02).reshape(n_samples, n_channels)
    return (voiced(n_samples)[:, None] + noise).astype(np.float32)


def streamed(source: Source, form: PcmFormat) -> bytes:
    """What comes out of a stream."""
    sink = io.BytesIO()
    denoise_stream(source, sink, form, StreamingDenoiser(denoiser(), form.sample_rate, form.n_channels), 1600)
    return sink.getvalue()


def wav(encoding: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file as libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, SUBTYPES[encoding], format="WAV")
    return file.getvalue()


def with_size(data: bytes, size: int) -> bytes:
    """A plain WAV stream whose header gives another length, as programs write it that do not know it."""
    place = data.index(b"data")
    return (
        data[:4]
        + struct.pack("<I", min(size, 0xFFFFFFFF))
        + data[8:place]
        + b"data"
        + struct.pack("<I", size)
        + data[place + 8 :]
    )


def program(*arguments: str) -> "subprocess.Popen[bytes]":
    """The command as a program with pipes, in the working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.denoise", "--stream", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(Path.cwd()) | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Programs that are ended after the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


# ---- samples


@law
@given(st.sampled_from(ENCODINGS), st.integers(1, 6), st.binary(max_size=600))
def test_bytes_come_back(encoding: str, n_channels: int, data: bytes) -> None:
    form = PcmFormat(RATE, n_channels, encoding)
    data = data[: len(data) - len(data) % form.frame_bytes]
    samples = decoded(data, form)
    assert samples.shape == (len(data) // form.frame_bytes, n_channels)
    if encoding in ("u8", "s16", "s24"):
        assert encoded(samples, form) == (data, 0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_samples_are_those_of_libsndfile(encoding: str) -> None:
    data = wav(encoding, signal(500))
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    place = data.index(b"data") + 8
    form = PcmFormat(RATE, 2, encoding)
    np.testing.assert_allclose(decoded(data[place : place + 500 * form.frame_bytes], form), expected, rtol=0, atol=1e-7)


def test_values_beyond_full_scale_are_clipped_and_counted() -> None:
    loud = np.array([[1.5], [-1.5], [1.0], [-1.0], [0.0]], np.float32)
    for encoding in ("u8", "s16", "s24", "s32"):
        form = PcmFormat(RATE, 1, encoding)
        data, n_clipped = encoded(loud, form)
        assert n_clipped == 2
        np.testing.assert_allclose(decoded(data, form)[:, 0], [1, -1, 1, -1, 0], atol=2**-7)
    assert encoded(loud, PcmFormat(RATE, 1, "f32")) == (loud.tobytes(), 0)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_raw_samples_of_every_encoding(encoding: str, n_channels: int) -> None:
    form = PcmFormat(RATE, n_channels, encoding)
    data, _ = encoded(signal(5000, n_channels), form)
    expected = enhanced(decoded(data, form), RATE, denoiser())
    for seed in range(3):
        found = streamed(Trickle(data, seed), form)
        assert len(found) == len(data)
        np.testing.assert_allclose(decoded(found, form), expected, rtol=0, atol=STEPS[encoding])


def test_a_sample_that_is_cut_off_is_named_and_what_came_is_denoised() -> None:
    form = PcmFormat(RATE, 2, "s16")
    data, _ = encoded(signal(1000), form)
    sink = io.BytesIO()
    with pytest.raises(LiveError, match=r"cut off: expected whole samples, found 4003 bytes; what came was denoised"):
        denoise_stream(Trickle(data + b"abc", 1), sink, form, StreamingDenoiser(denoiser(), RATE, 2), 1600)
    assert len(sink.getvalue()) == len(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_become_silence_and_the_signal_goes_on(bad: float) -> None:
    form = PcmFormat(RATE, 1, "f32")
    samples = signal(4000, 1)
    samples[100:103], silent = bad, samples.copy()
    silent[100:103] = 0
    sink = io.BytesIO()
    stream = StreamingDenoiser(denoiser(), RATE, 1)
    heard = denoise_stream(io.BytesIO(samples.tobytes()), sink, form, stream, 1600)
    assert (heard.n_not_finite, heard.n_clipped) == (3, 0)
    np.testing.assert_allclose(decoded(sink.getvalue(), form), enhanced(silent, RATE, denoiser()), rtol=0, atol=2e-6)


# ---- WAV


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_a_wav_stream_of_known_size_is_a_wav_file_again(encoding: str, n_channels: int) -> None:
    data = wav(encoding, signal(3001, n_channels))
    form = wav_format(io.BytesIO(data))
    assert (form.sample_rate, form.n_channels, form.encoding) == (RATE, n_channels, encoding)
    assert form.n_bytes == 3001 * form.frame_bytes
    stream = io.BytesIO(data)
    with soundfile.SoundFile(io.BytesIO(streamed(stream, wav_format(stream)))) as file:
        assert (file.samplerate, file.subtype) == (RATE, SUBTYPES[encoding])
        samples = file.read(dtype="float32", always_2d=True)
    before = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
    np.testing.assert_allclose(samples, enhanced(before, RATE, denoiser()), rtol=0, atol=STEPS[encoding])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36, 0x80000000])
def test_a_wav_stream_of_unknown_size_goes_on_to_its_end(size: int) -> None:
    plain = with_size(wav("s16", signal(3001)), size)
    stream = io.BytesIO(plain)
    form = wav_format(stream)
    assert form.n_bytes is None
    found = streamed(stream, form)
    assert found[:44] == wav_header(form)
    assert struct.unpack("<I", found[40:44])[0] == 0xFFFFFFFF
    raw = PcmFormat(RATE, 2, "s16")
    expected = streamed(io.BytesIO(plain[plain.index(b"data") + 8 :]), raw)
    assert found[44:] == expected


def test_an_extensible_header_is_read() -> None:
    file = io.BytesIO()
    soundfile.write(file, signal(500), RATE, "PCM_24", format="WAVEX")
    stream = io.BytesIO(file.getvalue())
    form = wav_format(stream)
    assert (form.encoding, form.n_channels, form.n_bytes) == ("s24", 2, 3000)
    assert len(streamed(stream, form)) == 44 + 3000


def test_chunks_around_the_samples_are_no_sound() -> None:
    plain = wav("s16", signal(501, 1))
    place = plain.index(b"data")
    # A chunk of odd length has a byte of padding behind it.
    noted = (
        plain[:12] + b"note" + struct.pack("<I", 5) + b"hello\0" + plain[12:] + b"LIST" + struct.pack("<I", 4000) + b"x" * 4000
    )
    stream = io.BytesIO(noted)
    form = wav_format(stream)
    assert form.n_bytes == 1002
    expected = streamed(io.BytesIO(plain[place + 8 :]), PcmFormat(RATE, 1, "s16"))
    assert streamed(stream, form)[44:] == expected


def test_sound_behind_a_wrong_size_of_a_stream_is_named() -> None:
    samples = wav("s16", signal(3001, 1))
    for n_bytes, n_left_out in ((2000, 4002), (2001, 4000), (6002, 0)):
        stream, form = io.BytesIO(samples), wav_format(io.BytesIO(with_size(samples, n_bytes)))
        wav_format(stream)
        sink = io.BytesIO()
        if n_bytes % form.frame_bytes:
            form = PcmFormat(RATE, 1, "u8", wav=True, n_bytes=n_bytes)
        heard = denoise_stream(stream, sink, form, StreamingDenoiser(denoiser(), RATE, 1), 1600)
        assert heard.n_left_out == n_left_out
        assert len(heard.remarks) == bool(n_left_out)
    assert len(sink.getvalue()) == 44 + 6002


def test_the_length_in_an_rf64_header_ends_the_sound() -> None:
    file = io.BytesIO()
    soundfile.write(file, signal(501, 1), RATE, "PCM_16", format="RF64")
    stream = io.BytesIO(file.getvalue() + b"LIST" + struct.pack("<I", 4000) + b"x" * 4000)
    form = wav_format(stream)
    assert form.n_bytes == 1002
    assert len(streamed(stream, form)) == 44 + 1002
    # What is written is WAV, which holds no larger number.
    assert wav_header(PcmFormat(RATE, 1, "s16", wav=True, n_bytes=1 << 33))[40:] == b"\xff" * 4


def test_a_chunk_of_billions_of_bytes_is_not_held_in_memory() -> None:
    asked = []

    class Endless:
        def read(self, size: int, /) -> bytes:
            asked.append(size)
            return head.read(size)

    head = io.BytesIO(b"RIFF\0\0\0\0WAVEnote\xff\xff\xff\xff" + bytes(200_000))
    with pytest.raises(LiveError, match="ends before its samples begin"):
        wav_format(Endless())
    assert max(asked) <= 1 << 16


def test_samples_of_an_odd_number_of_bytes_are_padded() -> None:
    data = wav("u8", signal(333, 1))
    stream = io.BytesIO(data)
    found = streamed(stream, wav_format(stream))
    assert len(found) == 44 + 333 + 1
    assert struct.unpack("<I", found[4:8])[0] == len(found) - 8
    assert len(soundfile.read(io.BytesIO(found))[0]) == 333


@pytest.mark.parametrize("n_missing", [2, 3, 1999])
def test_a_wav_stream_that_ends_too_early_is_named(n_missing: int) -> None:
    data = wav("s16", signal(1000, 1))
    stream = io.BytesIO(data[:-n_missing])
    form = wav_format(stream)
    sink = io.BytesIO()
    with pytest.raises(LiveError, match=f"expected 2000 bytes of sound, found {2000 - n_missing} bytes"):
        denoise_stream(stream, sink, form, StreamingDenoiser(denoiser(), RATE, 1), 1600)
    assert len(sink.getvalue()) == 44 + 2 * ((2000 - n_missing) // 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_denoiser_that_makes_no_numbers_of_sound_is_named(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamingDenoiser, "process", lambda _, block: np.full_like(block, value))
    form = PcmFormat(RATE, 1, "s16")
    with pytest.raises(LiveError, match="The denoiser made NaN or infinity of sound that has none"):
        denoise_stream(io.BytesIO(bytes(range(256)) * 100), io.BytesIO(), form, StreamingDenoiser(denoiser(), RATE, 1), 1600)


def test_a_sample_that_a_header_cuts_off_is_named() -> None:
    data = with_size(wav("s16", signal(1000, 1)), 1999)
    stream = io.BytesIO(data)
    form = wav_format(stream)
    with pytest.raises(LiveError, match="header gives 1999 bytes of sound, which are no whole samples of 2 bytes"):
        denoise_stream(stream, io.BytesIO(), form, StreamingDenoiser(denoiser(), RATE, 1), 1600)


def spoiled(data: bytes, **places: bytes) -> bytes:
    """The header with other bytes at some places, such as at20 for the format code."""
    for name, value in places.items():
        place = int(name.removeprefix("at"))
        data = data[:place] + value + data[place + len(value) :]
    return data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "The input is no WAV stream; name the format of raw samples with --rate, --channels and --encoding."),
        (b"RIFF", "The input is no WAV stream"),
        (b"ID3 and so on, an MP3 file", "The input begins as a sound file does: denoise it as a file"),
        (b"RIFF\0\0\0\0AVI LIST", "The input begins as a sound file does"),
        (b"RIFF\0\0\0\0WAVE", "ends before its samples begin"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\x7f", "the description of its samples is too short"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "has no chunk that describes its samples"),
    ],
)
def test_what_is_no_wav_stream_is_named(data: bytes, text: str) -> None:
    with pytest.raises(LiveError, match=text):
        wav_format(io.BytesIO(data))


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (
            {"at20": b"\x06\0", "at34": b"\x08\0"},
            "format 6 with 8 bits: expected PCM or floating point; denoise it as a file, or convert it first, as with ffmpeg",
        ),
        ({"at22": b"\0\0"}, "damaged: expected 1 to 1024 channels, found 0"),
        ({"at22": b"\xff\xff"}, "damaged: expected 1 to 1024 channels, found 65535"),
        ({"at24": b"\0\0\0\0"}, "damaged: expected a sample rate of 1000 to 3000000 Hz, found 0 Hz"),
        ({"at24": b"\xff\xff\xff\x7f"}, "damaged: expected a sample rate of 1000 to 3000000 Hz, found 2147483647 Hz"),
        ({"at34": b"\x0c\0"}, "with 12 bits"),
        ({"at32": b"\x04\0"}, "samples of 16 bits and 4 bytes for all 1 channels: expected 2; denoise it as a file"),
    ],
)
def test_a_wav_stream_of_another_kind_is_named(places: dict[str, bytes], text: str) -> None:
    with pytest.raises(LiveError, match=text):
        wav_format(io.BytesIO(spoiled(wav("s16", signal(10, 1)), **places)))


@few
@given(st.integers(0, 100_000), st.integers(1, 8))
def test_no_damaged_header_raises_anything_else(seed: int, n_bytes: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(wav("s16", signal(50, 1)))
    for place in random.integers(0, 44, n_bytes):
        data[place] = random.integers(0, 256)
    stream = io.BytesIO(bytes(data))
    try:
        form = wav_format(stream)
    except LiveError:
        return
    if form.n_channels <= 8 and 4000 <= form.sample_rate <= 192_000:
        try:
            streamed(stream, form)
        except LiveError as error:
            assert "cut off" in str(error)  # noqa: PT017 - either way is right


# ---- the program


def test_the_program_gives_what_the_command_for_files_does(untrained: Path, command: Command, processes: list[Any]) -> None:
    source = recorded(Path("noisy.wav"), rate=44100, channels=2)
    assert command("denoise", source, "clean.wav").code == 0
    processes.append(program("--model", str(untrained)))
    out, err = processes[-1].communicate(source.read_bytes(), timeout=120)
    assert processes[-1].returncode == 0, err
    assert err.decode().startswith("delay: ")
    found, expected = soundfile.read(io.BytesIO(out), dtype="int16")[0], soundfile.read("clean.wav", dtype="int16")[0]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_sound_comes_out_while_it_goes_in(untrained: Path, processes: list[Any]) -> None:
    """With limits so generous that no busy machine reaches them: it is the order that counts."""
    process = program("--rate", "16000", "--encoding", "f32")
    processes.append(process)
    samples = signal(3 * RATE, 1)
    came: list[int] = []
    reading = threading.Thread(
        target=lambda: [came.append(len(part)) for part in iter(lambda: process.stdout.read1(65536), b"")]
    )
    reading.start()
    n_sent = 0
    for block in np.array_split(samples, 30):
        process.stdin.write(block.tobytes())
        process.stdin.flush()
        n_sent += len(block)
        # All but the delay of 32 ms and a frame that is not full yet.
        deadline = time.monotonic() + 60
        while sum(came) < 4 * (n_sent - 512 - 256):
            assert time.monotonic() < deadline, (n_sent, sum(came) // 4)
            time.sleep(0.005)
    process.stdin.close()
    reading.join(60)
    assert sum(came) == 4 * len(samples)
    assert process.wait(60) == 0
    assert process.stderr.read().decode().splitlines() == ["delay: 36 ms"]


def test_a_reader_that_goes_away_ends_the_program(untrained: Path, processes: list[Any]) -> None:
    process = program("--rate", "16000", "--channels", "2")
    processes.append(process)
    data, _ = encoded(signal(RATE), PcmFormat(RATE, 2, "s16"))
    process.stdin.write(data)
    process.stdin.flush()
    assert process.stdout.read(100)
    process.stdout.close()
    try:
        for _ in range(100):
            process.stdin.write(data)
            process.stdin.flush()
    except BrokenPipeError:
        pass
    assert process.wait(60) == 0
    assert process.stderr.read().decode().splitlines() == ["delay: 36 ms"]


def test_a_pipe_that_does_not_wait_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as source, Path(os.devnull).open("w", encoding="utf-8") as sink:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        monkeypatch.setattr(sys, "stdout", sink)
        stream, _ = standard_streams()
        sending = threading.Timer(0.3, lambda: (os.write(writing, b"late"), os.close(writing)))
        sending.start()
        assert [stream.read1(2), stream.read1(2), stream.read1(2)] == [b"la", b"te", b""]
        sending.join()


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_stream_without_its_pipe_is_named(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Path("input").write_bytes(b"")
    with Path("input").open("rb") as source, Path(os.devnull).open("w", encoding="utf-8") as sink:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        monkeypatch.setattr(sys, "stdout", sink)
        monkeypatch.setattr(sys, name, None)
        ended = command("denoise", "--stream", "--rate", "16000")
    assert ended.code == 1
    assert f"error: --stream needs the standard {name.removeprefix('std')}put, which is closed" in ended.err


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_the_command_runs_with_closed_streams(untrained: Path, closed: str) -> None:
    recorded(Path("noisy.wav"))
    line = f'"$0" -m stages.denoise noisy.wav clean.wav --model {untrained} {closed}'
    settings = environment(Path.cwd()) | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", line, sys.executable], env=settings, timeout=120, check=False).returncode == 0
    assert len(soundfile.read("clean.wav")[0]) == len(soundfile.read("noisy.wav")[0])


@pytest.mark.parametrize(
    ("arguments", "data", "code", "text"),
    [
        ([], b"no sound", 1, "error: The input is no WAV stream; name the format of raw samples with --rate"),
        (
            ["--rate", "16000"],
            wav_header(PcmFormat(RATE, 1, "s16", wav=True)),
            1,
            "error: The input is a WAV stream, which says its own format: leave out --rate",
        ),
        (
            ["--rate", "16000"],
            b"RF64" + wav_header(PcmFormat(RATE, 1, "s16", wav=True))[4:],
            1,
            "error: The input is a WAV stream, which says its own format: leave out --rate",
        ),
        (["--rate", "16000"], b"\0\0\0", 1, "error: The stream was cut off: expected whole samples, found 3 bytes"),
        (["--rate", "16000", "--mix", "2"], b"", 2, "error: The share of the unprocessed sound (mix) is 2: expected 0 to 1."),
        (
            ["--rate", "16000", "--model", "gone"],
            b"",
            2,
            "error: 'gone': no such weights file, and not one of best and live.",
        ),
        (["--rate", "16000", "--model", ""], b"", 2, "error: '': no such weights file, and not one of best and live."),
        *(
            (["--rate", "16000"], head, 1, "error: The input begins as a sound file does: denoise it as a file")
            for head in (
                b"FORM\0\0\0\x20AIFC",
                b"FORM\0\0\0\x20AIFF" + bytes(40),
                b"RIFX\0\0\0\x20WAVE",
                bytes.fromhex("726966662e91cf11a5d628db04c10000"),
                *(sign + bytes(40) for sign in (b"fLaC", b"OggS", b"caff", b".snd", b"NIST_1A", b"BW64", b"RIFF", b"ID3")),
                *(bytes.fromhex(sign) + bytes(40) for sign in ("3026b2758e66cf11", "1a45dfa3", "0000002066747970")),
            )
        ),
    ],
)
def test_mistakes_of_a_stream_are_said(
    untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], data: bytes, code: int, text: str
) -> None:
    ended = through(command, monkeypatch, data, *arguments)
    assert ended.code == code
    assert text in ended.err
    assert "Traceback" not in ended.err


class InPieces(io.BytesIO):
    """Bytes that come one by one, as from a program that writes them so."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 1, 1))


def test_the_first_bytes_of_raw_samples_may_come_one_by_one() -> None:
    raw, sink = PcmFormat(RATE, 1, "s16"), io.BytesIO()
    data = wav("s16", signal(300, 1))
    with pytest.raises(LiveError, match="The input is a WAV stream"):
        denoise_stream(InPieces(data), sink, raw, StreamingDenoiser(denoiser(), RATE, 1), 256)
    assert sink.getvalue() == b""
    outputs = []
    for source in (InPieces(data[44:]), io.BytesIO(data[44:])):
        sink = io.BytesIO()
        denoise_stream(source, sink, raw, StreamingDenoiser(denoiser(), RATE, 1), 256)
        outputs.append(sink.getvalue())
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(data) - 44


def test_values_that_are_no_numbers_are_said(untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.full(2000, 3.0, np.float32)
    samples[10] = np.nan
    ended = through(command, monkeypatch, samples.tobytes(), "--rate", "16000", "--encoding", "f32")
    assert ended.err.splitlines()[1:] == ["1 values were NaN or infinite, and were taken for silence"]


def through(command: Command, monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: str) -> Any:
    """Runs the command in this process with these bytes on standard input, its standard output thrown away."""
    Path("input").write_bytes(data)
    with Path("input").open("rb") as source, Path(os.devnull).open("w", encoding="utf-8") as sink:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(source))
        monkeypatch.setattr(sys, "stdout", sink)
        return command("denoise", "--stream", *arguments)


def test_the_delay_is_said_with_that_of_resampling(untrained: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    weights()
    for rate, expected in (("16000", "delay: 32 ms"), ("48000", "delay: 32 ms")):
        assert through(command, monkeypatch, b"", "--rate", rate).err.splitlines() == [expected]
    words = through(command, monkeypatch, b"", "--rate", "44100").err.split()
    assert words[0] == "delay:"
    assert 40 < float(words[1]) < 100

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, few, hiss, level_db, snr_db, stored, voiced

from stages.core.audio import (
    SUFFIXES,
    AudioError,
    level_dbfs,
    read_audio,
    resampled,
    sound_files,
)

CONTAINERS = ["WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "W64", "RF64"]
# What libsndfile lists, but writes with errors or not at all.
UNWRITTEN = {("WAV", "MPEG_LAYER_III"), ("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II")}
UNWRITTEN |= {("AIFF", f"DWVW_{bits}") for bits in (12, 16, 24)}
FORMATS = [(container, encoding) for container in CONTAINERS for encoding in soundfile.available_subtypes(container)]
FORMATS = [pair for pair in FORMATS if pair not in UNWRITTEN]
# At least this much is left of a loud voice; lossless encodings and those that are not named keep 40 dB.
COARSE_DB = {"VORBIS": 10, "OPUS": 5, "MPEG_LAYER_III": 10, "GSM610": 3}
COARSE_DB |= {"PCM_S8": 25, "PCM_U8": 25, "ULAW": 25, "ALAW": 25, "IMA_ADPCM": 15, "MS_ADPCM": 15, "G721_32": 10}
COARSE_DB |= {"G723_24": 5, "G723_40": 10, "NMS_ADPCM_16": 0, "NMS_ADPCM_24": 5, "NMS_ADPCM_32": 10, "DPCM_8": 10}
# Encodings that libsndfile writes in blocks: the last one is filled up, as AIFF does to an even number of bytes.
IN_BLOCKS = {"IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "G723_24", "G723_40", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"}


def write_audio(path: Path, wave: np.ndarray, sample_rate: int, container: str, encoding: str = "PCM_16") -> None:
    with soundfile.SoundFile(path, "w", sample_rate, wave.shape[1], encoding, None, container) as file:
        # libsndfile's Vorbis encoder overflows its stack on very long single writes (libsndfile#709).
        for first in range(0, len(wave), 1 << 14):
            file.write(np.clip(wave[first : first + (1 << 14)], -1, 1))


@pytest.mark.parametrize(("container", "encoding"), FORMATS)
def test_every_format_is_read_with_its_own_length(container: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wave = np.float32(2) * voiced(12345)[:, None]
    write_audio(path, wave, RATE, container, encoding)
    found, sample_rate = read_audio(path)
    assert sample_rate == RATE
    if encoding in IN_BLOCKS:
        assert len(wave) <= len(found) < len(wave) + 1100
    elif container == "AIFF" and encoding in ("PCM_S8", "PCM_U8", "ULAW", "ALAW"):
        assert len(found) == len(wave) + 1
    else:
        assert found.shape == wave.shape
    assert snr_db(wave, found[: len(wave)] - wave) > COARSE_DB.get(encoding, 40)


@pytest.mark.parametrize(
    ("container", "n_samples"),
    # libsndfile writes no header of a FLAC file without samples.
    sorted(set(product(["WAV", "FLAC", "OGG", "AIFF", "CAF"], [0, 1, 100, 70000])) - {("FLAC", 0)}),
)
def test_any_length_comes_back(container: str, n_samples: int, tmp_path: Path) -> None:
    wave = hiss(2 * n_samples).reshape(n_samples, 2)
    encoding = "VORBIS" if container == "OGG" else "PCM_16"
    write_audio(tmp_path / "a", wave, 48000, container, encoding)
    found, sample_rate = read_audio(tmp_path / "a")
    assert (found.shape, found.dtype, sample_rate) == ((n_samples, 2), np.float32, 48000)


@few
@given(start=st.integers(0, 3000), n_samples=st.integers(0, 3000))
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_a_part_is_that_part_of_the_whole(container: str, start: int, n_samples: int, tmp_path_factory: object) -> None:
    path = tmp_path_factory.getbasetemp() / f"part.{container.lower()}"  # type: ignore[attr-defined]
    if not path.exists():
        write_audio(path, hiss(4000).reshape(2000, 2), RATE, container)
    whole, _ = read_audio(path)
    if start + n_samples <= 2000:
        np.testing.assert_array_equal(read_audio(path, start=start, n_samples=n_samples)[0], whole[start : start + n_samples])
    else:
        with pytest.raises(AudioError, match=rf"part\.{container.lower()}"):
            read_audio(path, start=start, n_samples=n_samples)
    if start <= 2000:
        np.testing.assert_array_equal(read_audio(path, start=start)[0], whole[start:])


def damaged(tmp_path: Path, name: str, container: str, encoding: str, share: float) -> Path:
    path = tmp_path / name
    write_audio(path, 3 * voiced(64000)[:, None], RATE, container, encoding)
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("container", "encoding"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_16"),
        ("CAF", "PCM_16"),
        ("AU", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
    ],
)
def test_a_truncated_file_is_named(container: str, encoding: str, share: float, tmp_path: Path) -> None:
    path = damaged(tmp_path, f"cut.{container.lower()}", container, encoding, share)
    with pytest.raises(AudioError, match=rf"cut\.{container.lower()}: "):
        read_audio(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear reader, this is no sound.", "not a sound file"),
        (b"RIFF\x24\x00\x00\x00WAVE", "not a sound file"),
        (bytes(range(256)) * 8, "not a sound file"),
        (b"OggS" + bytes(200), "not a sound file"),
        (b"fLaC" + bytes(200), "not a sound file"),
    ],
)
def test_what_is_no_sound_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(AudioError, match=rf"bad\.wav: {message}"):
        read_audio(tmp_path / "bad.wav")


@pytest.mark.parametrize("name", ["raw.raw", "noise.raw", "plain.txt"])
def test_a_suffix_alone_makes_no_sound_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(AudioError, match="not a sound file"):
        read_audio(tmp_path / name)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.wav", tmp_path):
        with pytest.raises(AudioError, match="no such file"):
            read_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    wave = hiss(1000)
    wave[700] = value
    path = stored(tmp_path / "odd.wav", wave)
    with pytest.raises(AudioError, match=r"odd\.wav: holds samples that are NaN or infinite"):
        read_audio(path)
    assert len(read_audio(path, n_samples=700)[0]) == 700


@pytest.mark.parametrize("n_samples", [None, 100])
@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, n_samples: int | None, rate: int) -> None:
    path = stored(tmp_path / "odd.wav", hiss(100), rate)
    with pytest.raises(AudioError, match=r"odd\.wav: its header is damaged: expected a sample rate of 1000 to 3000000 Hz"):
        read_audio(path, n_samples=n_samples)


def test_a_file_of_no_samples_is_read_as_such(tmp_path: Path) -> None:
    wave, sample_rate = read_audio(stored(tmp_path / "none.wav", np.zeros(0, np.float32)))
    assert (wave.shape, sample_rate) == ((0, 1), RATE)


def complaint(path: Path) -> str:
    """What is said about a file that cannot be read; '' for one that can."""
    try:
        wave, sample_rate = read_audio(path)
    except AudioError as error:
        return str(error)
    assert np.isfinite(wave).all()
    assert sample_rate > 0
    assert wave.shape[1] >= 1
    return ""


def test_every_file_of_the_zoo_is_read_or_named(test_audio: Path) -> None:
    paths = sorted(path for path in (test_audio / "zoo").rglob("*") if path.is_file())
    complaints = {path: complaint(path) for path in paths}
    refused = {path.name for path, text in complaints.items() if text}
    for path in paths:
        assert complaints[path] == "" or complaints[path].startswith(f"{path}: ")
        assert "\n" not in complaints[path]
    broken = {path.name for path in paths if path.stem.startswith(("truncated", "corrupt", "nan", "inf", "empty", "text"))}
    foreign = {path.name for path in paths if path.suffix in (".m4a", ".mp4", ".webm", ".mka", ".wma")}
    assert broken
    assert refused - {"header-only.wav"} == broken | foreign


def test_sound_files_are_found_by_suffix_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.wav", "a/c.FLAC", "a/b.ogg", "notes.txt", ".hidden.wav", ".cache/d.wav", "a/.partial-x.wav", "m.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = sound_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a/b.ogg", "a/c.FLAC", "b.wav"]
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


def test_a_hidden_folder_above_hides_nothing(tmp_path: Path) -> None:
    stored(tmp_path / ".corpora" / "a.wav", hiss(10))
    assert len(sound_files(tmp_path / ".corpora")) == 1


@pytest.mark.parametrize("rates", [(48000, 16000), (16000, 48000), (44100, 16000), (22050, 16000), (11025, 48000)])
def test_resampling_keeps_time_level_and_frequency(rates: tuple[int, int]) -> None:
    old, new = rates
    tones = [np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32) for rate in rates]
    found = resampled(tones[0], old, new)
    assert abs(len(found) - new) <= 1
    inner = slice(new // 10, -new // 10)
    assert snr_db(tones[1][inner], found[:new][inner] - tones[1][inner]) > 60
    np.testing.assert_array_equal(resampled(tones[0], old, old), tones[0])
    both = resampled(np.stack([tones[0], 0.5 * tones[0]], axis=1), old, new)
    np.testing.assert_allclose(both[:, 0], found, atol=1e-6)
    np.testing.assert_allclose(both[:, 1], 0.5 * found, atol=1e-6)


def test_nothing_folds_back_when_the_rate_falls() -> None:
    tone = np.sin(2 * np.pi * 12000 * np.arange(48000) / 48000).astype(np.float32)
    assert level_db(resampled(tone, 48000, 16000)[1600:-1600]) < -80


def test_level() -> None:
    assert level_dbfs(np.ones(10, np.float32)) == 0
    assert level_dbfs(np.full(10, 0.1, np.float32)) == pytest.approx(-20, abs=1e-5)
    assert level_dbfs(np.zeros(10, np.float32)) == level_dbfs(np.zeros(0, np.float32)) == -np.inf


def test_a_flac_stream_of_unknown_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "piped.flac"
    soundfile.write(path, np.zeros(4000, np.float32), 16000)
    data = bytearray(path.read_bytes())
    # The last 36 bits of 8 in the first block of metadata count the samples; an encoder that cannot know leaves zeros.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="does not say how long"):
        read_audio(path)

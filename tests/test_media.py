"""Sound and video files of every kind: what is read is whole or refused, what is written is like what was read."""

import hashlib
import re
import resource
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from media_specimens import CONTAINERS, LOSSLESS, SOUND_FILES, media_file, sound_file, waveform

from stages.core import media
from stages.core.audio import AudioError
from stages.core.sound_writing import whole_numbers
from stages.core.wav_chunks import put_speaker_mask, speaker_mask

LOSSY_DB, LOSSLESS_DB = 20, 50
NAMES = [*SOUND_FILES, *CONTAINERS]
PICTURES = [name for name, (_, _, picture) in CONTAINERS.items() if picture]
# Formats that nowhere say how long they are.
ENDLESS = {".aac", ".ac3", ".eac3", ".mp2", ".ts", ".mpg"}
# The containers that give the length of their sound to the sample; in the others it ends with a frame of the codec.
EXACT = {
    "alac.m4a",
    "aac.m4a",
    "opus.webm",
    "flac.mka",
    "pcm24.mka",
    "tta.tta",
    "wavpack.wv",
    "flac.ogg",
    "aac.mp4",
    "pcm16.mov",
}
EXACT |= {"float.mov", "mp3.mkv", "vp8.webm", "pcm16.avi", "aac.3gp"}


def specimen(path: Path, **shape: int) -> Path:
    """The file of the name of `path`."""
    return sound_file(path, **shape) if path.name in SOUND_FILES else media_file(path, **shape)


def whole(path: Path, n: int = 5000) -> tuple[np.ndarray, media.MediaReader]:
    """All samples of a file, and its reader, closed."""
    with media.reader(path) as source:
        return np.concatenate(list(source.blocks(n))), source


def copied(path: Path, target: Path, n: int = 3000) -> media.MediaSink:
    """Writes what is read to another file."""
    with media.reader(path) as source, media.writer(target, source) as sink:
        for block in source.blocks(n):
            sink.write(block)
    return sink


def similarity_db(old: np.ndarray, new: np.ndarray) -> float:
    """How much louder the old waveform is than what differs in the new one."""
    error, power = np.square(new - old, dtype=np.float64).sum(), np.square(old, dtype=np.float64).sum()
    return np.inf if error == 0 else float(10 * np.log10(power / error))


def pictures(path: Path) -> list[bytes]:
    """The packets of the video stream of a file, or none."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size] if container.streams.video else []


def beginning(path: Path) -> float:
    """Seconds from the first picture to the first sound."""
    times = []
    for kind in ("audio", "video"):
        with av.open(str(path)) as container:
            frame = next(container.decode(**{kind: 0}))
            times.append(float(frame.pts * frame.time_base))
    return times[0] - times[1]


def is_lossless(source: media.MediaReader) -> bool:
    """Whether the encoding gives back what was written."""
    encoding = source.format.encoding
    return encoding.lower().startswith("pcm") or encoding in LOSSLESS | {"FLOAT", "DOUBLE", "ULAW", "ALAC_16"}


def check_copy(path: Path, folder: Path) -> media.MediaSink:
    """Copies a file and compares all that has to stay."""
    old, source = whole(path)
    sink = copied(path, folder / path.name)
    new, result = whole(sink.path)
    assert (result.sample_rate, result.n_channels, len(new)) == (source.sample_rate, source.n_channels, len(old))
    assert result.format.encoding == source.format.encoding
    assert result.format.container == source.format.container
    assert result.format.bit_depth == source.format.bit_depth
    if old.any():
        assert similarity_db(old, new) > (LOSSLESS_DB if is_lossless(source) else LOSSY_DB)
    assert pictures(sink.path) == pictures(path)
    assert [file for file in folder.iterdir() if file.name.startswith(".")] == []
    return sink


# ---- real files


REFUSED = {
    "corrupt-middle.flac": r"corrupt or truncated: it cannot be decoded past 1\.\d+ s \(Error : flac decoder lost sync\)",
    "truncated.flac": r"corrupt or truncated: it cannot be decoded past 1\.\d+ s \(Error : flac decoder lost sync\)",
    "truncated.ogg": "its last page is missing",
    "truncated.wav": "truncated: expected 96000 bytes of audio, found 47978",
    "empty.wav": r"the file is empty \(0 bytes\)",
    "header-only.wav": "truncated: expected 96000 bytes of audio, found 0",
    "text.wav": "not a sound or video file",
    "nan-float.wav": r"holds samples that are NaN, the first at 0\.312 s",
    "inf-float.wav": r"holds samples that are infinite, the first at 0\.438 s",
}


def test_every_real_file_is_copied_or_refused(test_audio: Path, tmp_path: Path) -> None:
    files = sorted((test_audio / "zoo").iterdir())
    assert REFUSED.keys() <= {path.name for path in files}
    assert media.media_files(test_audio / "zoo") == files
    for path in files:
        if path.name in REFUSED:
            with pytest.raises(AudioError, match=REFUSED[path.name]) as caught:
                whole(path)
            assert str(caught.value).startswith(str(path))
        else:
            check_copy(path, tmp_path)


# ---- reading and writing


@pytest.mark.parametrize("name", NAMES)
def test_copy_is_like_its_input(name: str, tmp_path: Path) -> None:
    path = specimen(tmp_path / name)
    (tmp_path / "out").mkdir()
    sink = check_copy(path, tmp_path / "out")
    assert sink.path.name == name
    assert not [remark for remark in sink.remarks if "clipped" not in remark and "not kept" not in remark]


@pytest.mark.parametrize(
    "name", ["pcm16.wav", "pcm16.flac", "vorbis.ogg", "aac.m4a", "opus.webm", "aac.mp4", "ac3.mka", "wma2.wma"]
)
@pytest.mark.parametrize("n_samples", [4800, 20_480, 48_001])
def test_any_length_and_stereo_stay(name: str, n_samples: int, tmp_path: Path) -> None:
    path = specimen(tmp_path / name, n_channels=2, n_samples=n_samples)
    (tmp_path / "out").mkdir()
    check_copy(path, tmp_path / "out")


@pytest.mark.parametrize("name", sorted(EXACT | SOUND_FILES.keys()))
def test_length_is_exact_where_the_format_gives_it(name: str, tmp_path: Path) -> None:
    old, source = whole(specimen(tmp_path / name))
    assert len(old) == 20_001
    assert source.n_samples in (20_001, None)
    expected = waveform(20_001, 1)
    assert similarity_db(expected, old) > 15


@pytest.mark.parametrize("name", NAMES)
def test_equal_sound_gives_equal_bytes(name: str, tmp_path: Path) -> None:
    path = specimen(tmp_path / name)
    digests = {hashlib.sha256(copied(path, tmp_path / str(run) / name).path.read_bytes()).hexdigest() for run in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["pcm16.wav", "aac.m4a", "vp8.webm"])
def test_samples_do_not_depend_on_blocks(name: str, tmp_path: Path) -> None:
    path = specimen(tmp_path / name)
    expected, _ = whole(path, 1 << 20)
    for n in (1, 777, 16_384):
        with media.reader(path) as source:
            blocks = list(source.blocks(n))
        assert {len(block) for block in blocks[:-1]} <= {n}
        np.testing.assert_array_equal(np.concatenate(blocks), expected)


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1), st.sampled_from([8, 16, 24]))
@settings(max_examples=50, deadline=None)
def test_whole_numbers_come_back(numbers: list[int], bits: int) -> None:
    scaled = np.asarray(numbers, np.float32)[:, None] / 2**15
    result = whole_numbers(np.trunc(scaled * 2 ** (bits - 1)).astype(np.float32) / 2 ** (bits - 1), bits, np.int32, 0)
    np.testing.assert_array_equal(result, np.trunc(scaled.astype(np.float64) * 2 ** (bits - 1)))


def test_clipping_is_counted_and_float_keeps_overs(tmp_path: Path) -> None:
    loud = np.asarray([[0.5], [1.5], [-2.0], [1.0], [-1.0]], np.float32)
    for name, n_clipped in (("pcm16.wav", 2), ("float.wav", 0)):
        with media.reader(specimen(tmp_path / name)) as source, media.writer(tmp_path / "out" / name, source) as sink:
            sink.write(loud)
        assert sink.n_clipped == n_clipped
        assert bool(sink.remarks) == bool(n_clipped)
        expected = np.clip(loud, -1, 32767 / 32768) if n_clipped else loud
        np.testing.assert_array_equal(whole(sink.path)[0], expected)


@pytest.mark.parametrize(("name", "seconds"), [("pcm16.wav", 600), ("aac.mp4", 40)])
def test_memory_does_not_grow_with_the_file(name: str, seconds: int, tmp_path: Path) -> None:
    path = specimen(tmp_path / name, n_samples=16_000 * seconds, sample_rate=16_000)
    tracemalloc.start()
    try:
        with media.reader(path) as source:
            n_samples = sum(len(block) for block in source.blocks(8000))
        assert tracemalloc.get_traced_memory()[1] < 5e5
    finally:
        tracemalloc.stop()
    assert n_samples == 16_000 * seconds


# ---- pictures, tags and formats that cannot be written


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("start_s", [0, 0.4])
def test_sound_stays_with_the_picture(name: str, start_s: float, tmp_path: Path) -> None:
    path = media_file(tmp_path / name, n_samples=48_000, start_s=start_s)
    sink = copied(path, tmp_path / "out" / name)
    assert pictures(sink.path) == pictures(path)
    assert beginning(sink.path) == pytest.approx(beginning(path), abs=2.1e-3)
    with media.reader(sink.path) as result, media.reader(path) as source:
        assert result.tags.get("title") == source.tags.get("title")


def test_other_streams_are_kept_and_mentioned(tmp_path: Path) -> None:
    path = media_file(tmp_path / "aac.mkv", n_sounds=2)
    sink = copied(path, tmp_path / "out" / path.name)
    with media.reader(path) as source:
        assert source.remarks == ["it has 2 audio streams: stream 1 is denoised, the others are left as they are"]
    with av.open(str(sink.path)) as container, av.open(str(path)) as original:
        assert [stream.type for stream in container.streams] == [stream.type for stream in original.streams]
        assert [bytes(packet) for packet in container.demux(audio=1)] == [bytes(packet) for packet in original.demux(audio=1)]


def test_cover_chapters_and_tags_of_m4a_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "cover.m4a"
    with av.open(str(media_file(tmp_path / "aac.m4a"))) as plain, av.open(str(path), "w", format="mp4") as out:
        out.metadata.update({"title": "Eins", "artist": "Zwei"})
        out.set_chapters([{"id": 0, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "Kapitel"}}])
        sound = out.add_stream_from_template(plain.streams[0])
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            out.mux(packet)
        for packet in plain.demux():
            if packet.size:
                packet.stream = sound
                out.mux(packet)
    sink = copied(path, tmp_path / "out" / path.name)
    with av.open(str(sink.path)) as container:
        assert container.metadata["title"] == "Eins"
        assert container.metadata["artist"] == "Zwei"
        assert container.streams.video[0].disposition & av.stream.Disposition.attached_pic
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["Kapitel"]
    assert pictures(sink.path) == pictures(path)
    assert sink.remarks == []


def test_tags_of_sound_files_are_kept_or_named(tmp_path: Path) -> None:
    path = tmp_path / "tags.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        file.title, file.artist = "Ein Titel", "Jemand"
        file.write(waveform(1000, 1, 16_000))
    sink = copied(path, tmp_path / "out.flac")
    assert sink.remarks == []
    assert whole(sink.path)[1].tags["title"] == "Ein Titel"
    sink = copied(path, tmp_path / "out.au")
    assert sink.remarks == ["not kept of the tags: artist, title"]


def test_chunks_that_are_not_kept_are_named(tmp_path: Path) -> None:
    path = tmp_path / "marked.wav"
    soundfile.write(path, waveform(1000, 1), 16_000)
    rest = (
        b"cue "
        + struct.pack("<II", 4, 0)
        + b"LIST"
        + struct.pack("<I", 4)
        + b"adtl"
        + b"iXML"
        + struct.pack("<I", 3)
        + b"<a>\0"
    )
    data = path.read_bytes() + rest
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert copied(path, tmp_path / "out" / path.name).remarks == ["not kept: iXML, labels (adtl), markers (cue)"]
    plain = tmp_path / "plain.wav"
    soundfile.write(plain, waveform(1000, 1), 16_000)
    assert copied(plain, tmp_path / "out" / plain.name).remarks == []


@pytest.mark.parametrize(("n_channels", "mask"), [(6, 0x60F), (6, 0x3F), (2, 0x600), (3, 0x7), (4, 0)])
def test_channels_stay_with_their_loudspeakers(n_channels: int, mask: int, tmp_path: Path) -> None:
    path = tmp_path / "surround.wav"
    soundfile.write(path, waveform(1000, n_channels), 16_000, format="WAVEX")
    put_speaker_mask(path, struct.pack("<I", mask))
    assert speaker_mask(path) == struct.pack("<I", mask)
    sink = copied(path, tmp_path / "out" / path.name)
    assert speaker_mask(sink.path) == struct.pack("<I", mask)
    np.testing.assert_array_equal(soundfile.read(sink.path)[0], soundfile.read(path)[0])


def test_what_cannot_be_written_becomes_lossless(tmp_path: Path) -> None:
    path = tmp_path / "adpcm.wav"
    soundfile.write(path, waveform(20_001, 1, 16_000), 16_000, subtype="IMA_ADPCM")
    sink = copied(path, tmp_path / "out" / path.name)
    assert "IMA_ADPCM holds whole blocks only" in sink.remarks[0]
    assert len(whole(sink.path)[0]) == len(whole(path)[0])
    path = sound_file(tmp_path / "pcm16.wav", n_channels=9)
    sink = copied(path, tmp_path / "out" / "nine.flac")
    assert sink.path.name == "nine.flac.wav"
    assert "WAV in floating point" in sink.remarks[0]
    np.testing.assert_array_equal(whole(sink.path)[0], whole(path)[0])


def test_a_refused_format_leaves_what_was_there(tmp_path: Path) -> None:
    path = sound_file(tmp_path / "pcm16.wav", sample_rate=44_100)
    (tmp_path / "out.webm").write_text("precious", encoding="utf-8")
    for name in ("out.webm", "new.webm"):
        sink = copied(path, tmp_path / name)
        assert sink.path.name == f"{name}.flac"
        np.testing.assert_array_equal(whole(sink.path)[0], whole(path)[0])
    assert (tmp_path / "out.webm").read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "new.webm").exists()
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("name", ["out.wav", "out.mp4"])
def test_a_full_disk_is_no_reason_for_another_format(name: str, tmp_path: Path) -> None:
    path = sound_file(tmp_path / "pcm16.wav")
    target = tmp_path / "out" / name
    target.parent.mkdir()
    target.write_text("an earlier output", encoding="utf-8")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with media.reader(path) as source:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(media.MediaError, match=rf"{name}: cannot be written \("):
                media.writer(target, source).__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [found.name for found in target.parent.iterdir()] == [name]
    assert target.read_text(encoding="utf-8") == "an earlier output"


@pytest.mark.parametrize(("name", "form"), [("out.flac", "FLAC"), ("out.ogg", "OGG"), ("out.mp3", "MP3"), ("out.wav", "WAV")])
@pytest.mark.parametrize("missing", [1, 200, 1500])
def test_an_end_that_the_disk_refuses_is_noticed(name: str, form: str, missing: int, tmp_path: Path) -> None:
    path = tmp_path / f"in.{form.lower()}"
    soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(48_000), 16_000, format=form)
    size = copied(path, tmp_path / "whole" / name).path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, limits[1]))
    try:
        with pytest.raises(media.MediaError, match=rf"{name}: (could not|cannot) be written"):
            copied(path, tmp_path / "out" / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").iterdir())


def test_suffix_of_the_output_rules(tmp_path: Path) -> None:
    path = media_file(tmp_path / "aac.m4a")
    for name, encoding in (("a.wav", "PCM_24"), ("b.flac", "PCM_24"), ("c.mka", "aac"), ("d.opus", "OPUS"), ("e.m4a", "aac")):
        sink = copied(path, tmp_path / "out" / name)
        result, source = whole(sink.path)
        assert (sink.path.name, source.format.encoding) == (name, encoding)
        assert len(result) == 20_001


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def attempt(path: Path, block: np.ndarray) -> None:
        with media.reader(path) as source, media.writer(tmp_path / "out" / path.name, source) as sink:
            sink.write(np.zeros((10, 1), np.float32))
            if not len(block):
                raise KeyboardInterrupt
            sink.write(block)

    paths = [sound_file(tmp_path / "pcm16.wav"), media_file(tmp_path / "aac.mp4")]
    for path in paths:
        with pytest.raises(KeyboardInterrupt):
            attempt(path, np.zeros((0, 1), np.float32))
        with pytest.raises(media.MediaError, match="holds NaN"):
            attempt(path, np.full((2, 1), np.nan, np.float32))
        with pytest.raises(media.MediaError, match="expected blocks of 1 channels, found 2"):
            attempt(path, np.zeros((2, 2), np.float32))
        assert list((tmp_path / "out").iterdir()) == []
        with media.reader(path) as source, pytest.raises(media.MediaError, match="would be overwritten"):
            media.writer(path, source).__enter__()


# ---- what is refused


@pytest.mark.parametrize("name", [name for name in NAMES if Path(name).suffix not in ENDLESS])
def test_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    path = specimen(tmp_path / name, n_samples=96_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(AudioError, match=str(path)):
        whole(path)


@pytest.mark.parametrize(("name", "place", "order"), [("pcm16.wav", 24, "<"), ("pcm16.au", 16, ">")])
@pytest.mark.parametrize("rate", [3_000_001, 2**31 - 1])
@pytest.mark.parametrize("n_files", [1, 2])
def test_a_rate_that_cannot_be_is_refused(name: str, place: int, order: str, rate: int, n_files: int, tmp_path: Path) -> None:
    """Two WAV files in one are left to FFmpeg."""
    path = specimen(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes((data[:place] + struct.pack(f"{order}I", rate) + data[place + 4 :]) * n_files)
    with pytest.raises(AudioError, match=f"{path}: its header is damaged: expected a sample rate of .* found {rate} Hz"):
        whole(path)


@pytest.mark.parametrize("container", ["WAV", "AU"])
def test_more_channels_than_can_be_are_refused(container: str, tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((2, 1024), np.float32), 16_000, format=container)
    assert whole(path)[0].shape == (2, 1024)
    data = bytearray(path.read_bytes())
    if container == "WAV":
        data[22:24], data[32:34] = struct.pack("<H", 2048), struct.pack("<H", 4096)
    else:
        data[20:24] = struct.pack(">I", 2048)
    path.write_bytes(bytes(data))
    with pytest.raises(AudioError, match=str(path)):
        whole(path)


LEFT_OUT = r"its header ends the sound (\d+) bytes before the end; if they are sound, it was left out"


@pytest.mark.parametrize("name", ["pcm16.wav", "u8.wav", "pcm16.rf64", "pcm16.aiff"])
def test_sound_behind_a_wrong_size_is_named(name: str, tmp_path: Path) -> None:
    """As recorders leave it that crash, or whose counter of bytes ran over."""
    path = specimen(tmp_path / name, n_samples=3001)
    data = path.read_bytes()
    # As loud as no name of a chunk is: in a real file it would be one by a rare chance only.
    rest = b"\x01\xfe" * 5000
    path.write_bytes(data + b"\0" * (len(data) % 2) + rest)
    old, source = whole(path)
    assert len(old) == 3001
    assert [re.fullmatch(LEFT_OUT, remark)[1] for remark in source.remarks] == [str(len(rest))]


@pytest.mark.parametrize("name", ["pcm16.wav", "u8.wav", "mp3.mp3", "aac.m4a", "pcm16.mov", "pcm16.rf64", "pcm16.aiff"])
def test_a_second_file_behind_the_first_is_named(name: str, tmp_path: Path) -> None:
    path = specimen(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data + data)
    remarks = whole(path)[1].remarks
    assert len(remarks) == 1
    assert abs(int(re.fullmatch(LEFT_OUT, remarks[0])[1]) - len(data)) <= 500


TAG = b"TAG" + bytes(125)
CHUNKS = [
    b"LIST\4\0\0\0INFO",
    b"note\5\0\0\0hello\0id3 \2\0\0\0ab",
    b"note\5\0\0\0helloLIST\4\0\0\0INFO",
    bytes(4000),
    b"\0\0\0",
    TAG,
    b"ID3\4\0\0\0\0\1\0" + bytes(128),
    b"APETAGEX" + bytes(24),
]


@pytest.mark.parametrize("rest", CHUNKS, ids=range(len(CHUNKS)))
@pytest.mark.parametrize("name", ["pcm16.wav", "u8.wav"])
def test_chunks_tags_and_padding_behind_the_sound_are_nothing_to_name(name: str, rest: bytes, tmp_path: Path) -> None:
    for n_samples in (3000, 3001):
        path = specimen(tmp_path / name, n_samples=n_samples)
        data = path.read_bytes()
        # With the byte of padding behind an odd number of bytes, and without.
        for padding in {b"", b"\0" * (len(data) % 2)}:
            path.write_bytes(data + padding + rest)
            old, source = whole(path)
            assert (len(old), source.remarks) == (n_samples, [])


@pytest.mark.parametrize("rest", [TAG, b"APETAGEX" + bytes(24), bytes(9000), TAG + bytes(300)])
def test_tags_and_padding_behind_an_mp3_are_nothing_to_name(rest: bytes, tmp_path: Path) -> None:
    path = specimen(tmp_path / "mp3.mp3")
    path.write_bytes(path.read_bytes() + rest)
    assert whole(path)[1].remarks == []


def test_file_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        out.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(media.MediaError, match="has no sound: it holds video only"):
        media.reader(path)


def test_missing_file_and_playlist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(media.MediaError, match="no such file"):
        media.reader(tmp_path / "gone.wav")
    sound_file(tmp_path / "pcm16.wav")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\npcm16.wav\n#EXT-X-ENDLIST\n", encoding="utf-8")
    with pytest.raises(media.MediaError, match="not a sound or video file"):
        media.reader(tmp_path / "list.mp4")


def test_file_of_no_samples_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros((0, 2)), 16_000)
    with media.reader(path) as source:
        assert source.n_samples == 0
        assert list(source.blocks(10)) == []
    sink = copied(path, tmp_path / "out" / path.name)
    assert soundfile.info(sink.path).frames == 0
    # A recorder that was killed.
    path.write_bytes(path.read_bytes() + bytes(10_000))
    with pytest.raises(AudioError, match=r"holds no samples: its header promises none, and the file has 100\d\d bytes"):
        media.reader(path)


def test_media_files_are_found_once(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp4", "sub/c.mkv", ".hidden.wav", ".git/d.wav", "e.txt", ".partial-x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    # A link that leads nowhere is listed, so that the report names it.
    assert media.media_files(tmp_path) == [tmp_path / name for name in ("a.mp4", "b.WAV", "gone.wav", "sub/c.mkv")]

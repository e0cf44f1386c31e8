"""Small sound and video files of every kind, made with the encoders at hand."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 48_000

# Name of the file: container and encoding of libsndfile.
SOUND_FILES = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "pcm32.wav": ("WAV", "PCM_32"),
    "u8.wav": ("WAV", "PCM_U8"),
    "float.wav": ("WAV", "FLOAT"),
    "double.wav": ("WAV", "DOUBLE"),
    "ulaw.wav": ("WAV", "ULAW"),
    "pcm16.flac": ("FLAC", "PCM_16"),
    "pcm24.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.opus": ("OGG", "OPUS"),
    "mp3.mp3": ("MP3", "MPEG_LAYER_III"),
    "pcm16.aiff": ("AIFF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "pcm24.caf": ("CAF", "PCM_24"),
    "pcm16.au": ("AU", "PCM_16"),
    "pcm16.w64": ("W64", "PCM_16"),
    "pcm16.rf64": ("RF64", "PCM_16"),
}
# Name of the file: container and encoder of FFmpeg, and the video encoder of a picture.
CONTAINERS = {
    "aac.m4a": ("ipod", "aac", None),
    "alac.m4a": ("ipod", "alac", None),
    "aac.aac": ("adts", "aac", None),
    "ac3.ac3": ("ac3", "ac3", None),
    "eac3.eac3": ("eac3", "eac3", None),
    "mp2.mp2": ("mp2", "mp2", None),
    "opus.webm": ("webm", "libopus", None),
    "ac3.mka": ("matroska", "ac3", None),
    "aac.mka": ("matroska", "aac", None),
    "flac.mka": ("matroska", "flac", None),
    "pcm24.mka": ("matroska", "pcm_s24le", None),
    "wma2.wma": ("asf", "wmav2", None),
    "wma1.wma": ("asf", "wmav1", None),
    "tta.tta": ("tta", "tta", None),
    "wavpack.wv": ("wv", "wavpack", None),
    "flac.ogg": ("ogg", "flac", None),
    "aac.mp4": ("mp4", "aac", "libx264"),
    "ac3.mp4": ("mp4", "ac3", "mpeg4"),
    "pcm16.mov": ("mov", "pcm_s16le", "mpeg4"),
    "float.mov": ("mov", "pcm_f32le", "mpeg4"),
    "aac.mkv": ("matroska", "aac", "libx264"),
    "mp3.mkv": ("matroska", "libmp3lame", "mpeg4"),
    "mp2.mkv": ("matroska", "mp2", "mpeg4"),
    "vp8.webm": ("webm", "libopus", "libvpx"),
    "mp3.avi": ("avi", "libmp3lame", "mpeg4"),
    "pcm16.avi": ("avi", "pcm_s16le", "mpeg4"),
    "aac.ts": ("mpegts", "aac", "mpeg2video"),
    "mp2.mpg": ("mpeg", "mp2", "mpeg2video"),
    "aac.flv": ("flv", "aac", "flv"),
    "wma2.wmv": ("asf", "wmav2", "wmv2"),
    "aac.3gp": ("3gp", "aac", "mpeg4"),
}
LOSSLESS = frozenset({"alac", "flac", "tta", "wavpack"})


def waveform(n_samples: int, n_channels: int, sample_rate: int = RATE) -> np.ndarray:
    """A voice-like tone that glides and pulses, in each channel another, again and again; below full scale."""
    if n_samples > 10 * sample_rate:
        return np.resize(waveform(sample_rate, n_channels, sample_rate), (n_samples, n_channels))
    time = np.arange(n_samples)[:, None] / sample_rate
    pitch = 110 * (1 + 0.2 * np.sin(2 * np.pi * 1.3 * time)) + 37 * np.arange(n_channels)
    phase = 2 * np.pi * np.cumsum(pitch, axis=0) / sample_rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    hiss = np.random.default_rng(1).standard_normal((n_samples, n_channels))
    return (0.15 * tone * (1.1 + np.sin(2 * np.pi * 3 * time)) + 0.002 * hiss).astype(np.float32)


def sound_file(path: Path, sample_rate: int = RATE, n_channels: int = 1, n_samples: int = 20_001) -> Path:
    """Writes the file of SOUND_FILES that `path` is called like."""
    container, encoding = SOUND_FILES[path.name]
    with soundfile.SoundFile(path, "w", sample_rate, n_channels, encoding, None, container) as file:
        samples = waveform(n_samples, n_channels, sample_rate)
        # Its Vorbis encoder overflows its stack on very long single writes (libsndfile#709).
        for first in range(0, n_samples, 1 << 14):
            file.write(samples[first : first + (1 << 14)])
    return path


def media_file(
    path: Path, sample_rate: int = RATE, n_channels: int = 1, n_samples: int = 20_001, *, start_s: float = 0, n_sounds: int = 1
) -> Path:
    """Writes the file of CONTAINERS that `path` is called like, the picture from 0 s, the sound from `start_s` on."""
    muxer, encoder, picture = CONTAINERS[path.name]
    # The edit list of mp4 counts in units of the whole file, which are milliseconds otherwise.
    options = {"movie_timescale": str(sample_rate)} if muxer in ("ipod", "mp4", "mov", "3gp") else {}
    with av.open(str(path), "w", format=muxer, options={"fflags": "+bitexact", **options}) as out:
        out.metadata["title"] = "A specimen"
        video = None if picture is None else _video_stream(out, picture)
        streams = [_audio_stream(out, encoder, sample_rate, n_channels) for _ in range(n_sounds)]
        packets = [] if video is None else _pictures(video, n_samples / sample_rate + start_s)
        for number, stream in enumerate(streams):
            packets += _sounds(stream, waveform(n_samples, n_channels, sample_rate) / (number + 1), start_s)
        out.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def _video_stream(out: av.container.OutputContainer, encoder: str) -> av.VideoStream:
    stream = out.add_stream(encoder, rate=25)
    stream.width, stream.height = 64, 48
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, 25)
    return stream


def _pictures(stream: av.VideoStream, seconds: float) -> list[av.Packet]:
    packets = []
    for number in range(max(2, round(seconds * 25))):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number % 255, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _audio_stream(out: av.container.OutputContainer, encoder: str, sample_rate: int, n_channels: int) -> av.AudioStream:
    stream = out.add_stream(encoder, rate=sample_rate)
    context = stream.codec_context
    context.layout = {1: "mono", 2: "stereo", 6: "5.1"}[n_channels]
    names = [form.name for form in context.codec.audio_formats or []]
    context.format = next(name for name in ("fltp", "flt", "s32p", "s32", "s16p", "s16") if name in names)
    context.time_base = stream.time_base = Fraction(1, sample_rate)
    if encoder not in LOSSLESS and not encoder.startswith("pcm"):
        stream.bit_rate = 96_000 * n_channels
    context.open()
    return stream


def _sounds(stream: av.AudioStream, samples: np.ndarray, start_s: float) -> list[av.Packet]:
    context, packets = stream.codec_context, []
    rate, size = context.sample_rate, context.frame_size or 1024
    kind = context.format.name.removesuffix("p")
    for first in range(0, len(samples), size):
        part = samples[first : first + size].astype(np.float64)
        if kind == "s16":
            part = np.rint(part * 2**15).astype(np.int16)
        elif kind == "s32":
            part = (np.rint(part * 2**23) * 2**8).astype(np.int32)
        else:
            part = part.astype(np.float32)
        data = np.ascontiguousarray(part.T) if context.format.is_planar else part.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format=context.format.name, layout=context.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + round(start_s * rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)

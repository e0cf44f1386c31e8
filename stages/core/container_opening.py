"""Opening a file with FFmpeg through PyAV: which files are let in, which stream is taken, and what FFmpeg says meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from stages.core.media_reading import MediaError

# Playlists and the like are left out: they could make FFmpeg open other files, or the net.
_DEMUXERS = (
    "mov,matroska,asf,avi,aac,ac3,eac3,dts,dtshd,truehd,amr,amrnb,amrwb,mp3,ogg,flac,wav,w64,aiff,caf,au,mpeg,mpegts,flv,"
    "ape,wv,tta,tak,mpc,mpc8,rm,mxf,gxf,dsf,voc,shn,loas,aea,oma"
)
OPEN_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
# Damage that a decoder notices is an error instead of a patch of silence.
_DECODER_OPTIONS = {"err_detect": "crccheck+bitstream+buffer+explode"}
_PROTECTED = frozenset({"drms", "drmi", "enca", "encv", "encs"})


def opened(path: Path) -> InputContainer:
    """The open file; MediaError when FFmpeg does not know it or finds its beginning damaged."""
    with messages() as said:
        try:
            # A relative path that begins with 'a:' would be an address.
            container = av.open(str(path.absolute()), options=OPEN_OPTIONS, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"{path}: not a sound or video file, or its header is damaged ({reason(error)}); replace or remove it."
            ) from None
    # The first packets are read to find out what there is. Messages of decoders may be about the picture.
    faults = [" ".join(message.split()) for _, part, message in said if part == container.format.name]
    if faults:
        container.close()
        raise MediaError(f"{path}: truncated or corrupt near its start ({faults[0]}); replace or remove the file.")
    return container


def chosen(path: Path, container: InputContainer) -> tuple[AudioStream, list[str]]:
    """The audio stream to denoise, the default or else the first, and a remark where there are others."""
    streams = container.streams.audio
    if not streams:
        kinds = ", ".join(sorted({one.type for one in container.streams})) or "nothing"
        raise MediaError(f"{path}: has no sound: it holds {kinds} only.")
    defaults = [one for one in streams if one.disposition & av.stream.Disposition.default]
    stream = (defaults or list(streams))[0]
    if len(streams) == 1:
        return stream, []
    number = list(streams).index(stream) + 1
    remark = f"it has {len(streams)} audio streams: stream {number} is denoised, the others are left as they are"
    return stream, [remark]


def start_decoder(path: Path, stream: AudioStream) -> None:
    """Makes the decoder of a stream strict; MediaError when there is none."""
    context = stream.codec_context
    try:
        tag = context.codec_tag.lower() if context else ""
    except UnicodeDecodeError:
        # The tags of AVI and WAV are numbers, not letters.
        tag = ""
    if context is None or tag in _PROTECTED:
        why = "protected against copying (DRM)" if tag in _PROTECTED else "in a codec that FFmpeg has no decoder for"
        raise MediaError(f"{path}: its sound is {why}; convert it first.")
    context.options = _DECODER_OPTIONS
    # Messages of a decoder are caught on the thread that asks for them.
    context.thread_count = 1


@contextmanager
def messages() -> Iterator[list[tuple[int, str, str]]]:
    """Yields a list that fills with what FFmpeg reports as errors in the block: level, part of FFmpeg, message."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_level(None)


def reason(error: Exception) -> str:
    """Why FFmpeg failed, in its words."""
    # Not its `log`, which may be a message about another file.
    return getattr(error, "strerror", None) or str(error)

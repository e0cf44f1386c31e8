"""Which format a file is written in: that of its input where there is an encoder for it, else the nearest lossless one."""

import errno
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import soundfile

from stages.core.container_opening import OPEN_OPTIONS
from stages.core.container_writing import ContainerPlan, ContainerSink
from stages.core.files import written
from stages.core.media_reading import MediaError, MediaReader
from stages.core.sound_writing import MediaSink, SoundSink
from stages.core.wav_chunks import speaker_mask, unusual_chunks

# What stands behind the name of an output whose own format cannot be written.
FALLBACKS = (".flac", ".wav", ".mkv")
# libsndfile's container for a suffix, and its encoding where that of the input is unknown there.
_SOUND_FORMATS = {
    ".wav": ("WAV", "PCM_24"),
    ".wave": ("WAV", "PCM_24"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aif": ("AIFF", "PCM_24"),
    ".aiff": ("AIFF", "PCM_24"),
    ".aifc": ("AIFF", "PCM_24"),
    ".caf": ("CAF", "PCM_24"),
    ".au": ("AU", "PCM_24"),
    ".snd": ("AU", "PCM_24"),
    ".w64": ("W64", "PCM_24"),
    ".rf64": ("RF64", "PCM_24"),
}
_MP4, _MKV = ("aac", "alac"), ("libopus", "flac")
# FFmpeg's container for a suffix, and encoders that are sure to suit it.
_MUXERS = {
    **dict.fromkeys([".m4a", ".m4b", ".mp4", ".m4v"], ("mp4", _MP4)),
    **dict.fromkeys([".mov", ".qt"], ("mov", _MP4)),
    **dict.fromkeys([".3gp", ".3g2"], ("3gp", ("aac",))),
    **dict.fromkeys([".mkv", ".mka"], ("matroska", _MKV)),
    **dict.fromkeys([".webm", ".weba"], ("webm", ("libopus",))),
    **dict.fromkeys([".wma", ".wmv", ".asf"], ("asf", ("wmav2",))),
    **dict.fromkeys([".ts", ".mts", ".m2ts"], ("mpegts", ("aac", "mp2"))),
    **dict.fromkeys([".mpg", ".mpeg", ".vob"], ("mpeg", ("mp2",))),
    **dict.fromkeys([".ogg", ".oga", ".ogv", ".spx"], ("ogg", ("libopus", "flac"))),
    **dict.fromkeys([".mp2", ".mpga"], ("mp2", ("mp2",))),
    ".avi": ("avi", ("libmp3lame", "pcm_s16le")),
    ".flv": ("flv", ("aac", "libmp3lame")),
    ".aac": ("adts", ("aac",)),
    ".ac3": ("ac3", ("ac3",)),
    ".eac3": ("eac3", ("eac3",)),
    ".amr": ("amr", ("libopencore_amrnb",)),
    ".tta": ("tta", ("tta",)),
    ".wv": ("wv", ("wavpack",)),
}
# FFmpeg's encoders that do not bear the name of their codec.
_ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "amr_nb": "libopencore_amrnb"}
# Its own Vorbis encoder is poor and takes two channels only.
_UNFIT = frozenset({"vorbis", "libvorbis"})
# What is copied beside the sound: everything, or without what many containers refuse, or the picture alone.
_COPIED = (
    frozenset({"video", "audio", "subtitle", "data", "attachment"}),
    frozenset({"video", "audio", "subtitle"}),
    frozenset({"video", "audio"}),
)
# Encodings of libsndfile that keep what a sample of so many bits holds.
_ENCODINGS = {8: "PCM_16", 16: "PCM_16", 24: "PCM_24"}
# Encodings that fill their last block with silence.
_BLOCKED = frozenset(
    {"IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "G723_24", "G723_40", "VOX_ADPCM"}
    | {"NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"}
)
_SIGNATURES = frozenset({"encoder", "software", "duration", "handler_name", "vendor_id", "language", "creation_time"})
_BRANDS = frozenset({"major_brand", "minor_version", "compatible_brands", "coding_history"})
# Without it FFmpeg looks for other codecs in the samples of a WAV file, which takes longer than to denoise a second of it.
_QUICK = {"max_probe_packets": "1"}
# What FFmpeg and libsndfile say where the disk refuses, and not the format.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_SF_ERR_SYSTEM = 2


class _FormatError(Exception):
    """A format that cannot be written, so that the next is tried."""


@dataclass(frozen=True, slots=True)
class _Plan:
    path: Path
    sound: tuple[str, str, str] | None = None
    container: ContainerPlan | None = None
    remark: str = ""


@contextmanager
def writer(
    path: Path, like: MediaReader, taken: Collection[str] = (), admit: Callable[[Path, Path], None] | None = None
) -> Iterator[MediaSink]:
    """Opens a file for sound as long as that of `like`, in the same format, with its picture, other streams and tags.

    The file appears when the block has ended well. Where the format cannot be written, `sink.path` has `.flac`, `.wav` or
    `.mkv` behind the name, and `sink.remarks` says so; but none of those of `taken`, whose names belong to other files. The
    suffix of `path` rules where it is not that of the input. `admit` is called with the file's path and the whole file at a
    temporary one, before it is put in place, and may refuse.

    Raises:
        MediaError: no format fits, or the file cannot be written.
    """
    if os.path.realpath(path) == os.path.realpath(like.path):
        raise MediaError(f"{path} would be overwritten while it is read: name another output.")
    with ExitStack() as stack:
        sink = _opened(stack, path, like, taken, admit)
        yield sink
        sink.finish()
    sink.remarks += _losses(like.path, sink.path)
    lost = unusual_chunks(like.path)
    sink.remarks += [f"not kept: {', '.join(lost)}"] if lost else []


def _opened(
    stack: ExitStack,
    path: Path,
    like: MediaReader,
    taken: Collection[str],
    admit: Callable[[Path, Path], None] | None,
) -> MediaSink:
    """The first plan that works and takes the place of no other file."""
    refusals = []
    for plan in _plans(path, like):
        behind = plan.path.name.removeprefix(path.name)
        if behind in taken or os.path.realpath(plan.path) == os.path.realpath(like.path):
            refusals.append(f"{plan.path} is the place of another file")
            continue
        try:
            # The error has to pass through it, or what has not been written would be put in place.
            with ExitStack() as attempt:
                sink = _sink(attempt.enter_context(written(plan.path, admit and partial(admit, plan.path))), plan, like)
                attempt.callback(sink.close)
                stack.enter_context(attempt.pop_all())
        except _FormatError as refusal:
            refusals.append(str(refusal))
            continue
        if plan.remark:
            sink.remarks.insert(0, plan.remark)
        return sink
    raise MediaError(
        f"{path}: {like.n_channels} channels at {like.sample_rate} Hz cannot be written in any format ({refusals[-1]})."
    )


def _sink(temporary: Path, plan: _Plan, like: MediaReader) -> MediaSink:
    """The file of a plan, begun; _FormatError where there is no such format, MediaError where the disk refuses."""
    try:
        if plan.container is not None:
            return ContainerSink(temporary, plan.path, like, plan.container)
        assert plan.sound is not None
        shape = (like.sample_rate, like.n_channels)
        sink = SoundSink(temporary, plan.path, shape, plan.sound, like.format.bit_rate)
        sink.tag(like.tags)
        sink.speakers = speaker_mask(like.path)
        return sink
    except (av.FFmpegError, soundfile.SoundFileError, ValueError, KeyError) as error:
        if getattr(error, "errno", None) in _NO_ROOM or getattr(error, "code", None) == _SF_ERR_SYSTEM:
            reason = getattr(error, "strerror", None) or "is the disk full?"
            raise MediaError(f"{plan.path}: cannot be written ({reason}).") from None
        raise _FormatError(str(error)) from None


def _plans(path: Path, like: MediaReader) -> Iterator[_Plan]:
    """Ways to write the file, the best first."""
    form, suffix = like.format, path.suffix.lower()
    same = suffix == like.path.suffix.lower()
    if form.backend == "soundfile" and (same or suffix not in _SOUND_FORMATS.keys() | _MUXERS.keys()):
        if form.encoding not in _BLOCKED:
            yield _Plan(path, (form.container, form.encoding, form.endian))
        else:
            remark = f"{form.encoding} holds whole blocks only, so the output is PCM_16, of the exact length"
            yield _Plan(path, (form.container, "PCM_16", form.endian), None, remark)
    if form.backend == "av":
        yield from _container_plans(path, like)
    if suffix in _SOUND_FORMATS and not (same and form.backend == "soundfile"):
        container, usual = _SOUND_FORMATS[suffix]
        for encoding in (form.encoding, _ENCODINGS.get(form.bit_depth or 24, "FLOAT"), usual):
            if soundfile.check_format(container, encoding):
                yield _Plan(path, (container, encoding, "FILE"))
    if form.backend == "soundfile":
        yield from _container_plans(path, like)
    why = f"{form.container} {form.encoding} cannot be written, so the output is"
    if _has_picture(like):
        target = path.with_name(path.name + ".mkv")
        for copied in _COPIED:
            yield _Plan(target, None, ContainerPlan("matroska", "flac", copied), f"{why} Matroska with FLAC, under NAME.mkv")
    target = path.with_name(path.name + ".flac")
    yield _Plan(target, ("FLAC", _ENCODINGS.get(form.bit_depth or 24, "PCM_24"), "FILE"), None, f"{why} FLAC, under NAME.flac")
    target = path.with_name(path.name + ".wav")
    yield _Plan(target, ("WAV", "FLOAT", "FILE"), None, f"{why} WAV in floating point, under NAME.wav")


def _container_plans(path: Path, like: MediaReader) -> Iterator[_Plan]:
    muxer, usual = _MUXERS.get(path.suffix.lower(), (None, ()))
    if muxer is None:
        return
    codec = like.format.encoding if like.format.backend == "av" else ""
    own = _ENCODERS.get(codec, codec)
    lossless = like.format.bit_depth is not None
    others = sorted(usual, key=lambda name: (name in ("alac", "flac")) is not lossless)
    for encoder in [own, *others] if own and own not in _UNFIT else others:
        remark = "" if encoder == own or not codec else f"{codec} cannot be written, so the sound is {encoder} now"
        # A cover may be lost with a remark, a picture that moves may not.
        for copied in _COPIED if _has_picture(like) else (*_COPIED, frozenset()):
            yield _Plan(path, None, ContainerPlan(muxer, encoder, copied), remark)


def _has_picture(like: MediaReader) -> bool:
    return like.format.backend == "av" and "video" in _contents(like.path)[1]


def _losses(source: Path, target: Path) -> list[str]:
    """What the written file lacks of the tags and pictures of its input, as far as FFmpeg sees them."""
    (old, old_kinds), (new, new_kinds) = (_contents(path, OPEN_OPTIONS | _QUICK) for path in (source, target))
    lost = sorted(old.keys() - new.keys() - _SIGNATURES - _BRANDS)
    lost += ["the cover picture"] if "cover" in old_kinds and "cover" not in new_kinds else []
    return [f"not kept of the tags: {', '.join(lost)}"] if lost else []


def _contents(path: Path, options: dict[str, str] = OPEN_OPTIONS) -> tuple[dict[str, str], list[str]]:
    """The tags of a file, with lower-case names, and the kinds of its streams."""
    try:
        with av.open(str(path.absolute()), options=options, metadata_errors="replace") as container:
            tags = dict(container.metadata)
            for stream in container.streams:
                tags |= stream.metadata
            cover = av.stream.Disposition.attached_pic
            kinds = ["cover" if stream.disposition & cover else stream.type for stream in container.streams]
            return {name.lower(): text for name, text in tags.items()}, kinds
    except (av.FFmpegError, ValueError):
        return {}, []

"""Sound and video files of any kind, in blocks: read forward once, written alike, with memory that does not grow with them."""

from pathlib import Path

import soundfile

from stages.core.container_reading import ContainerReader
from stages.core.files import visible_files
from stages.core.media_reading import Block, MediaError, MediaFormat, MediaReader, SoundReader
from stages.core.media_writing import FALLBACKS, writer
from stages.core.sound_writing import MediaSink

__all__ = ["FALLBACKS", "SUFFIXES", "Block", "MediaError", "MediaFormat", "MediaReader", "MediaSink"]
__all__ += ["media_files", "reader", "writer"]

_SOUND = ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .caf .au .snd .w64 .rf64 .voc .sph .nist"
_COMPRESSED = ".m4a .m4b .aac .wma .mka .weba .ac3 .eac3 .amr .mp2 .mpga .tta .wv .ape .dts .spx"
_VIDEO = ".mp4 .m4v .mov .qt .mkv .webm .avi .wmv .asf .flv .3gp .3g2 .mpg .mpeg .ts .m2ts .mts .vob .ogv .mxf"
# What counts as a recording in a folder; a file that is named may have any suffix.
SUFFIXES = frozenset(f"{_SOUND} {_COMPRESSED} {_VIDEO}".split())


def media_files(folder: Path) -> list[Path]:
    """All visible files below `folder` with a suffix of SUFFIXES, sorted."""
    return [path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES]


def reader(path: Path) -> MediaReader:
    """Opens the sound of a sound or video file; use it in a `with` statement.

    libsndfile reads what it knows, FFmpeg the rest and the streams that libsndfile takes for MP3 whatever they are.

    Raises:
        MediaError: the file is missing, empty, damaged, without sound, or no such file at all.
    """
    if not path.is_file():
        raise MediaError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); replace or remove it.")
    try:
        sound = SoundReader(path)
    except (soundfile.SoundFileError, TypeError):
        return ContainerReader(path)
    if sound.format.container != "MP3" or sound.format.encoding == "MPEG_LAYER_III":
        return sound
    sound.close()
    return ContainerReader(path)

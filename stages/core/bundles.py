"""Bundles: many sound files, each byte as it came, in one large file; a plain tar that any program for archives opens.

The index says where in its bundle each file lies, so that a part of one is read without unpacking anything. Headers hold no
date or owner, so equal files give equal bundles.
"""

import io
import os
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile
from jaxtyping import Float32

from stages.core.audio import AudioError, ForwardFile, check_complete, read_audio

Waveform = Float32[np.ndarray, "samples channels"]
# First byte and number of bytes of a sound file within a larger one; None is a file of its own.
Within = tuple[int, int] | None
# Few large files, but no more in one than a broken copy may cost.
BUNDLE_BYTES = 256 * 10**6
_AHEAD = 1 << 16
_ANNOUNCED = 1 << 21


class BundleWriter:
    """Writes files into bundles NAME-00000.tar, NAME-00001.tar … in a folder; closed at the end of its block."""

    def __init__(self, folder: Path, name: str, limit: int = BUNDLE_BYTES) -> None:
        """A bundle ends before it would pass `limit` bytes; a larger file has one for itself."""
        self._folder, self._name, self._limit = folder, name, limit
        self._tar: tarfile.TarFile | None = None
        self._n_bundles = 0

    def add(self, member: str, data: bytes) -> tuple[str, int]:
        """Appends a file; the name of its bundle and the place of its first byte there."""
        if self._tar is not None and self._tar.offset + len(data) > self._limit:
            self._close()
        if self._tar is None:
            path = self._folder / f"{self._name}-{self._n_bundles:05d}.tar"
            # Held over many calls and closed by __exit__.
            self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._n_bundles += 1
        info = tarfile.TarInfo(member)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return Path(str(self._tar.name)).name, self._tar.offset - padded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


def read_clip(
    path: Path, within: Within, *, start: int = 0, n_samples: int | None = None, check: bool = True
) -> tuple[Waveform, int]:
    """The waveform in a sound file, or a part of it, and its sample rate (Hz), wherever the file lies.

    Args:
        path: the sound file, or the bundle that it lies in.
        within: where in the bundle it lies.
        start: first sample of the part that is wanted.
        n_samples: length of that part; None is up to the end.
        check: whether to look for NaN and infinity; once a file has been read whole that is known.

    Raises:
        AudioError: no sound file there, or it holds fewer samples than promised, or NaN or infinity.
    """
    if within is None:
        return read_audio(path, start=start, n_samples=n_samples)
    handle = os.open(path, os.O_RDONLY)  # an eighth of the time of open()
    try:
        # Read ahead, because FLAC and OGG are decoded in small steps, each of which would be a call into Python.
        stretch = io.BufferedReader(_Stretch(handle, *within), _AHEAD)
        return decoded(stretch, f"{path}, byte {within[0]}", start=start, n_samples=n_samples, check=check)
    finally:
        os.close(handle)


def announce(path: str, within: Within) -> None:
    """Has the system read a sound file in a bundle from the disk, where it is not in memory yet, while others are decoded."""
    # Larger ones are long recordings, of which a small part is wanted and which soon are in memory.
    if within is None or within[1] > _ANNOUNCED or not hasattr(os, "posix_fadvise"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, *within, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(handle)


def clip_bytes(path: Path, within: tuple[int, int]) -> bytes:
    """The bytes of one file in a bundle; AudioError when the bundle is shorter."""
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), within[1], within[0])
    if len(data) != within[1]:
        raise AudioError(f"{path}: truncated: expected {within[1]} bytes from {within[0]}, found {len(data)}.")
    return data


def decoded(
    file: io.BufferedIOBase, name: str, *, start: int = 0, n_samples: int | None = None, check: bool = True
) -> tuple[Waveform, int]:
    """The waveform, or a part of it, in a sound file, and its sample rate (Hz); `name` is what errors call it.

    Raises:
        AudioError: as read_clip.
    """
    try:
        with ForwardFile(file) as sound:
            if n_samples is None:
                check_complete(Path(name), sound)
            promised = sound.frames - start if n_samples is None else n_samples
            if not 0 <= promised <= sound.frames - start:
                raise AudioError(
                    f"{name}: expected {promised} samples from {start}, its header promises {sound.frames} in all."
                )
            if start:
                sound.seek(start)
            waveform = sound.read(promised, dtype="float32", always_2d=True)
            sample_rate = int(sound.samplerate)
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioError(f"{name}: not a sound file that libsndfile reads to its end ({error}).") from None
    if len(waveform) != promised:
        raise AudioError(f"{name}: truncated or corrupt: expected {promised} samples, found {len(waveform)}.")
    if check and not np.isfinite(waveform).all():
        raise AudioError(f"{name}: holds samples that are NaN or infinite.")
    return waveform, sample_rate


class _Stretch(io.RawIOBase):
    """The bytes of an open file from `offset`, `size` of them, as a file of their own."""

    def __init__(self, handle: int, offset: int, size: int) -> None:
        self._handle, self._offset, self._size, self._place = handle, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._place))
        # Not through the file's own place, which processes that share the file would move.
        found = os.preadv(self._handle, [memoryview(buffer)[:wanted]], self._offset + self._place)
        self._place += found
        return found

"""Shards: spectrograms of many mixtures in one memory-mapped file of half-precision numbers.

A shard is a NumPy file of float16, (frames, 2, bins, 2): for each frame the mixture and the speech, for each bin the real
and the imaginary part, so that a stretch of frames is one contiguous read. Each mixture has one scale, a power of two that
brings its largest number close to the top of float16's range; numbers 170 dB below it still have full precision.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Complex64, Float16

from stages.core.errors import DenoisingError
from stages.core.files import write_table, written

Spectrum = Complex64[np.ndarray, "frames bins"]
INDEX = "index.csv"
# The largest float16 is 65504; one factor of two is left as a margin.
_TOP = 32768.0


class ShardError(DenoisingError):
    """Shards that are absent or not as they were written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one mixture lies: `n_frames` frames from `start` in the file `shard`, `scale` times too large.

    `content` is the CRC-32 of all numbers in that file: it tells a training whether its data are still those it began with.
    """

    id: str
    shard: str
    start: int
    n_frames: int
    scale: float
    content: str


def packed(mixture: Spectrum, speech: Spectrum) -> tuple[Float16[np.ndarray, "frames 2 bins 2"], float]:
    """Both spectrograms in the layout of a shard, and their scale."""
    # By PyTorch, which has the processor convert: ten times as fast as NumPy, to the same bits. Whoever hands out shards to
    # write needs no PyTorch and does not wait for it.
    import torch

    parts = [torch.view_as_real(torch.from_numpy(part)) for part in (mixture, speech)]
    largest = max(abs(float(end)) for part in parts for end in part.aminmax())
    scale = 2.0 ** math.floor(math.log2(_TOP / largest)) if largest > 0 else 1.0
    numbers = torch.empty(len(mixture), 2, mixture.shape[1], 2, dtype=torch.float16)
    for place, part in enumerate(parts):
        numbers[:, place] = part * scale
    return numbers.numpy(), scale


def unpacked(
    numbers: Float16[np.ndarray, "*batch frames parts bins 2"], scale: float | np.ndarray
) -> Complex64[np.ndarray, "*batch frames parts bins"]:
    """The spectrograms, mixture and speech, from the layout of a shard; `scale` broadcasts over the batch."""
    import torch

    single = torch.from_numpy(numbers).to(torch.float32).numpy()
    single /= np.asarray(scale, np.float32).reshape(*np.shape(scale), 1, 1, 1, 1)
    spectra: np.ndarray = single.view(np.complex64)[..., 0]
    return spectra


def write_shard(path: Path, items: Iterable[tuple[str, np.ndarray, float]]) -> list[Entry]:
    """Writes items, each an id and what `packed` makes of it, atomically to the file `path`; returns where each lies."""
    blocks, entries, start = [], [], 0
    for name, numbers, scale in items:
        blocks.append(numbers)
        entries.append(Entry(name, path.name, start, len(numbers), scale, ""))
        start += len(numbers)
    form = {"descr": "<f2", "fortran_order": False, "shape": (start, *blocks[0].shape[1:])}
    checksum = zlib.crc32(repr(form).encode())
    with written(path) as temporary:
        # A file that is emptied goes to the disk when it is closed, on ext4, and the work would wait for it.
        temporary.unlink()
        with temporary.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, form)
            for block in blocks:
                file.write(block.data)
                checksum = zlib.crc32(block.data, checksum)
    return [replace(entry, content=f"{checksum:08x}") for entry in entries]


def write_index(folder: Path, entries: Iterable[Entry]) -> None:
    """Writes the table of all mixtures in the shards of `folder`, in the order given, one after the other as they come."""
    # Not asdict, which copies every value.
    names = [field.name for field in fields(Entry)]
    write_table(folder / INDEX, ({name: getattr(entry, name) for name in names} for entry in entries))


class ShardReader:
    """The mixtures of one split: `len(reader)` of them, read by their place in the index without loading whole files."""

    def __init__(self, folder: Path) -> None:
        """Opens the shards in `folder`.

        Raises:
            ShardError: the index or a shard is missing or damaged, or a shard is shorter than the index says.
        """
        self._folder = folder
        index = folder / INDEX
        if not index.is_file():
            raise ShardError(f"{index} is missing: run 'dvc repro shard' first.")
        try:
            table = pd.read_csv(index, dtype={"id": str, "shard": str, "content": str})
        except ValueError as error:
            raise ShardError(f"{index}: cannot be read ({error}); run 'dvc repro -f shard'.") from None
        if table.empty:
            raise ShardError(f"{index}: lists no mixtures; run 'dvc repro -f shard'.")
        self.entries = [Entry(**{str(key): value for key, value in row.items()}) for row in table.to_dict(orient="records")]
        self._maps = {name: _mapped(folder / name) for name in sorted(set(table["shard"]))}
        for entry in self.entries:
            if entry.start + entry.n_frames > len(self._maps[entry.shard]):
                raise ShardError(f"{folder / entry.shard}: shorter than its index says; run 'dvc repro -f shard'.")

    def __len__(self) -> int:
        return len(self.entries)

    def check_bins(self, n_bins: int) -> None:
        """Raises ShardError when the spectrograms do not have `n_bins` bins."""
        for name, numbers in self._maps.items():
            if numbers.shape[2] != n_bins:
                raise ShardError(
                    f"{self._folder / name}: expected {n_bins} bins as stft.n_fft has it, found {numbers.shape[2]}; "
                    "run 'dvc repro shard'."
                )

    def batch(self, places: list[int]) -> Complex64[np.ndarray, "batch frames 2 bins"]:
        """The mixtures at `places` of the index, cut to the length of the shortest: [:, :, 0] mixture, [:, :, 1] speech."""
        chosen = [self.entries[place] for place in places]
        n_frames = min(entry.n_frames for entry in chosen)
        numbers = np.stack([self._maps[entry.shard][entry.start : entry.start + n_frames] for entry in chosen])
        return unpacked(numbers, np.array([entry.scale for entry in chosen], np.float32))


def _mapped(path: Path) -> np.ndarray:
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read ({error}); run 'dvc repro -f shard'.") from None
    return mapped

"""Pools: recordings of which some are drawn, each as likely as it is long, as its label is rare, or as any other."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from stages.core.manifest import Recording
from stages.core.parameters import EvenlyBy


class Pool(NamedTuple):
    """Recordings, how likely each is, and it or one before it; all are as likely where that is None."""

    recordings: Sequence[Recording]
    shares: np.ndarray | None = None
    summed: np.ndarray | None = None

    @classmethod
    def of(cls, recordings: Sequence[Recording], evenly_by: EvenlyBy) -> Self:
        """Recordings of which every one, every second or every label is as likely."""
        if evenly_by == "recording" or not recordings:
            return cls(recordings)
        if evenly_by == "second":
            weights = np.array([recording.n_samples / recording.sample_rate for recording in recordings])
        else:
            counts = Counter(recording.label for recording in recordings)
            weights = np.array([1 / counts[recording.label] for recording in recordings])
        shares = weights / weights.sum()
        return cls(recordings, shares, _summed(shares))

    def one(self, random: np.random.Generator) -> Recording:
        """Any of them."""
        if self.summed is None:
            return self.recordings[int(random.integers(len(self.recordings)))]
        return self.recordings[min(_found(random, self.summed, 1))]

    def drawn(self, random: np.random.Generator, count: int) -> list[Recording]:
        """So many different recordings, or all if there are fewer, in their own order."""
        count = min(count, len(self.recordings))
        if self.shares is None or self.summed is None:
            places = set(random.choice(len(self.recordings), size=count, replace=False).tolist())
        else:
            # What choice(p=shares) draws, which sums up all shares each time.
            places = _found(random, self.summed, count)
            while len(places) < count:
                shares = self.shares.copy()
                shares[list(places)] = 0
                places |= _found(random, _summed(shares), count - len(places))
        return [self.recordings[place] for place in sorted(places)]


def _summed(shares: np.ndarray) -> np.ndarray:
    sums: np.ndarray = np.cumsum(shares)
    sums /= sums[-1]
    return sums


def _found(random: np.random.Generator, summed: np.ndarray, count: int) -> set[int]:
    return set(summed.searchsorted(random.random(count), side="right").tolist())

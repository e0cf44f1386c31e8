"""Archives from the network, whole and checked, however the network behaves."""

from collections.abc import Sequence
from pathlib import Path

from stages.core.corpora.entries import Archive


def fetched(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """Local paths of `archives`, in their order: complete, checked files kept below `folder` under their checksum.

    An archive is at `folder`/DIGEST/NAME; one of which only members are asked for is a zip of these members at
    `folder`/DIGEST-PATTERN/NAME. What is already there is not fetched again.

    Raises:
        FetchError: an archive cannot be had from any of its addresses; what is good of it is kept for the next run.
    """
    raise NotImplementedError

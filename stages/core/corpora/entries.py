"""What is known of a corpus that others publish: its archives, where they are, how they are checked, and its licence."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["speech", "noise", "pairs", "rooms"]


@dataclass(frozen=True, slots=True)
class Archive:
    """One file of a published corpus: where it is had, and how it is known to be the right one.

    Nothing here is guessed: a size or checksum that was not read at `checksum_source` is None. `checksum` is the
    algorithm, a colon and the digest in hexadecimal, as in "md5:2a93..."; addresses are asked in turn. `members`, a
    regular expression that a whole member path must match, asks for these members of a zip only.
    """

    name: str
    addresses: tuple[str, ...]
    size: int | None  # bytes, of the whole file
    checksum: str | None
    checksum_source: str
    members: str | None = None


@dataclass(frozen=True, slots=True)
class PublishedCorpus:
    """A corpus that others publish, and the name of the layout that reads ids and speakers from its paths."""

    name: str
    role: Role
    title: str
    archives: tuple[Archive, ...]
    licence: str
    licence_url: str
    page: str
    layout: str  # librispeech, demand, esc50, voicebank, musan or rirs
    note: str = ""  # what is left out, and why

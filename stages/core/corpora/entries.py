"""What is known of a corpus that others publish: its archives, where they are, how they are checked, and its licence."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["speech", "noise", "pairs", "rooms"]
_OPENSLR = ("www.openslr.org", "us.openslr.org", "openslr.trmal.net", "openslr.elda.org")


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


def openslr(number: int, name: str) -> tuple[str, ...]:
    """Where the file `name` of an openslr resource is had: the site, which sends on to one of its mirrors, and these."""
    return tuple(f"https://{host}/resources/{number}/{name}" for host in _OPENSLR)


def size_text(n_bytes: int) -> str:
    """A size in the decimal unit that people read: 337926286 is "338 MB"."""
    exponent = next((exponent for exponent in (1, 2, 3) if n_bytes < 999.5 * 1000**exponent), 4)
    return f"{n_bytes / 1000**exponent:.{0 if exponent < 3 else 1}f} {('kB', 'MB', 'GB', 'TB')[exponent - 1]}"

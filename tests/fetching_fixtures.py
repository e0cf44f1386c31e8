"""What the tests of fetching share: files to serve, archives of them, and little patience."""

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

from stages.core.corpora.addresses import Patience
from stages.core.corpora.entries import Archive

HASTE = Patience(connect_s=1, read_s=0.4, tries=3, first_pause_s=0.01, longest_pause_s=0.05, longest_asked_s=2)
BODY = random.Random(1).randbytes(1_000_003)
NAME = "speech.tar.gz"


def sha256(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def archive(*addresses: str, body: bytes = BODY, name: str = NAME, **other: object) -> Archive:
    """An archive of which size and checksum are published, unless said otherwise."""
    values = {"size": len(body), "checksum": sha256(body), "checksum_source": "the test", **other}
    return Archive(name=name, addresses=addresses, **values)  # type: ignore[arg-type]


def channels(n_places: int = 1, n_channels: int = 16, n_bytes: int = 30_000) -> bytes:
    """A zip with folders of channels, as DEMAND has them; half of it deflates."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for place in range(n_places):
            packed.writestr(f"PLACE{place}/", b"")
            for channel in range(1, n_channels + 1):
                packed.writestr(f"PLACE{place}/ch{channel:02d}.wav", channel_bytes(place, channel, n_bytes))
    return file.getvalue()


def channel_bytes(place: int, channel: int, n_bytes: int = 30_000) -> bytes:
    return random.Random(100 * place + channel).randbytes(n_bytes // 2) + bytes(n_bytes // 2)


def tar_gz() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        member = tarfile.TarInfo("LibriSpeech/README.TXT")
        member.size = 20_000
        packed.addfile(member, io.BytesIO(random.Random(2).randbytes(member.size)))
    return file.getvalue()


def leftovers(folder: Path) -> set[str]:
    """Names of all files but the locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}

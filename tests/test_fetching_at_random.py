import random
import re
import zipfile
from pathlib import Path

import pytest
from fetching_fixtures import BODY, archive, channel_bytes, channels
from misbehaving_server import Manners, date, server

from stages.core.corpora.addresses import Patience
from stages.core.corpora.entries import Archive
from stages.core.corpora.fetching import FetchError, fetched

HURRY = Patience(connect_s=1, read_s=0.2, tries=3, first_pause_s=0.002, longest_pause_s=0.01)
ZIPPED = channels(n_places=3, n_channels=6, n_bytes=60_000)
PATTERN = r"PLACE\d/ch01\.wav"
FIRST_CHANNELS = {f"PLACE{place}/ch01.wav": channel_bytes(place, 1, 60_000) for place in range(3)}


def manners(dice: random.Random, body: bytes) -> Manners:
    """A server that does several wrong things at once, most of which can be got over."""
    n, drawn = len(body), Manners(body)
    if dice.random() < 0.4:
        drawn.cuts = dice.sample(range(1, n), dice.randint(1, 4))
    if dice.random() < 0.15:
        drawn.cut_after = dice.randint(n // 20, n)
    if dice.random() < 0.1:
        drawn.stall_after = [dice.randrange(1, n)]
    if dice.random() < 0.3:
        drawn.status = dice.choices([500, 503, 429, 408], k=dice.randint(1, 3))
    drawn.always = dice.choice([404, 500]) if dice.random() < 0.05 else 0
    drawn.ranges = dice.random() > 0.3
    drawn.length = dice.random() > 0.2
    drawn.etag = dice.choice(['"one"', '"one"', "", 'W/"weak"', '"two"'])
    drawn.last_modified = date(-dice.randint(1, 99)) if dice.random() < 0.3 else ""
    drawn.told_length = dice.randint(0, 2 * n) if dice.random() < 0.05 else None
    drawn.kind = "text/html" if dice.random() < 0.05 else drawn.kind
    if dice.random() < 0.1:
        at = dice.randrange(n)
        drawn.body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    if dice.random() < 0.05:
        drawn.body = body[: dice.randrange(n)]
    return drawn


def outcome(wanted: Archive, folder: Path) -> tuple[list[Path], str]:
    """The path, or the sentence that says why there is none."""
    try:
        return fetched([wanted], folder, patience=HURRY), ""
    except FetchError as error:
        return [], str(error)


def right(path: Path, body: bytes) -> bool:
    if body is not ZIPPED:
        return path.read_bytes() == body
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()} == FIRST_CHANNELS


@pytest.mark.parametrize("seed", range(60))
def test_whatever_servers_do_the_bytes_are_right_or_a_sentence_says_why(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DENOISE_ARCHIVES", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    dice = random.Random(seed)
    members = PATTERN if dice.random() < 0.4 else None
    body, name = (ZIPPED, "noise.zip") if members else (BODY[:300_000], "speech.tar.gz")
    with server() as web:
        addresses = []
        for mirror in range(dice.randint(1, 3)):
            addresses.append(web.serve(f"{mirror}/{name}"))
            web.paths[f"/{mirror}/{name}"] = manners(dice, body)
            if dice.random() < 0.3:
                web.paths[f"/{mirror}/{name}"].changes = [manners(dice, body)]
        wanted = archive(*addresses, body=body, name=name, members=members, size=dice.choice([len(body), None]))
        for _ in range(3):
            paths, said = outcome(wanted, tmp_path)
            assert [right(path, body) for path in paths] == [True] * (not said)
            told = rf"{re.escape(name)} cannot be fetched:\s+http\S+: expected .+, found .+"
            assert not said or re.fullmatch(told, said, re.DOTALL)
        good = archive(web.serve("good", body), body=body, name=name, members=members)
        assert right(fetched([good], tmp_path, patience=HURRY)[0], body)

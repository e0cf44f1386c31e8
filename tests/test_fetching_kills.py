import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fetching_fixtures import BODY, HASTE, archive, channels, leftovers
from misbehaving_server import Server

from stages.core.corpora.entries import Archive
from stages.core.corpora.fetching import fetched

ZIPPED = channels(n_places=8, n_channels=3, n_bytes=200_000)
PATTERN = r"[A-Z]+\d/ch01\.wav"
FETCH = """
import sys
from pathlib import Path
from stages.core.corpora.entries import Archive
from stages.core.corpora.fetching import fetched
from stages.core.corpora.addresses import Patience
archives = eval(sys.stdin.read(), {"Archive": Archive})
print("begun", flush=True)
fetched(archives, Path(sys.argv[1]), patience=Patience(connect_s=1, read_s=5, tries=3, first_pause_s=0.01))
"""


def start(archives: list[Archive], folder: Path, repository: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DENOISE_ARCHIVES"} | {"NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=repository,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(repr(archives))
    process.stdin.close()
    assert process.stdout.readline() == "begun\n"
    return process


def test_kills_at_random_moments_lose_nothing_that_is_good(
    web: Server, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DENOISE_ARCHIVES", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    speed = 500_000  # bytes per second: about two seconds in all
    archives = [
        archive(web.serve("a.tar.gz", BODY, bytes_per_s=speed), name="a.tar.gz"),
        archive(web.serve("b.zip", ZIPPED, bytes_per_s=speed), body=ZIPPED, name="b.zip", members=PATTERN),
        archive(web.serve("c.zip", ZIPPED, bytes_per_s=speed), name="c.zip", body=ZIPPED, size=None, checksum=None),
    ]
    moments, killed = random.Random(4), 0
    for _ in range(8):
        process = start(archives, tmp_path, repository)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()  # type: ignore[union-attr]
    assert killed >= 3
    for manners in web.paths.values():
        manners.bytes_per_s = 0
    paths = fetched(archives, tmp_path, patience=HASTE)
    assert paths[0].read_bytes() == BODY
    assert paths[2].read_bytes() == ZIPPED
    fresh = fetched(archives, tmp_path / "fresh", patience=HASTE)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in fresh]
    names = leftovers(tmp_path / "fresh")
    assert names == {"a.tar.gz", "b.zip", "b.zip.lock.json", "c.zip", "c.zip.lock.json"}
    assert leftovers(tmp_path) == names
    # What was killed was gone on with: once something had come, the first archive began at its start again only when fresh.
    asked = web.ranges("a.tar.gz")
    gone_on = [bool(place) for place in asked]
    assert asked[-1] == ""
    assert gone_on[:-1] == sorted(gone_on[:-1])
    assert any(gone_on)


def test_an_interrupt_ends_at_once_and_leaves_what_came(
    web: Server, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DENOISE_ARCHIVES", raising=False)
    wanted = archive(web.serve("a.tar.gz", BODY, stall_after=[len(BODY) // 2]), name="a.tar.gz")
    process = start([wanted], tmp_path, repository)
    deadline = time.monotonic() + 10
    while web.sent < len(BODY) // 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    output = process.stdout.read()  # type: ignore[union-attr]
    assert process.wait() != 0
    assert time.monotonic() - begun < 2  # not the five seconds that a stall is waited for
    assert "KeyboardInterrupt" in output
    process.stdout.close()  # type: ignore[union-attr]
    assert sorted(leftovers(tmp_path)) == ["a.tar.gz.part", "a.tar.gz.part.json"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    web.asked.clear()
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges() == [f"bytes={len(BODY) // 2}-"]

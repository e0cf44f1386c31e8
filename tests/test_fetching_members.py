import io
import random
import re
import struct
import zipfile
from pathlib import Path

import pytest
from fetching_fixtures import BODY, HASTE, archive, channel_bytes, channels, leftovers
from misbehaving_server import Manners, Server, dead_address

from stages.core.corpora import fetching
from stages.core.corpora.fetching import DiskSpaceError, FetchError, fetched
from stages.core.corpora.remote_zip import pick, wanted

PATTERN = r"[A-Z]+\d/ch01\.wav"
ZIPPED = channels(n_places=3, n_bytes=60_000)
NAME = "PLACES_16k.zip"

pytestmark = pytest.mark.usefixtures("web")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


FIRST_CHANNELS = {f"PLACE{place}/ch01.wav": channel_bytes(place, 1, 60_000) for place in range(3)}


def test_only_the_wanted_members_come_over_the_line(web: Server, tmp_path: Path) -> None:
    wanted_one = archive(web.serve(NAME, ZIPPED), body=ZIPPED, name=NAME, members=PATTERN)
    [path] = fetched([wanted_one], tmp_path, patience=HASTE)
    assert contents(path) == FIRST_CHANNELS
    assert re.fullmatch(r"[0-9a-f]{64}-[0-9a-f]{12}", path.parent.name)
    assert path.name == NAME
    assert web.sent < len(ZIPPED) / 5
    assert leftovers(tmp_path) == {NAME, f"{NAME}.lock.json"}
    web.asked.clear()
    assert fetched([wanted_one], tmp_path, patience=HASTE) == [path]
    assert web.asked == []


def test_the_whole_and_its_members_lie_beside_each_other(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, ZIPPED)
    whole = archive(address, body=ZIPPED, name=NAME)
    [path] = fetched([whole], tmp_path, patience=HASTE)
    web.asked.clear()
    [members] = fetched([archive(address, body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(members) == FIRST_CHANNELS
    assert path.read_bytes() == ZIPPED
    assert web.asked == []


def test_a_server_that_ignores_ranges_is_asked_for_the_whole(web: Server, tmp_path: Path) -> None:
    wanted_one = archive(web.serve(NAME, ZIPPED, ranges=False, cuts=[100_000]), body=ZIPPED, name=NAME, members=PATTERN)
    [path] = fetched([wanted_one], tmp_path, patience=HASTE)
    assert contents(path) == FIRST_CHANNELS


@pytest.mark.parametrize("size", [len(ZIPPED), None])
def test_cuts_within_members_are_taken_up_again_by_a_later_run(web: Server, tmp_path: Path, size: int | None) -> None:
    [(first, end), *_], _ = wanted(len(ZIPPED), lambda first, end: ZIPPED[first:end], PATTERN)
    cut = (first + end) // 2
    wanted_one = archive(web.serve(NAME, ZIPPED, cuts=[cut]), body=ZIPPED, name=NAME, members=PATTERN, size=size, checksum=None)
    web.paths[f"/{NAME}"].stall_after = []
    [path] = fetched([wanted_one], tmp_path / "once", patience=HASTE)
    assert contents(path) == FIRST_CHANNELS
    assert f"bytes={cut}-{end - 1}" in web.ranges()

    # The same over two runs: the server breaks down at the cut, and the second run asks for the rest of the member.
    broken = web.serve(NAME, ZIPPED, cuts=[cut])
    web.asked.clear()
    answers = len(web.ranges())
    _break_down_after_cut(web, cut)
    with pytest.raises(FetchError, match=rf"{broken}: expected \d+ bytes, found {cut - first} and then no more"):
        fetched([wanted_one], tmp_path / "twice", patience=HASTE)
    assert answers == 0
    web.serve(NAME, ZIPPED)
    web.asked.clear()
    [path] = fetched([wanted_one], tmp_path / "twice", patience=HASTE)
    assert contents(path) == FIRST_CHANNELS
    assert f"bytes={cut}-{end - 1}" in web.ranges()
    assert not any(asked.startswith(f"bytes={first}-") for asked in web.ranges() if asked != "bytes=0-0")


def _break_down_after_cut(web: Server, cut: int) -> None:
    """Lets the server answer 503 to all that comes after the cut was made."""
    manners = web.paths[f"/{NAME}"]

    class Cuts(list[int]):
        def remove(self, value: int) -> None:
            super().remove(value)
            web.paths[f"/{NAME}"] = Manners(always=503)

    manners.cuts = Cuts([cut])


def test_a_flipped_bit_in_a_member_is_told_by_its_crc(web: Server, tmp_path: Path) -> None:
    broken = bytearray(ZIPPED)
    broken[1000] ^= 1  # within the first channel of the first place
    address = web.serve(NAME, bytes(broken))
    with pytest.raises(FetchError, match=rf"{address}: expected PLACE0/ch01\.wav whole, found it broken"):
        fetched([archive(address, body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert leftovers(tmp_path) == set()
    good = web.serve("good", ZIPPED)
    [path] = fetched([archive(address, good, body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(path) == FIRST_CHANNELS


def test_a_flipped_bit_in_a_member_that_is_not_wanted_does_no_harm(web: Server, tmp_path: Path) -> None:
    broken = bytearray(ZIPPED)
    broken[len(ZIPPED) // 6] ^= 1
    [path] = fetched(
        [archive(web.serve(NAME, bytes(broken)), body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE
    )
    assert contents(path) == FIRST_CHANNELS


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (BODY, "expected a zip, found none"),
        (b"PK", "expected a zip, found none"),
        (channels(1, 1).replace(b"ch01", b"xx01"), "expected members that match '.*', found none among 2"),
    ],
)
def test_what_is_no_zip_or_lacks_the_members_is_said(web: Server, tmp_path: Path, body: bytes, found: str) -> None:
    address = web.serve(NAME, body)
    with pytest.raises(FetchError, match=f"{address}: {found}"):
        fetched([archive(address, body=body, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)


def test_a_wrong_size_is_said_before_the_directory_is_read(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, ZIPPED + b"more")
    with pytest.raises(FetchError, match=f"{address}: expected {len(ZIPPED)} bytes, found {len(ZIPPED) + 4}"):
        fetched([archive(address, body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)


def test_the_directory_is_asked_for_again_and_at_the_next_mirror(web: Server, tmp_path: Path) -> None:
    addresses = dead_address(), web.serve("gone", always=404), web.serve(NAME, ZIPPED, status=[500, 503])
    [path] = fetched([archive(*addresses, body=ZIPPED, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(path) == FIRST_CHANNELS


def test_a_zip_that_changes_while_its_members_come_is_looked_up_again(web: Server, tmp_path: Path) -> None:
    new = channels(n_places=3, n_bytes=40_000)
    [(first, end), *_], _ = wanted(len(ZIPPED), lambda first, end: ZIPPED[first:end], PATTERN)
    address = web.serve(NAME, ZIPPED)
    manners = web.paths[f"/{NAME}"]

    class Cuts(list[int]):
        def remove(self, value: int) -> None:
            super().remove(value)
            web.serve(NAME, new, etag='"new"')

    manners.cuts = Cuts([(first + end) // 2])
    [path] = fetched([archive(address, name=NAME, members=PATTERN, size=None, checksum=None)], tmp_path, patience=HASTE)
    assert contents(path) == {f"PLACE{place}/ch01.wav": channel_bytes(place, 1, 40_000) for place in range(3)}


def test_space_is_needed_for_the_members_alone(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted_one = archive(web.serve(NAME, ZIPPED), body=ZIPPED, name=NAME, members=PATTERN)
    usage = type("Usage", (), {"free": 180_000})  # what the members take unpacked
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskSpaceError):
        fetched([wanted_one], tmp_path, patience=HASTE)
    usage.free += 120_000
    assert contents(fetched([wanted_one], tmp_path, patience=HASTE)[0]) == FIRST_CHANNELS


def test_a_folder_with_the_whole_zip_supplies_its_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, cache = tmp_path / "site", tmp_path / "cache"
    site.mkdir()
    (site / NAME).write_bytes(ZIPPED)
    monkeypatch.setenv("DENOISE_ARCHIVES", str(site))
    [path] = fetched([archive(dead_address(), body=ZIPPED, name=NAME, members=PATTERN)], cache, patience=HASTE)
    assert path.is_relative_to(cache)
    assert contents(path) == FIRST_CHANNELS


# ---- the zip itself


def _large(tmp_path: Path) -> Path:
    """A zip with a directory in the form for sizes beyond 4 GB, told so by its last records."""
    path = tmp_path / "zip64.zip"
    with zipfile.ZipFile(path, "w") as file:
        for channel in (1, 2):
            with file.open(f"PLACE0/ch{channel:02d}.wav", "w", force_zip64=True) as member:
                member.write(channel_bytes(0, channel))
    body = bytearray(path.read_bytes())
    end = body.rindex(b"PK\5\6")
    n_entries, size, start = struct.unpack_from("<HLL", body, end + 10)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, n_entries, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    struct.pack_into("<HHLL", body, end + 8, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    path.write_bytes(body[:end] + record + locator + body[end:])
    return path


def test_a_directory_of_zip64_is_read(web: Server, tmp_path: Path) -> None:
    body = _large(tmp_path).read_bytes()
    [path] = fetched([archive(web.serve(NAME, body), body=body, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(path) == {"PLACE0/ch01.wav": channel_bytes(0, 1)}


def test_a_long_comment_and_a_large_directory_are_read(web: Server, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for number in range(2000):
            zipped.writestr(f"PLACE0/a-name-that-takes-some-room-in-the-directory-{number:04d}.wav", bytes(10))
        zipped.writestr("PLACE0/ch01.wav", b"wanted")
        zipped.comment = random.Random(3).randbytes(60_000)
    body = file.getvalue()
    [path] = fetched([archive(web.serve(NAME, body), body=body, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(path) == {"PLACE0/ch01.wav": b"wanted"}


def test_near_members_come_in_one_stretch_and_far_ones_in_their_own() -> None:
    body = channels(n_places=1, n_channels=4, n_bytes=200_000)

    def read(first: int, end: int) -> bytes:
        return body[first:end]

    apart, unpacked = wanted(len(body), read, r".*ch0[13]\.wav")
    assert len(apart) == 3
    assert unpacked == 400_000
    together, _ = wanted(len(body), read, r".*ch0[12]\.wav")
    assert len(together) == 2
    everything, _ = wanted(len(body), read, r".*\.wav")
    assert everything == ((everything[0][0], len(body)),)


def test_members_are_the_same_from_stretches_and_from_the_whole(tmp_path: Path) -> None:
    stretches, _ = wanted(len(ZIPPED), lambda first, end: ZIPPED[first:end], PATTERN)
    (tmp_path / "whole").write_bytes(ZIPPED)
    (tmp_path / "parts").write_bytes(b"".join(ZIPPED[first:end] for first, end in stretches))
    pick(tmp_path / "whole", (), PATTERN, tmp_path / "a.zip")
    pick(tmp_path / "parts", stretches, PATTERN, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_of_members_with_one_name_the_last_counts_and_encrypted_ones_are_refused(web: Server, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("PLACE0/ch01.wav", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            zipped.writestr("PLACE0/ch01.wav", b"last")
    body = file.getvalue()
    [path] = fetched([archive(web.serve(NAME, body), body=body, name=NAME, members=PATTERN)], tmp_path, patience=HASTE)
    assert contents(path) == {"PLACE0/ch01.wav": b"last"}
    locked = bytearray(channels(1, 1))
    at = locked.rindex(b"PK\1\2")
    locked[at + 8] |= 1
    address = web.serve("locked", bytes(locked))
    with pytest.raises(FetchError, match=r"expected members that can be read, found PLACE0/ch01\.wav encrypted"):
        fetched([archive(address, body=bytes(locked), name="locked.zip", members=PATTERN)], tmp_path, patience=HASTE)

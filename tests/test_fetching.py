import gzip
import io
import itertools
import re
import resource
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from fetching_fixtures import BODY, HASTE, NAME, archive, channels, leftovers, sha256, tar_gz
from misbehaving_server import Manners, Server, date, dead_address

from stages.core.corpora import fetching
from stages.core.corpora.addresses import Patience
from stages.core.corpora.fetching import DiskSpaceError, FetchError, fetched
from stages.core.files import WriteError

N = len(BODY)
TENTHS = [N * tenth // 10 for tenth in range(1, 10)]

pytestmark = pytest.mark.usefixtures("web")


def test_an_archive_is_kept_under_its_checksum_and_never_fetched_twice(web: Server, tmp_path: Path) -> None:
    wanted = archive(web.serve(NAME, BODY))
    [path] = fetched([wanted], tmp_path, patience=HASTE)
    assert path == tmp_path / sha256(BODY).removeprefix("sha256:") / NAME
    assert path.read_bytes() == BODY
    assert leftovers(tmp_path) == {NAME}
    assert fetched([wanted], tmp_path, patience=HASTE) == [path]
    assert web.ranges() == [""]


def test_the_order_is_that_which_was_asked_for(web: Server, tmp_path: Path) -> None:
    bodies = [bytes([number]) * 1000 for number in range(12)]
    wanted = [archive(web.serve(f"{n}.zip", body), body=body, name=f"{n}.zip") for n, body in enumerate(bodies)]
    paths = fetched([*wanted, wanted[0]], tmp_path, patience=HASTE)
    assert [path.read_bytes() for path in paths] == [*bodies, bodies[0]]
    assert len(web.asked) == 12


def test_several_come_at_once(web: Server, tmp_path: Path) -> None:
    bodies = [bytes([number]) * 30_000 for number in range(4)]
    wanted = [
        archive(web.serve(f"{n}.zip", body, bytes_per_s=100_000), body=body, name=f"{n}.zip") for n, body in enumerate(bodies)
    ]
    begun = time.monotonic()
    fetched(wanted, tmp_path, patience=HASTE, n_at_once=4)
    together = time.monotonic() - begun
    assert max(asked.at for asked in web.asked) - min(asked.at for asked in web.asked) < 0.25
    assert together < 0.9  # 0.3 s each


# ---- connections that break


def test_a_connection_that_is_cut_at_every_tenth_is_taken_up_again(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, cuts=list(TENTHS))
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert web.ranges() == ["", *(f"bytes={cut}-" for cut in TENTHS)]
    assert all(asked.if_range == '"one"' for asked in web.asked[1:])
    assert web.sent == N


@pytest.mark.parametrize("cut", TENTHS)
def test_a_later_run_asks_only_for_the_rest(web: Server, tmp_path: Path, cut: int) -> None:
    address = web.serve(NAME, BODY, cuts=[cut], changes=[Manners(always=503)])
    with pytest.raises(FetchError, match=re.escape(f"{address}: expected {N} bytes, found {cut}")):
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert leftovers(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    web.serve(NAME, BODY)
    web.asked.clear()
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert web.ranges() == [f"bytes={cut}-"]
    assert web.sent == N
    assert leftovers(tmp_path) == {NAME}


def test_breaks_without_end_are_borne_while_something_comes(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, cut_after=N // 25)
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert len(web.asked) == 26


@pytest.mark.parametrize("etag", ['"one"', ""])
def test_a_server_that_ignores_ranges_sends_the_start_again_and_it_is_skipped(web: Server, tmp_path: Path, etag: str) -> None:
    address = web.serve(NAME, BODY, ranges=False, cuts=[N // 3, N // 2], etag=etag, last_modified=date(-9) if etag else "")
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert web.ranges() == ["", f"bytes={N // 3}-", f"bytes={N // 2}-"]


def test_a_server_that_ignores_ranges_and_always_cuts_ends_in_one_sentence(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, ranges=False, cut_after=400_000)
    with pytest.raises(FetchError) as caught:
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert str(caught.value) == (
        f"{NAME} cannot be fetched: {address}: expected {N} bytes, found 400000 and then no more: expected more bytes, found "
        "the connection broken (cut off). Run again later, which goes on from what has come, or put the file into a folder "
        "and set DENOISE_ARCHIVES to that folder."
    )


def test_a_stall_is_noticed_and_the_rest_asked_for(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, stall_after=[N // 2])
    begun = time.monotonic()
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert time.monotonic() - begun < 2
    assert web.ranges() == ["", f"bytes={N // 2}-"]


def test_a_body_without_a_length_is_taken_to_its_end_and_checked(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, length=False)
    assert fetched([archive(address, size=None)], tmp_path, patience=HASTE)[0].read_bytes() == BODY


def test_a_body_without_a_length_that_was_cut_is_fetched_again(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, length=False, ranges=False, cuts=[N // 2])
    assert fetched([archive(address, size=None)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges() == ["", ""]


def test_an_answer_without_a_length_that_always_ends_early_is_given_up(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, length=False, ranges=False, cut_after=400_000)
    with pytest.raises(FetchError, match=f"{address}: expected {N} bytes, found 400000 and then no more: .* end of the answer"):
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert len(web.asked) <= 6


# ---- answers that are none


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_asked_about_again(web: Server, tmp_path: Path, status: int) -> None:
    address = web.serve(NAME, BODY, always=status)
    with pytest.raises(FetchError, match=rf"{NAME} cannot be fetched: {address}: expected the file, found {status} \w+"):
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert len(web.asked) == 1
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_a_server_in_trouble_is_asked_again_and_that_is_said(
    web: Server, tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = web.serve(NAME, BODY, status=[status, status])
    assert fetched([archive(address)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert len(web.asked) == 3
    said = capsys.readouterr().err
    assert said.count(f"{NAME}: {address}: expected the file, found {status} ") == said.count("asking again in 0 s") == 2


def test_a_server_that_stays_in_trouble_is_given_up_after_growing_pauses(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, always=500)
    patience = Patience(connect_s=1, read_s=1, tries=4, first_pause_s=0.05, longest_pause_s=10)
    with pytest.raises(FetchError, match=f"{address}: expected the file, found 500 Internal Server Error"):
        fetched([archive(address)], tmp_path, patience=patience)
    times = [asked.at for asked in web.asked]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(pauses) == 3
    assert all(pause >= expected for pause, expected in zip(pauses, [0.05, 0.1, 0.2], strict=True))


@pytest.mark.parametrize("as_a_date", [False, True])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(web: Server, tmp_path: Path, as_a_date: bool) -> None:
    address = web.serve(NAME, BODY, status=[429], retry_after=date(2) if as_a_date else "1")
    fetched([archive(address)], tmp_path, patience=HASTE)
    first, second = [asked.at for asked in web.asked]
    assert second - first >= 0.9  # a date has whole seconds


def test_a_server_that_asks_for_too_long_a_pause_is_not_waited_for(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, always=429, retry_after="3600")
    with pytest.raises(FetchError, match=f"{address}: expected the file, found 429 .* to be asked again in 3600 s"):
        fetched([archive(address)], tmp_path, patience=HASTE)


def test_a_redirection_is_followed_and_a_loop_of_them_is_not(web: Server, tmp_path: Path) -> None:
    address = web.serve("old", location=web.serve(NAME, BODY, cuts=[N // 2]))
    assert fetched([archive(address)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges(NAME) == ["", f"bytes={N // 2}-"]
    loop = web.serve("loop", location="/loop")
    with pytest.raises(FetchError, match=f"{loop}: expected the file, found more than 10 redirections"):
        fetched([archive(loop, body=b"other")], tmp_path, patience=HASTE)


def test_nobody_there_is_said_with_the_way_out(tmp_path: Path) -> None:
    address = dead_address()
    with pytest.raises(
        FetchError, match=rf"{address}: expected an answer, found none \(Connection refused\).*DENOISE_ARCHIVES"
    ):
        fetched([archive(address)], tmp_path, patience=HASTE)


def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="nonsense: expected an address that can be asked"):
        fetched([archive("nonsense")], tmp_path, patience=HASTE)


# ---- the wrong bytes


def test_wrong_bytes_are_told_by_their_checksum_and_not_kept(web: Server, tmp_path: Path) -> None:
    wrong = BODY[:-1] + b"?"
    address = web.serve(NAME, wrong)
    with pytest.raises(FetchError, match=f"{address}: expected {sha256(BODY)}, found {sha256(wrong)}"):
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert leftovers(tmp_path) == set()
    assert web.ranges() == [""]


def test_a_wrong_length_is_told_before_a_byte_is_kept(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY + b"more")
    with pytest.raises(FetchError, match=f"{address}: expected {N} bytes, found {N + 4}"):
        fetched([archive(address)], tmp_path, patience=HASTE)
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("told", [N // 2, N + 5])
def test_a_length_that_is_not_true_is_told(web: Server, tmp_path: Path, told: int) -> None:
    address = web.serve(NAME, BODY, told_length=told, ranges=False)
    with pytest.raises(FetchError, match=f"{address}: expected {N} bytes, found {told}"):
        fetched([archive(address)], tmp_path, patience=HASTE)


def test_more_than_the_size_is_not_taken(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY + bytes(9_000_000), length=False, ranges=False)
    with pytest.raises(FetchError, match=f"{address}: expected {N} bytes, found more"):
        fetched([archive(address)], tmp_path, patience=HASTE)


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8"])
def test_a_web_page_is_not_an_archive(web: Server, tmp_path: Path, kind: str) -> None:
    address = web.serve(NAME, b"<!DOCTYPE html><title>Please log in</title>", kind=kind)
    with pytest.raises(FetchError, match=rf"{address}: expected the file, found a web page \(text/html\)"):
        fetched([archive(address, size=None)], tmp_path, patience=HASTE)


def test_a_web_page_that_is_called_an_archive_is_seen_through(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, b"<!DOCTYPE html><title>Please log in</title>")
    with pytest.raises(FetchError, match=f"{address}: expected {sha256(BODY)}, found sha256:[0-9a-f]+, of a web page"):
        fetched([archive(address, size=None)], tmp_path, patience=HASTE)
    with pytest.raises(FetchError, match=f"{address}: expected a whole gz file, found a web page"):
        fetched([archive(address, size=None, checksum=None)], tmp_path, patience=HASTE)


@pytest.mark.parametrize("mark", ["etag", "last_modified"])
def test_a_file_that_changed_between_two_ranges_is_begun_again(web: Server, tmp_path: Path, mark: str) -> None:
    marks = ['"old"', '"new"'] if mark == "etag" else [date(-100), date(-10)]
    old, new = ({"etag": "", mark: value} for value in marks)
    changed = Manners(BODY, **new)  # type: ignore[arg-type]
    address = web.serve(NAME, bytes(N), cuts=[N // 2], changes=[changed], **old)
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert web.ranges() == ["", f"bytes={N // 2}-"]  # with If-Range the whole of the new one comes at once
    assert web.asked[1].if_range == marks[0]


def test_a_file_that_changed_is_noticed_where_if_range_is_ignored(web: Server, tmp_path: Path) -> None:
    changed = Manners(BODY, etag='W/"new"')
    address = web.serve(NAME, bytes(N), etag='W/"old"', cuts=[N // 2], changes=[changed])
    [path] = fetched([archive(address)], tmp_path, patience=HASTE)
    assert path.read_bytes() == BODY
    assert web.ranges() == ["", f"bytes={N // 2}-", ""]
    assert not any(asked.if_range for asked in web.asked)


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        (500_000, rf"expected {N} bytes, found 500000 and then no more: .* \(it changed [23] times meanwhile\)"),
        (400_000, "expected one file, found another 4 times"),
    ],
)
def test_a_file_that_never_stays_the_same_is_given_up(web: Server, tmp_path: Path, cut: int, found: str) -> None:
    first, second = Manners(BODY, etag='"1"', cut_after=500_000), Manners(BODY, etag='"2"', cut_after=cut)
    first.changes, second.changes = [second], [first]
    address = web.serve(NAME)
    web.paths[f"/{NAME}"] = first
    with pytest.raises(FetchError, match=f"{address}: {found}"):
        fetched([archive(address)], tmp_path, patience=HASTE)


def test_a_damaged_beginning_of_an_earlier_run_is_not_held_against_the_address(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, cuts=[N // 2], changes=[Manners(always=503)])
    with pytest.raises(FetchError):
        fetched([archive(address)], tmp_path, patience=HASTE)
    [part] = tmp_path.rglob("*.part")
    part.write_bytes(bytes(N // 2))
    web.serve(NAME, BODY)
    assert fetched([archive(address)], tmp_path, patience=HASTE)[0].read_bytes() == BODY


def test_a_note_that_cannot_be_read_costs_only_the_part(web: Server, tmp_path: Path) -> None:
    address = web.serve(NAME, BODY, cuts=[N // 2], changes=[Manners(always=503)])
    with pytest.raises(FetchError):
        fetched([archive(address)], tmp_path, patience=HASTE)
    [note] = tmp_path.rglob("*.part.json")
    note.write_text("{")
    web.serve(NAME, BODY)
    assert fetched([archive(address)], tmp_path, patience=HASTE)[0].read_bytes() == BODY


def test_a_kept_archive_that_was_damaged_is_fetched_again(
    web: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = archive(web.serve(NAME, BODY))
    [path] = fetched([wanted], tmp_path, patience=HASTE)
    path.write_bytes(BODY[:-1])
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert f"{path}: expected {sha256(BODY)}, found" in capsys.readouterr().err


# ---- mirrors


def test_the_next_mirror_is_asked_when_the_first_is_dead_or_wrong(web: Server, tmp_path: Path) -> None:
    good = web.serve(NAME, BODY)
    bad = [dead_address(), web.serve("gone", always=404), web.serve("wrong", bytes(N)), web.serve("short", BODY[:9])]
    begun = time.monotonic()
    assert fetched([archive(*bad, good)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert time.monotonic() - begun < 1


def test_where_no_mirror_has_the_file_each_has_a_line_that_says_why(web: Server, tmp_path: Path) -> None:
    dead, gone = dead_address(), web.serve("gone", always=404)
    with pytest.raises(FetchError) as caught:
        fetched([archive(dead, gone)], tmp_path, patience=HASTE)
    first, *reasons, last = str(caught.value).split("\n")
    assert first == f"{NAME} cannot be fetched:"
    assert reasons[0] == f"  {dead}: expected an answer, found none (Connection refused)."
    assert reasons[1].startswith(f"  {gone}: expected the file, found 404")
    assert last.startswith("Run again later")


def test_a_wrong_first_mirror_of_an_archive_of_unknown_size_shuts_out_no_other(web: Server, tmp_path: Path) -> None:
    page = web.serve("page", b"<!DOCTYPE html><title>Moved</title>", kind="text/html")
    bad = [page, web.serve("other", BODY[:9])]
    unknown = replace(archive(*bad, web.serve(NAME, BODY)), size=None)
    assert fetched([unknown], tmp_path, patience=HASTE)[0].read_bytes() == BODY


def test_a_mirror_goes_on_where_the_first_broke_off(web: Server, tmp_path: Path) -> None:
    first = web.serve("first", BODY, cuts=[N // 2], changes=[Manners(always=404)])
    second = web.serve("second", BODY, etag='"of the second"')
    assert fetched([archive(first, second)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges("second") == [f"bytes={N // 2}-"]
    assert web.asked[-1].if_range == ""


def test_bytes_of_two_mirrors_that_do_not_fit_are_fetched_from_one(web: Server, tmp_path: Path) -> None:
    first = web.serve("first", bytes(N), cuts=[N // 2], changes=[Manners(always=404)])
    second = web.serve("second", BODY)
    assert fetched([archive(first, second)], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges("second") == [f"bytes={N // 2}-", ""]


def test_one_failure_does_not_keep_what_runs_from_its_end(web: Server, tmp_path: Path) -> None:
    good = archive(web.serve(NAME, BODY, bytes_per_s=4_000_000))
    bad = archive(web.serve("bad", always=404), body=b"bad", name="bad.zip")
    with pytest.raises(FetchError, match=r"bad\.zip cannot be fetched"):
        fetched([good, bad], tmp_path, patience=HASTE)
    web.asked.clear()
    assert leftovers(tmp_path) == {NAME}


def test_after_a_failure_nothing_more_is_begun(web: Server, tmp_path: Path) -> None:
    bad = [archive(web.serve(f"{n}.zip", always=404), body=bytes([n]), name=f"{n}.zip") for n in range(12)]
    with pytest.raises(FetchError) as caught:
        fetched(bad, tmp_path, patience=HASTE, n_at_once=2)
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    assert len(web.asked) <= 2


# ---- no published checksum


@pytest.mark.parametrize(("name", "body"), [("sounds.zip", channels()), ("sounds.tar.gz", tar_gz())])
def test_without_a_published_checksum_the_archive_itself_is_checked_and_recorded(
    web: Server, tmp_path: Path, name: str, body: bytes
) -> None:
    wanted = archive(web.serve(name, body), name=name, size=None, checksum=None)
    [path] = fetched([wanted], tmp_path, patience=HASTE)
    assert path.read_bytes() == body
    record = path.with_name(f"{name}.lock.json")
    assert sha256(body) in record.read_text()
    fetched([wanted], tmp_path, patience=HASTE)
    assert web.ranges() == [""]
    record.unlink()  # as a kill would leave it
    fetched([wanted], tmp_path, patience=HASTE)
    assert web.ranges() == [""]
    path.write_bytes(b"PK")
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == body


def test_without_a_published_checksum_a_broken_archive_is_refused(web: Server, tmp_path: Path) -> None:
    zipped = bytearray(channels())
    zipped[10_000] ^= 1
    packed = gzip.compress(bytes(9999))[:-4] + b"1234"
    for name, body, found in [
        ("a.zip", bytes(zipped), r"expected PLACE0/ch01\.wav whole"),
        ("b.tar.gz", packed, "a broken one"),
    ]:
        with pytest.raises(FetchError, match=found):
            fetched([archive(web.serve(name, body), name=name, size=None, checksum=None)], tmp_path, patience=HASTE)


# ---- the place


def test_space_is_checked_before_the_first_byte(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = archive(web.serve("b.zip", BODY[::-1]), body=BODY[::-1], name="b.zip", size=None)
    first = archive(web.serve(NAME, BODY))
    usage = type("Usage", (), {"free": 2 * N - 1})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskSpaceError, match=rf"{tmp_path}: expected 2 MB of free space for {NAME}, b\.zip, found 2 MB"):
        fetched([first, second], tmp_path, patience=HASTE)
    assert web.ranges() == []  # only HEAD, for the size that is not published
    usage.free = N
    fetched([first], tmp_path, patience=HASTE)
    fetched([first, second], tmp_path, patience=HASTE)  # what is there needs no room


def test_what_has_come_of_a_file_needs_no_room_again(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = archive(web.serve(NAME, BODY, cuts=[N // 2], changes=[Manners(always=503)]))
    with pytest.raises(FetchError):
        fetched([wanted], tmp_path, patience=HASTE)
    web.serve(NAME, BODY)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": N // 2 + 1}))
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == BODY


def test_a_disk_that_is_full_after_all_is_said_and_what_came_is_kept(web: Server, tmp_path: Path) -> None:
    wanted = archive(web.serve(NAME, BODY))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (N // 2, before[1]))
    try:
        with pytest.raises(WriteError, match=rf"{NAME}\.part: cannot be written \(File too large\)"):
            fetched([wanted], tmp_path, patience=HASTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges() == ["", f"bytes={N // 2}-"]


def test_a_terminal_shows_how_far_how_fast_and_how_long_yet(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setattr("sys.stderr", terminal)
    address = web.serve(NAME, BODY, bytes_per_s=3_000_000, cuts=[N // 2], changes=[Manners(BODY, bytes_per_s=1_500_000)])
    fetched([archive(address)], tmp_path, patience=HASTE)
    lines = terminal.getvalue().split("\r")
    assert any(re.search(rf"{NAME}: +[1-9]\d%.*/1\.00M \[00:00<00:0\d, .*MB/s", line) for line in lines)


def test_nothing_to_fetch_is_nothing(tmp_path: Path) -> None:
    assert fetched([], tmp_path) == []


def test_two_that_fetch_the_same_do_so_once(web: Server, tmp_path: Path) -> None:
    wanted = archive(web.serve(NAME, BODY, bytes_per_s=3_000_000))
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.extend(fetched([wanted], tmp_path, patience=HASTE))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == BODY for path in paths] == [True] * 3
    assert web.ranges() == [""]
    assert leftovers(tmp_path) == {NAME}


def test_memory_does_not_grow_with_the_archive(web: Server, tmp_path: Path) -> None:
    body = bytes(30_000_000)
    wanted = archive(web.serve(NAME, body), body=body)
    tracemalloc.start()
    fetched([wanted], tmp_path, patience=HASTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


# ---- a site without the network


def test_a_folder_supplies_the_archives_and_nothing_else_is_asked(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, wanted = tmp_path / "site", archive(web.serve(NAME, BODY))
    site.mkdir()
    monkeypatch.setenv("DENOISE_ARCHIVES", str(site))
    with pytest.raises(FetchError) as caught:
        fetched([wanted], tmp_path / "cache", patience=HASTE)
    assert str(caught.value) == (
        f"{site} (DENOISE_ARCHIVES): 1 of 1 archives are not there. Fetch them where there is a network, and put them there "
        f"under these names:\n  {NAME} from {wanted.addresses[0]}"
    )
    (site / NAME).write_bytes(BODY[1:])
    with pytest.raises(FetchError, match=rf"{site / NAME} \(DENOISE_ARCHIVES\): expected {sha256(BODY)}, found"):
        fetched([wanted], tmp_path / "cache", patience=HASTE)
    (site / NAME).write_bytes(BODY)
    assert fetched([wanted], tmp_path / "cache", patience=HASTE) == [site / NAME]
    assert web.asked == []


def test_all_wrong_and_absent_archives_of_a_folder_are_told_at_once(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a.tar.gz", "b.tar.gz", "c.tar.gz")
    wanted = [archive(web.serve(name, BODY), name=name) for name in (*names, "d.tar.gz")]
    for name, body in zip(names, (BODY[1:], BODY, BODY[2:]), strict=True):
        (tmp_path / name).write_bytes(body)
    monkeypatch.setenv("DENOISE_ARCHIVES", str(tmp_path))
    with pytest.raises(FetchError) as caught:
        fetched([*wanted, wanted[0]], tmp_path / "cache", patience=HASTE)
    first, second, hint, lacking, last = str(caught.value).split("\n")
    assert [line.split(" ")[0] for line in (first, second)] == [str(tmp_path / "a.tar.gz"), str(tmp_path / "c.tar.gz")]
    assert first.endswith(f"Put there what {wanted[0].addresses[0]} gives.")
    assert hint.endswith("are for the corpus 'folder'.")
    assert "1 of 4 archives are not there" in lacking
    assert last == f"  d.tar.gz from {wanted[3].addresses[0]}"


def test_the_cache_of_another_machine_is_such_a_folder(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = channels()
    wanted = [
        archive(web.serve(NAME, BODY)),
        archive(web.serve("d.zip", body), body=body, name="d.zip", members=r"PLACE0/ch01\.wav"),
    ]
    before = fetched(wanted, tmp_path / "there", patience=HASTE)
    web.asked.clear()
    monkeypatch.setenv("DENOISE_ARCHIVES", str(tmp_path / "there"))
    assert fetched(wanted, tmp_path / "here", patience=HASTE) == before
    assert web.asked == []


def test_an_internal_address_supplies_the_archives(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = archive(web.serve("public", BODY))
    monkeypatch.setenv("DENOISE_ARCHIVES", f"{web.root}/inside/")
    with pytest.raises(FetchError, match=f"{web.root}/inside/{NAME}: expected the file, found 404"):
        fetched([wanted], tmp_path, patience=HASTE)
    web.serve(f"inside/{NAME}", BODY)
    assert fetched([wanted], tmp_path, patience=HASTE)[0].read_bytes() == BODY
    assert web.ranges("public") == []


def test_a_site_that_is_neither_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENOISE_ARCHIVES", str(tmp_path / "none"))
    with pytest.raises(
        FetchError, match="DENOISE_ARCHIVES: expected a folder that is there, or an address that starts with http, found"
    ):
        fetched([archive("http://127.0.0.1/x")], tmp_path, patience=HASTE)

import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from official_layouts import packed, sound, utterance
from specimens import RATE, hiss

from stages.core import bundles
from stages.core.audio import AudioError
from stages.core.bundles import BundleWriter, announce, read_clip
from stages.core.corpora import members as members_module
from stages.core.corpora.members import UnpackingError, members
from stages.core.corpora.unpacking import Unpacked, is_unpacked, unpack, unpacked

GOOD = sound(hiss(RATE, 1))


def wanted(name: str) -> bool:
    return name.endswith((".flac", ".wav"))


def unpacked_from(folder: Path, name: str, body: bytes, n_jobs: int = 1) -> tuple[list[Unpacked], str]:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_bytes(body)
    before = {path for path in folder.rglob("*")}
    unpack(folder / "in" / name, folder / "out/corpus", wanted, n_jobs)
    assert {path for path in folder.rglob("*")} - before <= {folder / "out", *(folder / "out").rglob("*")}
    assert is_unpacked(folder / "out/corpus")
    return unpacked(folder / "out/corpus")


def tar(*infos: tarfile.TarInfo | tuple[str, bytes], encoding: str = "utf-8") -> bytes:
    """A tar.gz with members of any kind; names are written as they are."""
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT, encoding=encoding, errors="surrogateescape"
    ) as made:
        for info in infos:
            data = b""
            if isinstance(info, tuple):
                name, data = info
                info = tarfile.TarInfo(name)
                info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# ---- bundles


@pytest.mark.parametrize("form", ["FLAC", "WAV", "OGG"])
def test_a_part_of_a_file_in_a_bundle_is_that_part(tmp_path: Path, form: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.stack([hiss(30000, 2), hiss(30000, 3)], axis=1), RATE, format=form)
    with BundleWriter(tmp_path, "all") as writer:
        places = [writer.add(name, file.getvalue()) for name in ("a", "b" * 150, "c")]
    whole, _ = soundfile.read(file if file.seek(0) == 0 else None, dtype="float32")
    for bundle, offset in places:
        within = (offset, len(file.getvalue()))
        for start, n_samples in ((0, None), (0, 17), (12345, 4096), (29999, 1), (30000, 0)):
            part, rate = read_clip(tmp_path / bundle, within, start=start, n_samples=n_samples)
            assert rate == RATE
            assert np.array_equal(part, whole[start:][:n_samples])
        with pytest.raises(AudioError, match="expected 2 samples from 29999"):
            read_clip(tmp_path / bundle, within, start=29999, n_samples=2)
    with tarfile.open(tmp_path / "all-00000.tar") as made:
        assert [made.extractfile(info).read() for info in made] == [file.getvalue()] * 3  # type: ignore[union-attr]


def test_small_files_in_a_bundle_are_announced_and_long_recordings_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *place: asked.append(place), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    with BundleWriter(tmp_path, "clips") as bundle:
        places = [bundle.add("a.flac", GOOD), bundle.add("b.wav", bytes(4 * 10**6))]
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for (name, offset), size in zip(places, (len(GOOD), 4 * 10**6), strict=True):
        announce(str(tmp_path / name), (offset, size))
    announce(str(tmp_path / "a file of its own.wav"), None)
    assert asked == [(places[0][1], len(GOOD), 3)]
    assert not opened or len(os.listdir("/proc/self/fd")) == opened
    monkeypatch.delattr(os, "posix_fadvise")
    announce(str(tmp_path / places[0][0]), (places[0][1], len(GOOD)))


def test_bundles_are_few_and_their_bytes_depend_on_nothing_else(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with BundleWriter(folder, "all", limit=50_000) as writer:
            places = [writer.add(f"{number}.flac", GOOD) for number in range(6)]
        assert len({bundle for bundle, _ in places}) == len(list(folder.iterdir())) == -(-6 // (50_000 // (len(GOOD) + 1024)))
        time.sleep(0.01)
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in (tmp_path / "a").iterdir())


def test_a_bundle_that_was_cut_is_named(tmp_path: Path) -> None:
    with BundleWriter(tmp_path, "all") as writer:
        bundle, offset = writer.add("a.flac", GOOD)
    os.truncate(tmp_path / bundle, offset + len(GOOD) // 2)
    with pytest.raises(AudioError, match=rf"all-00000\.tar, byte {offset}: "):
        read_clip(tmp_path / bundle, (offset, len(GOOD)), start=0, n_samples=RATE)


# ---- hostile archives


@pytest.mark.parametrize("kind", ["corpus.tar.gz", "corpus.tar", "corpus.zip"])
def test_audio_is_kept_as_it_came(tmp_path: Path, kind: str) -> None:
    files = {f"c/{number}.flac": sound(utterance(number)) for number in range(4)} | {"c/readme.txt": b"no"}
    found, left_out = unpacked_from(tmp_path, kind, packed(kind, files))
    assert left_out == ""
    assert [row.member for row in found] == [name for name in files if name.endswith("flac")]
    for row in found:
        assert bundles.clip_bytes(tmp_path / "out/corpus" / row.bundle, (row.offset, row.size)) == files[row.member]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/evil.wav", "has an absolute path"),
        ("c/../../evil.wav", "climbs out of its folder"),
        ("../evil.wav", "climbs out of its folder"),
        ("C:\\evil.wav", "has an absolute path, or one of another system"),
        ("c/e\nvil.wav", "has a name with control characters"),
        ("c/good.flac", "occurs twice"),
    ],
)
@pytest.mark.parametrize("kind", ["corpus.tar.gz", "corpus.zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_members_with_hostile_names_are_left_out_by_name(tmp_path: Path, name: str, fault: str, kind: str) -> None:
    if kind.endswith("zip"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as zipped:
            for member, data in (("c/good.flac", GOOD), (name, sound(hiss(RATE, 9)))):
                zipped.writestr(member, data)
        body = file.getvalue()
    else:
        body = tar(("c/good.flac", GOOD), (name, sound(hiss(RATE, 9))))
    found, left_out = unpacked_from(tmp_path, kind, body)
    assert [row.member for row in found] == ["c/good.flac"]
    assert left_out.startswith(f"{kind}: 1 members are left out:\n  {name} {fault}")
    assert found[0].size == len(GOOD)


def test_links_and_devices_are_left_out_by_name(tmp_path: Path) -> None:
    kinds = {
        "c/soft.wav": special("c/soft.wav", tarfile.SYMTYPE, "/etc/passwd"),
        "c/hard.wav": special("c/hard.wav", tarfile.LNKTYPE, "../../etc/passwd"),
        "c/null.wav": special("c/null.wav", tarfile.CHRTYPE),
        "c/disk.wav": special("c/disk.wav", tarfile.BLKTYPE),
        "c/pipe.wav": special("c/pipe.wav", tarfile.FIFOTYPE),
    }
    found, left_out = unpacked_from(tmp_path, "corpus.tar.gz", tar(("c/good.flac", GOOD), *kinds.values()))
    assert [row.member for row in found] == ["c/good.flac"]
    lines = left_out.splitlines()[1:]
    words = ["link", "link", "device or pipe", "device or pipe", "device or pipe"]
    assert lines == [f"  {name} is a {word}" for name, word in zip(kinds, words, strict=True)]


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("c/good.flac", GOOD)
        info = zipfile.ZipInfo("c/link.wav")
        info.external_attr = 0o120777 << 16
        zipped.writestr(info, "/etc/passwd")
    found, left_out = unpacked_from(tmp_path, "corpus.zip", file.getvalue())
    assert len(found) == 1
    assert "c/link.wav is a link" in left_out


def test_names_that_are_not_utf8_are_left_out_by_name(tmp_path: Path) -> None:
    body = tar(("c/good.flac", GOOD), ("c/gr\udcfcn.wav", GOOD), encoding="utf-8")
    found, left_out = unpacked_from(tmp_path, "corpus.tar.gz", body)
    assert [row.member for row in found] == ["c/good.flac"]
    assert r"c/gr\xfcn.wav has a name that is not UTF-8" in left_out
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in ("c/good.flac", "c/gr#n.wav"):
            zipped.writestr(name, GOOD)
    (tmp_path / "zip").mkdir()
    found, left_out = unpacked_from(tmp_path / "zip", "corpus.zip", file.getvalue().replace(b"gr#n", b"gr\xfcn"))
    assert [row.member for row in found] == ["c/good.flac"]
    assert "has a name that is not UTF-8" in left_out


def test_audio_that_cannot_be_used_is_left_out_by_name(tmp_path: Path) -> None:
    long = sound(hiss(4 * RATE, 4))
    broken = bytearray(long)
    broken[len(broken) // 2 : len(broken) // 2 + 2000] = bytes(2000)
    files = {
        "c/good.flac": GOOD,
        "c/text.wav": b"this is no sound",
        "c/empty.wav": b"",
        "c/short.flac": long[: len(long) // 2],
        "c/broken.flac": bytes(broken),
        "c/cut.wav": sound(hiss(RATE, 5), RATE, "WAV")[:10000],
        "c/header.wav": sound(np.zeros(0, np.float32), RATE, "WAV"),
        "c/silent.wav": sound(np.zeros(RATE, np.float32), RATE, "WAV"),
    }
    found, left_out = unpacked_from(tmp_path, "corpus.tar.gz", packed("corpus.tar.gz", files), n_jobs=2)
    assert [row.member for row in found] == ["c/good.flac"]
    assert left_out.startswith("corpus.tar.gz: 7 members are left out:")
    assert all(f"\n  {name}: " in left_out for name in files if name != "c/good.flac")


def test_real_broken_files_are_left_out_by_name(tmp_path: Path, test_audio: Path) -> None:
    names = ["corrupt-middle.flac", "truncated.flac", "truncated.wav", "header-only.wav", "nan-float.wav", "inf-float.wav"]
    files = {f"zoo/{name}": (test_audio / "zoo" / name).read_bytes() for name in [*names, "ok.wav"]}
    found, left_out = unpacked_from(tmp_path, "zoo.zip", packed("zoo.zip", files))
    assert [row.member for row in found] == ["zoo/ok.wav"]
    assert all(f"zoo/{name}: " in left_out for name in names)


@pytest.mark.parametrize("kind", ["corpus.tar.gz", "corpus.zip"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "_ALWAYS_ALLOWED", 10**6)
    body = packed(kind, {"c/good.flac": GOOD, "c/a.wav": bytes(8 * 10**6), "c/b.wav": bytes(8 * 10**6)})
    with pytest.raises(
        UnpackingError, match=re.escape(f"{kind}: expected at most ") + ".* 20 times its size, found more; remove"
    ):
        unpacked_from(tmp_path, kind, body)
    assert not (tmp_path / "out/corpus").exists()
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) < 9 * 10**6


def test_what_is_not_wanted_counts_in_a_tar_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "_ALWAYS_ALLOWED", 10**6)
    with pytest.raises(UnpackingError, match="found more"):
        unpacked_from(tmp_path, "corpus.tar.gz", packed("corpus.tar.gz", {"c/a.txt": bytes(8 * 10**6), "c/good.flac": GOOD}))


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    body = bytearray(packed("corpus.zip", {"c/a.wav": bytes(100_000), "c/good.flac": GOOD}))
    size = (100_000).to_bytes(4, "little")
    assert bytes(body).count(size) == 2
    with pytest.raises(UnpackingError, match="cannot be read to its end"):
        unpacked_from(tmp_path, "corpus.zip", bytes(body).replace(size, (100).to_bytes(4, "little")))
    info = tarfile.TarInfo("c/huge.wav")
    info.size = 10**12
    whole = packed("corpus.tar", {"c/good.flac": GOOD})[: 512 + -(-len(GOOD) // 512) * 512]
    with pytest.raises(UnpackingError, match=re.escape("c/huge.wav has 1000000 MB")):
        unpacked_from(tmp_path, "corpus.tar", whole + info.tobuf())


@pytest.mark.parametrize(
    "damage", [lambda body: body[: len(body) // 2], lambda body: b"<html>no archive</html>", lambda _: b""]
)
@pytest.mark.parametrize("kind", ["corpus.tar.gz", "corpus.tar", "corpus.zip"])
def test_a_broken_archive_is_one_sentence(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    body = damage(packed(kind, {f"c/{number}.flac": sound(hiss(RATE, number)) for number in range(5)}))
    with pytest.raises(UnpackingError, match=re.escape(kind) + "(: cannot be read to its end| ?: no audio)"):
        unpacked_from(tmp_path, kind, body)
    assert not (tmp_path / "out/corpus").exists()


def test_an_archive_without_audio_is_named_with_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(UnpackingError, match=r"no audio of this corpus is in it\.\n  c/text\.wav: not a sound file"):
        unpacked_from(tmp_path, "corpus.zip", packed("corpus.zip", {"c/text.wav": b"x", "c/a.txt": b"y"}))


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UnpackingError, match="make room there"):
        unpacked_from(tmp_path, "corpus.zip", packed("corpus.zip", {"c/a.flac": GOOD}))


def test_members_are_the_same_for_any_number_of_processes(tmp_path: Path) -> None:
    body = packed("corpus.tar", {f"c/{number}.flac": GOOD for number in range(600)})
    folders = [tmp_path / "one", tmp_path / "two"]
    for n_jobs, folder in enumerate(folders, 1):
        folder.mkdir()
        assert len(unpacked_from(folder, "corpus.tar", body, n_jobs)[0]) == 600
    one, two = ({path.name: path.read_bytes() for path in (folder / "out/corpus").iterdir()} for folder in folders)
    assert one == two


@pytest.mark.parametrize("name", ["corpus-00000.tar", "index.csv", "skipped.txt", "complete"])
def test_damage_in_the_cache_is_seen(tmp_path: Path, name: str) -> None:
    unpacked_from(tmp_path, "corpus.tar", packed("corpus.tar", {"c/a.flac": GOOD}))
    path = tmp_path / "out/corpus" / name
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    assert not is_unpacked(tmp_path / "out/corpus")
    unpacked_from(tmp_path, "corpus.tar", packed("corpus.tar", {"c/a.flac": GOOD}))


# ---- kills

UNPACK = """
import sys
from pathlib import Path
from stages.core.corpora.unpacking import is_unpacked, unpack
archives, folders = Path(sys.argv[1]), Path(sys.argv[2])
print("begun", flush=True)
for archive in sorted(archives.iterdir()):
    if not is_unpacked(folders / archive.name):
        unpack(archive, folders / archive.name, lambda name: name.endswith(".flac"), 1)
"""


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_unpackings_end_as_if_nothing_had_been(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "archives").mkdir()
    for number in range(4):
        files = {f"c/{number}-{place}.flac": sound(hiss(4 * RATE, 10 * number + place)) for place in range(30)}
        (tmp_path / "archives" / f"{number}.tar").write_bytes(packed(f"{number}.tar", files))

    def started(folder: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", UNPACK, str(tmp_path / "archives"), str(tmp_path / folder)]
        process = subprocess.Popen(arguments, cwd=repository, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        return process

    with started("whole") as process:
        begun = time.monotonic()
        assert process.wait() == 0
    needed = time.monotonic() - begun
    whole, moments, kills = contents(tmp_path / "whole"), random.Random(5), 0
    assert len(whole) == 4 * 4
    for _ in range(40):
        folder = f"killed-{kills % 2}"
        with started(folder) as process:
            time.sleep(moments.uniform(0, 0.6 * needed))
            process.send_signal(signal.SIGKILL)
            killed = process.wait() == -signal.SIGKILL
        for path in (tmp_path / folder).glob("[!.]*") if (tmp_path / folder).exists() else ():
            assert is_unpacked(path)
        kills += killed
        if kills == 5:
            break
        if not killed:
            shutil.rmtree(tmp_path / folder)
    assert kills == 5
    for folder in ("killed-0", "killed-1"):
        with started(folder) as process:
            assert process.wait() == 0
        assert contents(tmp_path / folder) == whole


def test_members_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "corpus.zip"
    path.write_bytes(packed("corpus.zip", {"c/a.flac": GOOD, "c/b.flac": GOOD}))
    assert next(iter(members(path, wanted))).data == GOOD

"""`kill -9` in the middle of a folder: the same command finishes the rest, and no file was ever there in part."""

import re
import subprocess
import sys
import time
from pathlib import Path

from interrupted import Watch, soak
from specimens import hiss, stored

from stages.core.files import PARTIAL, clear_partial, written

N_FILES = 40


def test_a_folder_is_finished_after_a_kill(tmp_path: Path) -> None:
    found = soak(tmp_path, N_FILES, (0.4,))
    assert found.faults == []
    (n_done,) = found.n_after_kill
    assert 0 < n_done < N_FILES
    # What was done before the kill is kept; what a worker had written but not yet noted is made again.
    counts = {name: int(number) for number, name in re.findall(r"^ *(\d+) (denoised|kept)", found.summary, re.MULTILINE)}
    assert sum(counts.values()) == N_FILES
    assert counts["kept"] >= n_done - 2
    assert found.n_seen == N_FILES
    assert found.left == []
    assert len(found.outputs) == N_FILES + 1
    assert found.outputs == found.unbroken


def test_the_watch_sees_files_that_are_not_whole(tmp_path: Path) -> None:
    """Otherwise it would prove nothing."""
    watch = Watch(tmp_path, {"a.wav": 1000, "b.wav": 1000, "c.wav": 999, "d.wav": 1000})
    for name in ("a.wav", "b.wav", "c.wav", ".d.wav"):
        stored(tmp_path / name, hiss(1000))
    cut = tmp_path / "b.wav"
    cut.write_bytes(cut.read_bytes()[:-100])
    watch.start()
    time.sleep(0.05)
    watch.ending.set()
    watch.join()
    assert sorted(name for name, _ in watch.seen) == ["a.wav", "b.wav", "c.wav"]
    assert len(watch.faults) == 2
    assert any("b.wav: truncated" in fault for fault in watch.faults)
    assert "c.wav: 1000 samples, expected 999" in watch.faults


def test_only_what_no_process_writes_any_more_is_cleared(tmp_path: Path) -> None:
    held, deep = tmp_path / "b.wav", tmp_path / "deep"
    deep.mkdir()
    dead = [folder / f"{PARTIAL}{'0123456789abcdef' * 2}{suffix}" for folder in (tmp_path, deep) for suffix in ("", ".wav")]
    others = [
        tmp_path / f"{PARTIAL}notes.wav",
        tmp_path / f"{PARTIAL}2024-take1.wav",
        tmp_path / f"{PARTIAL}20240101120000",
        deep / "a.wav",
    ]
    for path in (*dead, *others):
        path.write_bytes(b"x")
    # A process that another sees is no different from this one.
    code = f"from pathlib import Path; from stages.core.files import clear_partial; clear_partial(Path({str(tmp_path)!r}))"
    with written(held) as temporary:
        temporary.write_bytes(b"whole")
        subprocess.run([sys.executable, "-c", code], check=True)
        clear_partial(tmp_path)
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in others)
    assert held.read_bytes() == b"whole"

"""Damaged sound and video files: read whole or refused with a clear message, never a crash, a hang or a silent loss.

150 files by default; the environment variable FUZZ_CASES asks for another number.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from media_specimens import CONTAINERS, SOUND_FILES, media_file, sound_file

N_CASES = int(os.environ.get("FUZZ_CASES", "150"))
N_WORKERS = 2
LIMIT_S = 10
# Half a second, so that a second of loss is not the whole.
N_SAMPLES = 24_000
# What a decoder may put before and behind: two of the longest frames.
TOLERANCE = 4096
# In these damage can hide: a stream of frames without a count of them, or without checksums, loses what is no frame any more.
UNCOUNTED = frozenset({"aac", "ac3", "eac3", "mp2", "ts", "mpg", "flv", "mp3", "wmv", "wma", "avi"})

WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from stages.core import media
from stages.core.errors import DenoisingError
for line in sys.stdin:
    path = Path(line.rstrip("\\n"))
    try:
        with media.reader(path) as source:
            n = sum(len(block) for block in source.blocks(4096))
            answer = f"read {{n}} {{source.n_samples}} {{source.sample_rate}} {{len(source.remarks)}}"
    except DenoisingError as error:
        answer = "refused" if str(path) in str(error) and "\\n" not in str(error) else f"unclear: {{error}}"
    except BaseException as error:
        answer = f"raised {{type(error).__name__}}: {{error}}"
    print(answer.replace("\\n", " "), flush=True)
"""


class Worker:
    """A process that reads the files it is told, and is started anew when it dies or takes too long."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def outcome(self, path: Path) -> str:
        """What became of reading a file."""
        if self.process is None:
            root = str(Path(__file__).resolve().parent.parent)
            command = [sys.executable, "-c", WORKER.format(root=root)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.process.stdout.readline)
            try:
                text = answer.result(LIMIT_S)
            except TimeoutError:
                self.close()
                return "hung"
        if text:
            return text.strip()
        code = self.process.wait()
        self.close()
        return f"crashed with code {code}"

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def mutated(data: bytes, random_: random.Random) -> tuple[bytes, str]:
    """A damaged copy of a file, and the damage in a word."""
    kind = random_.choice(["head", "body", "burst", "cut", "zeros", "double", "drop"])
    result = bytearray(data)
    if kind in ("head", "body"):
        end = min(len(data), 512) if kind == "head" else len(data)
        for _ in range(random_.choice([1, 1, 2, 8])):
            result[random_.randrange(end)] ^= 1 << random_.randrange(8)
        return bytes(result), kind
    first = random_.randrange(len(data))
    length = random_.choice([1, 16, 300, 3000])
    if kind == "burst":
        for at in range(first, min(first + length, len(data))):
            result[at] = random_.randrange(256)
    elif kind == "cut":
        del result[first:]
    elif kind == "zeros":
        end = min(first + length, len(data))
        result[first:end] = bytes(end - first)
    elif kind == "double":
        result[first:first] = data[first : first + length]
    else:
        del result[first : first + length]
    return bytes(result), kind


def verdict(outcome: str, name: str, kind: str, n_intact: int) -> str:
    """What is wrong with an outcome, or nothing.

    A file that is read must give what its header promises. The header itself may have been damaged, so that a length of
    its own is a fault only where the damage lies behind it, which is what 'cut' and 'drop' are for: they take bytes away.
    """
    words = outcome.split()
    if words[0] == "refused":
        return ""
    if words[0] != "read":
        return outcome
    n_read, promised, n_remarks = int(words[1]), words[2], int(words[4])
    if promised != "None" and abs(n_read - int(promised)) > TOLERANCE:
        return f"{n_read} samples where {promised} were promised"
    suffix = Path(name).suffix[1:]
    if kind in ("cut", "drop") and suffix not in UNCOUNTED and n_read < n_intact - TOLERANCE - 4800 and not n_remarks:
        return f"{n_read} samples of {n_intact}, without a word"
    return ""


@pytest.fixture(scope="module")
def specimens() -> dict[str, bytes]:
    """Small files of all formats."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [sound_file(Path(folder, name), n_samples=N_SAMPLES) for name in SOUND_FILES]
        paths += [media_file(Path(folder, name), n_samples=N_SAMPLES) for name in CONTAINERS]
        return {path.name: path.read_bytes() for path in paths}


def faults(specimens: dict[str, bytes], cases: range, folder: Path, counts: Counter[str]) -> list[str]:
    """What went wrong with some of the damaged files."""
    worker, found, intact = Worker(), [], {}
    try:
        for case in cases:
            random_ = random.Random(f"fuzz-{case}")
            name = random_.choice(sorted(specimens))
            path = folder / f"{cases.start}-{name}"
            if name not in intact:
                path.write_bytes(specimens[name])
                intact[name] = int(worker.outcome(path).split()[1])
            data, kind = mutated(specimens[name], random_)
            path.write_bytes(data)
            outcome = worker.outcome(path)
            counts[outcome.split()[0].strip(":")] += 1
            if fault := verdict(outcome, name, kind, intact[name]):
                found.append(f"case {case}, {name}, {kind}: {fault}")
    finally:
        worker.close()
    return found


def test_damaged_files_are_read_whole_or_refused(specimens: dict[str, bytes], tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    parts = [range(first, N_CASES, N_WORKERS) for first in range(N_WORKERS)]
    with ThreadPoolExecutor(N_WORKERS) as pool:
        found = [fault for part in pool.map(lambda part: faults(specimens, part, tmp_path, counts), parts) for fault in part]
    print(dict(counts))
    assert not found, "\n".join(["", *found])


def test_verdicts() -> None:
    assert verdict("refused", "a.wav", "cut", 24_000) == ""
    assert verdict("read 24000 24000 48000 0", "a.wav", "body", 24_000) == ""
    assert verdict("read 9000 24000 48000 0", "a.wav", "body", 24_000) == "9000 samples where 24000 were promised"
    assert verdict("read 9000 9000 48000 0", "a.wav", "cut", 24_000) == "9000 samples of 24000, without a word"
    assert verdict("hung", "a.wav", "cut", 24_000) == "hung"
    assert verdict("unclear: no name", "a.wav", "cut", 24_000).startswith("unclear")

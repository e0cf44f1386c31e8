import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from specimens import RATE, STFT, hiss, snr_db, voiced

from stages import shard
from stages.core.files import write_table
from stages.core.packs import STEPS, rounded, write_pack
from stages.core.parameters import Shard
from stages.core.shards import ShardError, ShardReader

N_SAMPLES = 4000
THREADS = """
import sys
from pathlib import Path
from stages import shard
from stages.core.parameters import Shard, Stft

assert "torch" not in sys.modules
read = shard.read_pack

def counted(*arguments):
    import torch
    print(torch.get_num_threads())
    return read(*arguments)

shard.read_pack = counted
home = Path(sys.argv[1])
shard.run(Shard(n_mixtures=3), Stft(**eval(sys.argv[2])), 16000, home / "mixtures", home / "shards", home / "m.json", n_jobs=1)
"""


@pytest.fixture
def mixtures(tmp_path: Path) -> Path:
    """Seven mixtures of training in one pack and two of validation."""
    for split, count in (("train", 7), ("valid", 2)):
        folder = tmp_path / "mixtures" / split
        pairs = [(STEPS * 0.3 * hiss(N_SAMPLES, place), STEPS * 0.3 * voiced(N_SAMPLES)) for place in range(count)]
        write_pack(folder / "pack-00000.wav", [tuple(rounded(part) for part in pair) for pair in pairs], RATE)
        rows = [
            {"id": f"{split}-{place:06d}", "pack": "pack-00000.wav", "start": place * N_SAMPLES, "n_samples": N_SAMPLES}
            for place in range(count)
        ]
        write_table(folder / "index.csv", rows)
    return tmp_path / "mixtures"


def sharded(mixtures: Path, n_jobs: int, name: str = "shards") -> Path:
    folder = mixtures.parent / name
    shard.run(Shard(n_mixtures=3), STFT, RATE, mixtures, folder, folder / "metrics.json", n_jobs)
    return folder


def test_both_splits_are_sharded_and_summed_up(mixtures: Path) -> None:
    folder = sharded(mixtures, 2)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["n_mixtures"], metrics["n_shards"], metrics["storage_snr_db"]["n_mixtures"]) == (9, 4, 4)
    assert metrics["storage_snr_db"]["lowest"] > 60
    for split, count in (("train", 7), ("valid", 2)):
        reader = ShardReader(folder / split)
        assert [entry.id for entry in reader.entries] == [f"{split}-{place:06d}" for place in range(count)]
        first, other = reader.batch([0])[0], reader.batch([1])[0]
        assert snr_db(np.abs(first[:, 1]), np.abs(other[:, 1]) - np.abs(first[:, 1])) > 60
        assert snr_db(np.abs(first[:, 0]), np.abs(other[:, 0]) - np.abs(first[:, 0])) < 10
    alone = sharded(mixtures, 1, "alone")
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (alone / path.relative_to(folder)).read_bytes()


def test_one_process_computes_on_one_thread(mixtures: Path, repository: Path) -> None:
    command = [sys.executable, "-c", THREADS, str(mixtures.parent), repr(STFT.model_dump())]
    output = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["1"] * 9


def test_an_index_without_mixtures_is_named(mixtures: Path) -> None:
    index = mixtures / "valid" / "index.csv"
    for text in ("id,pack,start,n_samples\n", ""):
        index.write_text(text, encoding="utf-8")
        with pytest.raises(ShardError, match=r"valid/index\.csv names no mixtures: run 'dvc repro -f mix'"):
            sharded(mixtures, 1)
    index.unlink()
    with pytest.raises(ShardError, match=r"valid/index\.csv is missing: run 'dvc repro mix'"):
        sharded(mixtures, 1)

"""State that outlives a run: what it is keyed by, and what happens when it is damaged."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.core.parameter_file import read_parameters
from stages.download import COMPLETE, run

DIGEST = "from stages.core.files import code_digest; print(code_digest())"
WEIGHTS = """
import torch
torch.set_num_threads({threads})
import stages.train as train
from pathlib import Path
from unittest.mock import MagicMock
from stages.core.parameters import Model, Stft
from stages.core.training_parameters import Train
class Stop(Exception): pass
def trainer(denoiser, *rest):
    from stages.core.files import digest
    print(digest(*(weight.numpy().tobytes() for weight in denoiser.state_dict().values())))
    raise Stop
train.Trainer, train.ShardReader, train._key = trainer, MagicMock(), lambda *rest: ""
settings = Train.model_construct(seed=1, init_from="")
rest = dict(bidirectional=False, dropout=0.0, compression=0.3)
model = Model(network="stack", n_bands=4, target="irm", cell="gru", layers=1, hidden=128, **rest)
try:
    path = Path("x")
    stft = Stft(n_fft=512, win_length=512, hop_length=256)
    train.run(settings, model, stft, 16000, path, path, path, path, path, torch.device("cpu"))
except Stop:
    pass
"""


def printed(*command: str, folder: Path) -> str:
    return subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_digest_of_the_code_counts_the_stage_that_runs(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "stages").symlink_to(repository / "stages")
    copied = tmp_path / "copy"
    copied.mkdir()
    subprocess.run(["cp", "-r", str(repository / "stages"), str(copied)], check=True)
    probe = copied / "stages" / "probe.py"
    found = []
    for line in ("", "# changed\n"):
        probe.write_text(line + DIGEST + "\n")
        found.append(printed("-m", "stages.probe", folder=copied))
    assert found[0] != found[1]


def test_first_weights_do_not_depend_on_the_number_of_threads(repository: Path) -> None:
    one, two = (printed("-c", WEIGHTS.format(threads=threads), folder=repository).split()[-1] for threads in (1, 2))
    assert one == two
    assert len(one) == 64


@pytest.mark.parametrize("damage", ["manifest.csv", COMPLETE, "generated/white.wav"])
def test_a_damaged_corpus_in_the_cache_is_made_anew(damage: str, tmp_path: Path, repository: Path) -> None:
    noise = read_parameters(repository / "params.yaml").download.noise
    small = noise.generated.model_copy(update={"kinds": ["white"], "n_recordings": 3, "seconds": 1.0})
    settings = noise.model_copy(update={"generated": small})

    def made() -> dict[str, bytes]:
        run("noise", ["generated"], settings, tmp_path / "corpora", tmp_path / "cache", 1)
        return {path.name: path.read_bytes() for path in (tmp_path / "corpora").rglob("*") if path.is_file()}

    whole = made()
    (broken,) = (tmp_path / "cache/corpora").glob(f"*/{damage}")
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    assert made() == whole
    assert len(whole) == 2

"""Fetches what is published beside speech and noise: room responses for mixing, and pairs to score on.

Reads: the network, or the archives that DENOISE_ARCHIVES names; nothing where no such corpus is named.
Writes: data/corpora/rooms/ and data/corpora/pairs/, each with manifest.csv and the audio in bundles.
Params: corpora.rooms, evaluate.pairs.
"""

from collections.abc import Sequence
from pathlib import Path

from stages.core.corpora.catalogue import PUBLISHED
from stages.core.corpora.layouts import Choices
from stages.core.corpora.names import found_name
from stages.core.corpora.published import obtain, summary
from stages.core.errors import DenoisingError, sentence
from stages.core.files import fresh_folder
from stages.core.manifest import Recording, write_manifest
from stages.core.parameter_file import read_parameters
from stages.core.runtime import run_stage

CORPORA_DIR = Path("data/corpora")
CACHE_DIR = Path(".cache")
# Rooms are for training alone, and pairs are what they are.
AS_PUBLISHED = Choices(seed=0, valid_share=0.0, test_share=0.0)


class FetchError(DenoisingError):
    """Corpora that cannot be what was asked for."""


def run(rooms: Sequence[str], pairs: Sequence[str], corpora_dir: Path, cache_dir: Path, n_jobs: int) -> None:
    """Obtains the corpora of both kinds; in `pairs`, what is no published corpus is a folder and left alone."""
    for role, names in (("rooms", rooms), ("pairs", _published_pairs(pairs))):
        target = fresh_folder(corpora_dir / role)
        recordings: list[Recording] = []
        for name in names:
            found = obtain(name, AS_PUBLISHED, target / name, cache_dir, n_jobs)
            print(f"{name}: {len(found)} recordings\n  {summary(name)}")
            recordings += found
        write_manifest(target / "manifest.csv", recordings)


def _published_pairs(names: Sequence[str]) -> list[str]:
    """Those that are published; a name that is neither that nor a folder of pairs is refused before hours of training."""
    published = sorted(name for name, corpus in PUBLISHED.items() if corpus.role == "pairs")
    for name in names:
        if name not in published and not all((Path(name) / side).is_dir() for side in ("clean", "noisy")):
            expected = f"{', '.join(published)} or a folder with clean and noisy inside"
            raise FetchError(sentence(f"evaluate.pairs: expected {expected}, {found_name(name, published)}"))
    return [name for name in names if name in published]


def main() -> None:
    """Runs the stage with the values of params.yaml."""
    parameters = read_parameters(Path("params.yaml"))
    run(parameters.corpora.rooms, parameters.evaluate.pairs, CORPORA_DIR, CACHE_DIR, parameters.runtime.n_jobs)


if __name__ == "__main__":
    run_stage("fetch", main, about=__doc__)

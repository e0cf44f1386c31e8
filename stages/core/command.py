"""The arguments of the command that denoises, and what they mean."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.audio import HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS
from stages.core.batch import BatchError
from stages.core.checkpoint import PRETRAINED, CheckpointError
from stages.core.engines import Engine
from stages.core.files import shown
from stages.core.ledger import LedgerError
from stages.core.live import ENCODINGS
from stages.core.onnx_model import OnnxError
from stages.core.streaming import Strength, StrengthError

_EXAMPLES = """exit codes:
  0  all is denoised     1  a file failed, as the report says     2  no recording was found, or arguments are wrong

examples:
  python -m stages.denoise my-recordings cleaned                   a folder with its subfolders
  python -m stages.denoise interview.m4a clean.m4a                 one file
  python -m stages.denoise talks out --attenuation-limit 12        lower noise by 12 dB at most
  python -m stages.denoise talks talks                             beside the recordings, as NAME-denoised
  sox meeting.wav -t wav - | python -m stages.denoise --stream > clean.wav
  arecord -t raw -f S16_LE -r 16000 | python -m stages.denoise --stream --rate 16000 | aplay -t raw -f S16_LE -r 16000
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the samples of an output, besides the input."""

    model: Path
    engine: Engine
    strength: Strength

    def described(self) -> str:
        """The settings as one line of text, the same for the same settings."""
        return f"{self.engine} {asdict(self.strength)}"


@contextmanager
def arguments_blamed() -> Iterator[None]:
    """Ends the program with exit code 2 where an argument is to blame: a strength, a model or a path that cannot be."""
    try:
        yield
    except (StrengthError, BatchError, LedgerError, CheckpointError, OnnxError) as error:
        print(shown(f"error: {error}"), file=sys.stderr)
        raise SystemExit(2) from None


def parser(description: str) -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    command = argparse.ArgumentParser(
        prog="python -m stages.denoise",
        description=description,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "input", nargs="?", type=Path, help="a sound or video file, or a folder that is searched with its subfolders"
    )
    command.add_argument("output", nargs="?", help="where the result goes: a folder for a folder, or if it ends in /")
    command.add_argument(
        "--model",
        metavar="MODEL",
        help=f"{' or '.join(PRETRAINED)}, a weights file or an exported .onnx file (default: best, and live for --stream)",
    )
    command.add_argument(
        "--engine", choices=["onnx", "torch"], default="onnx", help="what runs the network (default: %(default)s, the faster)"
    )
    command.add_argument(
        "--attenuation-limit", type=float, metavar="DB", help="never lower anything by more than DB decibels, 0 to 200"
    )
    command.add_argument(
        "--mix",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the unprocessed sound in the output, 0 to 1 (default: 0)",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="denoise again what is done already, and replace what is in its place"
    )
    command.add_argument(
        "--jobs",
        type=_n_jobs,
        default=-1,
        metavar="N",
        help="files worked on at a time (default: one for each core)",
    )
    command.add_argument(
        "--report",
        type=Path,
        metavar="CSV",
        help="where the table of all files goes (default: denoise-report.csv in a folder OUTPUT)",
    )
    live = command.add_argument_group("live", "from standard input to standard output, as the sound comes")
    live.add_argument("--stream", action="store_true", help="denoise a WAV stream, or raw samples if --rate is given")
    live.add_argument("--rate", type=_between(LOWEST_RATE, HIGHEST_RATE), metavar="HZ", help="sample rate of raw samples")
    live.add_argument(
        "--channels",
        type=_between(1, MOST_CHANNELS),
        metavar="N",
        help="channels of raw samples, interleaved (default: 1)",
    )
    live.add_argument("--encoding", choices=ENCODINGS, help="little-endian encoding of raw samples (default: s16)")
    return command


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found '{text}'")
    return int(text)


def _between(least: int, most: int) -> Callable[[str], int]:
    def limited(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, found '{text}'")
        return int(text)

    return limited


def _n_jobs(text: str) -> int:
    return -1 if text == "-1" else _positive(text)

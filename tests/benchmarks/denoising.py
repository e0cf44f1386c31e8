"""What denoising costs and what it withstands: `python -m tests.benchmarks.denoising [PART ...]` prints tables.

Parts, all of them if none is named:

- `speed`: the command against the bare cost of decoding, transform, network and encoding; and what its start costs.
- `memory`: the most that recordings of 10 minutes and of 3 hours take. Needs 5 GB of disk; minutes are set by `--minutes`.
- `kills`: a folder of 200 recordings whose program is killed again and again, against an unbroken run.
- `live`: streams that one core keeps up with, and their delay, stated and measured.

It takes about half an hour on two free cores. Nothing is asserted: the limits are in the text above each table.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import psutil

from stages.core.checkpoint import PRETRAINED, named_weights
from stages.core.engines import Engine
from tests.benchmarks import denoising_memory, denoising_speed, live_streams

PARTS = ("speed", "memory", "kills", "live")
N_FILES = 200
KILLED_AT = (0.1, 0.3, 0.5, 0.7, 0.9)


def print_kills(folder: Path) -> None:
    """Prints what became of a folder whose program was killed several times."""
    # Tests are no package: their modules know each other by the name of the file.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from interrupted import soak

    found = soak(folder, N_FILES, KILLED_AT)
    print(f"{N_FILES} recordings, the program killed by SIGKILL {len(KILLED_AT)} times; faults and partial files must be 0")
    same = sum(found.outputs.get(name) == content for name, content in found.unbroken.items())
    rows = {
        "outputs that were there after each kill": ", ".join(map(str, found.n_after_kill)),
        "outputs seen under their names": found.n_seen,
        "faults in them when they appeared": len(found.faults),
        "partial files left": len(found.left),
        "files equal to those of an unbroken run": f"{same} of {len(found.unbroken)} (the report is one)",
        "files that only the broken run left": len(found.outputs.keys() - found.unbroken.keys()),
    }
    print("\n".join(f"{what:42}{count}" for what, count in rows.items()))
    print("\n".join([*found.faults, found.summary.strip()]), flush=True)


def main() -> None:
    """Prints the tables that are asked for."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    command.add_argument("--model", default="best", help="weights for speed and memory: best, live or a file (default: best)")
    command.add_argument("--engine", choices=["onnx", "torch"], help="for speed and memory (default: both)")
    command.add_argument("--rounds", type=int, default=3, help="of speed (default: %(default)s)")
    command.add_argument("--share", type=float, default=1.0, help="of the recordings of speed, 0 to 1 (default: all)")
    command.add_argument("--minutes", type=int, nargs="+", default=[10, 180], help="lengths for memory (default: 10 180)")
    arguments = command.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        command.error(f"unknown part {', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    model = named_weights(arguments.model)
    engines: list[Engine] = [arguments.engine] if arguments.engine else ["onnx", "torch"]
    for part in arguments.parts or PARTS:
        load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
        print(f"\n=== {part}; load of the machine before: {load} on {psutil.cpu_count()} cores", flush=True)
        with tempfile.TemporaryDirectory() as name:
            if part == "speed":
                denoising_speed.print_tables(Path(name), model, engines, arguments.rounds, arguments.share)
            elif part == "memory":
                denoising_memory.print_table(Path(name), model, engines, arguments.minutes)
            elif part == "kills":
                print_kills(Path(name))
            else:
                live_streams.print_table([path for path in PRETRAINED.values() if path.is_file()])


if __name__ == "__main__":
    main()

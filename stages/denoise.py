"""Denoises a file or a folder of recordings: `python -m stages.denoise INPUT OUTPUT [--model PATH]`.

Reads: denoise.input (data/inbox), models/denoiser.safetensors or denoise.model; data/mixtures/test/ for examples.
Writes: data/denoised/, with the folders and names of the input.
Params: denoise.

As a stage (without arguments) it takes input and model from params.yaml, and puts a few test mixtures into an inbox in which
there is no sound file yet, so that a first run has something to show.
"""

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from stages.core.audio import AudioError, file_format, read_audio, sound_files, write_audio
from stages.core.checkpoint import load_checkpoint, worker_denoiser
from stages.core.enhancement import enhanced
from stages.core.errors import DenoisingError
from stages.core.files import digest, shown
from stages.core.parameter_file import read_parameters
from stages.core.runtime import parallel, run_stage

OUTPUT_DIR = Path("data/denoised")
INBOX = Path("data/inbox")
EXAMPLES_DIR = Path("data/mixtures/test/noisy")
N_EXAMPLES = 3
DEFAULT_MODEL = Path("models/denoiser.safetensors")


class DenoiseError(DenoisingError):
    """Recordings that could not be denoised."""


def run(source: Path, target: Path, model: Path, n_jobs: int) -> None:
    """Denoises the sound file `source`, or every sound file below the folder `source`, into `target`.

    Raises:
        DenoiseError: no sound file was found, the output would overwrite the input, or a file failed; all others are
            denoised all the same, and every failure is named.
    """
    jobs = _jobs(source, target)
    load_checkpoint(model)
    others = _passed_over(source)
    if others:
        print(f"passed over {len(others)} files that are no sound files by their name: {', '.join(others)}")
    results = parallel(partial(_denoise, model), jobs, n_jobs=n_jobs, description="denoising")
    for message in results:
        if message and not message.startswith("error:"):
            print(shown(message))
    failures = [message.removeprefix("error:") for message in results if message.startswith("error:")]
    print(f"denoised {len(jobs) - len(failures)} of {len(jobs)} files into {target}")
    if failures:
        raise DenoiseError(
            f"{len(failures)} of {len(jobs)} files failed:" + "".join(f"\n  {shown(failure.strip())}" for failure in failures)
        )


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    if source.is_file():
        jobs = [(source, target / source.name if target.is_dir() or not target.suffix else target)]
    elif source.is_dir():
        _check_apart(source, target)
        jobs = [(path, target / path.relative_to(source)) for path in sound_files(source)]
    else:
        raise DenoiseError(f"{source}: no such file or folder.")
    if not jobs:
        raise DenoiseError(f"{source}: no sound files (such as .wav, .flac, .ogg or .mp3) in this folder.")
    for path, output in jobs:
        if path.resolve() == output.resolve():
            raise DenoiseError(f"{path} would be overwritten: name an output other than the input.")
        if path.suffix.lower() != output.suffix.lower():
            raise DenoiseError(f"{output}: the format stays that of {path}; name an output that ends in {path.suffix}.")
    return jobs


def _check_apart(source: Path, target: Path) -> None:
    """Refuses folders that lie in each other: an output could take the place of a recording, or become one."""
    inner, outer = target.resolve(), source.resolve()
    if inner != outer and (inner.is_relative_to(outer) or outer.is_relative_to(inner)):
        raise DenoiseError(
            f"{target} and {source} lie in each other, and recordings could be overwritten: name a folder apart."
        )


def _passed_over(source: Path) -> list[str]:
    """The files below a folder that are no sound files by their name; hidden ones do not count."""
    found = set(source.rglob("*")) - set(sound_files(source)) if source.is_dir() else set()
    named = sorted(path.relative_to(source) for path in found if path.is_file())
    return [shown(path) for path in named if not any(part.startswith(".") for part in path.parts)]


def _denoise(model: Path, job: tuple[Path, Path]) -> str:
    """Denoises one file; an empty message, a remark, or 'error:' and the reason."""
    path, output = job
    try:
        form = file_format(path)
        noisy, sample_rate = read_audio(path)
        clipped = write_audio(output, enhanced(noisy, sample_rate, worker_denoiser(model)), sample_rate, form)
    except AudioError as error:
        return f"error:{error}"
    return f"{output}: {clipped} samples were clipped at full scale" if clipped else ""


def _fill_inbox(inbox: Path, examples_dir: Path) -> None:
    """Copies a few test mixtures to the pipeline's own inbox while there is nothing in it; other folders are the user's."""
    if inbox != INBOX:
        return
    inbox.mkdir(parents=True, exist_ok=True)
    if any(not path.name.startswith(".") for path in inbox.iterdir()):
        return
    examples = sound_files(examples_dir)[:N_EXAMPLES]
    for example in examples:
        shutil.copyfile(example, inbox / example.name)
    if examples:
        print(f"{inbox} was empty: put {len(examples)} test mixtures there")


def main() -> None:
    """Runs the command with its arguments, or the stage with the values of params.yaml."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.denoise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", type=Path, help="a sound file, or a folder that is searched with its subfolders")
    parser.add_argument("output", nargs="?", type=Path, help="where the result goes; a folder for a folder")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="weights to use (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=-1, choices=[-1, *range(1, 257)], metavar="N", help="processes (default: one for each core)"
    )
    arguments = parser.parse_args()
    if arguments.input and arguments.output:
        run(arguments.input, arguments.output, arguments.model, arguments.jobs)
        return
    if sys.argv[1:]:
        parser.error("name an input and an output: python -m stages.denoise INPUT OUTPUT")
    parameters = read_parameters(Path("params.yaml"))
    inbox = Path(parameters.denoise.input)
    _fill_inbox(inbox, EXAMPLES_DIR)
    run(inbox, OUTPUT_DIR, Path(parameters.denoise.model), parameters.runtime.n_jobs)


if __name__ == "__main__":
    # Commands with other arguments may run side by side; the stage has none.
    run_stage("-".join(["denoise", *([digest(*sys.argv[1:])[:8]] if sys.argv[1:] else [])]), main)

"""Denoises recordings, a file or a folder of them, or a live signal.

Reads: denoise.input (data/inbox), denoise.model; data/mixtures/test/noisy/ for examples.
Writes: data/denoised/, with the folders and names of the input, and denoise-report.csv.
Params: denoise.

With INPUT and OUTPUT it uses the weights in models/pretrained unless --model names others.
As a stage, without INPUT, it takes everything from params.yaml, and puts a few test mixtures into an inbox in which there is
nothing yet, so that a first run has something to show.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from stages.core.batch import REPORT, Job, Outcome, check_report, jobs, report
from stages.core.checkpoint import named_weights
from stages.core.command import Options, arguments_blamed, parser
from stages.core.engines import loaded
from stages.core.errors import DenoisingError
from stages.core.files import clear_partial, code_digest, digest, file_digest, shown, write_text
from stages.core.ledger import Ledger
from stages.core.live import PcmFormat, denoise_stream, standard_streams, wav_format
from stages.core.media import media_files, reader, writer
from stages.core.parameter_file import read_parameters
from stages.core.runtime import alone, completed, run_command, say, unplug
from stages.core.streaming import StreamingDenoiser, Strength

OUTPUT_DIR = Path("data/denoised")
INBOX = Path("data/inbox")
EXAMPLES_DIR = Path("data/mixtures/test/noisy")
LEDGER_DIR = Path(".cache/denoised")
LOCKS_DIR = Path(".cache/locks")
N_EXAMPLES = 3
# Files that are no sound and named one by one.
N_NAMED = 20
# Seconds that are read, denoised and written at a time: long enough that Python's own time does not count, and short enough
# that what is worked on stays near the processor.
BLOCK_S = 1
# Longest wait of a live signal for its next block.
LIVE_BLOCK_S = 0.1


class DenoiseError(DenoisingError):
    """Recordings that could not be denoised."""


def run(
    source: Path, target: Path, options: Options, ledger: Ledger, n_jobs: int, *, overwrite: bool, table: Path | None
) -> None:
    """Denoises every recording in the file or folder `source` into `target`, all that is not done already.

    `table` is where the report goes, None for the default.

    Raises:
        BatchError: nothing can be denoised, or no report be written there, and nothing has been done.
        DenoiseError: recordings failed, or the report; all others are denoised all the same, and the report names each failure.
        SystemExit: no recording was found (exit code 2).
    """
    began = time.monotonic()
    found, others = jobs(source, target)
    if others:
        more = f" and {len(others) - N_NAMED} more" if len(others) > N_NAMED else ""
        say(f"passed over, by their names no sound or video ({len(others)}): {shown(', '.join(others[:N_NAMED]))}{more}")
    if not found:
        hint = "; put recordings there, or run 'dvc repro', which makes some" if source == INBOX else ""
        print(f"error: {shown(source)}: no sound or video files in this folder{hint}.", file=sys.stderr)
        raise SystemExit(2)
    if loaded(options.model, options.engine).looks_ahead:
        say("This model looks ahead: recordings are denoised in windows of 4 s that overlap by 2 s on either side.")
    place = table or (target / REPORT if source.is_dir() else None)
    if place:
        check_report(place, found, options.model)
        ledger.check(place, place, overwrite=overwrite)
    # Beside a single output there may be half a disk.
    clear_partial(target if source.is_dir() else found[0].target.parent, below=source.is_dir())
    clear_partial(ledger.folder)
    settings = digest(options.described(), file_digest(options.model), code_digest())
    work = partial(_worked, options, ledger, settings, overwrite)
    outcomes = _with_progress(completed(work, found, n_jobs=n_jobs), found)
    unwritten = _reported(place, outcomes, ledger, overwrite=overwrite) if place else ""
    # A single output may lie in a folder, or have another name than was asked for.
    where = target if source.is_dir() else found[0].target.parent / (outcomes[0].output or found[0].target.name)
    say(summary(outcomes, where, None if unwritten else place, time.monotonic() - began))
    failed = sum(one.status == "failed" for one in outcomes)
    faults = [f"{failed} of {len(outcomes)} files failed, as listed above."] if failed else []
    faults += [unwritten] if unwritten else []
    if faults:
        raise DenoiseError(" ".join(faults))


def _reported(place: Path, outcomes: Sequence[Outcome], ledger: Ledger, *, overwrite: bool) -> str:
    """Writes the table of all outcomes; returns why it could not be written, nothing where it was."""
    try:
        write_text(place, report(outcomes), partial(ledger.admit, place, place, overwrite=overwrite))
    except DenoisingError as error:
        return f"No report was written: {error}"
    except OSError as error:
        return f"No report was written: {place}: {error.strerror or error}."
    return ""


def _worked(options: Options, ledger: Ledger, settings: str, overwrite: bool, job: Job) -> Outcome:
    """Denoises one recording unless it is done; a recording that cannot be is an outcome, not an error."""
    try:
        if job.refusal:
            raise DenoiseError(job.refusal)
        before = _state(job.source)
        key = ledger.key(job, settings)
        done = None if overwrite else ledger.found(key, job)
        return done or _denoised(options, ledger, key, before, overwrite, job)
    except DenoisingError as error:
        return Outcome(job.name, "failed", "", 0.0, [str(error)])
    except OSError as error:
        return Outcome(job.name, "failed", "", 0.0, [f"{error.filename or job.source}: {error.strerror or error}"])


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with a file."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _denoised(options: Options, ledger: Ledger, key: str, before: tuple[int, int, int], overwrite: bool, job: Job) -> Outcome:
    """Denoises one recording block by block, and notes its output under `key`, which stands for its state `before`."""
    with reader(job.source) as source:
        stream = StreamingDenoiser(
            loaded(options.model, options.engine), source.sample_rate, source.n_channels, strength=options.strength
        )
        n_samples = 0
        admit = partial(ledger.admit, job.source, overwrite=overwrite)
        with writer(job.target, like=source, taken=job.taken, admit=admit) as sink:
            ledger.check(job.source, sink.path, overwrite=overwrite)
            for block in source.blocks(BLOCK_S * source.sample_rate):
                n_samples += len(block)
                sink.write(stream.process(block))
            sink.write(stream.flush())
            if _state(job.source) != before:
                raise DenoiseError(f"{job.source} was changed while it was read: denoise it again.")
        return ledger.add(key, job, sink.path, n_samples / source.sample_rate, [*source.remarks, *sink.remarks])


def _with_progress(found: Iterator[tuple[int, Outcome]], work: Sequence[Job]) -> list[Outcome]:
    """All outcomes in the order of their names, with progress on the way: files, hours of sound, speed, time left."""
    outcomes = []
    with tqdm(total=sum(job.n_bytes for job in work), unit="B", unit_scale=True, desc="denoising", disable=None) as bar:
        for place, outcome in found:
            outcomes.append(outcome)
            length = sum(one.seconds for one in outcomes if one.status == "denoised")
            speed = length / max(bar.format_dict["elapsed"], 1e-3)
            bar.set_postfix_str(f"{len(outcomes)} of {len(work)} files, {_told(length)}, {_figure(speed)} x real time")
            bar.update(work[place].n_bytes)
    return sorted(outcomes, key=lambda one: one.name)


def _told(seconds: float) -> str:
    """A length as people say it."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{_figure(seconds / size)} {unit}"
    return f"{_figure(seconds)} s"


def _figure(value: float) -> str:
    """Two digits at least, of small numbers one behind the point."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def summary(outcomes: Sequence[Outcome], target: Path, place: Path | None, seconds: float) -> str:
    """What became of all recordings, for people: what there is to say of each, and a table of how many."""
    counts = Counter(one.status for one in outcomes)
    length = sum(one.seconds for one in outcomes if one.status == "denoised")
    lines = [f"{one.name}: {'; '.join(one.remarks)}" for one in outcomes if one.remarks and one.status == "denoised"]
    work = f" into {target}, {_told(length)} of sound, {_figure(length / seconds)} x real time" if counts["denoised"] else ""
    lines += [f"{counts['denoised']:>7} denoised{work}"]
    lines += [f"{counts['kept']:>7} kept, which were done already"] if counts["kept"] else []
    lines += [f"{counts['failed']:>7} failed:"] if counts["failed"] else []
    lines += [f"          {one.remarks[0]}" for one in outcomes if one.status == "failed"]
    lines += [f"report: {place}"] if place else []
    return "\n".join(shown(line) for line in lines)


def live(options: Options, arguments: argparse.Namespace) -> None:
    """Denoises standard input to standard output: raw samples where a rate is given, a WAV stream otherwise."""
    source, sink = standard_streams()
    raw = PcmFormat(arguments.rate, arguments.channels or 1, arguments.encoding or "s16") if arguments.rate else None
    form = raw or wav_format(source)
    stream = StreamingDenoiser(
        loaded(options.model, options.engine), form.sample_rate, form.n_channels, strength=options.strength
    )
    print(f"delay: {1000 * (stream.delay + stream.resampling_delay) / form.sample_rate:.0f} ms", file=sys.stderr)
    try:
        heard = denoise_stream(source, sink, form, stream, max(1, round(LIVE_BLOCK_S * form.sample_rate)))
    except BrokenPipeError:
        unplug(sink)  # Whoever listened has gone.
        return
    for remark in heard.remarks:
        print(remark, file=sys.stderr)


def _fill_inbox(inbox: Path, examples_dir: Path) -> None:
    """Copies a few test mixtures to the pipeline's own inbox while there is nothing in it; other folders are the user's."""
    if inbox != INBOX:
        return
    inbox.mkdir(parents=True, exist_ok=True)
    if any(not path.name.startswith(".") for path in inbox.iterdir()):
        return
    examples = media_files(examples_dir)[:N_EXAMPLES]
    for example in examples:
        shutil.copyfile(example, inbox / example.name)
    if examples:
        print(f"{inbox} was empty: put {len(examples)} test mixtures there")


def main() -> None:
    """Runs the command with its arguments, or the stage with the values of params.yaml."""
    command = parser(__doc__)
    arguments = command.parse_args()
    if not sys.argv[1:]:
        with alone("denoise", LOCKS_DIR):
            _stage()
        return
    with arguments_blamed():
        _run_as_told(command, arguments)


def _run_as_told(command: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    model = named_weights(("live" if arguments.stream else "best") if arguments.model is None else arguments.model)
    options = Options(model, arguments.engine, Strength(arguments.attenuation_limit, arguments.mix))
    if arguments.stream:
        if arguments.input:
            command.error("--stream reads standard input and writes standard output: name no INPUT and OUTPUT")
        if arguments.overwrite or arguments.report or arguments.jobs != -1:
            command.error("--overwrite, --report and --jobs are for files: --stream writes standard output alone")
        if (arguments.channels or arguments.encoding) and not arguments.rate:
            command.error("--channels and --encoding describe raw samples: add --rate, or leave them out for a WAV stream")
        live(options, arguments)
    elif arguments.rate or arguments.channels or arguments.encoding:
        command.error("--rate, --channels and --encoding describe the raw samples of --stream: files say their own")
    elif arguments.output:
        source, target = arguments.input, Path(arguments.output)
        if arguments.output.endswith(os.sep) and not source.is_dir():
            # A path forgets the slash that makes a name with a suffix a folder.
            target /= source.name
        # Commands with other outputs may run side by side.
        with alone(f"denoise-{digest(os.fsencode(os.path.realpath(target)))[:12]}", LOCKS_DIR):
            ledger = Ledger(LEDGER_DIR, copies=False)
            run(source, target, options, ledger, arguments.jobs, overwrite=arguments.overwrite, table=arguments.report)
    else:
        command.error("name an input and an output: python -m stages.denoise INPUT OUTPUT")


def _stage() -> None:
    parameters = read_parameters(Path("params.yaml"))
    settings = parameters.denoise
    _fill_inbox(Path(settings.input), EXAMPLES_DIR)
    options = Options(Path(settings.model), settings.engine, Strength(settings.attenuation_limit_db, settings.mix))
    ledger = Ledger(LEDGER_DIR, copies=True)
    run(Path(settings.input), OUTPUT_DIR, options, ledger, parameters.runtime.n_jobs, overwrite=False, table=None)


if __name__ == "__main__":
    run_command("denoise", main)

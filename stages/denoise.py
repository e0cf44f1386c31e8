"""Denoises recordings, a file or a folder of them, or a live signal.

Reads: denoise.input (data/inbox), denoise.model; data/mixtures/test/noisy/ for examples.
Writes: data/denoised/, with the folders and names of the input, and denoise-report.csv.
Params: denoise.

As a stage, without INPUT, it takes everything from params.yaml, and puts a few test mixtures into an inbox in which there is
no recording yet, so that a first run has something to show.
"""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from stages.core.batch import Job, Ledger, Outcome, jobs, report
from stages.core.command import Options, parser
from stages.core.engines import loaded
from stages.core.errors import DenoisingError
from stages.core.files import code_digest, digest, file_digest, write_text
from stages.core.live import PcmFormat, denoise_stream, wav_format, wav_header
from stages.core.media import media_files, reader, writer
from stages.core.parameter_file import read_parameters
from stages.core.runtime import completed, run_stage
from stages.core.streaming import StreamingDenoiser, Strength

OUTPUT_DIR = Path("data/denoised")
EXAMPLES_DIR = Path("data/mixtures/test/noisy")
LEDGER_DIR = Path(".cache/denoised")
DEFAULT_MODEL = Path("models/denoiser.safetensors")
REPORT = "denoise-report.csv"
N_EXAMPLES = 3
# Seconds that are read, denoised and written at a time: long enough that Python's own time does not count.
BLOCK_S = 5
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
        DenoiseError: recordings failed; all others are denoised all the same, and the report names each failure.
        SystemExit: no recording was found (exit code 2).
    """
    found = jobs(source, target)
    if not found:
        print(f"{source}: no sound or video files in this folder.", file=sys.stderr)
        raise SystemExit(2)
    denoiser = loaded(options.model, options.engine)
    if denoiser.looks_ahead:
        print("This model looks ahead: recordings are denoised in windows of 8 s that overlap by 2 s on either side.")
    settings = digest(options.described(), file_digest(options.model), code_digest())
    work = partial(_worked, options, ledger, settings, overwrite)
    outcomes = _shown(completed(work, found, n_jobs=n_jobs), found)
    place = table or (target / REPORT if source.is_dir() else None)
    if place:
        write_text(place, report(outcomes))
    _summarise(outcomes, target, place)


def _worked(options: Options, ledger: Ledger, settings: str, overwrite: bool, job: Job) -> Outcome:
    """Denoises one recording unless it is done; a recording that cannot be is an outcome, not an error."""
    try:
        key = ledger.key(job, settings)
        record = None if overwrite else ledger.found(key, job.target)
        if record:
            return Outcome(job.name, "kept", record.output, record.seconds, record.remarks)
        output, seconds, remarks = _denoised(options, job)
        ledger.add(key, job, output, seconds, remarks)
    except DenoisingError as error:
        return Outcome(job.name, "failed", "", 0.0, [str(error)])
    except OSError as error:
        return Outcome(job.name, "failed", "", 0.0, [f"{error.filename or job.source}: {error.strerror or error}"])
    return Outcome(job.name, "denoised", output.name, seconds, remarks)


def _denoised(options: Options, job: Job) -> tuple[Path, float, list[str]]:
    """Denoises one recording block by block; its output, its length in seconds, and what there is to say."""
    with reader(job.source) as source:
        stream = StreamingDenoiser(
            loaded(options.model, options.engine), source.sample_rate, source.n_channels, strength=options.strength
        )
        n_samples = 0
        with writer(job.target, like=source) as sink:
            for block in source.blocks(BLOCK_S * source.sample_rate):
                n_samples += len(block)
                sink.write(stream.process(block))
            sink.write(stream.flush())
        return sink.path, n_samples / source.sample_rate, [*source.remarks, *sink.remarks]


def _shown(found: Iterator[tuple[int, Outcome]], work: list[Job]) -> list[Outcome]:
    """All outcomes, with progress on the way: files, hours of sound, speed against real time, time left."""
    outcomes = []
    with tqdm(total=sum(job.n_bytes for job in work), unit="B", unit_scale=True, desc="denoising", disable=None) as bar:
        for place, outcome in found:
            outcomes.append(outcome)
            hours = sum(one.seconds for one in outcomes if one.status == "denoised") / 3600
            speed = 3600 * hours / max(bar.format_dict["elapsed"], 1e-3)
            bar.set_postfix_str(f"{len(outcomes)} of {len(work)} files, {hours:.2f} h, {speed:.0f} x real time")
            bar.update(work[place].n_bytes)
    return outcomes


def _summarise(outcomes: list[Outcome], target: Path, place: Path | None) -> None:
    for one in sorted(outcomes, key=lambda one: one.name):
        if one.remarks and one.status == "denoised":
            print(f"{one.name}: {'; '.join(one.remarks)}")
    counts = Counter(one.status for one in outcomes)
    kept = f", {counts['kept']} were done already" if counts["kept"] else ""
    print(
        f"denoised {counts['denoised']} of {len(outcomes)} files into {target}{kept}" + (f"; report: {place}" if place else "")
    )
    if counts["failed"]:
        failures = "".join(
            f"\n  {one.name}: {one.remarks[0]}" for one in sorted(outcomes, key=lambda one: one.name) if one.status == "failed"
        )
        raise DenoiseError(f"{counts['failed']} of {len(outcomes)} files failed:{failures}")


def live(options: Options, arguments: argparse.Namespace) -> None:
    """Denoises standard input to standard output: raw samples where a rate is given, a WAV stream otherwise."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    if arguments.rate is None:
        form = wav_format(source)
        sink.write(wav_header(form))
    else:
        form = PcmFormat(arguments.rate, arguments.channels, arguments.encoding)
    stream = StreamingDenoiser(
        loaded(options.model, options.engine), form.sample_rate, form.n_channels, strength=options.strength
    )
    print(f"delay: {1000 * stream.delay / form.sample_rate:.0f} ms", file=sys.stderr)
    n_clipped = denoise_stream(source, sink, form, stream, max(1, round(LIVE_BLOCK_S * form.sample_rate)))
    if n_clipped:
        print(f"{n_clipped} values were clipped at full scale", file=sys.stderr)


def _fill_inbox(inbox: Path, examples_dir: Path) -> None:
    """Copies a few test mixtures to an inbox in which there is no recording."""
    inbox.mkdir(parents=True, exist_ok=True)
    if media_files(inbox):
        return
    examples = media_files(examples_dir)[:N_EXAMPLES]
    for example in examples:
        shutil.copyfile(example, inbox / example.name)
    if examples:
        print(f"{inbox} was empty: put {len(examples)} test mixtures there")


def main() -> None:
    """Runs the command with its arguments, or the stage with the values of params.yaml."""
    command = parser(__doc__, DEFAULT_MODEL)
    arguments = command.parse_args()
    if arguments.input or arguments.stream:
        strength = Strength(arguments.attenuation_limit, arguments.mix)
        options = Options(arguments.model, arguments.engine, strength)
        if arguments.stream:
            live(options, arguments)
            return
        if not arguments.output:
            command.error("name an output as well: python -m stages.denoise INPUT OUTPUT")
        ledger = Ledger(LEDGER_DIR, copies=False)
        run(
            arguments.input,
            arguments.output,
            options,
            ledger,
            arguments.jobs,
            overwrite=arguments.overwrite,
            table=arguments.report,
        )
        return
    parameters = read_parameters(Path("params.yaml"))
    inbox = Path(parameters.denoise.input)
    _fill_inbox(inbox, EXAMPLES_DIR)
    strength = Strength(parameters.denoise.attenuation_limit_db, parameters.denoise.mix)
    options = Options(Path(parameters.denoise.model), parameters.denoise.engine, strength)
    ledger = Ledger(LEDGER_DIR, copies=True)
    run(inbox, OUTPUT_DIR, options, ledger, parameters.runtime.n_jobs, overwrite=False, table=None)


if __name__ == "__main__":
    # Commands with other arguments may run side by side; the stage has none.
    run_stage("-".join(["denoise", *([digest(*sys.argv[1:])[:8]] if sys.argv[1:] else [])]), main)

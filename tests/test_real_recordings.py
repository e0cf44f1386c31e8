"""Real recordings through the command and the whole pipeline; skipped where there are none."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from denoised_files import REPORT, files, untouched
from scipy.signal import butter, sosfilt
from small_pipeline import Command, put_parameters
from specimens import RATE

from stages.core import media
from stages.core.audio import resampled
from stages.core.checkpoint import PRETRAINED, load_checkpoint
from stages.core.enhancement import enhanced

pytest_plugins = ["pipeline_fixtures"]

# What is wrong with a file of the zoo, as its report has to say.
REASONS = {
    "corrupt-middle.flac": r"corrupt or truncated: it cannot be decoded past 1\.\d+ s",
    "truncated.flac": r"corrupt or truncated: it cannot be decoded past 1\.\d+ s",
    "truncated.ogg": "its last page is missing",
    "truncated.wav": "truncated: expected 96000 bytes of audio, found 47978",
    "empty.wav": r"the file is empty \(0 bytes\)",
    "header-only.wav": "truncated: expected 96000 bytes of audio, found 0",
    "text.wav": "not a sound",
    "nan-float.wav": r"holds samples that are NaN, the first at 0\.312 s",
    "inf-float.wav": r"holds samples that are infinite, the first at 0\.438 s",
}
# Too short or silent: no speech and noise to be told apart.
NO_SPEECH = {"one-sample-16k.wav", "ten-ms-16k.wav", "silence-16k.wav"}
SPLITS = ("train", "train", "valid", "test")


def read(path: Path) -> np.ndarray:
    """The first channel of a recording at the rate of the network."""
    waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    return waveform[:, 0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


def whole(path: Path) -> tuple[np.ndarray, tuple[object, ...]]:
    """All samples of a file, and what has to stay."""
    with media.reader(path) as source:
        samples = np.concatenate(list(source.blocks(16_000)))
        form = source.format
        return samples, (source.sample_rate, samples.shape, form.container, form.encoding, form.bit_depth)


def levels_db(samples: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """The levels of speech and of noise: of the 5 loudest and the 5 faintest of a hundred stretches of 20 ms.

    Below 300 Hz these recordings hold thumps that are louder than the speech.
    """
    size = sample_rate // 50
    mono = sosfilt(butter(4, (300, 3500), "band", fs=sample_rate, output="sos"), samples.astype(np.float64).mean(1))
    powers = np.square(mono[: len(mono) // size * size].reshape(-1, size)).mean(1)
    faint, loud = np.quantile(powers, [0.05, 0.95])
    return float(10 * np.log10(loud + 1e-12)), float(10 * np.log10(faint + 1e-12))


def test_every_file_of_the_zoo_comes_out_right_or_is_named(test_audio: Path, here: None, command: Command) -> None:
    zoo = test_audio / "zoo"
    before = untouched(zoo)
    ended = command("denoise", zoo, "out", "--jobs", "1")
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    table = pd.read_csv(Path("out") / REPORT, dtype=str, keep_default_na=False)
    rows = {row["file"]: row for row in table.to_dict("records")}
    assert sorted(rows) == sorted(before)
    assert {name for name, row in rows.items() if row["status"] == "failed"} == REASONS.keys()
    for name, reason in REASONS.items():
        assert re.match(re.escape(f"{zoo / name}: ") + f".*{reason}", rows[name]["remarks"])
        assert rows[name]["remarks"] in ended.out
    good = sorted(before.keys() - REASONS.keys())
    assert files(Path("out")) == sorted([*good, REPORT])
    for name in good:
        check(zoo / name, Path("out") / name)
    assert untouched(zoo) == before


def check(source: Path, output: Path) -> None:
    """Format, sample rate, channels and length stay, and the level of speech; noise is lower."""
    (old, kept), (new, found) = whole(source), whole(output)
    assert found == kept, source.name
    if source.name in NO_SPEECH:
        assert np.abs(new).max(initial=0) <= np.abs(old).max(initial=0) + 1e-3
        return
    before, after = (levels_db(samples, int(str(kept[0]))) for samples in (old, new))
    assert after[0] == pytest.approx(before[0], abs=2.5), (source.name, before, after)
    assert after[1] < before[1] - 3, (source.name, before, after)


def test_the_picture_of_a_video_stays(test_audio: Path, here: None, command: Command) -> None:
    import av

    packets = []
    assert command("denoise", test_audio / "zoo/meeting.mp4", "out.mp4").code == 0
    for path in (test_audio / "zoo/meeting.mp4", Path("out.mp4")):
        with av.open(str(path)) as container:
            packets.append([(bytes(packet), packet.pts) for packet in container.demux(video=0) if packet.size])
    assert len(packets[0]) > 10
    assert packets[0] == packets[1]


def full_band(speech: np.ndarray) -> np.ndarray:
    """Speech at 48 kHz, with its band from 4 to 8 kHz repeated, fainter and fainter, up to 20 kHz."""
    wide = resampled(speech, RATE, 48_000)
    time = np.arange(len(wide)) / 48_000
    upper = sosfilt(butter(8, 4000, "high", fs=48_000, output="sos"), wide)
    above = butter(8, 8200, "high", fs=48_000, output="sos")
    copies = [sosfilt(above, 2 * upper * np.cos(2 * np.pi * hz * time)) / 2**n for n, hz in enumerate((4000, 8000, 12_000), 1)]
    return np.asarray(wide + sum(copies), dtype=np.float32)


def powers(waveform: np.ndarray) -> np.ndarray:
    """Of frames of 32 ms and bins of 31.25 Hz, at 48 kHz."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), 1536)[::768]
    return np.asarray(np.abs(np.fft.rfft(frames * np.hanning(1536))) ** 2)


@pytest.mark.parametrize("name", PRETRAINED)
def test_clean_speech_keeps_its_spectrum_up_to_20_khz(test_audio: Path, name: str) -> None:
    denoiser, _ = load_checkpoint(PRETRAINED[name])
    before, after = np.zeros(769), np.zeros(769)
    for path in sorted((test_audio / "pairs/dns-no-reverb/clean").iterdir())[:8]:
        clean = full_band(read(path)[: 6 * RATE])
        old, new = powers(clean), powers(enhanced(clean[:, None], 48_000, denoiser)[:, 0])
        spoken = old.sum(1) > 10**-2.5 * old.sum(1).max()
        before, after = before + old[spoken].sum(0), after + new[spoken].sum(0)
    changes = {}
    for low, high in pairwise((125, 250, 500, 1000, 2000, 4000, 8000, 16_000, 20_000)):
        band = slice(round(low / 31.25), round(high / 31.25))
        changes[low] = float(10 * np.log10(after[band].sum() / before[band].sum()))
    assert list(changes.values()) == pytest.approx([0] * len(changes), abs=1), changes


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_offset_goes_and_leaves_the_speech_from_its_beginning(test_audio: Path, name: str) -> None:
    denoiser, _ = load_checkpoint(PRETRAINED[name])
    path = sorted((test_audio / "pairs/dns-no-reverb/noisy").iterdir())[1]
    noisy = read(path)[: 4 * RATE, None]
    without = enhanced(noisy, RATE, denoiser)
    for size in (1, 10):
        offset = np.float32(size * noisy.std())
        found = enhanced(noisy + offset, RATE, denoiser)
        for one, other in zip(np.array_split(without, 8), np.array_split(found, 8), strict=True):
            assert abs(other.mean() - one.mean()) < 0.1 * offset / size
            assert np.sum((other - one) ** 2) < 0.2 * np.sum(one**2)


def test_real_recordings_go_through_the_whole_pipeline(test_audio: Path, repository_folder: Path, command: Command) -> None:
    speech, noise, pairs = Path("data/own/speech"), Path("data/own/noise"), Path("data/own/pairs")
    for speaker in sorted((test_audio / "speech/librispeech").iterdir())[:4]:
        (speech / speaker.name).mkdir(parents=True)
        for path in sorted(speaker.rglob("*.*"))[:2]:
            shutil.copy(path, speech / speaker.name / path.name)
    noise.mkdir(parents=True)
    for path in sorted((test_audio / "noise/open/speech-commands").iterdir())[:4]:
        shutil.copy(path, noise / path.name)
    rows = [f"noise/{path.name},{split}" for path, split in zip(sorted(noise.iterdir()), SPLITS, strict=True)]
    folders = zip(sorted(speech.iterdir()), SPLITS, strict=True)
    rows += [f"speech/{path.relative_to(speech)},{split}" for folder, split in folders for path in folder.iterdir()]
    Path("data/own/split.csv").write_text("\n".join(["path,split", *rows]) + "\n", encoding="utf-8")
    for side in ("clean", "noisy"):
        (pairs / side).mkdir(parents=True)
        for path in sorted((test_audio / "pairs/dns-no-reverb" / side).iterdir())[:3]:
            shutil.copy(path, pairs / side / path.name)
    values = {"corpora.speech": ["folder"], "corpora.noise": ["folder"], "evaluate.pairs": [str(pairs)], "mix.n_test": 3}
    put_parameters(Path("params.yaml"), values)
    stages = [
        ("download", "speech"),
        ("download", "noise"),
        ("fetch",),
        ("mix",),
        ("shard",),
        ("train",),
        ("evaluate",),
        ("export",),
    ]
    for stage in [*stages, ("denoise",)]:
        ended = command(*stage)
        assert ended.code == 0, (stage, ended.err)
    ended = command("evaluate", "--show")
    scored = {line.rsplit(maxsplit=6)[0].strip(): line.split()[-6:] for line in ended.out.splitlines()[1:]}
    assert {"pairs mixture", "pairs estimate", "pairs oracle"} <= {name for name in scored}
    assert all(cells[0] == "3" and "-" not in cells for name, cells in scored.items() if name.startswith("pairs "))

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from specimens import RATE, few, hiss, law, level_db, mix, recording, snr_db, stored, voiced

from stages.core.bundles import BundleWriter
from stages.core.manifest import SPLITS
from stages.core.plan import Mixture, Reverberation, Segment, planned
from stages.core.rendering import RenderingError, clipped, rendered

RATES = [16000, 22050, 48000]
N_SAMPLES = RATE // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech and noise of 0.9 s at three sample rates."""
    folder = tmp_path_factory.mktemp("rendering")
    for place, rate in enumerate(RATES):
        n_samples = round(0.9 * rate)
        stored(folder / f"speech-{rate}.wav", 3 * voiced(n_samples, rate), rate)
        stored(folder / f"noise-{rate}.wav", hiss(n_samples, place, 0.3), rate)
    return folder


def segment(path: Path, rate: int = RATE, start: int = 0, seconds: float = 0.5, gain_db: float = 0.0) -> Segment:
    return Segment(path.stem, str(path), rate, (0, round(0.9 * rate)), start, round(seconds * rate), gain_db)


def mixture(folder: Path, speech_rate: int = RATE, noise_rates: tuple[int, ...] = (RATE,), **changes: object) -> Mixture:
    whole = Mixture(
        id="train-000000",
        split="train",
        speaker="a",
        language="en",
        noise="hiss",
        n_samples=N_SAMPLES,
        snr_db=3.0,
        level_dbfs=-26.0,
        speech=(segment(folder / f"speech-{speech_rate}.wav", speech_rate),),
        noises=tuple(
            segment(folder / f"noise-{rate}.wav", rate, start=7, gain_db=3.0 * place) for place, rate in enumerate(noise_rates)
        ),
        low_pass_hz=None,
        reverberation=None,
    )
    return replace(whole, **changes)


rooms = st.one_of(st.none(), st.builds(Reverberation, st.floats(0.05, 0.4), st.floats(-5, 20), st.integers(0, 2**31 - 1)))


@law
@given(
    snr=st.floats(-20, 40),
    level=st.floats(-60, -6),
    speech_rate=st.sampled_from(RATES),
    noise_rates=st.lists(st.sampled_from(RATES), min_size=1, max_size=3),
    low_pass_hz=st.one_of(st.none(), st.floats(500, 8000)),
    reverberation=rooms,
)
def test_snr_level_and_peak_are_as_asked(
    folder: Path,
    snr: float,
    level: float,
    speech_rate: int,
    noise_rates: list[int],
    low_pass_hz: float | None,
    reverberation: Reverberation | None,
) -> None:
    changes = {"snr_db": snr, "level_dbfs": level, "low_pass_hz": low_pass_hz, "reverberation": reverberation}
    noisy, speech = rendered(mixture(folder, speech_rate, tuple(noise_rates), **changes), RATE)
    assert noisy.shape == speech.shape == (N_SAMPLES,)
    assert snr_db(speech, noisy.astype(np.float64) - speech) == pytest.approx(snr, abs=0.01)
    peak = max(np.abs(noisy).max(), np.abs(speech).max())
    assert peak <= 0.98 + 1e-6
    assert level_db(noisy) <= level + 0.01
    assert level_db(noisy) == pytest.approx(level, abs=0.01) or peak == pytest.approx(0.98, abs=1e-4)


def test_both_come_down_together_where_the_level_would_clip(folder: Path) -> None:
    quiet = rendered(mixture(folder, level_dbfs=-30.0), RATE)
    loud = rendered(mixture(folder, level_dbfs=-1.0), RATE)
    ratio = np.abs(loud[0]).max() / np.abs(quiet[0]).max()
    assert max(np.abs(loud[0]).max(), np.abs(loud[1]).max()) == pytest.approx(0.98, abs=1e-4)
    assert level_db(loud[0]) < -2
    np.testing.assert_allclose(loud[0], ratio * quiet[0], atol=1e-5)
    np.testing.assert_allclose(loud[1], ratio * quiet[1], atol=1e-5)


@pytest.mark.parametrize("low_pass_hz", [1000.0, 2000.0, 3500.0])
def test_nothing_is_left_above_the_band_limit(folder: Path, low_pass_hz: float) -> None:
    for waveform in rendered(mixture(folder, snr_db=-10.0, low_pass_hz=low_pass_hz), RATE):
        frequency, power = signal.welch(waveform, RATE, nperseg=1024)
        assert power[frequency > 2 * low_pass_hz].max() < 1e-4 * power[frequency < low_pass_hz].max()
    noisy, _ = rendered(mixture(folder, snr_db=-10.0), RATE)
    frequency, power = signal.welch(noisy, RATE, nperseg=1024)
    assert power[frequency > 2 * low_pass_hz].mean() > 0.1 * power[frequency < low_pass_hz].mean()


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.2])
def test_speech_that_is_played_faster_is_higher_and_the_noise_is_not(folder: Path, speed: float) -> None:
    time = np.arange(RATE) / RATE
    tone = stored(folder / f"tone-{speed}.wav", 0.3 * np.sin(2 * np.pi * 500 * time))
    hum = stored(folder / f"hum-{speed}.wav", 0.3 * np.sin(2 * np.pi * 3000 * time))
    row = mixture(folder, speed=speed, speech=(segment(tone, seconds=0.5 * speed),), noises=(segment(hum),))
    noisy, speech = rendered(row, RATE)
    peaks = [
        np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part))))) * RATE / len(part) for part in (speech, noisy - speech)
    ]
    assert peaks == pytest.approx([500 * speed, 3000], abs=2)
    assert len(speech) == N_SAMPLES


def test_noise_that_cancels_speech_does_not_let_the_speech_clip(folder: Path) -> None:
    # The mixture is half the speech, so the peak of the speech alone decides.
    against = stored(folder / "against.wav", -3 * voiced(round(0.9 * RATE)))
    row = mixture(folder, snr_db=6.0, level_dbfs=-6.0, noises=(segment(against),))
    noisy, speech = rendered(row, RATE)
    assert np.abs(noisy).max() < 0.6 * np.abs(speech).max()
    assert np.abs(speech).max() == pytest.approx(0.98, abs=1e-4)


def test_a_band_limit_leaves_speech_and_noise_what_they_are(folder: Path) -> None:
    wide, narrow = (rendered(mixture(folder, low_pass_hz=hz), RATE) for hz in (None, 6000.0))
    sections = signal.butter(8, 6000.0, fs=RATE, output="sos")
    noises = [noisy.astype(np.float64) - speech for noisy, speech in (wide, narrow)]
    for before, after in ((wide[1], narrow[1]), noises):
        assert np.corrcoef(signal.sosfilt(sections, before), after)[0, 1] > 0.9999
    assert abs(np.corrcoef(noises[1], narrow[1])[0, 1]) < 0.1


def test_noises_stand_to_each_other_as_their_gains(folder: Path) -> None:
    tones = []
    for place, frequency in enumerate((1000, 3000)):
        tone = 0.3**place * np.sin(2 * np.pi * frequency * np.arange(round(0.9 * RATE)) / RATE)
        tones.append(segment(stored(folder / f"tone-{frequency}.wav", tone.astype(np.float32)), gain_db=[4.0, -2.0][place]))
    noisy, speech = rendered(mixture(folder, noises=tuple(tones)), RATE)
    power = np.abs(np.fft.rfft((noisy - speech) * np.hanning(N_SAMPLES))) ** 2
    low, high = (power[bin_ - 5 : bin_ + 6].sum() for bin_ in (1000 * N_SAMPLES // RATE, 3000 * N_SAMPLES // RATE))
    assert 10 * np.log10(low / high) == pytest.approx(6, abs=0.05)


def test_the_reference_of_a_reverberated_mixture_is_reverberated_speech(folder: Path) -> None:
    dry = rendered(mixture(folder), RATE)[1]
    room = Reverberation(rt60_s=0.3, drr_db=3.0, seed=5)
    noisy, wet = rendered(mixture(folder, reverberation=room), RATE)
    assert snr_db(wet, noisy.astype(np.float64) - wet) == pytest.approx(3.0, abs=0.01)
    gain = float(wet[:40] @ dry[:40] / (dry[:40] @ dry[:40]))
    np.testing.assert_allclose(wet[:40], gain * dry[:40], atol=1e-5)  # the direct path comes first, 3 ms alone
    tail = wet - gain * dry
    assert np.abs(tail[100:]).max() > 0.01
    drier = rendered(mixture(folder, reverberation=replace(room, drr_db=60.0)), RATE)[1]
    assert np.corrcoef(drier, dry)[0, 1] > 0.9999


def test_the_tail_of_a_room_holds_the_power_asked_for_and_decays_as_asked(tmp_path: Path) -> None:
    rate, rt60_s = RATE, 0.4
    impulse = np.zeros(round(0.9 * rate), np.float32)
    impulse[0] = 0.9
    click = segment(stored(tmp_path / "click.wav", impulse))
    hum = segment(stored(tmp_path / "hiss.wav", hiss(len(impulse))))
    row = mixture(tmp_path, speech=(click,), noises=(hum,), reverberation=Reverberation(rt60_s, 6.0, 3))
    wet = rendered(row, rate)[1].astype(np.float64)
    assert 10 * np.log10(wet[0] ** 2 / np.sum(wet[1:] ** 2)) == pytest.approx(6, abs=0.1)
    early, late = (np.sum(wet[round(a * rate) : round(b * rate)] ** 2) for a, b in ((0.05, 0.1), (0.25, 0.3)))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / rt60_s, abs=2)


@pytest.mark.parametrize("kind", ["speech", "noise"])
def test_a_segment_of_digital_silence_moves_to_sound(tmp_path: Path, kind: str) -> None:
    n_samples = round(0.9 * RATE)
    halved = {name: wave.copy() for name, wave in (("speech", voiced(n_samples)), ("noise", hiss(n_samples)))}
    halved[kind][: round(0.55 * RATE)] = 0
    for name, wave in halved.items():
        stored(tmp_path / f"{name}-{RATE}.wav", wave)
    noisy, speech = rendered(mixture(tmp_path), RATE)
    assert snr_db(speech, noisy.astype(np.float64) - speech) == pytest.approx(3.0, abs=0.01)
    moved = speech if kind == "speech" else noisy - speech
    assert np.count_nonzero(np.abs(moved) > 1e-3) > 0.2 * N_SAMPLES


def test_noise_that_is_too_short_is_repeated(tmp_path: Path) -> None:
    stored(tmp_path / f"speech-{RATE}.wav", voiced(round(0.9 * RATE)))
    path = stored(tmp_path / "short.wav", hiss(1600))
    part = Segment("short", str(path), RATE, (0, 1600), 100, N_SAMPLES, 0.0)
    noisy, speech = rendered(mixture(tmp_path, noises=(part,)), RATE)
    noise = noisy - speech
    np.testing.assert_allclose(noise[1600:3200], noise[:1600], atol=1e-5)
    assert np.corrcoef(noise[:1500], hiss(1600)[100:])[0, 1] > 0.999


def test_a_recording_inside_a_file_stays_inside_its_borders(tmp_path: Path) -> None:
    # Beyond the recording the file is far louder.
    wave = np.concatenate([np.ones(1000), hiss(12000, level=0.01), np.ones(1000)]).astype(np.float32)
    path = stored(tmp_path / "many.wav", wave)
    stored(tmp_path / f"speech-{RATE}.wav", voiced(round(0.9 * RATE)))
    for start in (0, 4000, 11999):
        part = Segment("part", str(path), RATE, (1000, 12000), start, N_SAMPLES, 0.0)
        noisy, speech = rendered(mixture(tmp_path, noises=(part,)), RATE)
        expected = np.roll(wave[1000:13000], -start)[:N_SAMPLES]
        assert np.corrcoef(noisy - speech, expected)[0, 1] > 0.9999


def test_only_the_first_channel_counts(tmp_path: Path) -> None:
    speech = voiced(round(0.9 * RATE))
    stored(tmp_path / f"speech-{RATE}.wav", speech)
    noise = hiss(len(speech))
    stored(tmp_path / f"noise-{RATE}.wav", noise)
    mono = rendered(mixture(tmp_path), RATE)
    stored(tmp_path / f"noise-{RATE}.wav", np.stack([noise, hiss(len(speech), 9)], axis=1))
    np.testing.assert_array_equal(rendered(mixture(tmp_path), RATE)[0], mono[0])


def test_the_full_scale_that_is_asked_for_is_all_that_changes(folder: Path) -> None:
    row = mixture(folder, noise_rates=(RATE, 48000), level_dbfs=-3.0)
    for steps, shares in zip(rendered(row, RATE, 32768), rendered(row, RATE), strict=True):
        np.testing.assert_allclose(steps / 32768, shares, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_recording_in_a_bundle_that_holds_no_numbers_is_named(folder: Path, broken: float) -> None:
    waveform = hiss(round(0.9 * RATE), 1)
    waveform[3000] = broken
    path = stored(folder / "broken.wav", waveform, subtype="FLOAT")
    with BundleWriter(folder, "bundle") as bundle:
        name, offset = bundle.add("broken.wav", path.read_bytes())
    row = replace(segment(path), path=str(folder / name), within=(offset, path.stat().st_size))
    with pytest.raises(RenderingError, match=r"bundle-00000\.tar, byte \d+: holds samples that are NaN or infinite"):
        rendered(mixture(folder, noises=(row,)), RATE)


def test_a_noise_of_which_nothing_is_left_is_told(folder: Path) -> None:
    late = np.zeros(round(0.9 * RATE), np.float32)
    late[4000] = 0.5
    row = mixture(folder, noises=(segment(stored(folder / "late.wav", late)),), n_samples=2000)
    with pytest.raises(RenderingError, match="train-000000: nothing is left of its speech or its noise"):
        rendered(row, RATE)
    both = rendered(replace(row, noises=(*row.noises, segment(folder / f"noise-{RATE}.wav"))), RATE)
    only = rendered(replace(row, noises=(segment(folder / f"noise-{RATE}.wav"),)), RATE)
    np.testing.assert_allclose(both, only, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rest", [1e-2, 1e-4])
def test_the_level_is_as_asked_where_noise_nearly_cancels_speech(folder: Path, rest: float) -> None:
    n_samples = 30 * RATE
    waves = [voiced(n_samples), hiss(n_samples, 3)]
    against = rest * waves[1] / np.sqrt(np.mean(waves[1] ** 2)) * np.sqrt(np.mean(waves[0] ** 2)) - waves[0]
    paths = [stored(folder / f"{name}-{rest}.wav", wave) for name, wave in (("for", waves[0]), ("against", against))]
    parts = [Segment(path.stem, str(path), RATE, (0, n_samples), 0, n_samples, 0.0) for path in paths]
    row = mixture(folder, snr_db=0.0, level_dbfs=-60.0, speech=(parts[0],), noises=(parts[1],), n_samples=n_samples)
    noisy, speech = rendered(row, RATE)
    assert level_db(noisy) == pytest.approx(-60, abs=0.01) or np.abs(speech).max() == pytest.approx(0.98, abs=1e-4)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("amplitudes", [(1e17, 1e16), (1e19,), (1e25,)])
def test_recordings_far_beyond_full_scale_are_told(folder: Path, amplitudes: tuple[float, ...]) -> None:
    loud = [stored(folder / f"loud-{scale}.wav", np.float32(scale) * hiss(round(0.9 * RATE), 5)) for scale in amplitudes]
    row = mixture(folder, noises=tuple(segment(path) for path in loud))
    try:
        noisy, speech = rendered(row, RATE)
    except RenderingError as error:
        assert "far beyond full scale" in str(error)  # noqa: PT017 - either is right
    else:
        assert snr_db(speech, noisy.astype(np.float64) - speech) == pytest.approx(3, abs=0.01)


def test_a_silent_recording_is_named(folder: Path) -> None:
    path = stored(folder / "silent.wav", np.zeros(round(0.9 * RATE), np.float32))
    with pytest.raises(RenderingError, match=r"silent\.wav: silent is silent, or far beyond full scale, and cannot be mixed"):
        rendered(mixture(folder, noises=(segment(path),)), RATE)


def test_a_file_of_another_sample_rate_than_planned_is_named(folder: Path) -> None:
    part = replace(segment(folder / "noise-22050.wav", 22050), sample_rate=16000)
    with pytest.raises(RenderingError, match=r"noise-22050\.wav: expected 16000 Hz .* found 22050"):
        rendered(mixture(folder, noises=(part,)), RATE)


@few
@given(seed=st.integers(0, 1000), seconds=st.sampled_from([0.5, 0.51237, 0.7]))
def test_every_planned_mixture_is_rendered_as_planned(folder: Path, seed: int, seconds: float) -> None:
    speech, noise = (
        [
            recording(f"{kind}-{rate}-{split}", split, split, path=str(folder / f"{kind}-{rate}.wav"), sample_rate=rate)
            for split in SPLITS
            for rate in RATES
        ]
        for kind in ("speech", "noise")
    )
    rows = [[replace(row, n_samples=round(0.9 * row.sample_rate)) for row in part] for part in (speech, noise)]
    # Cut short, the utterances must follow one another.
    rows[0] = [replace(row, start=100, n_samples=row.sample_rate // 5) for row in rows[0]]
    both = {"low_pass": {"probability": 0.5, "cutoff_hz": [1000, 8000]}}
    both["reverberation"] = {"probability": 0.5, "rt60_s": [0.1, 0.3], "drr_db": [0, 10]}  # type: ignore[dict-item]
    for row in planned(*rows, mix(seed=seed, seconds=seconds, n_train=3, n_valid=1, n_test=1, **both), RATE):
        noisy, clean = rendered(row, RATE)
        assert len(noisy) == len(clean) == row.n_samples == round(seconds * RATE)
        assert snr_db(clean, noisy.astype(np.float64) - clean) == pytest.approx(row.snr_db, abs=0.01)
        assert math.isfinite(level_db(noisy))
        again = rendered(row, RATE)
        assert again[0].tobytes() == noisy.tobytes()
        assert again[1].tobytes() == clean.tobytes()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_clipped_mixture_keeps_what_is_below_its_new_peak(sign: int) -> None:
    noisy = sign * np.array([0, 1000, -32767, 20000, -16000, 16500], np.int16)
    found = clipped(noisy, 6.0)
    assert found.dtype == np.int16
    highest = int(32767 * 10 ** (-6 / 20))
    np.testing.assert_array_equal(found, sign * np.array([0, 1000, -highest, highest, -16000, highest], np.int16))
    assert clipped(noisy, 0.0) is noisy
    assert clipped(np.array([46, -20, 0], np.int16), 40.0).tolist() == [1, -1, 0]

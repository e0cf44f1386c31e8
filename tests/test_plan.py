import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import RATE, few, law, mix, recording

from stages.core import plan
from stages.core.manifest import SPLITS, Recording
from stages.core.parameters import Mix
from stages.core.plan import Mixture, PlanError, recorded


def planned(
    utterances: Sequence[Recording], noises: Sequence[Recording], settings: Mix, rate: int, rooms: Sequence[Recording] = ()
) -> list[Mixture]:
    return list(plan.planned(utterances, noises, settings, rate, rooms))


def speech(n_speakers: int = 3, n_utterances: int = 3, seconds: float = 0.3) -> list[Recording]:
    return [
        recording(f"en-{split}-{s}-{u}", split, f"{split}-{s}", n_samples=round(seconds * RATE))
        for split in SPLITS
        for s in range(n_speakers)
        for u in range(n_utterances)
    ]


def noise(seconds: float = 2.0) -> list[Recording]:
    return [
        recording(f"{kind}-{split}-{number}", split, n_samples=round(seconds * RATE), start=number * 100)
        for kind in ("hum", "rain")
        for split in SPLITS
        for number in range(2)
    ]


def of(split: str, mixtures: Sequence[Mixture]) -> list[Mixture]:
    return [mixture for mixture in mixtures if mixture.split == split]


def test_as_many_as_asked_in_the_order_of_the_splits() -> None:
    mixtures = planned(speech(), noise(), mix(n_train=7, n_valid=3, n_test=2), RATE)
    assert [mixture.split for mixture in mixtures] == ["train"] * 7 + ["valid"] * 3 + ["test"] * 2
    assert len({mixture.id for mixture in mixtures}) == 12
    assert {mixture.n_samples for mixture in mixtures} == {RATE // 2}


@law
@given(seed=st.integers(0, 10**6))
def test_speakers_and_noises_keep_to_their_splits(seed: int) -> None:
    homes = {row.id: row.split for row in speech() + noise()}
    mixtures = planned(speech(), noise(), mix(seed=seed), RATE)
    for mixture in mixtures:
        assert {homes[part.id] for part in mixture.speech + mixture.noises} == {mixture.split}
        assert mixture.speaker.startswith(mixture.split)
    pairs = {(mixture.speaker, mixture.split) for mixture in mixtures}
    assert len({speaker for speaker, _ in pairs}) == len(pairs)


@law
@given(seed=st.integers(0, 10**6), more=st.integers(1, 40))
def test_more_mixtures_leave_the_earlier_ones_as_they_are(seed: int, more: int) -> None:
    first = planned(speech(), noise(), mix(seed=seed), RATE)
    second = planned(speech(), noise(), mix(seed=seed, n_train=6 + more, n_valid=4 + more, n_test=4 + more), RATE)
    for split in SPLITS:
        assert of(split, second)[: len(of(split, first))] == of(split, first)


def test_another_seed_is_another_plan() -> None:
    assert planned(speech(), noise(), mix(), RATE) == planned(speech(), noise(), mix(), RATE)
    assert planned(speech(), noise(), mix(), RATE) != planned(speech(), noise(), mix(seed=2), RATE)


@few
@given(grid=st.lists(st.sampled_from([-10.0, -5.0, 0.0, 2.5, 20.0]), min_size=1, max_size=5))
def test_validation_and_test_follow_the_grid_and_training_its_range(grid: list[float]) -> None:
    mixtures = planned(speech(), noise(), mix(snr_grid_db=grid, snr_db=[-3, 4], n_train=30, n_valid=7, n_test=9), RATE)
    for split in ("valid", "test"):
        assert [mixture.snr_db for mixture in of(split, mixtures)] == [
            grid[i % len(grid)] for i in range(len(of(split, mixtures)))
        ]
    drawn = [mixture.snr_db for mixture in of("train", mixtures)]
    assert min(drawn) >= -3
    assert max(drawn) <= 4
    assert len(set(drawn)) == 30


def test_ranges_are_used_from_end_to_end() -> None:
    settings = mix(n_train=300, n_noises=[1, 3], level_dbfs=[-40, -20], snr_db=[-10, 10])
    train = of("train", planned(speech(), noise(), settings, RATE))
    assert {len(mixture.noises) for mixture in train} == {1, 2, 3}
    for values, low, high in (([m.level_dbfs for m in train], -40, -20), ([m.snr_db for m in train], -10, 10)):
        assert low <= min(values) < low + 1
        assert high - 1 < max(values) <= high
    assert {mixture.speaker for mixture in train} == {"train-0", "train-1", "train-2"}


def test_noises_of_one_mixture_are_not_the_same_and_no_more_than_there_are() -> None:
    for mixture in planned(speech(), noise(), mix(n_noises=[8, 8], n_train=20), RATE):
        assert len({part.id for part in mixture.noises}) == len(mixture.noises) == 4
        assert mixture.noise == "hum+rain"
        assert all(abs(part.gain_db) <= 5 for part in mixture.noises)


@law
@given(seed=st.integers(0, 10**6), seconds=st.floats(0.5, 3.0), length=st.floats(0.05, 1.0))
def test_utterances_of_the_same_speaker_fill_the_mixture(seed: int, seconds: float, length: float) -> None:
    rows = speech(seconds=length)
    homes = {row.id: row for row in rows}
    for mixture in planned(rows, noise(4.0), mix(seed=seed, seconds=seconds), RATE):
        assert {homes[part.id].group for part in mixture.speech} == {mixture.speaker}
        total = sum(part.n_samples for part in mixture.speech)
        assert abs(total - mixture.n_samples) <= len(mixture.speech)
        # No utterance comes twice before all others of the speaker have come once.
        firsts = [part.id for part in mixture.speech][:3]
        assert len(set(firsts)) == len(firsts)
        for part in mixture.speech:
            assert part.start >= 0
            assert part.start + part.n_samples <= homes[part.id].n_samples


@law
@given(
    seed=st.integers(0, 10**6),
    seconds=st.floats(0.5, 2.0),
    lengths=st.lists(st.integers(1000, 20000), min_size=1, max_size=4),
    rates=st.lists(st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]), min_size=4, max_size=4),
)
def test_no_segment_is_empty(seed: int, seconds: float, lengths: list[int], rates: list[int]) -> None:
    rows = [
        recording(f"en-{split}-{place}", split, split, n_samples=n, sample_rate=rates[place])
        for split in SPLITS
        for place, n in enumerate(lengths)
    ]
    for mixture in planned(rows, noise(4.0), mix(seed=seed, seconds=seconds), RATE):
        assert all(part.n_samples > 0 for part in mixture.speech + mixture.noises)


def test_what_is_left_of_less_than_half_a_sample_takes_no_segment() -> None:
    # 8000.4 samples are asked for and 8000 are there: what remains rounds to no sample at all.
    rows = [recording(f"en-{split}", split, sample_rate=16000, n_samples=8000) for split in SPLITS]
    for mixture in planned(rows, noise(4.0), mix(seconds=8000.4 / 16000), RATE):
        assert [part.n_samples for part in mixture.speech] == [8000]


def test_stretches_of_noise_start_all_over_the_recording_and_stay_inside() -> None:
    mixtures = planned(speech(), noise(2.0), mix(n_train=200), RATE)
    starts = [part.start for mixture in mixtures for part in mixture.noises]
    assert min(starts) < 0.1 * RATE
    assert 1.4 * RATE < max(starts) <= 1.5 * RATE
    assert all(part.whole == (int(part.id[-1]) * 100, 2 * RATE) for mixture in mixtures for part in mixture.noises)


def test_a_segment_counts_in_samples_of_its_own_file() -> None:
    rows = [recording(f"hum-{split}", split, sample_rate=48000, n_samples=96000) for split in SPLITS]
    for mixture in planned(speech(), rows, mix(n_noises=[1, 1]), RATE):
        assert [(part.sample_rate, part.n_samples) for part in mixture.noises] == [(48000, 24000)]


def test_short_noise_is_refused_or_repeated() -> None:
    rows = [*noise(), recording("clap-1", n_samples=1600)]
    with pytest.raises(PlanError, match=r"1 of 13 .*clap-1, lasts 0\.10 s.*mix\.short_noise=repeat"):
        planned(speech(), rows, mix(), RATE)
    mixtures = planned(speech(), rows, mix(short_noise="repeat", n_train=60), RATE)
    claps = [part for mixture in mixtures for part in mixture.noises if part.id == "clap-1"]
    assert claps
    assert all(part.n_samples == 8000 and part.start < 1600 for part in claps)


@pytest.mark.parametrize(("evenly_by", "share"), [("recording", 3 / 4), ("second", 3 / 11), ("label", 1 / 2)])
def test_noise_is_drawn_evenly_by_recording_by_second_or_by_label(evenly_by: str, share: float) -> None:
    rows = [recording(f"clap-{split}-{number}", split, n_samples=RATE) for split in SPLITS for number in range(3)]
    rows += [recording(f"street-{split}", split, n_samples=8 * RATE) for split in SPLITS]
    mixtures = planned(speech(), rows, mix(noise_evenly_by=evenly_by, n_noises=[1, 1], n_train=400), RATE)
    assert np.mean([mixture.noise == "clap" for mixture in of("train", mixtures)]) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize(("evenly_by", "share"), [("recording", 3 / 4), ("second", 3 / 11), ("label", 1 / 2)])
def test_speech_is_drawn_evenly_by_recording_by_second_or_by_label(evenly_by: str, share: float) -> None:
    rows = [recording(f"words-{split}-{number}", split, split, n_samples=RATE) for split in SPLITS for number in range(3)]
    rows += [recording(f"book-{split}", split, f"reader-{split}", n_samples=8 * RATE) for split in SPLITS]
    mixtures = planned(rows, noise(), mix(speech_evenly_by=evenly_by, n_train=400, n_valid=200), RATE)
    for split in ("train", "valid"):
        assert np.mean([row.speech[0].id.startswith("words") for row in of(split, mixtures)]) == pytest.approx(share, abs=0.08)


def test_a_speaker_of_two_labels_is_heard_with_the_one_that_was_drawn() -> None:
    rows = [recording(f"words-train-{number}", "train", "both", n_samples=RATE // 10) for number in range(20)]
    rows += [recording("book-train", "train", "both", n_samples=RATE // 10), *(row for row in speech() if row.split != "train")]
    mixtures = of("train", planned(rows, noise(), mix(speech_evenly_by="label", n_train=100), RATE))
    heard = [{part.id.split("-")[0] for part in mixture.speech} for mixture in mixtures]
    assert heard == [{mixture.language} for mixture in mixtures]
    assert np.mean([mixture.language == "book" for mixture in mixtures]) == pytest.approx(0.5, abs=0.2)


def test_two_noises_are_drawn_by_the_second_as_without_putting_back() -> None:
    seconds = {"a": 6.0, "b": 3.0, "c": 1.0}
    rows = [recording(name, "train", n_samples=round(length * RATE)) for name, length in seconds.items()]
    rows += [row for row in noise() if row.split != "train"]
    mixtures = planned(speech(), rows, mix(noise_evenly_by="second", n_noises=[2, 2], n_train=3000, n_valid=1, n_test=1), RATE)
    pairs = Counter("".join(sorted(part.id for part in row.noises)) for row in mixtures if row.split == "train")
    share = {name: length / 10 for name, length in seconds.items()}
    for first, second in ("ab", "ac", "bc"):
        expected = share[first] * share[second] * (1 / (1 - share[first]) + 1 / (1 - share[second]))
        assert pairs[first + second] / 3000 == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("evenly_by", ["recording", "second", "label"])
def test_noises_of_one_mixture_differ_and_are_no_more_than_there_are(evenly_by: str) -> None:
    for mixture in planned(speech(), noise(), mix(noise_evenly_by=evenly_by, n_noises=[8, 8]), RATE):
        assert len({part.id for part in mixture.noises}) == len(mixture.noises) == 4


def test_noise_as_long_as_the_mixture_is_long_enough() -> None:
    for mixture in planned(speech(), noise(0.5), mix(), RATE):
        assert all(part.start == 0 for part in mixture.noises)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("what", ["speech", "noise"])
def test_a_split_without_speech_or_noise_is_named(split: str, what: str) -> None:
    rows = {"speech": speech(), "noise": noise()}
    rows[what] = [row for row in rows[what] if row.split != split]
    with pytest.raises(PlanError, match=f"The {split} split has no {what}"):
        planned(rows["speech"], rows["noise"], mix(), RATE)


def test_band_limits_and_rooms_are_for_training_only() -> None:
    always = mix(
        low_pass={"probability": 1.0, "cutoff_hz": [2000, 3000]},
        reverberation={"probability": 1.0, "rt60_s": [0.2, 0.4], "drr_db": [0, 5]},
    )
    for mixture in planned(speech(), noise(), always, RATE):
        assert (mixture.low_pass_hz is not None) == (mixture.reverberation is not None) == (mixture.split == "train")
        if mixture.low_pass_hz and mixture.reverberation:
            assert 2000 <= mixture.low_pass_hz <= 3000
            assert 0.2 <= mixture.reverberation.rt60_s <= 0.4
            assert 0 <= mixture.reverberation.drr_db <= 5


def test_effects_change_nothing_else_of_a_mixture() -> None:
    plain = planned(speech(), noise(), mix(), RATE)
    changed = planned(speech(), noise(), mix(low_pass={"probability": 1.0, "cutoff_hz": [2000, 3000]}), RATE)
    assert [asdict(m) | {"low_pass_hz": None} for m in changed] == [asdict(m) for m in plain]


def test_speed_is_for_training_only_and_changes_no_other_choice() -> None:
    plain = planned(speech(), noise(), mix(), RATE)
    changed = planned(speech(), noise(), mix(speed={"probability": 0.5, "factor": [0.8, 1.25]}), RATE)
    speeds = set()
    for before, after in zip(plain, changed, strict=True):
        assert after.speed == 1.0 or after.split == "train"
        assert 0.8 <= after.speed <= 1.25
        assert sum(part.n_samples for part in after.speech) == pytest.approx(after.speed * after.n_samples, abs=2)
        assert (after.snr_db, after.speaker, after.level_dbfs) == (before.snr_db, before.speaker, before.level_dbfs)
        assert [part.id for part in after.noises] == [part.id for part in before.noises]
        speeds.add(after.speed)
    assert len(speeds) > 2


def test_clipping_is_for_training_only_and_changes_no_other_choice() -> None:
    plain = planned(speech(), noise(), mix(), RATE)
    changed = list(planned(speech(), noise(), mix(clipping={"probability": 0.5, "excess_db": [6, 12]}), RATE))
    assert [replace(mixture, clipping_db=0.0) for mixture in changed] == list(plain)
    found = [mixture.clipping_db for mixture in changed if mixture.split == "train"]
    assert 0.0 in found
    assert all(6 <= clipping_db <= 12 for clipping_db in found if clipping_db)
    assert len(set(found)) > 2
    assert not any(mixture.clipping_db for mixture in changed if mixture.split != "train")


def test_the_plan_is_one_object_in_a_line(tmp_path: Path) -> None:
    mixtures = planned(speech(), noise(), mix(), RATE)
    with (tmp_path / "plan.jsonl").open("w", encoding="utf-8") as file:
        assert list(recorded(mixtures, file)) == mixtures
    lines = (tmp_path / "plan.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [json.loads(json.dumps(asdict(mixture))) for mixture in mixtures]
    for row in expected:
        for segment in (*row["speech"], *row["noises"]):
            assert segment.pop("within") is None
        assert (row.pop("speed"), row.pop("clipping_db")) == (1.0, 0.0)
    assert [json.loads(line) for line in lines] == expected
    assert lines[0].count("null") == 2  # no low-pass, no room


def test_the_plan_says_where_in_a_bundle_a_recording_lies_and_which_room_it_is_in(tmp_path: Path) -> None:
    bundled = [replace(row, offset=1024, size=999) for row in speech()]
    room = replace(recording("room", "train"), offset=512, size=77)
    always = mix().reverberation.model_copy(update={"probability": 1.0})
    mixtures = planned(bundled, noise(), mix(reverberation=always), RATE, [room])
    with (tmp_path / "plan.jsonl").open("w", encoding="utf-8") as file:
        assert list(recorded(mixtures, file)) == mixtures
    row = json.loads((tmp_path / "plan.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["speech"][0]["within"] == [1024, 999]
    assert row["reverberation"]["response"]["within"] == [512, 77]

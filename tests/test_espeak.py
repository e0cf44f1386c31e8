import ctypes
from collections import Counter
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stages.core.corpora import espeak
from stages.core.corpora.sentences import SENTENCES, sentences
from stages.core.corpora.shares import dealt
from stages.core.files import file_digest
from stages.core.manifest import SPLITS, Recording
from stages.core.parameters import Espeak

VOICE = espeak.Voice("en-us", "f2", 50, 50, 160)


def settings(**changes: float) -> Espeak:
    values = {"seed": 1, "n_speakers": 6, "n_utterances": 3, "valid_share": 0.2, "test_share": 0.2}
    return Espeak.model_validate(values | changes)


def made(parent: Path, n_jobs: int = 1, **changes: float) -> tuple[Path, list[Recording]]:
    folder = parent / "espeak"
    folder.mkdir(parents=True)
    return folder, espeak.obtain(folder, settings(**changes), n_jobs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Recording]]:
    return made(tmp_path_factory.mktemp("corpus"), n_speakers=20)


def waveform(folder: Path, row: Recording) -> np.ndarray:
    samples, sample_rate = soundfile.read(folder.parent / row.path, start=row.start, frames=row.n_samples)
    assert (sample_rate, len(samples)) == (row.sample_rate, row.n_samples)
    return samples


def test_rows_cover_their_files_without_gaps(corpus: tuple[Path, list[Recording]]) -> None:
    folder, rows = corpus
    assert len({row.id for row in rows}) == len(rows) == 20 * 3
    for path in folder.iterdir():
        mine = [row for row in rows if row.path == f"espeak/{path.name}"]
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (espeak.SAMPLE_RATE, 1, "PCM_16")
        assert [row.start for row in mine] == np.cumsum([0] + [row.n_samples for row in mine])[:-1].tolist()
        assert sum(row.n_samples for row in mine) == info.frames
        assert {row.content for row in mine} == {file_digest(path)}
        assert len({row.group for row in mine}) == len({row.split for row in mine}) == 1


def test_utterances_are_trimmed_level_and_of_useful_length(corpus: tuple[Path, list[Recording]]) -> None:
    folder, rows = corpus
    for row in rows:
        samples = waveform(folder, row)
        level = 10 * np.log10(np.mean(samples**2))
        assert -28 < level < -25.9, row
        assert level == pytest.approx(-26, abs=0.05) or np.abs(samples).max() > 0.98, row
        (loud,) = np.nonzero(np.abs(samples) > 1e-3)
        assert max(loud[0], len(samples) - loud[-1]) < 0.05 * row.sample_rate, row
    seconds = [row.n_samples / row.sample_rate for row in rows]
    assert min(seconds) > 1.2
    assert max(seconds) < 9
    assert 3 < np.mean(seconds) < 5


def test_speech_lies_in_the_voice_band(corpus: tuple[Path, list[Recording]]) -> None:
    folder, rows = corpus
    for row in rows[::3]:
        power = np.abs(np.fft.rfft(waveform(folder, row))) ** 2
        frequency = np.fft.rfftfreq(row.n_samples, 1 / row.sample_rate)
        assert power[(frequency > 50) & (frequency < 5000)].sum() > 0.9 * power.sum(), row


def test_an_utterance_is_the_same_alone_and_after_others() -> None:
    alone = espeak.speech("Six small boats waited for the tide.", VOICE)
    espeak.speech("Did you see three foxes?", espeak.Voice("de", "Alicia", 40, 60, 140))
    espeak.speech("A whole other sentence.", VOICE)
    assert espeak.speech("Six small boats waited for the tide.", VOICE).tobytes() == alone.tobytes()


def test_every_voice_and_language_speaks_the_same_each_time() -> None:
    variants = [variant for both in espeak.VARIANTS.values() for pool in both for variant in pool]
    languages = espeak.ENGLISH + espeak.OTHERS
    pairs = [(variant, languages[index % len(languages)]) for index, variant in enumerate(variants)]

    def spoken_by_all() -> dict[tuple[str, str], np.ndarray]:
        return {(v, lang): espeak.speech(sentences(lang)[0], espeak.Voice(lang, v, 50, 50, 160)) for v, lang in pairs}

    spoken, again = spoken_by_all(), spoken_by_all()
    assert all(spoken[pair].tobytes() == again[pair].tobytes() for pair in pairs)
    assert len({wave.tobytes() for wave in spoken.values()}) == len(pairs)
    for pair, wave in spoken.items():
        assert 1 < len(wave) / espeak.SAMPLE_RATE < 9, pair
        assert np.abs(wave).max() < 0.99, f"{pair} is clipped by the library"


def test_equal_bytes_for_any_number_of_jobs(tmp_path: Path) -> None:
    assert made(tmp_path / "one", n_jobs=1)[1] == made(tmp_path / "two", n_jobs=2)[1]


def test_more_speakers_and_utterances_change_no_other(tmp_path: Path) -> None:
    few_folder, few = made(tmp_path / "few")
    more_folder, more = made(tmp_path / "more", n_speakers=8, n_utterances=4)
    found = {row.id: row for row in more}
    for row in few:
        other = found[row.id]
        assert (other.split, other.label, other.start) == (row.split, row.label, row.start)
        np.testing.assert_array_equal(waveform(more_folder, other), waveform(few_folder, row))


def test_speakers_differ_and_their_variants_stay_in_one_split() -> None:
    for n_speakers in (3, 40, 300):
        found = espeak.speakers(settings(n_speakers=n_speakers, valid_share=0.15))
        assert len({speaker.voice for speaker in found}) == n_speakers
        variants = [{speaker.voice.variant for speaker in found if speaker.split == split} for split in SPLITS]
        assert all(variants)
        assert sum(map(len, variants)) == len(set.union(*variants))
        english = sum(speaker.voice.language in espeak.ENGLISH for speaker in found)
        assert abs(english - n_speakers / 2) <= 2


def test_another_seed_gives_other_voices() -> None:
    first, second = (espeak.speakers(settings(seed=seed)) for seed in (1, 2))
    assert not {speaker.voice for speaker in first} & {speaker.voice for speaker in second}


def test_a_speaker_reads_different_sentences(corpus: tuple[Path, list[Recording]]) -> None:
    folder, rows = corpus
    for group in {row.group for row in rows}:
        mine = [waveform(folder, row).tobytes() for row in rows if row.group == group]
        assert len(set(mine)) == len(mine)


def test_sentences_are_many_and_different() -> None:
    assert len(SENTENCES["en"]) >= 40
    for texts in SENTENCES.values():
        assert len(set(texts)) == len(texts) >= 16
        assert any(text.endswith("?") for text in texts)
    for language in espeak.ENGLISH + espeak.OTHERS:
        assert sentences(language)


@given(st.integers(3, 300), st.floats(0, 0.49), st.floats(0, 0.49))
def test_dealing_keeps_shares_and_earlier_items(n_items: int, valid_share: float, test_share: float) -> None:
    splits = dealt(n_items, valid_share, test_share)
    assert dealt(n_items + 1, valid_share, test_share)[:-1] == splits
    count = Counter(splits)
    shares = {"train": 1 - valid_share - test_share, "valid": valid_share, "test": test_share}
    for split, share in shares.items():
        assert count[split] >= 1
        assert abs(count[split] - n_items * share) <= 2.01


@pytest.mark.parametrize(("changed", "message"), [("nosuch", "variant 'nosuch'"), ("xx-yy", "language 'xx-yy'")])
def test_a_voice_that_is_missing_is_named(changed: str, message: str) -> None:
    voice = espeak.Voice("en-us", changed, 50, 50, 160) if changed == "nosuch" else espeak.Voice(changed, "f2", 50, 50, 160)
    with pytest.raises(espeak.EspeakError, match=message):
        espeak.speech("Good morning.", voice)
    assert len(espeak.speech("Good morning.", VOICE)) > 0


def test_a_library_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libespeak-ng.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
    with pytest.raises(espeak.EspeakError, match=r"libespeak-ng\.so.*Reinstall"):
        espeak.speech("Good morning.", VOICE)


def test_a_text_without_sound_is_refused() -> None:
    with pytest.raises(espeak.EspeakError, match="says nothing"):
        espeak.speech(" ", VOICE)


def test_a_library_in_use_elsewhere_is_refused() -> None:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0x8000)
    try:
        with pytest.raises(espeak.EspeakError, match="in use elsewhere"):
            espeak.speech("Good morning.", VOICE)
    finally:
        library.espeak_Terminate()
        espeak._unload(library)
    assert len(espeak.speech("Good morning.", VOICE)) > 0

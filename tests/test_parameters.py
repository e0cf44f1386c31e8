import copy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from specimens import law

from stages.core.parameter_file import ParameterError, read_parameters
from stages.core.parameters import Parameters, Stft

ROOT = Path(__file__).resolve().parent.parent
VALUES: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")


def changed(folder: Path, *changes: tuple[str, Any], remove: str = "") -> Path:
    values = copy.deepcopy(VALUES)
    for key, value in changes:
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    if remove:
        *sections, name = remove.split(".")
        section = values
        for part in sections:
            section = section[part]
        del section[name]
    YAML(typ="safe", pure=True).dump(values, folder / "params.yaml")
    return folder / "params.yaml"


def complaint(path: Path) -> str:
    with pytest.raises(ParameterError) as caught:
        read_parameters(path)
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert "\n" not in message
    return message


def test_the_file_in_the_repository_is_valid() -> None:
    assert read_parameters(ROOT / "params.yaml").model_dump() == VALUES


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("mix.n_trian", "n_train"),
        ("model.hiden", "hidden"),
        ("train.learningrate", "learning_rate"),
        ("mix.low_pass.cutof_hz", "cutoff_hz"),
        ("download.speech.espeak.n_speaker", "n_speakers"),
        ("download.noise.folder.splitcsv", "split_csv"),
        ("modell", "model"),
        ("runtime.n_job", "n_jobs"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(tmp_path: Path, key: str, meant: str) -> None:
    assert f"{key} is not a parameter; did you mean '{meant}'?" in complaint(changed(tmp_path, (key, 1)))


def test_a_key_like_no_other_is_named_with_those_there_are(tmp_path: Path) -> None:
    message = complaint(changed(tmp_path, ("audio.zzz", 1)))
    assert "audio.zzz is not a parameter; known are sample_rate" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("mix.n_train", "1400", "valid integer"),
        ("mix.n_train", 1400.5, "valid integer"),
        ("mix.n_train", True, "valid integer"),
        ("mix.n_train", None, "valid integer"),
        ("mix.n_train", [1], "valid integer"),
        ("train.learning_rate", "0.001", "valid number"),
        ("train.learning_rate", True, "valid number"),
        ("train.learning_rate", float("nan"), "finite number"),
        ("mix.seconds", float("inf"), "finite number"),
        ("model.bidirectional", "yes", "valid boolean"),
        ("model.bidirectional", 1, "valid boolean"),
        ("train.consistency", 1, "valid boolean"),
        ("model.cell", "rnn", "'gru', 'lstm' or 'mingru'"),
        ("model.network", "conv", "'stack' or 'bands'"),
        ("train.init_from", None, "valid string"),
        ("model.cell", 3, "'gru', 'lstm' or 'mingru'"),
        ("denoise.input", 5, "valid string"),
        ("evaluate.pairs", "data/pairs", "valid list"),
        ("mix.snr_db", 5, "valid list"),
        ("mix.low_pass", 0.5, "valid dictionary"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    message = complaint(changed(tmp_path, (key, value)))
    assert f"{key}: " in message
    assert expected in message
    assert f"found {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("audio.sample_rate", 7999),
        ("audio.sample_rate", 48001),
        ("mix.n_train", 0),
        ("mix.seed", -1),
        ("mix.seconds", 0.4),
        ("mix.seconds", 60.1),
        ("mix.snr_db", [-5]),
        ("mix.snr_db", [-5, 0, 5]),
        ("mix.snr_grid_db", []),
        ("model.layers", 17),
        ("model.n_bands", 0),
        ("train.crop_s", -1.0),
        ("train.snr_weight", -0.01),
        ("train.pesq_weight", -0.01),
        ("train.estoi_weight", -0.01),
        ("train.estoi_weight", 1e4),
        ("train.averaging", -0.1),
        ("train.averaging", 1.0),
        ("train.remix.probability", 1.5),
        ("train.remix.equalisation_db", -3.0),
        ("model.dropout", 1.0),
        ("model.compression", 0.0),
        ("model.compression", 1.1),
        ("train.learning_rate", 0.0),
        ("train.clip_norm", 0),
        ("train.warmup_share", 1.1),
        ("train.patience", 0),
        ("shard.n_mixtures", 0),
        ("download.speech.espeak.n_speakers", 2),
        ("download.noise.generated.n_recordings", 2),
        ("download.noise.generated.kinds", []),
        ("corpora.speech", []),
        ("denoise.input", ""),
        ("stft.hop_length", 0),
        ("stft.n_fft", 16384),
        ("evaluate.n_clean", -1),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path: Path, key: str, value: Any) -> None:
    message = complaint(changed(tmp_path, (key, value)))
    assert f"{key}: " in message
    assert "should" in message
    assert f"found {value!r}" in message


def test_a_value_in_a_list_is_named_with_its_place(tmp_path: Path) -> None:
    assert "mix.snr_db.1: " in complaint(changed(tmp_path, ("mix.snr_db", [0, 300])))
    assert "mix.n_noises.0: " in complaint(changed(tmp_path, ("mix.n_noises", [0, 2])))
    assert "corpora.speech.1: " in complaint(changed(tmp_path, ("corpora.speech", ["espeak", "vctk"])))


@pytest.mark.parametrize(
    "key",
    [
        "mix.snr_db",
        "mix.level_dbfs",
        "mix.n_noises",
        "mix.low_pass.cutoff_hz",
        "mix.speed.factor",
        "mix.clipping.excess_db",
        "mix.reverberation.drr_db",
        "train.remix.snr_db",
    ],
)
def test_a_range_that_is_upside_down_is_named(tmp_path: Path, key: str) -> None:
    values = {"mix.snr_db": [15, -5], "mix.level_dbfs": [-15, -35], "mix.n_noises": [2, 1]}
    values |= {"mix.speed.factor": [1.1, 0.9], "mix.clipping.excess_db": [9, 3]}
    values |= {"mix.low_pass.cutoff_hz": [8000, 2000], "mix.reverberation.drr_db": [15, 0], "train.remix.snr_db": [3, 1]}
    low, high = sorted(values[key])
    message = complaint(changed(tmp_path, (key, values[key])))
    assert f"{key}: the range is upside down: the lower end comes first, as in [{low}, {high}]" in message


def test_a_range_of_one_value_is_none(tmp_path: Path) -> None:
    assert read_parameters(changed(tmp_path, ("mix.snr_db", [5, 5]))).mix.snr_db == [5, 5]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("stft.win_length", 1024)], "stft: win_length 1024 is longer than n_fft 512"),
        ([("stft.hop_length", 200)], "stft: win_length 512 must be 2, 3, 4 … times hop_length 200"),
        ([("stft.hop_length", 512)], "must be 2, 3, 4 … times hop_length 512"),
        ([("mix.low_pass.cutoff_hz", [0, 4000])], "mix.low_pass.cutoff_hz must lie above 0"),
        (
            [("mix.low_pass.probability", 0.1), ("mix.low_pass.cutoff_hz", [2000, 8001])],
            "not above 8000, half of audio.sample_rate; found [2000, 8001]",
        ),
        ([("mix.low_pass.probability", 0.1), ("audio.sample_rate", 8000)], "not above 4000, half of audio.sample_rate"),
        ([("train.crop_s", 0.03)], "train.crop_s 0.03 is shorter than a window (stft.win_length), which takes 0.032 s"),
        ([("mix.reverberation.rt60_s", [0, 1])], "mix.reverberation.rt60_s must be above 0"),
        ([("download.speech.espeak.valid_share", 0.8)], "download.speech.espeak: valid_share and test_share leave nothing"),
        ([("download.noise.folder.test_share", 0.9)], "download.noise.folder: valid_share and test_share leave nothing"),
        (
            [("model.network", "bands"), ("model.n_bands", 129)],
            "model.n_bands 129 is too many: a band takes at least 2 of the 257",
        ),
        (
            [("train.remix.speech_only_share", 0.6), ("train.remix.noise_only_share", 0.6)],
            "may not come to more than 1 together",
        ),
        (
            [("train.loss", "mse"), ("train.estoi_weight", 0.3)],
            "train: estoi_weight is a part of the compressed loss: set train.estoi_weight=0, or use train.loss=compressed",
        ),
        (
            [("train.loss", "bce"), ("model.target", "ibm"), ("train.pesq_weight", 0.1)],
            "train: pesq_weight is a part of the compressed loss: set train.pesq_weight=0, or use train.loss=compressed",
        ),
        (
            [("train.estoi_weight", 0.3), ("train.crop_s", 0.4)],
            "train: estoi_weight compares stretches of 0.4 s: set train.crop_s=0, or 0.5 at least",
        ),
        (
            [("train.loss", "mse"), ("train.consistency", True)],
            "train: consistency is about the spectrum of an estimate, and the loss mse judges what the network puts out",
        ),
        (
            [("train.loss", "bce"), ("model.target", "ibm"), ("train.consistency", True)],
            "the loss bce judges what the network puts out: set train.consistency=false, or use it with train.loss=compressed",
        ),
        ([("runtime.n_jobs", 0)], "n_jobs must be a number of processes from 1, or -1"),
        ([("corpora.speech", ["espeak", "espeak"])], "corpora.speech: 'espeak' is named twice"),
        ([("corpora.speech", ["demand"])], "'demand' is published for noise"),
        ([("download.noise.generated.kinds", ["rain", "rain"])], "download.noise.generated.kinds: 'rain' is named twice"),
    ],
)
def test_values_that_do_not_go_together_are_named(tmp_path: Path, changes: list[tuple[str, Any]], expected: str) -> None:
    assert expected in complaint(changed(tmp_path, *changes))


@pytest.mark.parametrize("key", ["mix", "model.hidden", "download.speech.espeak.seed", "runtime", "mix.reverberation.rt60_s"])
def test_what_is_missing_is_named(tmp_path: Path, key: str) -> None:
    assert f"{key} is missing" in complaint(changed(tmp_path, remove=key))


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    message = complaint(
        changed(tmp_path, ("mix.n_trian", 3), ("model.layers", "two"), ("train.patience", 0), remove="stft.hop_length")
    )
    for part in ("mix.n_trian", "model.layers", "train.patience", "stft.hop_length is missing"):
        assert part in message
    assert message.count("; ") >= 3


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    assert "params.yaml is missing: run from the root of the repository" in complaint(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"mix: [1, 2\n",
        b"mix: {n_train: 3\nmodel:\n",
        b"mix:\n\tn_train: 3\n",
        b"a: 1\na: 2\n",
        b"mix: &a [*b]\n",
        b"\xff\xfe\x00 nothing",
        b"key: 'never ended\n",
        b"--- 1\n--- 2\n",
    ],
)
def test_what_is_no_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    assert "is not valid YAML" in complaint(tmp_path / "params.yaml")


@pytest.mark.parametrize(("content", "found"), [("", "NoneType"), ("- a\n", "list"), ("just text\n", "str"), ("3\n", "int")])
def test_what_has_no_sections_is_named(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "params.yaml").write_text(content, encoding="utf-8")
    assert f"expected sections such as 'mix:' and 'model:', found {found}" in complaint(tmp_path / "params.yaml")


def test_a_section_without_keys_is_named(tmp_path: Path) -> None:
    assert "model: " in complaint(changed(tmp_path, ("model", None)))


@pytest.mark.parametrize(("text", "value"), [("3e-4", 3e-4), ("1E-3", 1e-3), (".5", 0.5), ("1", 1.0), ("5e-1", 0.5)])
def test_numbers_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: float) -> None:
    source = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "learning_rate: 0.002 " in source
    (tmp_path / "params.yaml").write_text(source.replace("learning_rate: 0.002 ", f"learning_rate: {text} "), encoding="utf-8")
    assert read_parameters(tmp_path / "params.yaml").train.learning_rate == value


@pytest.mark.parametrize("word", ["yes", "no", "on", "off"])
def test_words_are_no_booleans(tmp_path: Path, word: str) -> None:
    source = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(source.replace("bidirectional: false", f"bidirectional: {word}"), encoding="utf-8")
    assert f"model.bidirectional: input should be a valid boolean, found '{word}'" in complaint(tmp_path / "params.yaml")


def test_parameters_cannot_be_changed_once_read() -> None:
    parameters = read_parameters(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        parameters.mix.seed = 3  # type: ignore[misc]


def test_no_field_has_a_default() -> None:
    pending = [Parameters]
    while pending:
        for name, field in pending.pop().model_fields.items():
            assert field.is_required(), name
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                pending.append(field.annotation)


@law
@given(n_fft=st.integers(32, 600), win_length=st.integers(32, 600), hop_length=st.integers(1, 600))
def test_a_transform_is_accepted_exactly_when_its_frames_add_up(n_fft: int, win_length: int, hop_length: int) -> None:
    good = win_length <= n_fft and win_length % hop_length == 0 and win_length >= 2 * hop_length
    try:
        Stft(n_fft=n_fft, win_length=win_length, hop_length=hop_length)
    except ValueError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize(
    "name", ["corpora.rooms", "evaluate.pairs", "download.speech.folder.exclude", "download.noise.folder.exclude"]
)
def test_a_list_can_be_filled_and_emptied_again_for_experiments(tmp_path: Path, name: str) -> None:
    # As 'dvc exp run -S' does it: a comment behind the list would swallow the line that comes after it.
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    for value in ("[a,b]", "[]", "[c]", "[]"):
        apply_overrides(path, [f"{name}={value}"])
    assert YAML(typ="safe", pure=True).load(path) == VALUES

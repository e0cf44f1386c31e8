"""params.yaml as strict, typed objects: unknown keys, wrong types and wrong ranges are refused before any work starts.

No field has a default, so a result depends on nothing but the values in params.yaml, which DVC tracks. This is why the
module may be shared by all stages without being among their dependencies.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stages.core.corpora.names import NoiseLabel, NoiseName, RoomsName, SpeechName


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError(f"the range is upside down: the lower end comes first, as in [{values[1]:g}, {values[0]:g}]")
    return values


def _known_once(values: list[str]) -> list[str]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"'{value}' is named twice")
    return values


Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Decibels = Annotated[float, Field(ge=-200, le=200)]
Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
DecibelRange = Annotated[list[Decibels], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
NoiseKind = Literal["white", "pink", "brown", "hum", "fan", "babble", "keyboard", "rain", "engine", "siren", "bursts"]


class Section(BaseModel):
    """A section of params.yaml: every key must be there, no other may be, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Corpora(Section):
    """Which corpora are used, by name."""

    speech: Annotated[list[SpeechName], Field(min_length=1), AfterValidator(_known_once)]
    noise: Annotated[list[NoiseName], Field(min_length=1), AfterValidator(_known_once)]
    rooms: Annotated[list[RoomsName], AfterValidator(_known_once)]


class Espeak(Section):
    """Speech by eSpeak NG."""

    seed: Seed
    n_speakers: Annotated[int, Field(ge=3, le=300)]
    n_utterances: Annotated[int, Field(ge=1, le=1000)]
    valid_share: Share
    test_share: Share


class Generated(Section):
    """Synthetic noise."""

    seed: Seed
    kinds: Annotated[list[NoiseKind], Field(min_length=1), AfterValidator(_known_once)]
    n_recordings: Annotated[int, Field(ge=3, le=1000)]
    seconds: Annotated[float, Field(ge=1, le=600)]
    valid_share: Share
    test_share: Share


class Folder(Section):
    """Any folder of audio; `group` and `label` are regular expressions with one group, searched in the relative path."""

    path: Annotated[str, Field(min_length=1)]
    group: str
    label: str
    exclude: list[str]
    split_csv: Annotated[str, Field(min_length=1)]
    seed: Seed
    valid_share: Share
    test_share: Share


class PublishedSpeech(Section):
    """How the speakers of published corpora are split."""

    seed: Seed
    valid_share: Share
    test_share: Share


class PublishedNoise(Section):
    """What is taken of published corpora of noise, and how their recordings are split."""

    seed: Seed
    valid_share: Share
    test_share: Share
    leave_out: Annotated[list[NoiseLabel], AfterValidator(_known_once)]


class SpeechCorpora(Section):
    """How the speech corpora are made."""

    espeak: Espeak
    folder: Folder
    published: PublishedSpeech


class NoiseCorpora(Section):
    """How the noise corpora are made."""

    generated: Generated
    folder: Folder
    published: PublishedNoise


class Download(Section):
    """How each corpus is obtained."""

    speech: SpeechCorpora
    noise: NoiseCorpora


class Audio(Section):
    """What all stages agree on about waveforms."""

    sample_rate: Annotated[int, Field(ge=8000, le=48000)]


class Stft(Section):
    """The short-time Fourier transform, in samples."""

    n_fft: Annotated[int, Field(ge=32, le=8192)]
    win_length: Annotated[int, Field(ge=32, le=8192)]
    hop_length: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if self.win_length % self.hop_length or self.win_length < 2 * self.hop_length:
            raise ValueError(
                f"win_length {self.win_length} must be 2, 3, 4 … times hop_length {self.hop_length}, "
                "or the frames do not add up to the waveform again"
            )
        return self


class LowPass(Section):
    """Band limiting of mixtures."""

    probability: Share
    cutoff_hz: Range


class Reverberation(Section):
    """Synthetic reverberation of the speech."""

    probability: Share
    rt60_s: Range
    drr_db: DecibelRange


class Mix(Section):
    """Mixtures of speech and noise."""

    seed: Seed
    n_train: Count
    n_valid: Count
    n_test: Count
    seconds: Annotated[float, Field(ge=0.5, le=60)]
    snr_db: DecibelRange
    snr_grid_db: Annotated[list[Decibels], Field(min_length=1)]
    n_noises: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
    level_dbfs: Annotated[
        list[Annotated[float, Field(ge=-60, le=-6)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
    ]
    short_noise: Literal["refuse", "repeat"]
    low_pass: LowPass
    reverberation: Reverberation


class Shard(Section):
    """Spectrogram shards."""

    n_mixtures: Count


class Model(Section):
    """The network."""

    target: Literal["magnitude", "subtraction", "irm", "ibm", "crm"]
    cell: Literal["gru", "lstm"]
    layers: Annotated[int, Field(ge=1, le=16)]
    hidden: Annotated[int, Field(ge=1, le=4096)]
    bidirectional: bool
    dropout: Annotated[float, Field(ge=0, lt=1)]
    compression: Annotated[float, Field(ge=0.1, le=1)]


class Train(Section):
    """The training."""

    seed: Seed
    loss: Literal["mse", "bce", "compressed"]
    n_epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup_share: Share
    final_learning_rate_share: Share
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    patience: Count


class Evaluate(Section):
    """The scores."""

    pairs: list[str]
    n_clean: Annotated[int, Field(ge=0)]


class Denoise(Section):
    """Folders of recordings."""

    input: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]


class Runtime(Section):
    """What steers the machine and may not change a result."""

    n_jobs: int
    device: Literal["auto", "cpu", "cuda", "mps"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_jobs < 1 and self.n_jobs != -1:
            raise ValueError("n_jobs must be a number of processes from 1, or -1 for one on each core")
        return self


_LOSSES = {
    "magnitude": ("mse", "compressed"),
    "subtraction": ("mse", "compressed"),
    "irm": ("mse", "compressed"),
    "ibm": ("bce",),
    "crm": ("mse", "compressed"),
}
_LOSS_REASONS = {
    "bce": "binary cross-entropy scores yes-or-no decisions, which only the binary mask (ibm) makes",
    "mse": "a squared error on yes-or-no decisions has vanishing gradients; the binary mask is trained with bce",
    "compressed": "a thresholded mask has no gradient; the binary mask is trained with bce",
}


class Parameters(Section):
    """The whole of params.yaml."""

    corpora: Corpora
    download: Download
    audio: Audio
    stft: Stft
    mix: Mix
    shard: Shard
    model: Model
    train: Train
    evaluate: Evaluate
    denoise: Denoise
    runtime: Runtime

    @model_validator(mode="after")
    def _check(self) -> Self:
        allowed = _LOSSES[self.model.target]
        if self.train.loss not in allowed:
            raise ValueError(
                f"train.loss {self.train.loss} does not go with model.target {self.model.target}: "
                f"{_LOSS_REASONS[self.train.loss]}; use train.loss={' or '.join(allowed)}"
            )
        for name, corpus in (
            ("speech.espeak", self.download.speech.espeak),
            ("speech.folder", self.download.speech.folder),
            ("speech.published", self.download.speech.published),
            ("noise.generated", self.download.noise.generated),
            ("noise.folder", self.download.noise.folder),
            ("noise.published", self.download.noise.published),
        ):
            if corpus.valid_share + corpus.test_share >= 1:
                raise ValueError(f"download.{name}: valid_share and test_share leave nothing to train on")
        if self.mix.low_pass.cutoff_hz[0] <= 0 or self.mix.low_pass.cutoff_hz[1] > self.audio.sample_rate / 2:
            raise ValueError("mix.low_pass.cutoff_hz must lie above 0 and not above half of audio.sample_rate")
        if self.mix.reverberation.rt60_s[0] <= 0:
            raise ValueError("mix.reverberation.rt60_s must be above 0 seconds")
        return self

"""params.yaml as strict, typed objects: unknown keys, wrong types and wrong ranges are refused before any work starts.

No field has a default, so a result depends on nothing but the values in params.yaml, which DVC tracks. This is why the
module may be shared by all stages without being among their dependencies.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stages.core.corpora.names import NoiseLabel, NoiseName, RoomsName, SpeechName
from stages.core.sections import (
    Count,
    CountRange,
    DecibelRange,
    Decibels,
    ExcessRange,
    FactorRange,
    LevelRange,
    Range,
    Section,
    Seed,
    Share,
    known_once,
)
from stages.core.training_parameters import Train

EvenlyBy = Literal["recording", "second", "label"]
NoiseKind = Literal["white", "pink", "brown", "hum", "fan", "babble", "keyboard", "rain", "engine", "siren", "bursts"]


class Corpora(Section):
    """Which corpora are used, by name."""

    speech: Annotated[list[SpeechName], Field(min_length=1), AfterValidator(known_once)]
    noise: Annotated[list[NoiseName], Field(min_length=1), AfterValidator(known_once)]
    rooms: Annotated[list[RoomsName], AfterValidator(known_once)]


class Shares(Section):
    """Which speakers or recordings of a corpus go to which split."""

    seed: Seed
    valid_share: Share
    test_share: Share

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share and test_share leave nothing to train on")
        return self


class Espeak(Shares):
    """Speech by eSpeak NG."""

    n_speakers: Annotated[int, Field(ge=3, le=300)]
    n_utterances: Annotated[int, Field(ge=1, le=1000)]


class Generated(Shares):
    """Synthetic noise."""

    kinds: Annotated[list[NoiseKind], Field(min_length=1), AfterValidator(known_once)]
    n_recordings: Annotated[int, Field(ge=3, le=1000)]
    seconds: Annotated[float, Field(ge=1, le=600)]


class Folder(Shares):
    """Any folder of audio; `group` and `label` are regular expressions with one group, searched in the relative path."""

    path: Annotated[str, Field(min_length=1)]
    group: str
    label: str
    exclude: list[str]
    split_csv: Annotated[str, Field(min_length=1)]


class PublishedNoise(Shares):
    """What is taken of published corpora of noise, and how their recordings are split."""

    leave_out: Annotated[list[NoiseLabel], AfterValidator(known_once)]


class SpeechCorpora(Section):
    """How the speech corpora are made."""

    espeak: Espeak
    folder: Folder
    published: Shares


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


class Speed(Section):
    """Speech made faster or slower."""

    probability: Share
    factor: FactorRange


class Clipping(Section):
    """Mixtures that were recorded too loud."""

    probability: Share
    excess_db: ExcessRange


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
    n_noises: CountRange
    level_dbfs: LevelRange
    speech_evenly_by: EvenlyBy
    noise_evenly_by: EvenlyBy
    short_noise: Literal["refuse", "repeat"]
    speed: Speed
    low_pass: LowPass
    reverberation: Reverberation
    clipping: Clipping


class Shard(Section):
    """Spectrogram shards."""

    n_mixtures: Count


class Model(Section):
    """The network."""

    network: Literal["stack", "bands"]
    n_bands: Annotated[int, Field(ge=1, le=512)]
    target: Literal["magnitude", "subtraction", "irm", "ibm", "crm"]
    cell: Literal["gru", "lstm", "mingru"]
    layers: Annotated[int, Field(ge=1, le=16)]
    hidden: Annotated[int, Field(ge=1, le=4096)]
    bidirectional: bool
    dropout: Annotated[float, Field(ge=0, lt=1)]
    compression: Annotated[float, Field(ge=0.1, le=1)]


class Evaluate(Section):
    """The scores."""

    pairs: Annotated[list[str], AfterValidator(known_once)]
    n_clean: Annotated[int, Field(ge=0)]


class Denoise(Section):
    """Folders of recordings."""

    input: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    engine: Literal["onnx", "torch"]
    attenuation_limit_db: Annotated[float, Field(ge=0, le=200)] | None
    mix: Share


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
        if self.model.network == "bands" and self.model.n_bands > (self.stft.n_fft // 2 + 1) // 2:
            raise ValueError(
                f"model.n_bands {self.model.n_bands} is too many: a band takes at least 2 of the "
                f"{self.stft.n_fft // 2 + 1} bins that stft.n_fft {self.stft.n_fft} gives"
            )
        lowest, highest = self.mix.low_pass.cutoff_hz
        if lowest <= 0 or (self.mix.low_pass.probability and highest > self.audio.sample_rate / 2):
            raise ValueError(
                f"mix.low_pass.cutoff_hz must lie above 0 and not above {self.audio.sample_rate / 2:g}, half of "
                f"audio.sample_rate; found [{lowest:g}, {highest:g}]"
            )
        if 0 < self.train.crop_s < self.stft.win_length / self.audio.sample_rate:
            raise ValueError(
                f"train.crop_s {self.train.crop_s:g} is shorter than a window (stft.win_length), which takes "
                f"{self.stft.win_length / self.audio.sample_rate:g} s; 0 is all of each mixture"
            )
        if self.mix.reverberation.rt60_s[0] <= 0:
            raise ValueError("mix.reverberation.rt60_s must be above 0 seconds")
        return self

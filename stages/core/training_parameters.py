"""The section `train` of params.yaml, as strict as the others."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.core.sections import Count, DecibelRange, Section, Seed, Share

# A piece in which there is at least one stretch of extended STOI.
_SHORTEST_S = 0.5


class Remix(Section):
    """Mixtures put together anew while training."""

    probability: Share
    snr_db: DecibelRange
    speech_only_share: Share
    noise_only_share: Share
    equalisation_db: Annotated[float, Field(ge=0, le=40)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.speech_only_share + self.noise_only_share > 1:
            raise ValueError("speech_only_share and noise_only_share may not come to more than 1 together")
        return self


class Train(Section):
    """The training."""

    seed: Seed
    init_from: str
    loss: Literal["mse", "bce", "compressed"]
    snr_weight: Annotated[float, Field(ge=0)]
    pesq_weight: Annotated[float, Field(ge=0, le=1000)]
    estoi_weight: Annotated[float, Field(ge=0, le=1000)]
    consistency: bool
    n_epochs: Count
    batch_size: Count
    precision: Literal["auto", "float32", "bfloat16"]
    optimizer: Literal["adamw", "muon"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup_share: Share
    final_learning_rate_share: Share
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    averaging: Annotated[float, Field(ge=0, lt=1)]
    patience: Count
    crop_s: Annotated[float, Field(ge=0, le=60)]
    remix: Remix

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.consistency and self.loss != "compressed":
            raise ValueError(
                f"consistency is about the spectrum of an estimate, and the loss {self.loss} judges what the network puts out: "
                "set train.consistency=false, or use it with train.loss=compressed"
            )
        for name, weight in (("pesq_weight", self.pesq_weight), ("estoi_weight", self.estoi_weight)):
            if weight and self.loss != "compressed":
                raise ValueError(f"{name} is a part of the compressed loss: set train.{name}=0, or use train.loss=compressed")
        if self.estoi_weight and 0 < self.crop_s < _SHORTEST_S:
            raise ValueError(f"estoi_weight compares stretches of 0.4 s: set train.crop_s=0, or {_SHORTEST_S} at least")
        return self

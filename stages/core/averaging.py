"""Averaging of weights: those of single steps lie around a better place than any of them reaches (Polyak and Juditsky 1992)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stages.core.denoiser import Denoiser


class AveragedDenoiser(AveragedModel):
    """A copy of a denoiser with an exponential moving average of its weights; `update_parameters` follows each step.

    The decay is that of `_warm_decay`, and the buffers are always those of the denoiser.
    """

    module: Denoiser

    def __init__(self, denoiser: Denoiser, decay: float, device: torch.device) -> None:
        """The weights of the first update are taken as they are."""
        super().__init__(denoiser, device, multi_avg_fn=_moving_average(decay))


def _moving_average(decay: float) -> Callable[..., None]:
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], n_averaged: Any) -> None:
        get_ema_multi_avg_fn(_warm_decay(decay, int(n_averaged)))(averaged, current, n_averaged)

    return update


def _warm_decay(decay: float, n_averaged: int) -> float:
    """The share that the average keeps, lower after few steps: the first weights would stay in it for 1 / (1 - decay) steps."""
    return min(decay, (1 + n_averaged) / (10 + n_averaged))

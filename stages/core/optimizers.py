"""What turns gradients into steps."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from stages.core.training_parameters import Train


def optimizers(network: nn.Module, settings: Train) -> list[Optimizer]:
    """AdamW (Loshchilov and Hutter 2019) for all weights; or Muon (Jordan et al. 2024) for matrices and AdamW for the rest.

    Muon's steps are scaled to the size of AdamW's, so that one learning rate is right for both. Its matrices are the
    recurrences and the linear layers, but no biases and no weights that each band has for itself.
    """
    weights = list(network.parameters())
    matrices = [weight for weight in weights if weight.dim() == 2 and min(weight.shape) > 1]
    if settings.optimizer == "adamw" or not matrices:
        return [AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in weights if id(weight) not in chosen]
    return [
        Muon(matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=settings.learning_rate, weight_decay=settings.weight_decay),
    ]

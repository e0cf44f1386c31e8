"""Training that can be killed at any moment: after each epoch all that it needs to go on lies in one file."""

import math
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stages.core.averaging import AveragedDenoiser
from stages.core.denoiser import Denoiser
from stages.core.errors import DenoisingError
from stages.core.files import written
from stages.core.losses import LOSSES, Batch
from stages.core.optimizers import optimizers
from stages.core.remixing import remixed
from stages.core.seeds import generator
from stages.core.shards import ShardReader
from stages.core.training_parameters import Train

Weights = dict[str, Tensor]
# On the CPU a batch is worked on in this many parts side by side, one thread each. A recurrence is many small products that
# threads inside an operation only slow down: at 16 mixtures of 4 s, a step of 2 x 256 units took 0.36 s on one thread, 0.5 s
# on two, and two steps side by side took as long as one. The number is fixed so that the sums, and so the weights, are the
# same on any number of cores.
_CPU_PARTS = 2
# Mixtures whose features are measured before the first step.
_STANDARDISING = 128


class TrainingError(DenoisingError):
    """A training that cannot go on."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to; losses are means over mixtures, the SNR (dB) is that of validation spectra."""

    epoch: int
    learning_rate: float
    train_loss: float
    valid_loss: float
    valid_snr_db: float


@dataclass
class Progress:
    """Where a training stands after a whole number of epochs."""

    epochs: list[Epoch] = field(default_factory=list)
    best: Weights = field(default_factory=dict)

    @property
    def best_epoch(self) -> Epoch:
        """The epoch with the lowest validation loss; the first of equals."""
        return min(self.epochs, key=lambda epoch: epoch.valid_loss)


class Trainer:
    """Trains one denoiser on one device from shards, epoch by epoch."""

    def __init__(
        self, denoiser: Denoiser, settings: Train, train: ShardReader, valid: ShardReader, device: torch.device
    ) -> None:
        """Puts the denoiser on the device; its weights are those of epoch 0."""
        self.denoiser, self.settings, self.train, self.valid, self.device = (
            denoiser.to(device),
            settings,
            train,
            valid,
            device,
        )
        self.average = AveragedDenoiser(denoiser, settings.averaging, device) if settings.averaging else None
        # Validated and kept; what the steps change is always the denoiser itself.
        self.judged = self.average.module if self.average else self.denoiser
        self.loss = LOSSES[settings.loss](settings, denoiser.target, denoiser.stft, denoiser.sample_rate)
        self.optimizers = optimizers(denoiser, settings)
        self.rounds_products = settings.precision == "bfloat16" or (settings.precision == "auto" and device.type == "cuda")
        self.steps_per_epoch = math.ceil(len(train) / settings.batch_size)
        self.progress = Progress()
        torch.set_num_threads(1)
        self.n_parts = _CPU_PARTS if device.type == "cpu" else 1
        # Dropout draws from one generator, whose order two threads would make a matter of luck.
        n_workers = 1 if denoiser.model.dropout else self.n_parts
        # A new thread does not know the number above until its first loop over elements. Fourier transforms before that round
        # differently, and which thread makes the first is a matter of luck too.
        self._pool = ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,))

    def run(self, state: Path) -> Progress:
        """Trains up to the last epoch or until patience ends, going on from `state` where that file is there.

        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        values = _saved(state)
        if values:
            self._resume(values)
            tqdm.write(f"{len(self.progress.epochs)} of at most {self.settings.n_epochs} epochs were made before: {state}")
        elif not self.settings.init_from:  # weights from elsewhere know their own statistics
            order = generator(self.settings.seed, "standardise").permutation(len(self.train))[:_STANDARDISING]
            self.denoiser.standardise(batch.mixture for batch in self._batches(self.train, order.tolist()))
        done = len(self.progress.epochs) * self.steps_per_epoch
        total = self.settings.n_epochs * self.steps_per_epoch
        with tqdm(total=total, initial=done, desc="training", unit="step", disable=None) as bar:
            while not self._finished():
                epoch = self._epoch(len(self.progress.epochs), bar)
                self.progress.epochs.append(epoch)
                if self.progress.best_epoch is epoch:
                    self.progress.best = {
                        name: weight.detach().cpu().clone() for name, weight in self.judged.state_dict().items()
                    }
                self._save(state)
                tqdm.write(self._told(epoch))
        self.denoiser.load_state_dict(self.progress.best)
        self.denoiser.eval()
        return self.progress

    def _told(self, epoch: Epoch) -> str:
        """A line for people, with the numbers that the table of curves has."""
        best = ", the best so far" if self.progress.best_epoch is epoch else ""
        return (
            f"epoch {epoch.epoch}: training loss {epoch.train_loss:.4f}, "
            f"validation loss {epoch.valid_loss:.4f}, validation SNR {epoch.valid_snr_db:.2f} dB{best}"
        )

    def _finished(self) -> bool:
        epochs = self.progress.epochs
        if len(epochs) >= self.settings.n_epochs:
            return True
        return bool(epochs) and len(epochs) - 1 - self.progress.best_epoch.epoch >= self.settings.patience

    def _epoch(self, number: int, bar: "tqdm[Any]") -> Epoch:
        # Seeding anew makes dropout a function of the epoch, so a resumed training need not restore generators.
        torch.manual_seed(int(generator(self.settings.seed, "dropout", number).integers(2**62)))
        order = generator(self.settings.seed, "order", number).permutation(len(self.train))
        self.denoiser.train()
        total, rate = 0.0, 0.0
        for place, batch in enumerate(self._batches(self.train, order.tolist(), epoch=number)):
            rate = self._learning_rate(number * self.steps_per_epoch + place)
            total += self._step(batch, rate) * len(batch.mixture)
            bar.update()
        valid_loss, valid_snr_db = self._validated()
        for name, loss in (("training", total), ("validation", valid_loss)):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The {name} loss became {loss} in epoch {number}: "
                    f"lower train.learning_rate (now {self.settings.learning_rate:g}) or the weights of the parts of the loss."
                )
        return Epoch(number, rate, total / len(self.train), valid_loss, valid_snr_db)

    def _step(self, batch: Batch, rate: float) -> float:
        for group in chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = rate
        parts = [Batch(*tensors) for tensors in zip(*(tensor.chunk(self.n_parts) for tensor in batch), strict=True)]
        shares = [len(part.mixture) / len(batch.mixture) for part in parts]
        results = list(self._pool.map(self._gradients, parts, shares))
        for weight, *gradients in zip(self.denoiser.parameters(), *(found for _, found in results), strict=True):
            weight.grad = torch.stack(gradients).sum(0) if len(gradients) > 1 else gradients[0]
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.settings.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average:
            self.average.update_parameters(self.denoiser)
        return sum(loss for loss, _ in results)

    def _gradients(self, part: Batch, share: float) -> tuple[float, tuple[Tensor, ...]]:
        """The loss of a part of a batch, times its share of the batch, and its gradient."""
        loss = share * self.loss(self._raw(self.denoiser, part), part)
        return float(loss.detach()), torch.autograd.grad(loss, list(self.denoiser.parameters()))

    def _raw(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        # Spectra and losses stay float32 everywhere. Rounded weights are not kept for the next use: all threads share them, and
        # the first that has done with them throws them away, in the midst of what another is doing.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.rounds_products, cache_enabled=False):
            raw: Tensor = denoiser(batch.mixture)[0]
        return raw.float()

    @torch.inference_mode()
    def _validated(self) -> tuple[float, float]:
        """The mean loss and the mean SNR (dB) over the validation mixtures."""
        self.judged.eval()
        losses, snrs = 0.0, []
        for batch in self._batches(self.valid, list(range(len(self.valid)))):
            raw = self._raw(self.judged, batch)
            losses += float(self.loss(raw, batch)) * len(batch.mixture)
            estimate = self.denoiser.target.estimated(raw, batch.mixture)
            error = ((estimate - batch.speech) * batch.level).abs().square().sum((1, 2))
            power = (batch.speech * batch.level).abs().square().sum((1, 2))
            # One of a mixture without speech would be infinite, and the mean with it.
            snrs += (10 * torch.log10(power / error.clamp_min(1e-20)))[power > 0].tolist()
        if not snrs:
            raise TrainingError("No validation mixture holds speech, nothing to judge by; run 'dvc repro -f shard'.")
        return losses / len(self.valid), float(np.mean(snrs))

    def _batches(self, reader: ShardReader, order: Sequence[int], epoch: int | None = None) -> Iterator[Batch]:
        """Batches in the given order, remixed if for an `epoch`; the next is read while this one is worked on."""
        size = self.settings.batch_size
        parts = [list(order[first : first + size]) for first in range(0, len(order), size)]
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = pool.submit(self._read, reader, parts[0], epoch, 0)
            for place in range(len(parts)):
                current = waiting.result()
                if place + 1 < len(parts):
                    waiting = pool.submit(self._read, reader, parts[place + 1], epoch, place + 1)
                yield Batch(*(tensor.to(self.device, non_blocking=True) for tensor in current))

    def _read(self, reader: ShardReader, places: list[int], epoch: int | None, number: int) -> Batch:
        both = reader.batch(places)
        if epoch is not None:
            both = self._augmented(both, generator(self.settings.seed, "remix", epoch, number))
        level, _ = self.denoiser.levels(both[:, :, 0])
        both = both / level[:, :, None]
        mixture, speech = torch.from_numpy(both).unbind(2)
        return Batch(mixture.contiguous(), speech.contiguous(), torch.from_numpy(level))

    def _augmented(self, both: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The batch remixed, and cut: short pieces cost less, and the more steps they leave time for teach more."""
        if self.settings.remix.probability:
            both = remixed(both, random, self.settings.remix)
        n_frames = round(self.settings.crop_s * self.denoiser.frames_per_second)
        if not 0 < n_frames < both.shape[1]:
            return both
        start = int(random.integers(both.shape[1] - n_frames + 1))
        return both[:, start : start + n_frames]

    def _learning_rate(self, step: int) -> float:
        """Rises in a line to the highest rate, then falls along half a cosine (Loshchilov and Hutter 2017)."""
        total = self.settings.n_epochs * self.steps_per_epoch
        warmup = max(1, round(total * self.settings.warmup_share))
        if step < warmup:
            return self.settings.learning_rate * (step + 1) / warmup
        low = self.settings.final_learning_rate_share
        turn = (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
        return self.settings.learning_rate * (low + (1 - low) * turn)

    def _save(self, state: Path) -> None:
        values = {
            "epochs": [asdict(epoch) for epoch in self.progress.epochs],
            "best": self.progress.best,
            "weights": self.denoiser.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict() if self.average else {},
        }
        with written(state) as temporary:
            torch.save(values, temporary)

    def _resume(self, values: dict[str, Any]) -> None:
        self.denoiser.load_state_dict(values["weights"])
        for optimizer, state in zip(self.optimizers, values["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if self.average:
            self.average.load_state_dict(values["average"])
        self.progress = Progress([Epoch(**epoch) for epoch in values["epochs"]], values["best"])


def _saved(state: Path) -> dict[str, Any] | None:
    """What `Trainer` saved; None where there is nothing, or a file that a crash of the machine has damaged."""
    if not state.is_file():
        return None
    try:
        # PyTorch writes the sum of each part and checks none: weights that are wrong in a few places would be taken up. It
        # reads nothing of a part whose attributes, of which it writes none, make a folder of it.
        with ZipFile(state) as archive:
            whole = archive.testzip() is None and not any(part.external_attr for part in archive.infolist())
        values = torch.load(state, map_location="cpu", weights_only=True) if whole else None
    except (BadZipFile, RuntimeError, EOFError, KeyError, IndexError, OSError, ValueError, UnpicklingError, zlib.error):
        values = None
    if not isinstance(values, dict) or set(values) != {"epochs", "best", "weights", "optimizers", "average"}:
        print(f"{state} is damaged: training starts again")
        return None
    return values

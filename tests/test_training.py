import math
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from specimens import RATE, STFT, hiss, model, remix, stored_items, train, voiced

from stages.core.checkpoint import CheckpointError
from stages.core.denoiser import Denoiser
from stages.core.losses import Batch
from stages.core.network import n_weights
from stages.core.optimizers import optimizers
from stages.core.parameters import Model, Stft
from stages.core.shards import ShardError, ShardReader, write_index, write_shard
from stages.core.spectra import spectrogram
from stages.core.training import Progress, Trainer, TrainingError
from stages.core.training_parameters import Train
from stages.train import _key
from stages.train import run as run_stage

CPU = torch.device("cpu")
KINDS = [
    model(),
    model(cell="lstm", layers=2, dropout=0.5),
    model(target="crm", layers=2, dropout=0.2, bidirectional=True),
    model(network="bands", target="crm", layers=2),
    model(network="bands", cell="mingru", target="crm", bidirectional=True),
]


class PowerCutError(Exception):
    """What ends a training in the midst of an epoch."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten mixtures to train on and three to validate with, 0.1 s each."""
    folder = tmp_path_factory.mktemp("shards")
    for split, count in (("train", 10), ("valid", 3)):
        items = []
        for place in range(count):
            speech = voiced(1600, pitch=100 + 17.0 * place)
            pair = np.stack([speech + hiss(1600, place, 0.1), speech])
            mixture, clean = spectrogram(torch.from_numpy(pair), STFT).numpy()
            items.append((f"{split}-{place:06d}", mixture, clean))
        write_index(folder / split, write_shard(folder / split / "shard-00000.npy", stored_items(items)))
    return folder


def trainer(shards: Path, settings: Train, network: Model) -> Trainer:
    torch.manual_seed(settings.seed)
    denoiser = Denoiser(network, STFT, RATE)
    return Trainer(denoiser, settings, ShardReader(shards / "train"), ShardReader(shards / "valid"), CPU)


def trained(shards: Path, state: Path, settings: Train, network: Model) -> tuple[Progress, dict[str, torch.Tensor]]:
    made = trainer(shards, settings, network)
    progress = made.run(state)
    return progress, made.denoiser.state_dict()


def broken_off(shards: Path, state: Path, settings: Train, network: Model, n_epochs: int) -> None:
    """Leaves the state of a training that ended after some of its epochs."""
    part = trainer(shards, settings, network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_finished", lambda self: len(self.progress.epochs) == n_epochs)
        part.run(state)


def assert_equal(one: tuple[Progress, dict[str, torch.Tensor]], other: tuple[Progress, dict[str, torch.Tensor]]) -> None:
    assert [asdict(epoch) for epoch in one[0].epochs] == [asdict(epoch) for epoch in other[0].epochs]
    for weights, others in ((one[1], other[1]), (one[0].best, other[0].best)):
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("network", [KINDS[0], KINDS[-1]])
def test_rounded_products_are_the_same_in_every_training_and_nearly_the_exact_ones(
    shards: Path, tmp_path: Path, network: Model
) -> None:
    # Both threads round the weights; had they one store for them, every other training would end elsewhere.
    settings = train(precision="bfloat16", n_epochs=6)
    first = trained(shards, tmp_path / "a.pt", settings, network)
    assert_equal(first, trained(shards, tmp_path / "b.pt", settings, network))
    exact, _ = trained(shards, tmp_path / "c.pt", train(precision="float32", n_epochs=6), network)
    for one, other in zip(first[0].epochs, exact.epochs, strict=True):
        assert one.train_loss != other.train_loss
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.05)


@pytest.mark.parametrize("network", KINDS)
def test_the_same_training_gives_the_same_weights(shards: Path, tmp_path: Path, network: Model) -> None:
    first = trained(shards, tmp_path / "a.pt", train(), network)
    assert_equal(first, trained(shards, tmp_path / "b.pt", train(), network))
    other = trained(shards, tmp_path / "c.pt", train(seed=2), network)
    assert not torch.equal(first[1]["network.output.weight"], other[1]["network.output.weight"])


@pytest.mark.parametrize("network", KINDS)
@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_training_broken_off_goes_on_to_the_same_end(
    shards: Path, tmp_path: Path, network: Model, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trained(shards, tmp_path / "unbroken.pt", train(), network)
    n_steps = 0
    step = Trainer._step

    def cut(self: Trainer, batch: Batch, rate: float) -> float:
        nonlocal n_steps
        n_steps += 1
        if n_steps == stop:
            raise PowerCutError
        return step(self, batch, rate)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", cut)
        with pytest.raises(PowerCutError):
            trained(shards, tmp_path / "state.pt", train(), network)
    assert (tmp_path / "state.pt").is_file() == (stop > 3)
    torch.rand(7)  # a resumed run does not know where the generators stood
    assert_equal(unbroken, trained(shards, tmp_path / "state.pt", train(), network))


def test_a_training_stopped_after_every_epoch_goes_on_to_the_same_end(shards: Path, tmp_path: Path) -> None:
    settings, state = train(n_epochs=4), tmp_path / "state.pt"
    unbroken = trained(shards, tmp_path / "unbroken.pt", settings, KINDS[1])
    save = Trainer._save

    def cut(self: Trainer, path: Path) -> None:
        save(self, path)
        raise PowerCutError

    for n_epochs in range(1, 5):
        part = trainer(shards, settings, KINDS[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_save", cut)
            with pytest.raises(PowerCutError):
                part.run(state)
        assert len(part.progress.epochs) == n_epochs
    assert_equal(unbroken, trained(shards, state, settings, KINDS[1]))
    before = state.read_bytes()
    assert_equal(unbroken, trained(shards, state, settings, KINDS[1]))
    assert state.read_bytes() == before


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from stages.core.denoiser import Denoiser
from stages.core.parameters import Model, Stft
from stages.core.training_parameters import Train
from stages.core.shards import ShardReader
from stages.core.training import Trainer

steps, step = 0, Trainer._step

def killed(self, batch, rate):
    global steps
    steps += 1
    if steps == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, rate)

Trainer._step = killed
folder, (settings, network, stft) = Path(sys.argv[1]), sys.argv[3:]
settings = Train.model_validate_json(settings)
torch.manual_seed(settings.seed)
denoiser = Denoiser(Model.model_validate_json(network), Stft.model_validate_json(stft), 16000)
readers = [ShardReader(folder / split) for split in ("train", "valid")]
Trainer(denoiser, settings, *readers, torch.device("cpu")).run(Path(sys.argv[2]))
"""


def test_a_training_that_was_killed_goes_on_to_the_same_end(shards: Path, tmp_path: Path, repository: Path) -> None:
    state = tmp_path / "state" / "state.pt"
    texts = [section.model_dump_json() for section in (train(), KINDS[1], STFT)]
    command = [sys.executable, "-c", KILLED, str(shards), str(state), *texts]
    killed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert list(state.parent.iterdir()) == [state], "the state after the first epoch, and no file half written"
    unbroken = trained(shards, tmp_path / "unbroken.pt", train(), KINDS[1])
    assert_equal(unbroken, trained(shards, state, train(), KINDS[1]))


def test_the_stage_takes_up_its_own_state_only(shards: Path, tmp_path: Path) -> None:
    def outputs(settings: Train) -> list[bytes]:
        paths = [tmp_path / name for name in ("denoiser.safetensors", "train.json", "curves.csv")]
        run_stage(settings, model(), STFT, RATE, shards, *paths, tmp_path / "cache", CPU)
        return [path.read_bytes() for path in paths]

    with pytest.raises(ShardError, match="expected 65 bins"):
        run_stage(train(), model(), Stft(n_fft=128, win_length=128, hop_length=64), RATE, shards, *[tmp_path] * 4, CPU)
    first = outputs(train())
    (state,) = (tmp_path / "cache").rglob("state.pt")
    before = state.read_bytes()
    other = outputs(train(n_epochs=4))
    assert state.read_bytes() == before
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert other != first
    assert other[2].count(b"\n") == 5
    state.write_bytes(before)
    assert outputs(train()) == first


@pytest.mark.parametrize("damage", ["empty", "junk", "text", "half", "zeros", "a byte", "a folder"])
def test_a_damaged_state_is_not_taken_up(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    state = tmp_path / "state.pt"
    unbroken = trained(shards, state, train(), model())
    whole = state.read_bytes()
    # Between its parts the file has bytes that mean nothing.
    weight = max(unbroken[0].best.values(), key=torch.Tensor.numel).numpy().tobytes()
    middle = whole.index(weight) + len(weight) // 2
    # The last entry in the list of parts that is one of weights, and its attributes: that bit makes a folder of it.
    attributes = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"/data/2")) + 38
    state.write_bytes(
        {
            "empty": b"",
            "junk": b"abc" * 1000,
            "text": b"epochs: 3",
            "half": whole[:middle],
            "zeros": whole[:middle] + bytes(512) + whole[middle + 512 :],
            "a folder": whole[:attributes] + bytes([whole[attributes] | 16]) + whole[attributes + 1 :],
            "a byte": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        }[damage]
    )
    assert_equal(unbroken, trained(shards, state, train(), model()))
    assert f"{state} is damaged: training starts again" in capsys.readouterr().out


def test_validation_mixtures_without_speech_do_not_count(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "shards"))
    place = folder / "valid/shard-00000.npy"
    numbers, first = np.load(place), ShardReader(folder / "valid").entries[0]
    numbers[first.start : first.start + first.n_frames, 1] = 0
    np.save(place, numbers)
    progress, _ = trained(folder, tmp_path / "one.pt", train(n_epochs=1), model())
    assert math.isfinite(progress.epochs[0].valid_snr_db)
    numbers[:, 1] = 0
    np.save(place, numbers)
    with pytest.raises(TrainingError, match="No validation mixture holds speech"):
        trained(folder, tmp_path / "all.pt", train(n_epochs=1), model())


def test_every_setting_has_a_state_of_its_own(shards: Path, tmp_path: Path) -> None:
    def key(
        settings: Train | None = None,
        network: Model | None = None,
        stft: Stft = STFT,
        sample_rate: int = RATE,
        folder: Path = shards,
        device: str = "cpu",
    ) -> str:
        return _key(settings or train(), network or model(), stft, sample_rate, folder, torch.device(device))

    other = tmp_path / "other"
    for split in ("train", "valid"):
        (other / split).mkdir(parents=True)
        index = (shards / split / "index.csv").read_text(encoding="utf-8")
        (other / split / "index.csv").write_text(index.replace("train-000003", "train-000033"), encoding="utf-8")
    found = [
        key(),
        *(key(settings=train(**{name: value})) for name, value in {
            "seed": 2, "loss": "mse", "n_epochs": 4, "batch_size": 5, "learning_rate": 0.02, "warmup_share": 0.2,
            "final_learning_rate_share": 0.03, "weight_decay": 0.1, "clip_norm": 2.0, "patience": 6,
            "snr_weight": 0.1, "consistency": True, "averaging": 0.9,
            "remix": remix(probability=0.5), "init_from": str(other / "train" / "index.csv"),
        }.items()),
        *(key(network=model(**{name: value})) for name, value in {
            "network": "bands", "n_bands": 5, "target": "crm", "cell": "lstm", "layers": 2, "hidden": 9, "bidirectional": True,
            "dropout": 0.1, "compression": 0.5,
        }.items()),
        key(stft=Stft(n_fft=128, win_length=64, hop_length=32)),
        key(sample_rate=8000),
        key(folder=other),
        key(device="cuda"),
    ]  # fmt: skip
    assert len(set(found)) == len(found) == 29
    assert key() == found[0]


def test_every_epoch_is_told(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress, _ = trained(shards, tmp_path / "state.pt", train(), model())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(progress.epochs)
    for epoch, line in zip(progress.epochs, lines, strict=True):
        losses = f"training loss {epoch.train_loss:.4f}, validation loss {epoch.valid_loss:.4f}"
        assert line.startswith(f"epoch {epoch.epoch}: {losses}, validation SNR {epoch.valid_snr_db:.2f} dB")
    assert lines[0].endswith(", the best so far")


def test_training_lowers_the_loss(shards: Path, tmp_path: Path) -> None:
    epochs = trained(shards, tmp_path / "state.pt", train(n_epochs=12), model())[0].epochs
    assert [epoch.epoch for epoch in epochs] == list(range(12))
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].valid_loss < epochs[0].valid_loss
    assert epochs[-1].valid_snr_db > epochs[0].valid_snr_db


def test_the_weights_kept_are_those_of_the_best_epoch(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, after = iter([3.0, 1.0, 2.0, 4.0]), []
    made = trainer(shards, train(n_epochs=4), model())

    def validated(_: Trainer) -> tuple[float, float]:
        after.append({name: weight.clone() for name, weight in made.denoiser.state_dict().items()})
        return next(losses), 0.0

    monkeypatch.setattr(Trainer, "_validated", validated)
    progress = made.run(tmp_path / "state.pt")
    assert progress.best_epoch.epoch == 1
    assert not torch.equal(after[1]["network.output.weight"], after[3]["network.output.weight"])
    for name, weight in made.denoiser.state_dict().items():
        assert torch.equal(weight, after[1][name])
        assert torch.equal(progress.best[name], after[1][name])


def test_every_epoch_goes_on_in_the_schedule_of_the_rate(shards: Path, tmp_path: Path) -> None:
    made = trainer(shards, train(n_epochs=4), model())
    epochs = made.run(tmp_path / "state.pt").epochs
    last = [(number + 1) * made.steps_per_epoch - 1 for number in range(4)]
    assert [epoch.learning_rate for epoch in epochs] == [made._learning_rate(step) for step in last]
    assert len({epoch.learning_rate for epoch in epochs}) == 4


def test_training_stops_when_patience_ends(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.0, 1.5, 1.6, 1.7, 1.5, 0.1])
    monkeypatch.setattr(Trainer, "_validated", lambda _: (next(losses), 0.0))
    progress, _ = trained(shards, tmp_path / "state.pt", train(n_epochs=20, patience=3), model())
    assert [epoch.valid_loss for epoch in progress.epochs] == [3.0, 2.0, 2.0, 1.5, 1.6, 1.7, 1.5]
    assert progress.best_epoch.epoch == 3


def test_a_training_out_of_patience_does_not_go_on(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_validated", lambda _: (1.0, 0.0))
    settings = train(n_epochs=20, patience=1)
    assert len(trained(shards, tmp_path / "state.pt", settings, model())[0].epochs) == 2
    assert len(trained(shards, tmp_path / "state.pt", settings, model())[0].epochs) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(shards: Path, tmp_path: Path, value: float) -> None:
    made = trainer(shards, train(learning_rate=0.25), model())
    loss = made.loss
    made.loss = lambda *given: loss(*given) * value  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"training loss became (nan|inf|-inf) in epoch 0: lower .* \(now 0\.25\)"):
        made.run(tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


def test_a_validation_loss_that_is_no_number_is_an_error(shards: Path, tmp_path: Path) -> None:
    # As after a last step that was too large: the loss of the epoch was still a number.
    made = trainer(shards, train(), model())
    made._validated = lambda: (math.nan, math.nan)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="validation loss became nan in epoch 0"):
        made.run(tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("warmup_share", [0.0, 0.3, 1.0])
def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine(shards: Path, warmup_share: float) -> None:
    settings = train(n_epochs=10, warmup_share=warmup_share, final_learning_rate_share=0.1, learning_rate=0.5)
    made = trainer(shards, settings, model())
    total = 10 * made.steps_per_epoch
    rates = [made._learning_rate(step) for step in range(total)]
    top = max(1, round(total * warmup_share)) - 1
    assert rates[: top + 1] == pytest.approx(np.linspace(0, 0.5, top + 2)[1:])
    assert all(first >= second for first, second in zip(rates[top:], rates[top + 1 :], strict=False))
    if warmup_share < 1:
        assert 0.05 <= rates[-1] < 0.055
        middle = (top + 1 + total) // 2
        assert rates[middle] == pytest.approx(0.275, rel=0.1)


@pytest.mark.parametrize("network", [model(), model(layers=2, bidirectional=True)])
def test_a_step_on_parts_is_the_step_on_the_whole(shards: Path, network: Model) -> None:
    found = []
    for n_parts in (1, 2, 3):
        made = trainer(shards, train(batch_size=10, clip_norm=0.1), network)
        made.n_parts = n_parts
        batch = next(made._batches(made.train, list(range(7))))
        found.append((made._step(batch, 0.01), made.denoiser.network.output.weight.grad.clone()))  # type: ignore[union-attr]
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-6)


def test_batches_are_levelled_and_cover_the_order(shards: Path) -> None:
    made = trainer(shards, train(), model())
    order = [3, 1, 9, 0, 2]
    batches = list(made._batches(made.train, order))
    assert [len(batch.mixture) for batch in batches] == [4, 1]
    both = made.train.batch(order[:4])
    restored = (batches[0].mixture * batches[0].level).numpy()
    np.testing.assert_allclose(restored, both[:, :, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((batches[0].speech * batches[0].level).numpy(), both[:, :, 1], rtol=1e-5, atol=1e-6)
    power = batches[0].mixture.abs().square().mean((1, 2))
    assert ((power > 0.3) & (power < 3)).all()


AUGMENTED = {"crop_s": 0.05, "remix": remix(probability=0.7, speech_only_share=0.2, noise_only_share=0.2, equalisation_db=3.0)}


def test_remixed_and_cut_batches_are_those_of_their_epoch(shards: Path) -> None:
    made = trainer(shards, train(**AUGMENTED), model())
    order = list(range(10))
    n_frames = round(0.05 * made.denoiser.frames_per_second)

    def read(epoch: int | None) -> list[torch.Tensor]:
        return [batch.mixture for batch in made._batches(made.train, order, epoch)]

    first, again, other, plain = read(0), read(0), read(1), read(None)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert {batch.shape[1] for batch in first} == {n_frames}
    assert {batch.shape[1] for batch in plain} == {made.train.entries[0].n_frames}
    assert all(bool(batch.isfinite().all()) for batch in first)


def test_a_training_with_remixing_goes_on_to_the_same_end(shards: Path, tmp_path: Path) -> None:
    settings, state = train(n_epochs=3, **AUGMENTED), tmp_path / "state.pt"
    unbroken = trained(shards, tmp_path / "unbroken.pt", settings, KINDS[3])
    broken_off(shards, state, settings, KINDS[3], 2)
    assert_equal(unbroken, trained(shards, state, settings, KINDS[3]))
    plain = trained(shards, tmp_path / "plain.pt", train(n_epochs=3), KINDS[3])
    assert not torch.equal(plain[1]["network.norm.weight"], unbroken[1]["network.norm.weight"])


def test_the_average_is_that_of_the_weights_after_every_step(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(shards, train(n_epochs=5, averaging=0.3), model(dropout=0.2))
    made.denoiser.standardise(batch.mixture for batch in made._batches(made.train, [0, 1]))
    assert made.average is not None
    expected: dict[str, torch.Tensor] = {}
    for place, batch in enumerate(made._batches(made.train, [*range(10)] * 2)):
        made._step(batch, 0.01)
        decay = min(0.3, (1 + place) / (10 + place)) if place else 0.0
        for name, weight in made.denoiser.named_parameters():
            new = weight.detach().double()
            expected[name] = decay * expected[name] + (1 - decay) * new if place else new
    assert place == 4
    for name, weight in made.average.module.named_parameters():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(weight, made.denoiser.state_dict()[name])
    for name, buffer in made.average.module.named_buffers():
        assert torch.equal(buffer, made.denoiser.state_dict()[name])
    assert not made.average.module.feature_mean.eq(0).any()


@pytest.mark.parametrize("network", KINDS)
def test_muon_takes_the_matrices_and_adamw_all_else(network: Model) -> None:
    denoiser = Denoiser(network, STFT, RATE)
    muon, adamw = (
        [weight for group in optimizer.param_groups for weight in group["params"]]
        for optimizer in optimizers(denoiser, train(optimizer="muon"))
    )
    assert {weight.dim() for weight in muon} == {2}
    assert sum(weight.numel() for weight in (*muon, *adamw)) == n_weights(denoiser)
    names = {id(weight): name for name, weight in denoiser.named_parameters()}
    assert any("weight_hh" in names[id(weight)] or "gates" in names[id(weight)] for weight in muon)
    assert not any("bias" in names[id(weight)] for weight in muon)


@pytest.mark.parametrize("network", [KINDS[0], KINDS[3]])
def test_muon_goes_on_to_the_same_end_and_elsewhere_than_adamw(shards: Path, tmp_path: Path, network: Model) -> None:
    settings, state = train(optimizer="muon"), tmp_path / "state.pt"
    unbroken = trained(shards, tmp_path / "unbroken.pt", settings, network)
    broken_off(shards, state, settings, network, 1)
    assert_equal(unbroken, trained(shards, state, settings, network))
    other, _ = trained(shards, tmp_path / "adamw.pt", train(), network)
    assert other.best_epoch.valid_loss != unbroken[0].best_epoch.valid_loss


@pytest.mark.parametrize("network", [KINDS[1], KINDS[3]])
def test_a_training_with_averaging_goes_on_to_the_same_end(shards: Path, tmp_path: Path, network: Model) -> None:
    settings, state = train(n_epochs=4, averaging=0.8), tmp_path / "state.pt"
    unbroken = trained(shards, tmp_path / "unbroken.pt", settings, network)
    broken_off(shards, state, settings, network, 2)
    saved = torch.load(state, weights_only=True)
    assert int(saved["average"]["n_averaged"]) == 6
    for name, weight in saved["weights"].items():
        assert torch.equal(weight, saved["average"][f"module.{name}"]) == name.startswith("feature_")
    assert_equal(unbroken, trained(shards, state, settings, network))
    assert torch.load(state, weights_only=True).keys() == saved.keys()


def test_what_is_validated_and_kept_is_the_average(shards: Path, tmp_path: Path) -> None:
    plain, averaged = trainer(shards, train(), model()), trainer(shards, train(averaging=0.9), model())
    plain.run(tmp_path / "plain.pt")
    progress = averaged.run(tmp_path / "averaged.pt")
    states = [torch.load(tmp_path / name, weights_only=True) for name in ("plain.pt", "averaged.pt")]
    for name, weight in states[0]["weights"].items():
        assert torch.equal(weight, states[1]["weights"][name]), "the steps are those of a training without averaging"
    assert progress.best_epoch.epoch == 2
    for name, weight in averaged.denoiser.state_dict().items():
        assert torch.equal(weight, progress.best[name])
        assert torch.equal(weight, states[1]["average"][f"module.{name}"])
    assert progress.best_epoch.valid_loss == averaged._validated()[0]
    assert progress.best_epoch.valid_loss != plain.progress.best_epoch.valid_loss


def test_a_step_rounds_alike_in_new_threads_and_in_old_ones(shards: Path) -> None:
    found = []
    for _ in range(3):
        made = trainer(shards, train(batch_size=10), model())
        spectra = torch.randn(2, 25, 33, 2, generator=torch.Generator().manual_seed(1))
        transforms = list(made._pool.map(torch.fft.irfft, [torch.view_as_complex(part) for part in spectra]))
        found += [transforms, [torch.fft.irfft(torch.view_as_complex(part)) for part in spectra]]
    assert all(torch.equal(one, two) for other in found[1:] for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("network", [KINDS[0], KINDS[3]])
def test_a_training_with_consistency_goes_on_to_the_same_end(shards: Path, tmp_path: Path, network: Model) -> None:
    settings, state = train(n_epochs=3, consistency=True, **AUGMENTED), tmp_path / "state.pt"
    unbroken = trained(shards, tmp_path / "unbroken.pt", settings, network)
    broken_off(shards, state, settings, network, 1)
    assert_equal(unbroken, trained(shards, state, settings, network))
    plain = trained(shards, tmp_path / "plain.pt", train(n_epochs=3, **AUGMENTED), network)
    assert plain[0].epochs[0].train_loss != unbroken[0].epochs[0].train_loss


def test_the_stage_starts_from_weights_that_are_there(shards: Path, tmp_path: Path) -> None:
    def outputs(folder: Path, settings: Train) -> tuple[dict[str, torch.Tensor], str]:
        paths = [folder / name for name in ("denoiser.safetensors", "train.json", "curves.csv")]
        run_stage(settings, model(), STFT, RATE, shards, *paths, tmp_path / "cache", CPU)
        return load_file(paths[0]), paths[2].read_text(encoding="utf-8")

    first, curves = outputs(tmp_path / "first", train(n_epochs=3))
    start = str(tmp_path / "first" / "denoiser.safetensors")
    second, further = outputs(tmp_path / "second", train(n_epochs=1, learning_rate=1e-6, init_from=start))
    assert torch.equal(first["feature_mean"], second["feature_mean"])
    assert torch.allclose(first["network.output.weight"], second["network.output.weight"], atol=1e-4)
    losses = [float(rows.splitlines()[-1].split(",")[3]) for rows in (curves, further)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


@pytest.mark.parametrize("name", ["denoiser.safetensors", "../models/denoiser.safetensors", "linked.safetensors"])
def test_a_training_does_not_start_from_what_it_writes(shards: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "linked.safetensors").symlink_to("denoiser.safetensors")
    start = str(folder / name)
    paths = [folder / name for name in ("denoiser.safetensors", "train.json", "curves.csv")]
    with pytest.raises(CheckpointError, match=r"train\.init_from=.* cannot start from the file that it writes.*dvc checkout"):
        run_stage(train(init_from=start), model(), STFT, RATE, shards, *paths, tmp_path / "cache", CPU)


def test_what_was_trained_before_is_told(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(shards, tmp_path / "state.pt", train(n_epochs=2), model())
    assert "made before" not in capsys.readouterr().out
    trained(shards, tmp_path / "state.pt", train(n_epochs=2), model())
    assert "2 of at most 2 epochs were made before" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"no state", None])
def test_a_damaged_state_starts_the_training_again(
    damage: bytes | None, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(shards, tmp_path / "whole.pt", train(), model())
    state = tmp_path / "state.pt"
    state.write_bytes((tmp_path / "whole.pt").read_bytes()[:5000] if damage is None else damage)
    assert_equal(trained(shards, state, train(), model()), whole)
    assert "training starts again" in capsys.readouterr().out

"""Real runs of Lightning's Trainer: resuming, and what each process of several takes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from equipoise.data import module
from equipoise.data.images.cifar10 import Cifar10
from equipoise.data.images.digits import Digits
from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryImages
from equipoise.data.images.transforms import Normalization
from equipoise.data.sampling import Shard
from equipoise.errors import UserError

BATCHES = 4  # 54 training images in batches of 16
EPOCHS = 3


class Linear(LightningModule):
    """A linear classifier that writes down which samples it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist()))
        return nn.functional.cross_entropy(self.network(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.network(batch["image"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class SaveAt(Callback):
    """Save a checkpoint at each moment from which a run may have to resume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"batch{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"validated{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


def fit(
    data: ImageDataModule,
    checkpoint: Path | None = None,
    callbacks: list[Callback] | None = None,
    **arguments: Any,
) -> Linear:
    torch.manual_seed(0)
    model = Linear()
    trainer = Trainer(
        **{"max_epochs": EPOCHS, **arguments},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
    )
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    return model


def cifar(folder: Path, num_workers: int = 0) -> Cifar10:
    return Cifar10(
        path=str(folder), batch_size=16, val_fraction=0.1, num_workers=num_workers, classes=3
    )


def assert_goes_on(whole: Linear, resumed: Linear, steps: int) -> None:
    assert resumed.seen == whole.seen[steps:]
    for got, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("limits", [{}, {"limit_val_batches": 0}, {"limit_train_batches": 3}])
def test_a_run_goes_on_from_every_step_as_if_it_had_not_stopped(
    cifar_folder: Path, tmp_path: Path, limits: dict[str, Any]
) -> None:
    whole = fit(cifar(cifar_folder), callbacks=[SaveAt(tmp_path)], **limits)
    epoch_steps = limits.get("limit_train_batches", BATCHES)
    assert [step[:2] for step in whole.seen] == [
        (epoch, batch) for epoch in range(EPOCHS) for batch in range(epoch_steps)
    ]
    for step in range(1, EPOCHS * epoch_steps):
        resumed = fit(cifar(cifar_folder), tmp_path / f"batch{step}.ckpt", **limits)
        assert_goes_on(whole, resumed, step)


@pytest.mark.parametrize("limits", [{}, {"limit_val_batches": 0}, {"limit_train_batches": 3}])
def test_a_run_goes_on_from_the_end_of_an_epoch(
    cifar_folder: Path, tmp_path: Path, limits: dict[str, Any]
) -> None:
    whole = fit(cifar(cifar_folder), callbacks=[SaveAt(tmp_path)], **limits)
    epoch_steps = limits.get("limit_train_batches", BATCHES)
    for epoch in range(EPOCHS - 1):
        resumed = fit(cifar(cifar_folder), tmp_path / f"epoch{epoch}.ckpt", **limits)
        assert_goes_on(whole, resumed, (epoch + 1) * epoch_steps)


@pytest.mark.parametrize("interval", [0.5, 1.0])
def test_a_run_goes_on_after_a_validation(
    cifar_folder: Path, tmp_path: Path, interval: float
) -> None:
    arguments: dict[str, Any] = {"val_check_interval": interval}
    whole = fit(cifar(cifar_folder), callbacks=[SaveAt(tmp_path)], **arguments)
    validated = range(int(interval * BATCHES), EPOCHS * BATCHES, int(interval * BATCHES))
    for step in validated:
        resumed = fit(cifar(cifar_folder), tmp_path / f"validated{step}.ckpt", **arguments)
        assert_goes_on(whole, resumed, step)


def test_a_finished_run_is_lengthened_without_a_seam(cifar_folder: Path, tmp_path: Path) -> None:
    whole = fit(cifar(cifar_folder))
    fit(cifar(cifar_folder), callbacks=[SaveAt(tmp_path)], max_epochs=-1, max_steps=6)
    resumed = fit(cifar(cifar_folder), tmp_path / "batch6.ckpt")
    assert_goes_on(whole, resumed, 6)


def test_workers_do_not_change_what_follows(cifar_folder: Path, tmp_path: Path) -> None:
    whole = fit(cifar(cifar_folder))
    fit(cifar(cifar_folder, 2), callbacks=[SaveAt(tmp_path)], max_epochs=2)
    resumed = fit(cifar(cifar_folder, 2), tmp_path / "batch6.ckpt")
    assert_goes_on(whole, resumed, 6)
    assert not multiprocessing.active_children()


def test_overfitting_keeps_to_the_same_batches(cifar_folder: Path) -> None:
    model = fit(cifar(cifar_folder), overfit_batches=2)
    epochs = [[rows for e, _, rows in model.seen if e == epoch] for epoch in range(EPOCHS)]
    assert len(epochs[0]) == 2
    assert epochs[0] == epochs[1] == epochs[2]


def test_each_process_takes_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, list[int]] = {"train": [], "test": []}
    for rank in range(2):
        data = Digits()
        data.setup()
        monkeypatch.setattr(module, "shard_of", lambda data, rank=rank: Shard(rank, 2))
        for name, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
            rows[name] += [row for batch in loader for row in batch["index"].tolist()]
    assert sorted(rows["train"]) == list(range(1294))
    assert sorted(rows["test"]) == list(range(359))


class OfOneClass(ImageDataModule):
    """A data module with a constructor of its own, as one may write it."""

    def __init__(self, classes: int, **settings: Any) -> None:
        super().__init__(batch_size=2, **settings)
        self.classes = classes

    def read_split(self, name: module.SplitName) -> MemoryImages:
        self.class_names = ["cat", "dog"]
        white = Normalization((0.0,), (1.0,))
        return MemoryImages(torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64), white)


def test_a_constructor_of_ones_own_gives_what_a_record_has() -> None:
    data = OfOneClass(2, seed=3)
    data.setup("fit")
    assert (data.seed, data.num_workers, data.eval_batch_size) == (3, 0, None)
    assert len(data.train_dataloader()) == len(data.val_dataloader()) == 2
    with pytest.raises(UserError, match=r"task\.classes=1 is too few: the data has 2 classes"):
        OfOneClass(1).setup("fit")
    with pytest.raises(UserError, match=r"task\.num_workers is -1: set it to 0 or more"):
        OfOneClass(1, num_workers=-1)

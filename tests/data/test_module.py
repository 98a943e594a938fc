"""What every data module does with the loaders of its splits."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer

from equipoise.data import Digits
from equipoise.data.module import on_gpu


def test_batches_are_pinned_where_the_run_is_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Digits()
    assert on_gpu(data) is torch.cuda.is_available()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert on_gpu(data)
    data.trainer = trainer
    data.setup("fit")
    assert not data.train_dataloader()._loader.pin_memory
    monkeypatch.setattr(trainer.strategy, "_root_device", torch.device("cuda", 0), raising=False)
    assert data.train_dataloader()._loader.pin_memory

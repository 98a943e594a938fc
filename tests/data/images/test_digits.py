"""The bundled digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.data.images.digits import Digits
from equipoise.data.images.splits import MemoryImages
from equipoise.data.module import SplitName
from equipoise.errors import UserError


def prepared(**arguments: Any) -> Digits:
    module = Digits(**arguments)
    module.setup()
    return module


def images(module: Digits, name: SplitName) -> torch.Tensor:
    split = module.splits[name]
    assert isinstance(split, MemoryImages)
    return split.images


def test_the_splits_are_disjoint_and_hold_every_digit() -> None:
    module = prepared()
    sizes = [len(split) for split in module.splits.values()]
    assert sizes == [1294, 144, 359]
    every = torch.cat([images(module, "train"), images(module, "val"), images(module, "test")])
    assert len(every.flatten(1).unique(dim=0)) == 1797
    assert module.class_names == [str(digit) for digit in range(10)]


def test_training_images_are_normalised() -> None:
    batches = list(prepared().train_dataloader())
    pixels = torch.cat([batch["image"] for batch in batches])
    assert pixels.shape == (1294, 1, 8, 8)
    assert pixels.dtype == torch.float32
    assert abs(pixels.mean()) < 0.01
    assert abs(pixels.std() - 1) < 0.01
    assert [len(batch["label"]) for batch in batches] == [64] * 20 + [14]
    rows = torch.cat([batch["index"] for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(1294))


def test_the_seed_decides_the_splits_and_the_order() -> None:
    one, same, other = prepared(seed=1), prepared(seed=1), prepared(seed=2)
    assert torch.equal(images(one, "test"), images(same, "test"))
    assert not torch.equal(images(one, "test"), images(other, "test"))
    first, second = next(iter(one.train_dataloader())), next(iter(same.train_dataloader()))
    assert torch.equal(first["image"], second["image"])


def test_without_a_validation_fraction_the_test_split_validates() -> None:
    module = prepared(val_fraction=0.0)
    assert torch.equal(images(module, "val"), images(module, "test"))
    assert len(module.splits["train"]) == 1438


def test_evaluation_batches_have_their_own_size() -> None:
    module = prepared(batch_size=32, eval_batch_size=100)
    assert [len(batch["index"]) for batch in module.test_dataloader()] == [100, 100, 100, 59]
    assert [len(b["index"]) for b in prepared(batch_size=100).val_dataloader()] == [100, 44]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1), ("val_fraction", 1.0)],
)
def test_values_that_cannot_work_are_named(argument: str, value: float) -> None:
    arguments: dict[str, Any] = {argument: value}
    with pytest.raises(UserError, match=rf"task\.{argument} is {value}"):
        Digits(**arguments)


@pytest.mark.parametrize(
    ("name", "fractions"),
    [("test", {"test_fraction": 0.0}), ("train", {"test_fraction": 0.9999}),
     ("train", {"val_fraction": 0.9999})],
)  # fmt: skip
def test_an_empty_split_is_named_before_anything_is_read(
    name: str, fractions: dict[str, float]
) -> None:
    with pytest.raises(UserError, match=f"No digits are left for {name}"):
        Digits(**fractions)  # type: ignore[arg-type]

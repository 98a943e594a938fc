"""CIFAR-10 in the layout of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch

from equipoise.data.images.cifar10 import Cifar10
from equipoise.data.images.splits import MemoryImages
from equipoise.data.module import SplitName
from equipoise.errors import UserError


def prepared(folder: Path, val_fraction: float = 0.1, augment: bool = True) -> Cifar10:
    module = Cifar10(
        path=str(folder), batch_size=16, val_fraction=val_fraction, augment=augment, classes=3
    )
    module.setup()
    return module


def images(module: Cifar10, name: SplitName) -> torch.Tensor:
    split = module.splits[name]
    assert isinstance(split, MemoryImages)
    return split.images


def test_the_splits(cifar_folder: Path) -> None:
    module = prepared(cifar_folder)
    assert [len(module.splits[n]) for n in ("train", "val", "test")] == [54, 6, 15]
    together = torch.cat([images(module, "train"), images(module, "val"), images(module, "test")])
    assert len(together.flatten(1).unique(dim=0)) == 75
    assert module.class_names == ["cat", "dog", "owl"]
    val = next(iter(module.val_dataloader()))
    assert torch.bincount(val["label"]).tolist() == [2, 2, 2]


def test_only_the_training_images_are_augmented(cifar_folder: Path) -> None:
    module, plain = prepared(cifar_folder), prepared(cifar_folder, augment=False)
    for name in ("val", "test"):
        loaders = [getattr(m, f"{name}_dataloader")() for m in (module, plain)]
        for batch, expected in zip(*loaders, strict=True):
            assert torch.equal(batch["image"], expected["image"])
    batch, expected = next(iter(module.train_dataloader())), next(iter(plain.train_dataloader()))
    assert torch.equal(batch["index"], expected["index"])
    assert not torch.equal(batch["image"], expected["image"])


def test_without_a_validation_fraction_the_test_split_validates(cifar_folder: Path) -> None:
    module = prepared(cifar_folder, val_fraction=0.0)
    assert torch.equal(images(module, "val"), images(module, "test"))
    assert len(module.splits["train"]) == 60


def test_a_part_of_the_training_images_with_the_same_mixture(cifar_folder: Path) -> None:
    module = Cifar10(path=str(cifar_folder), val_fraction=0.1, train_size=12, classes=3)
    module.setup()
    whole = prepared(cifar_folder)
    assert [len(module.splits[n]) for n in ("train", "val", "test")] == [12, 6, 15]
    split = module.splits["train"]
    assert isinstance(split, MemoryImages)
    assert torch.bincount(split.labels).tolist() == [4, 4, 4]
    both = torch.cat([images(module, "train"), images(whole, "train")]).flatten(1)
    assert len(both.unique(dim=0)) == 54
    assert torch.equal(images(module, "val"), images(whole, "val"))


@pytest.mark.parametrize("size", [0, 55])
def test_more_training_images_than_there_are(cifar_folder: Path, size: int) -> None:
    with pytest.raises(UserError, match="choose 1 to 54"):
        Cifar10(path=str(cifar_folder), val_fraction=0.1, train_size=size, classes=3).setup()


def test_without_a_test_split_validation_tests(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "one", "train", table(60, seed=0, column="image"))
    module = prepared(tmp_path / "one")
    assert torch.equal(images(module, "val"), images(module, "test"))
    with pytest.raises(UserError, match=r"no images left for val: change task\.val_fraction"):
        prepared(tmp_path / "one", val_fraction=0.0)


def test_a_stage_reads_only_its_splits(cifar_folder: Path) -> None:
    next(cifar_folder.glob("*/train*.parquet")).write_bytes(b"not fetched")
    module = Cifar10(path=str(cifar_folder), classes=3)
    module.setup("test")
    assert list(module.splits) == ["test"]
    with pytest.raises(UserError, match="cannot be read"):
        module.setup("fit")


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_other_classes_than_the_network_has_outputs(
    cifar_folder: Path, classes: int, stage: str
) -> None:
    with pytest.raises(UserError, match=rf"has 3 classes, but task\.classes is {classes}: set"):
        Cifar10(path=str(cifar_folder), classes=classes).setup(stage)


def test_without_a_training_split_the_error_says_so(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "one", "test", table(6, seed=0))
    with pytest.raises(UserError, match="no split 'train', only test"):
        prepared(tmp_path / "one")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_does_not_depend_on_the_workers(cifar_folder: Path, num_workers: int) -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        module = Cifar10(path=str(cifar_folder), batch_size=16, num_workers=workers, classes=3)
        module.setup("fit")
        loader = module.train_dataloader()
        drawn = []
        for epoch in range(2):
            loader.batch_sampler.sampler.epoch = epoch
            drawn += [batch["image"] for batch in loader]
        return drawn

    assert all(torch.equal(a, b) for a, b in zip(batches(0), batches(num_workers), strict=True))

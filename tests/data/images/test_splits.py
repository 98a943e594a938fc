"""Batches out of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from equipoise.data.images.labelled import ImageFolder, ImageTable, class_folders
from equipoise.data.images.splits import DecodedImages, MemoryImages, Selection, decode_rows
from equipoise.data.images.transforms import (
    CIFAR10,
    IMAGENET,
    CropAndFlip,
    evaluation_transform,
    training_transform,
)
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError


def test_a_batch_holds_the_rows_that_were_asked_for(table: Callable[..., datasets.Dataset]) -> None:
    source = ImageTable(table(6, seed=0), "x")
    images = decode_rows(source, torch.arange(6), 32)
    split = MemoryImages(images, source.labels, CIFAR10)
    rows = torch.tensor([4, 0, 5])
    batch = split[BatchIndex(0, rows)]
    assert torch.equal(batch["image"], CIFAR10(images[rows]))
    assert torch.equal(batch["label"], source.labels[rows])
    assert torch.equal(batch["index"], rows)
    augmented = MemoryImages(images, source.labels, CIFAR10, CropAndFlip(6, seed=0))
    expected = CIFAR10(CropAndFlip(6, seed=0)(images[rows], BatchIndex(2, rows)))
    assert torch.equal(augmented[BatchIndex(2, rows)]["image"], expected)


def test_an_image_of_another_size_is_named(table: Callable[..., datasets.Dataset]) -> None:
    source = ImageTable(table(3, seed=0, size=28), "the split 'train' of x")
    with pytest.raises(UserError, match="row 0 of the split 'train' of x is 28 pixels wide"):
        decode_rows(source, torch.arange(3), 32)


def split(folder: Path, augmentation: v2.Transform | None = None, seed: int = 0) -> DecodedImages:
    train = ImageFolder(folder / "train", class_folders(folder / "train"))
    return DecodedImages(train, evaluation_transform(28), IMAGENET, seed, augmentation)


def test_random_crops_depend_on_seed_epoch_and_row_alone(imagenet_folder: Path) -> None:
    transform = training_transform(16)
    whole = split(imagenet_folder, transform)[BatchIndex(1, torch.arange(6))]
    before = torch.get_rng_state()
    part = split(imagenet_folder, transform)[BatchIndex(1, torch.tensor([5, 2]))]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(part["image"], whole["image"][[5, 2]])
    assert part["image"].shape == (2, 3, 16, 16)
    for other in (
        split(imagenet_folder, transform)[BatchIndex(2, torch.arange(6))],
        split(imagenet_folder, transform, seed=1)[BatchIndex(1, torch.arange(6))],
    ):
        assert not torch.equal(other["image"], whole["image"])


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre(imagenet_folder: Path) -> None:
    data = split(imagenet_folder)
    assert isinstance(data.source, ImageFolder)
    image = Image.open(data.source.describe(3)).convert("RGB")
    resized = image.resize((40, 32), Image.Resampling.BILINEAR).crop((6, 2, 34, 30))
    expected = IMAGENET(v2.functional.pil_to_tensor(resized).unsqueeze(0))
    batch = data[BatchIndex(0, torch.tensor([3]))]
    assert (batch["image"] - expected).abs().max() < 2.5 / 255 / 0.22
    assert batch["label"].tolist() == [1]


def test_a_selection_counts_through_its_parts(
    table: Callable[..., datasets.Dataset],
) -> None:
    one, two = ImageTable(table(6, seed=0), "x"), ImageTable(table(4, seed=50), "y")
    chosen = Selection((one, torch.tensor([4, 1])), (two, torch.arange(0)), (two, torch.arange(4)))
    expected = [*(one.pixels(row) for row in (4, 1)), *(two.pixels(row) for row in range(4))]
    assert chosen.labels.tolist() == [1, 1, 0, 1, 2, 0]
    assert chosen.classes == one.classes
    for row, pixels in enumerate(expected):
        assert torch.equal(chosen.pixels(row), pixels)

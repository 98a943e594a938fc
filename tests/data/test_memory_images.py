"""Batches out of memory."""

from __future__ import annotations

from collections.abc import Callable

import datasets
import pytest
import torch

from equipoise.data.crop_and_flip import CropAndFlip
from equipoise.data.image_table import ImageTable
from equipoise.data.memory_images import MemoryImages, decode_rows
from equipoise.data.normalization import CIFAR10
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

"""Normalisation is the published formula."""

from __future__ import annotations

import torch
from torchvision.transforms.v2 import functional

from equipoise.data.normalization import CIFAR10, Normalization


def test_it_is_torchvisions_normalize() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    scaled = functional.to_dtype(images, torch.float32, scale=True)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    torch.testing.assert_close(CIFAR10(images), functional.normalize(scaled, mean, std))
    assert CIFAR10(images).dtype == torch.float32


def test_white_becomes_one() -> None:
    images = torch.tensor([0, 8, 16], dtype=torch.uint8).view(1, 1, 1, 3)
    assert Normalization((0.0,), (1.0,), white=16)(images).flatten().tolist() == [0.0, 0.5, 1.0]

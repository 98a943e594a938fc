"""Batches decoded from files."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import v2

from equipoise.data.decoded_images import (
    DecodedImages,
    evaluation_transform,
    training_transform,
)
from equipoise.data.image_folder import ImageFolder, class_folders
from equipoise.data.normalization import IMAGENET
from equipoise.data.sampling import BatchIndex


def split(folder: Path, transform: v2.Transform, seed: int = 0) -> DecodedImages:
    train = folder / "train"
    return DecodedImages(ImageFolder(train, class_folders(train)), transform, IMAGENET, seed)


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
    data = split(imagenet_folder, evaluation_transform(28))
    image = Image.open(data.source.describe(3)).convert("RGB")
    resized = image.resize((40, 32), Image.Resampling.BILINEAR).crop((6, 2, 34, 30))
    expected = IMAGENET(v2.functional.pil_to_tensor(resized).unsqueeze(0))
    batch = data[BatchIndex(0, torch.tensor([3]))]
    assert (batch["image"] - expected).abs().max() < 2.5 / 255 / 0.22
    assert batch["label"].tolist() == [1]

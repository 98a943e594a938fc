"""The whole-batch augmentation equals torchvision's, sample by sample."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from equipoise.data.crop_and_flip import CropAndFlip
from equipoise.data.sampling import BatchIndex, stream


def noise(samples: int) -> torch.Tensor:
    shape = (samples, 3, 32, 32)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(0))


def test_each_image_is_torchvisions_crop_and_flip_at_its_own_draw() -> None:
    images, index = noise(64), BatchIndex(2, torch.arange(64))
    augmentation = CropAndFlip(64, seed=5)
    result = augmentation(images, index)
    for image, top, left, flip, got in zip(images, *augmentation.draws(index), result, strict=True):
        padded = functional.pad(image, [4, 4, 4, 4])
        expected = functional.crop(padded, int(top), int(left), 32, 32)
        assert torch.equal(got, functional.horizontal_flip(expected) if flip else expected)


def test_the_outcomes_and_their_frequencies_are_torchvisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = torch.arange(32 * 32).reshape(1, 32, 32).to(torch.int32)
    samples, index = 20_000, BatchIndex(0, torch.arange(20_000))
    top, left, flip = CropAndFlip(samples, seed=0).draws(index)
    counts = torch.zeros(9, 9, 2)
    counts.index_put_((top, left, flip.long()), torch.ones(samples), accumulate=True)
    expected = samples / counts.numel()
    # 161 degrees of freedom: the statistic has mean 161 and standard deviation 18.
    assert ((counts - expected) ** 2 / expected).sum() < 161 + 5 * 18
    published = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    repeated = image.expand(162, 1, 32, 32)
    grid = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))
    augmentation = CropAndFlip(162, seed=0)
    draws = (grid[:, 0], grid[:, 1], grid[:, 2].bool())
    monkeypatch.setattr(augmentation, "draws", lambda _: draws)
    possible = {tuple(out.flatten().tolist()) for out in augmentation(repeated, index)}
    assert len(possible) == 162
    assert all(tuple(published(image).flatten().tolist()) in possible for _ in range(200))


def test_draws_depend_on_seed_epoch_and_row_alone() -> None:
    images = noise(40)
    rows = torch.tensor([30, 7, 7, 12])
    first = CropAndFlip(40, seed=1)(images[rows], BatchIndex(3, rows))
    used = CropAndFlip(40, seed=1)
    used(images, BatchIndex(0, torch.arange(40)))
    torch.rand(5)
    whole = used(images, BatchIndex(3, torch.arange(40)))
    assert torch.equal(first, whole[rows])
    assert not torch.equal(whole, used(images, BatchIndex(4, torch.arange(40))))
    assert not torch.equal(whole, CropAndFlip(40, 2)(images, BatchIndex(3, torch.arange(40))))

"""The table of sizes, its checks, and the published numbers of parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.models import MDEQ
from equipoise.models.mdeq.sizes import SIZES, Size

SIZE = SIZES["thumbnail"]["tiny"]


CIFAR10 = {"image_size": 32, "classes": 10}
IMAGENET = {"image_size": 224, "classes": 1000}
CITYSCAPES = {"image_size": (512, 1024), "mask_classes": 19}


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        # the code of 2021
        ({**CIFAR10, "size": "tiny"}, 158_890),
        ({**CIFAR10, "size": "large"}, 11_097_438),
        ({**IMAGENET, "size": "small"}, 16_808_936),
        (
            {
                **IMAGENET,
                "size": "small",
                "head_channels": (28, 56, 112, 224),
                "post_affine": False,
            },
            18_613_496,
        ),
        ({**IMAGENET, "size": "large"}, 67_063_624),
        ({**IMAGENET, "size": "large", "post_affine": False}, 67_061_224),
        ({**IMAGENET, "size": "xl"}, 90_463_280),
        ({**CITYSCAPES, "size": "small"}, 8_968_467),
        ({**CITYSCAPES, "size": "large"}, 55_955_859),
        ({**CITYSCAPES, "size": "xl"}, 79_551_755),
        # the code of 2020
        ({**CIFAR10, "size": "tiny", "post_affine": True}, 158_986),
        ({**CIFAR10, "size": "large", "post_affine": True}, 11_098_398),
    ],
)
def test_published_parameter_counts(arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = MDEQ(nn.Identity(), **arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_automatic_size_of_the_digits_is_very_small() -> None:
    model = MDEQ(nn.Identity(), classes=10, image_size=8, image_channels=1)
    assert 40_000 < sum(parameter.numel() for parameter in model.parameters()) < 60_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": ()}, "at least|empty"),
        ({"channels": (24, 24, 24)}, "one for each branch"),
        ({"blocks": (1,)}, "one for each branch"),
        ({"blocks": (1, 0)}, "at least one block"),
        ({"groups": 5}, "multiples of 5"),
        ({"groups": 1}, "at least 2"),
        ({"expansion": 1.4}, "multiples of 8"),
        ({"stem_stride": 3}, "power of two"),
        ({"big_kernels": (0, 3)}, "0, 1 or 2"),
    ],
)
def test_entries_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SIZE, **change)


@pytest.mark.parametrize(("height", "width"), [(31, 32), (33, 33), (32, 0)])
def test_images_that_cannot_be_halved_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        SIZE.check_image(height, width)


def test_an_odd_number_of_groups() -> None:
    """Behind the fusion it is half of them, rounded down: only the branches' channels need that."""
    assert replace(SIZE, channels=(10, 20), groups=5, expansion=1.5).groups == 5


def test_images_that_fit() -> None:
    SIZE.check_image(30, 34)
    photograph = SIZES["photograph"]["small"]
    photograph.check_image(224, 256)
    with pytest.raises(ValueError, match="multiples of 32"):
        photograph.check_image(224, 232)
    # Strided convolutions round up: 221 pixels give a stem output of 56.
    photograph.check_image(221, 224)


def test_lists_become_tuples() -> None:
    assert Size([8], [2], 4, stem_stride=1).blocks == (1,)

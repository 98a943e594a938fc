"""Cutting batches of any form."""

from __future__ import annotations

from collections import namedtuple

import torch

from equipoise.callbacks.first_samples import first_samples

Pair = namedtuple("Pair", "image scale")


def test_the_first_samples_of_any_batch() -> None:
    image, index, weight = torch.rand(6, 2), torch.arange(6), torch.rand(3)
    cut = first_samples({"image": image, "rest": [index, weight, "text"]}, 4)
    assert torch.equal(cut["image"], image[:4])
    assert torch.equal(cut["rest"][0], index[:4])
    assert cut["rest"][1] is weight
    assert cut["rest"][2] == "text"
    assert torch.equal(first_samples(Pair(image, weight), 1).image, image[:1])
    assert first_samples((image, index), None) == (image, index)
    assert first_samples(image, 6) is image

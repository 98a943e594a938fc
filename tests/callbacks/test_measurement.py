"""A module comes back as it was."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.callbacks.measurement import first_samples, preserved

CPU = torch.device("cpu")


class Restless(nn.Module):
    """Changes whatever a module can change in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("rows", torch.zeros(1).expand(4))
        self.part: nn.Module | None = nn.Linear(3, 3)
        self.metric = MeanMetric()
        self.count = 0
        self.seen: list[float] = []
        self.latest: Tensor | None = None

    def change(self) -> None:
        self.latest = self.norm(torch.randn(8, 3))
        self.metric.update(self.latest)
        self.seen.append(self.latest.sum().item())
        self.count += 1
        self.part = None
        self.rows = torch.ones(4)
        self.extra = "new"
        self.register_forward_hook(lambda *_: None)


def state(module: Restless) -> list[str]:
    return [str(dict(vars(part))) for part in module.modules()]


def test_values_attributes_submodules_and_random_numbers_come_back() -> None:
    module = Restless()
    module.change()
    module.part = nn.Linear(3, 3)
    before, part, random = state(module), module.part, torch.get_rng_state()
    with preserved(module, CPU):
        module.change()
        assert state(module) != before
    assert state(module) == before
    assert module.part is part
    assert torch.equal(torch.get_rng_state(), random)


def test_it_comes_back_after_an_error_too() -> None:
    module = Restless()
    before = state(module)

    def stopped() -> None:
        with preserved(module, CPU):
            module.change()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert state(module) == before


def test_tensors_of_inference_mode_are_no_obstacle() -> None:
    module = Restless()
    with torch.inference_mode():
        module.latest = torch.ones(2)
        module.metric.reset()
    with preserved(module, CPU):
        module.count += 1
    assert module.count == 0


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

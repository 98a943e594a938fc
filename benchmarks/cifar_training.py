"""How a network is trained on CIFAR-10: the recipe, and the loop over images on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cifar_images import CLASSES, Pictures
from benchmarks.training_steps import compile_cell, synchronize
from equipoise.equilibrium import Anderson, Equilibrium, Phantom
from equipoise.equilibrium.cuda_graph import graphed
from equipoise.models import MDEQ, ResNet

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; warm-up and cosine are fractions of the run."""

    batch: int = 128
    epochs: int = 50
    learning_rate: float = 1e-3
    least_rate: float = 1e-6
    warmup: float = 0.02
    weight_decay: float = 2.5e-6
    dropout: float = 0.25
    evaluations: int = 10
    phantom: int = 4

    def rate(self, part: float) -> float:
        """The learning rate over its largest, after `part` of the run."""
        if part < self.warmup:
            return (part + 1e-3) / (self.warmup + 1e-3)
        cosine = 0.5 * (1 + math.cos(math.pi * (part - self.warmup) / (1 - self.warmup)))
        least = self.least_rate / self.learning_rate
        return least + (1 - least) * cosine


@dataclass(frozen=True)
class Variant:
    """How the same network is run."""

    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        order = ", channels last" if self.channels_last else ""
        return self.precision + order + (", f compiled" if self.compiled else "")

    @property
    def order(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: str) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device, dtype=torch.bfloat16)


def mdeq(recipe: Recipe, side: int) -> MDEQ:
    layer = Equilibrium(Anderson(max_steps=recipe.evaluations, tol=0), Phantom(recipe.phantom))
    return MDEQ(layer, classes=CLASSES, image_size=side, size="tiny", dropout=recipe.dropout)


def resnet(recipe: Recipe, side: int) -> ResNet:
    return ResNet(classes=CLASSES, image_size=side, size="small" if side <= 16 else "tiny")


Build = Callable[[Recipe, int], nn.Module]


class Training:
    """A network with its optimiser on a device, replayed as CUDA graphs where that is one."""

    def __init__(
        self, build: Build, recipe: Recipe, variant: Variant, pictures: Pictures, device: str
    ) -> None:
        torch.manual_seed(0)
        self.recipe, self.variant, self.pictures = recipe, variant, pictures
        self.device = device
        side = pictures.images.shape[-1]
        self.network = build(recipe, side).to(device, memory_format=variant.order).train()
        # Without graphs, for batches of any size; phantom's steps go on where the solve has ended.
        longer = replace(recipe, evaluations=recipe.evaluations + recipe.phantom)
        self.evaluated = build(longer, side).to(device, memory_format=variant.order).eval()
        if variant.compiled:
            compile_cell(self.network)
        self.initial = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.reset()
        if device == "cuda":
            images, _ = self.batch(torch.arange(recipe.batch, device=device))
            with variant.autocast(device):
                graphed(self.network, images)

    def batch(self, rows: Tensor, pictures: Pictures | None = None) -> tuple[Tensor, Tensor]:
        """Images in the variant's order in memory, and labels; of the training set by default."""
        images, labels = (self.pictures if pictures is None else pictures).batch(rows)
        return images.contiguous(memory_format=self.variant.order), labels

    def reset(self) -> None:
        """Back to the first weights, in the memory that the graphs know."""
        self.network.load_state_dict(self.initial)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay, fused=self.device == "cuda",
        )  # fmt: skip

    def step(self, rows: Tensor) -> Tensor:
        """One step; the loss."""
        images, labels = self.batch(rows)
        self.optimizer.zero_grad()
        with self.variant.autocast(self.device):
            logits = self.network(images)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches: a graph has one size."""
        return len(self.pictures) // self.recipe.batch

    def epoch(self, number: int, epochs: int) -> float:
        """Train on every picture once; the mean loss."""
        drawn = torch.Generator().manual_seed(number)
        order = torch.randperm(len(self.pictures), generator=drawn).to(self.device)
        total = torch.zeros((), device=self.device)
        for index in range(self.steps_per_epoch):
            part = (number + index / self.steps_per_epoch) / epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * self.recipe.rate(part)
            start = index * self.recipe.batch
            total += self.step(order[start : start + self.recipe.batch])
        return float(total) / self.steps_per_epoch

    @torch.no_grad()
    def accuracy(self, test: Pictures, network: nn.Module | None = None) -> float:
        """Of the weights as they are now; in another network where one is given."""
        network = self.evaluated if network is None else network
        network.load_state_dict(self.network.state_dict())
        right = torch.zeros((), device=self.device)
        for rows in torch.arange(len(test), device=self.device).split(EVALUATION_BATCH):
            images, labels = self.batch(rows, test)
            with self.variant.autocast(self.device):
                right += (network(images).argmax(dim=1) == labels).sum()
        return float(right) / len(test)

    def seconds_of_a_step(self, count: int) -> float:
        """Measured on the same pictures; the weights are those of the start again after it."""
        rows = torch.arange(self.recipe.batch, device=self.device)
        self.step(rows)
        synchronize(self.device)
        start = perf_counter()
        for _ in range(count):
            self.step(rows)
        synchronize(self.device)
        spent = (perf_counter() - start) / count
        self.reset()
        return spent

    def seconds_of_a_test(self, test: Pictures) -> float:
        self.accuracy(test)  # libraries measure first
        start = perf_counter()
        self.accuracy(test)
        return perf_counter() - start

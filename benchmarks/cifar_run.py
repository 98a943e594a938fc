"""MDEQ TINY on the whole of CIFAR-10 for as long as time is left, its accuracy against time.

    python -m benchmarks.gpu --parts cifar --cifar FOLDER [--cifar-seconds 200] [--output DIR]
        [--epochs 50] [--evaluations 10] [--phantom 4] [--learning-rate 1e-3] [--dropout 0.25]
        [--no-compile] [--no-baseline]

Published (2006.08656): 170 thousand parameters, no augmentation, 50 epochs, 87.1 +- 0.4 %. Here:
the published batch of 128, Adam, cosine, dropout and weight decay; Anderson and phantom gradients
of fixed budgets; the passes as CUDA graphs; all images on the device. The faster of float32 and
bf16, and of f as it is and compiled, is found by measuring; then as many epochs are planned as fit
into the seconds, 50 at most. A ResNet of as many parameters gets a part of the same seconds. Writes
cifar.md, cifar.csv and, where matplotlib is there, cifar.png.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cifar_images import CLASSES, Pictures, random_pictures, read_split
from benchmarks.report import Report, TimeLimit
from benchmarks.training_steps import compile_cell, synchronize
from equipoise.equilibrium import Anderson, Equilibrium, Phantom
from equipoise.equilibrium.cuda_graph import graphed
from equipoise.models import MDEQ, ResNet

PUBLISHED = "published: 87.1 +- 0.4 % after 50 epochs"
BASELINE_SHARE = 0.15
MEASURED_STEPS = 10
EVALUATION_BATCH = 1000
COLUMNS = ("network", "training seconds", "seconds with evaluation", "epoch", "loss", "accuracy")


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
    compiled: bool = False

    def __str__(self) -> str:
        return self.precision + (", f compiled" if self.compiled else "")

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
        self.network = build(recipe, side).to(device).train()
        # Without graphs, for batches of any size; phantom's steps go on where the solve has ended.
        longer = replace(recipe, evaluations=recipe.evaluations + recipe.phantom)
        self.evaluated = build(longer, side).to(device).eval()
        if variant.compiled:
            compile_cell(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay, fused=device == "cuda",
        )  # fmt: skip
        if device == "cuda":
            images, _ = pictures.batch(torch.arange(recipe.batch, device=device))
            with variant.autocast(device):
                graphed(self.network, images)

    def step(self, rows: Tensor) -> Tensor:
        """One step; the loss."""
        images, labels = self.pictures.batch(rows)
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
            images, labels = test.batch(rows)
            with self.variant.autocast(self.device):
                right += (network(images).argmax(dim=1) == labels).sum()
        return float(right) / len(test)

    def seconds_of_a_step(self, count: int) -> float:
        """Measured; the weights move, so that training begins with a fresh one."""
        rows = torch.arange(self.recipe.batch, device=self.device)
        self.step(rows)
        synchronize(self.device)
        start = perf_counter()
        for _ in range(count):
            self.step(rows)
        synchronize(self.device)
        return (perf_counter() - start) / count


def fastest(
    build: Build, recipe: Recipe, train: Pictures, device: str, compiling: bool, report: Report
) -> tuple[Variant, float]:
    """The variant whose step takes the least time, and that time."""
    variants = [Variant()]
    if device == "cuda":
        variants.append(Variant("bf16"))
        if compiling:
            variants += [Variant("bf16", True), Variant("fp32", True)]
    measured: dict[Variant, float] = {}
    for variant in variants:
        start = perf_counter()
        try:
            training = Training(build, recipe, variant, train, device)
            measured[variant] = training.seconds_of_a_step(MEASURED_STEPS if compiling else 1)
        except RuntimeError as error:  # a compiler that is not there is no end
            report.line(f"- {variant}: failed, {str(error).strip().splitlines()[0]}")
            continue
        report.line(
            f"- {variant}: {1e3 * measured[variant]:.1f} ms a step of {recipe.batch}, "
            f"ready after {perf_counter() - start:.0f} seconds"
        )
    if not measured:
        sys.exit("no variant of the network could be trained: see the lines above")
    best = min(measured, key=lambda variant: measured[variant])
    return best, measured[best]


def trained(
    name: str, build: Build, recipe: Recipe, variant: Variant, step: float,
    train: Pictures, test: Pictures, device: str, limit: TimeLimit, report: Report,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each epoch."""
    training = Training(build, recipe, variant, train, device)
    start = perf_counter()
    training.accuracy(test)
    evaluation = perf_counter() - start
    epoch_seconds = step * training.steps_per_epoch + evaluation
    epochs = max(1, min(recipe.epochs, int(0.95 * limit.left / epoch_seconds)))
    count = sum(parameter.numel() for parameter in training.network.parameters())
    report.sentence(f"{name}: {count} parameters, {variant}, {epochs} epochs planned.")
    spent, begun = 0.0, perf_counter()
    for number in range(epochs):
        if limit.left < epoch_seconds / 2:
            report.sentence(f"{name}: stopped before epoch {number + 1}, for want of time.")
            return
        start = perf_counter()
        loss = training.epoch(number, epochs)  # reads the loss: the device has ended
        spent += perf_counter() - start
        accuracy = training.accuracy(test)
        passed = round(perf_counter() - begun, 1)
        values = (name, round(spent, 1), passed, number + 1, loss, accuracy)
        yield dict(zip(COLUMNS, values, strict=True))
        if not math.isfinite(loss):
            report.sentence(f"{name}: the loss is not finite; stopped.")
            return
    if build is mdeq:
        longest = replace(recipe, evaluations=3 * recipe.evaluations)
        solved = training.accuracy(test, mdeq(longest, train.images.shape[-1]).to(device).eval())
        report.sentence(f"{name} with {longest.evaluations} evaluations: accuracy {solved:.4f}.")


def picture(rows: list[dict[str, Any]], file: Path, card: str) -> None:
    """Accuracy against seconds, where matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        axes.plot([r["training seconds"] for r in own], [r["accuracy"] for r in own], label=name)
    axes.axhline(0.871, color="grey", linestyle="--", label=PUBLISHED)
    axes.set(xlabel="seconds of training", ylabel="test accuracy", title=f"CIFAR-10 on {card}")
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as parquet files in the hub's layout")
    parser.add_argument("--cifar-seconds", type=float, default=200.0)
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--evaluations", type=int, default=recipe.evaluations)
    parser.add_argument("--phantom", type=int, default=recipe.phantom)
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--dropout", type=float, default=recipe.dropout)
    parser.add_argument("--no-compile", action="store_true", help="try f as it is alone")
    parser.add_argument("--no-baseline", action="store_true", help="no ResNet beside it")


def recipe_of(chosen: argparse.Namespace) -> Recipe:
    recipe = Recipe(
        epochs=chosen.epochs, learning_rate=chosen.learning_rate, dropout=chosen.dropout,
        evaluations=chosen.evaluations, phantom=chosen.phantom,
    )  # fmt: skip
    return replace(recipe, batch=16, epochs=2, evaluations=2) if chosen.quick else recipe


def images_for(chosen: argparse.Namespace, device: str, report: Report) -> list[Pictures]:
    """Train and test on the device; noise for a try-out without a folder; nothing otherwise."""
    if chosen.cifar is None and not chosen.quick:
        report.sentence("No run on CIFAR-10: name its folder with --cifar.")
        return []
    if chosen.cifar is None:
        report.sentence("Noise in place of pictures, to try the script.")
        splits = [random_pictures(64, side=8), random_pictures(32, side=8)]
    else:
        splits = [read_split(chosen.cifar, split) for split in ("train", "test")]
    if chosen.quick:
        splits = [split.first(count) for split, count in zip(splits, (64, 32), strict=True)]
    return [split.to(device) for split in splits]


def tables(chosen: argparse.Namespace, device: str, card: str) -> None:
    """The run, and the ResNet beside it."""
    report = Report(chosen.output / "cifar.md")
    report.heading(f"MDEQ tiny on CIFAR-10, {card}, {PUBLISHED}")
    whole = TimeLimit(chosen.cifar_seconds)
    splits = images_for(chosen, device, report)
    if not splits:
        return
    train, test = splits
    report.line(f"{len(train)} + {len(test)} images, read in {-whole.left + whole.seconds:.0f} s")
    recipe, compiling = recipe_of(chosen), not (chosen.no_compile or chosen.quick)
    report.line(f"{recipe}\n")
    rows: list[dict[str, Any]] = []
    networks: dict[str, tuple[Build, bool]] = {"MDEQ tiny": (mdeq, compiling)}
    if not chosen.no_baseline:
        networks["ResNet"] = (resnet, False)
    with (chosen.output / "cifar.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name, (build, compiled) in networks.items():
            last = name == list(networks)[-1]
            variant, step = fastest(build, recipe, train, device, compiled, report)
            limit = TimeLimit(whole.left - (0 if last else BASELINE_SHARE * whole.seconds))
            for row in trained(
                name, build, recipe, variant, step, train, test, device, limit, report
            ):
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(" | ".join(f"{value}" for value in row.values()), flush=True)
            report.columns(*COLUMNS)
            own = [row for row in rows if row["network"] == name]
            for row in own[:: max(1, len(own) // 10)] + own[-1:]:
                report.row(*row.values())
    picture(rows, chosen.output / "cifar.png", card)

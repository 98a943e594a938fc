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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.cifar_images import Pictures, random_pictures, read_split
from benchmarks.cifar_training import Build, Recipe, Training, Variant, mdeq, resnet
from benchmarks.report import Report, TimeLimit, first_line
from equipoise.models import MDEQ

PUBLISHED = "published: 87.1 +- 0.4 % after 50 epochs"
BASELINE_SHARE = 0.15
COMPILING_SHARE = 0.2
MEASURED_STEPS = 10
COLUMNS = ("network", "training seconds", "seconds with evaluation", "epoch", "loss", "accuracy")


def fastest(
    build: Build, recipe: Recipe, train: Pictures, device: str, compiling: bool,
    limit: TimeLimit, report: Report,
) -> tuple[Training, float]:  # fmt: skip
    """The variant whose step takes the least time, ready to train, and that time.

    A compiled one is tried as long as little of the limit is spent.
    """
    variants = [Variant(), *([Variant("bf16", channels_last=True)] if device == "cuda" else [])]
    if compiling:
        variants += [Variant("bf16", True, True), Variant("fp32", compiled=True)]
    best: tuple[Training, float] | None = None
    for variant in variants:
        start = perf_counter()
        if variant.compiled and limit.left < (1 - COMPILING_SHARE) * limit.seconds:
            report.line(f"- {variant}: not tried, for want of time")
            continue
        try:
            training = Training(build, recipe, variant, train, device)
            step = training.seconds_of_a_step(MEASURED_STEPS if device == "cuda" else 1)
        except Exception as error:  # a compiler that is not there is no end
            report.line(f"- {variant}: failed, {type(error).__name__}: {first_line(error)}")
            continue
        report.line(
            f"- {variant}: {1e3 * step:.1f} ms a step of {recipe.batch}, "
            f"ready after {perf_counter() - start:.0f} seconds"
        )
        best = (training, step) if best is None or step < best[1] else best
    if best is None:
        sys.exit("no variant of the network could be trained: see the lines above")
    return best


def trained(
    name: str, training: Training, step: float, test: Pictures, limit: TimeLimit, report: Report
) -> Iterator[dict[str, Any]]:
    """A row for each epoch that is tested: as many as cost a tenth of the time, and the last."""
    recipe = training.recipe
    evaluation, epoch_seconds = training.seconds_of_a_test(test), step * training.steps_per_epoch
    every = max(1, round(evaluation / (0.1 * epoch_seconds)))
    planned = epoch_seconds + evaluation / every
    epochs = max(1, min(recipe.epochs, int(0.95 * limit.left / planned)))
    count = sum(parameter.numel() for parameter in training.network.parameters())
    report.sentence(f"{name}: {count} parameters, {training.variant}, {epochs} epochs planned.")
    spent, begun = 0.0, perf_counter()
    for number in range(epochs):
        if limit.left < planned / 2:
            report.sentence(f"{name}: stopped before epoch {number + 1}, for want of time.")
            return
        start = perf_counter()
        loss = training.epoch(number, epochs)  # reads the loss: the device has ended
        spent += perf_counter() - start
        if (number + 1) % every and number + 1 < epochs:
            continue
        accuracy = training.accuracy(test)
        passed = round(perf_counter() - begun, 1)
        values = (name, round(spent, 1), passed, number + 1, loss, accuracy)
        yield dict(zip(COLUMNS, values, strict=True))
        if not math.isfinite(loss):
            report.sentence(f"{name}: the loss is not finite; stopped.")
            return


def tell_longer_solve(name: str, training: Training, test: Pictures, report: Report) -> None:
    """The accuracy of the weights of an equilibrium network with three times the evaluations."""
    if not isinstance(training.network, MDEQ):
        return
    longer = replace(training.recipe, evaluations=3 * training.recipe.evaluations)
    network = mdeq(longer, test.images.shape[-1]).to(training.device).eval()
    report.sentence(
        f"{name} with {longer.evaluations} evaluations: "
        f"accuracy {training.accuracy(test, network):.4f}."
    )


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
    recipe = recipe_of(chosen)
    compiling = device == "cuda" and not (chosen.no_compile or chosen.quick)
    torch.backends.cudnn.benchmark = True  # every size comes many times
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
            limit = TimeLimit(whole.left - (0 if last else BASELINE_SHARE * whole.seconds))
            training, step = fastest(build, recipe, train, device, compiled, limit, report)
            for row in trained(name, training, step, test, limit, report):
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(" | ".join(f"{value}" for value in row.values()), flush=True)
            tell_longer_solve(name, training, test, report)
            report.columns(*COLUMNS)
            own = [row for row in rows if row["network"] == name]
            for row in own[::-1][:: max(1, len(own) // 10)][::-1]:  # about ten, the last too
                report.row(*row.values())
    picture(rows, chosen.output / "cifar.png", card)

"""Two small tasks on which networks are trained to the same accuracy: digits, and part of CIFAR-10.

The loop is plain torch, the same for every side: the order of the data, Adam, the learning rate
with a short linear warm-up. What a side brings is its network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cifar_images import CLASSES, Pictures, random_pictures, read_split
from benchmarks.report import Report
from equipoise.data.sampling import stratified_split, stream
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.models import MDEQ, ResNet

WARMUP_STEPS = 20
EVALUATION_BATCH = 500
NO_FOLDER = "The half on CIFAR-10 is left out: name its folder with --cifar."


@dataclass
class ImageTask:
    """Pictures to train and to test on, and the two networks, of about as many parameters.

    mdeq: from what stands as equilibrium layer to the network. target: the accuracy whose time is
    taken. rates: learning rates that every side may try. every: steps between two tests.
    cap: seconds of training after which a run is given up.
    """

    name: str
    train: Pictures
    test: Pictures
    mdeq: Callable[[nn.Module], nn.Module] = field(repr=False)
    resnet: Callable[[], nn.Module] = field(repr=False)
    target: float
    rates: tuple[float, ...]
    batch: int = 64
    every: int = 10
    cap: float = 60.0


def digits_task(quick: bool = False) -> ImageTask:
    """scikit-learn's digits, every fifth picture held out."""
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    rest, held = stratified_split(labels, 0.2, stream(0))
    splits = [Pictures(images[r], labels[r], (0.3053,), (0.3760,), 16) for r in (rest, held)]
    if quick:
        splits = [split.first(40) for split in splits]
    sizes = {"classes": CLASSES, "image_size": 8, "image_channels": 1, "size": "tiny"}
    wide = {} if quick else {"final_channels": 512}
    return ImageTask(
        "digits", *splits, partial(MDEQ, **sizes, **wide), partial(ResNet, **sizes),
        target=0.1 if quick else 0.97, rates=(4e-3, 2e-3)[: 1 if quick else 2],
        batch=20 if quick else 64, cap=1 if quick else 60,
    )  # fmt: skip


def cifar_task(folder: Path | None, quick: bool = False) -> ImageTask | None:
    """CIFAR-10, the first 10,000 + 2,000 pictures; None where no folder is named.

    MDEQ of two branches on a stem of stride 4, so that a step takes a fraction of a second.
    """
    if folder is None and not quick:
        return None
    if folder is None:
        train, test = random_pictures(40, side=16), random_pictures(20, side=16)
    else:
        counts = (40, 20) if quick else (10_000, 2_000)
        names = ("train", "test")
        train, test = (read_split(folder, n).first(c) for n, c in zip(names, counts, strict=True))
    sizes = {"classes": CLASSES, "image_size": train.images.shape[-1], "size": "tiny"}
    shape = {"channels": (24, 32), "expansion": 3, "stem_stride": 4}
    name = "noise" if folder is None else f"CIFAR-10, {len(train)} pictures"
    return ImageTask(
        name, train, test, partial(MDEQ, **sizes, **shape),
        partial(ResNet, **sizes), target=0.1 if quick else 0.4,
        rates=(2e-3, 1e-3)[: 1 if quick else 2], batch=20 if quick else 64, every=25,
        cap=1 if quick else 120,
    )  # fmt: skip


def tasks(folder: Path | None, quick: bool, report: Report) -> list[ImageTask]:
    """Both, or a sentence for the one without its data."""
    cifar = cifar_task(folder, quick)
    if cifar is None:
        report.sentence(NO_FOLDER)
    return [digits_task(quick), *([] if cifar is None else [cifar])]


class Learner:
    """A network in training on a task, and the processor seconds that its steps have taken."""

    def __init__(self, network: nn.Module, task: ImageTask, rate: float, seed: int = 0) -> None:
        self.network, self.task, self.rate, self.seed = network, task, rate, seed
        self.optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        self.layers = list(equilibrium_layers(network).values())
        self.steps = 0
        self.seconds = 0.0
        self._rows = self._order()

    def _order(self) -> Iterator[Tensor]:
        epoch = 0
        while True:
            drawn = torch.Generator().manual_seed(1000 * self.seed + epoch)
            order = torch.randperm(len(self.task.train), generator=drawn)
            whole = len(order) // self.task.batch * self.task.batch
            yield from order[:whole].split(self.task.batch)
            epoch += 1

    def step(self) -> float:
        """One step; the loss."""
        images, labels = self.task.train.batch(next(self._rows))
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, self.steps / WARMUP_STEPS)
        start = time.process_time()
        self.network.train()
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.network(images), labels)
        for layer in self.layers:
            penalty = layer.pop_penalty()
            loss = loss if penalty is None else loss + penalty
        loss.backward()
        self.optimizer.step()
        self.seconds += time.process_time() - start
        return float(loss.detach())

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the test pictures."""
        self.network.eval()
        right = 0
        for rows in torch.arange(len(self.task.test)).split(EVALUATION_BATCH):
            images, labels = self.task.test.batch(rows)
            right += int((self.network(images).argmax(dim=1) == labels).sum())
        return right / len(self.task.test)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

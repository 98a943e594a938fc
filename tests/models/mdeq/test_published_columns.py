"""Every published column of recipes and experiments: its network, budget, and optimiser."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from equipoise.config.compose import compose
from equipoise.models import MDEQ

NOT_OF_THE_NETWORK = {"_target_", "about"}


class Column(NamedTuple):
    """What the published files say."""

    parameters: int
    forward: int
    backward: int
    unrolled: int
    start: float
    optimizer: str
    rate: float
    decay: float
    batch: int
    epochs: int
    dropout: float


COLUMNS = {
    "cifar10_mdeq_tiny": Column(
        158_890, 18, 20, 10, 3000 / 19_550, "Adam", 1e-3, 2.5e-6, 128, 50, 0.25
    ),
    "cifar10_mdeq": Column(11_097_438, 18, 20, 10, 20_000 / 86_020, "Adam", 1e-3, 0, 128, 220, 0.3),
    "cifar10_mdeq_large_reg": Column(
        11_097_438, 8, 7, 8, 16_000 / 114_620, "Adam", 1e-3, 0, 96, 220, 0.22
    ),
    "imagenet_mdeq": Column(16_808_936, 26, 27, 5, 0.51 / 1.0009, "SGD", 0.05, 5e-5, 128, 100, 0),
    "imagenet_mdeq_small_reg": Column(
        18_613_496, 14, 14, 5, 0.51 / 1.0009, "SGD", 0.04, 2e-5, 128, 100, 0.02
    ),
    "imagenet_mdeq_large": Column(
        67_063_624, 26, 27, 4, 0.51 / 1.0009, "SGD", 0.05, 1e-4, 128, 100, 0
    ),
    "imagenet_mdeq_large_reg": Column(
        67_061_224, 14, 14, 4, 0.51 / 1.0009, "SGD", 0.05, 1e-4, 128, 100, 0
    ),
    "imagenet_mdeq_xl": Column(
        90_463_280, 26, 27, 4, 400_000 / 667_200, "SGD", 0.05, 1e-4, 256, 100, 0
    ),
    "cityscapes_mdeq": Column(
        8_968_467, 27, 30, 3, 60_000 / 123_500, "SGD", 0.01, 2e-4, 12, 500, 0.05
    ),
    "cityscapes_mdeq_large": Column(
        55_955_859, 27, 30, 3, 60_000 / 123_500, "SGD", 0.01, 3e-4, 12, 500, 0.03
    ),
    "cityscapes_mdeq_xl": Column(
        79_551_755, 27, 30, 3, 40_000 / 92_500, "SGD", 0.01, 3e-4, 16, 500, 0.04
    ),
}
RECIPES = {"cifar10_mdeq": "cifar10", "imagenet_mdeq": "imagenet", "cityscapes_mdeq": "cityscapes"}


def composed(name: str) -> dict[str, Any]:
    chosen = f"task={RECIPES[name]}" if name in RECIPES else f"experiment={name}"
    config = OmegaConf.to_container(
        compose(["model=mdeq", chosen, "run_dir=run"]).config, resolve=True
    )
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def parameters(config: dict[str, Any]) -> int:
    arguments = {k: v for k, v in config["model"].items() if k not in NOT_OF_THE_NETWORK}
    with torch.device("meta"):
        model = MDEQ(nn.Identity(), **arguments)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", COLUMNS)
def test_column(name: str) -> None:
    column, config = COLUMNS[name], composed(name)
    assert parameters(config) == column.parameters
    solver, gradient = config["solver"], config["gradient"]["solver"]
    assert (solver["max_steps"], solver["memory"]) == (column.forward, column.forward)
    assert (gradient["max_steps"], gradient["memory"]) == (column.backward, column.backward)
    assert solver["stop"] == gradient["stop"] == ("relative" if "cifar" in name else "absolute")
    unrolled, implicit = config["callbacks"]["gradient_schedule"]["phases"]
    assert unrolled["gradient"]["steps"] == column.unrolled
    assert implicit["start"] == pytest.approx(column.start, abs=1e-4)
    optimizer = config["optimizer"]
    assert optimizer["_target_"].endswith(f".{column.optimizer}")
    assert (optimizer["lr"], optimizer["weight_decay"]) == (column.rate, column.decay)
    assert config["task"]["batch_size"] == column.batch
    assert config["trainer"]["max_epochs"] == column.epochs
    assert config["model"]["dropout"] == column.dropout
    regularized = "_target_" in config["regularizer"]
    assert regularized == name.endswith("_reg")


@pytest.mark.parametrize(
    ("name", "count", "steps", "damping", "rate"),
    [
        ("cifar10_mdeq_phantom", 11_098_398, 18, 0.5, 0.1),
        ("cifar10_mdeq_tiny_phantom", 158_986, 22, 0.5, 0.1),
        ("imagenet_mdeq_phantom", 16_808_936, 26, 0.6, 0.05),
    ],
)
def test_phantom_column(name: str, count: int, steps: int, damping: float, rate: float) -> None:
    config = composed(name)
    assert parameters(config) == count
    assert config["solver"]["max_steps"] == steps
    assert (config["gradient"]["steps"], config["gradient"]["damping"]) == (5, damping)
    assert config["callbacks"]["gradient_schedule"]["phases"] == []
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"]) == (rate, 0.9)


def test_the_regularisers_weight_grows_as_published() -> None:
    regularizer = composed("imagenet_mdeq_small_reg")["regularizer"]
    assert (regularizer["weight"], regularizer["warmup_weight"]) == (2.5, 0.03)
    steps = regularizer["increment_every"] * 1_000_900
    assert steps == pytest.approx(50_000, rel=1e-3)
    assert regularizer["warmup"] == pytest.approx(510_000 / 1_000_900, abs=1e-4)


def test_the_regulariser_of_the_thumbnails_stops_at_epoch_90() -> None:
    regularizer = composed("cifar10_mdeq_large_reg")["regularizer"]
    assert (regularizer["weight"], regularizer["probability"], regularizer["probes"]) == (
        0.4,
        0.02,
        2,
    )
    assert regularizer["stop"] * 220 == pytest.approx(90, abs=0.01)


def test_segmentation_keeps_slow_running_statistics() -> None:
    config = composed("cityscapes_mdeq_xl")
    assert config["model"]["batch_norm_momentum"] == 0.01
    assert config["task"]["crop"] == config["model"]["image_size"] == [768, 1024]
    assert config["trainer"]["sync_batchnorm"]

"""Each column of the published table: its network, its optimisation, and what it serves."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import OmegaConf

from equipoise.config.compose import compose
from equipoise.models import MulT

NOT_OF_THE_NETWORK = {"_target_", "about"}


class Column(NamedTuple):
    """What the paper says; kernels and dropouts of attention are in the order of the modalities."""

    words: tuple[str, ...]
    batch: int
    rate: float
    width: int
    layers: int
    heads: int
    kernel: int | list[int]
    embedding: float
    attention: list[float]
    block: float
    output: float
    clip: float
    epochs: int


COLUMNS = {
    "mosi": Column(("task=mosi",), 128, 1e-3, 40, 4, 10, [1, 3, 3], 0.2, [0.2] * 3, 0.2, 0.1,
                   0.8, 100),
    "mosei": Column(("task=mosei",), 16, 1e-3, 40, 4, 8, [1, 3, 3], 0.3, [0.1] * 3, 0.1, 0.1,
                    1.0, 20),
    "iemocap": Column(("task=iemocap",), 32, 2e-3, 40, 4, 10, [3, 5, 3], 0.3, [0.25] * 3, 0.25,
                      0.1, 0.8, 30),
    "code": Column(("experiment=mosei_mult_published_code",), 24, 1e-3, 30, 5, 5, 1, 0.25,
                   [0.1, 0, 0], 0.1, 0.0, 0.8, 40),
}  # fmt: skip


def composed(*words: str) -> dict[str, Any]:
    line = [*words, "task.path=file.pkl", "run_dir=run", "task.features=[300,74,35]"]
    config = OmegaConf.to_container(compose(line).config, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_the_settings_are_those_of_the_table(column: Column) -> None:
    config = composed(*column.words)
    model, trainer = config["model"], config["trainer"]
    found = Column(
        column.words, config["task"]["batch_size"], config["optimizer"]["lr"], model["width"],
        model["layers"], model["heads"], model["kernel"], model["embedding_dropout"],
        model["attention_dropout"], model["relu_dropout"], model["output_dropout"],
        trainer["gradient_clip_val"], trainer["max_epochs"],
    )  # fmt: skip
    assert found == column
    assert model["residual_dropout"] == model["relu_dropout"]
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"
    schedule = config["schedule"]
    assert schedule["_target_"] == "equipoise.tasks.schedules.Plateau"
    followed = (schedule["monitor"], schedule["mode"], schedule["factor"], schedule["patience"])
    assert followed == ("val/loss", "min", 0.1, 20)
    assert config["callbacks"]["checkpoint_best"]["monitor"] == "val/loss"


@pytest.mark.parametrize("task", ["mosi", "mosei", "iemocap"])
def test_a_recipe_serves_aligned_and_unaligned_files(task: str) -> None:
    aligned, unaligned = (composed(f"task={task}", f"task.aligned={a}") for a in ("true", "false"))
    assert aligned["task"].pop("aligned") != unaligned["task"].pop("aligned")
    assert aligned == unaligned


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        (("experiment=mosei_mult_published_code",), 1_073_731),
        (("task=mosei", "model.kernel=1"), 1_540_601),
    ],
)
def test_the_network_has_as_many_weights_as_the_published_one(
    words: tuple[str, ...], parameters: int
) -> None:
    node = composed(*words)["model"]
    with torch.device("meta"):
        model = MulT(**{k: v for k, v in node.items() if k not in NOT_OF_THE_NETWORK})
    assert sum(weight.numel() for weight in model.parameters()) == parameters

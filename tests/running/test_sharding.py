"""What cannot be sharded is refused in one sentence; states are put together and divided."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

import equipoise
from equipoise.callbacks.beside_training import refuse_manual_and_sharded
from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running.processes import ProcessesWithoutGradients, strategy_for
from equipoise.running.sharding import ShardedNetwork, check_shardable


class Scaled(LightningModule):
    """A task with a weight that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def test_a_single_number_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match="scale is a single number: choose strategy=ddp"):
        check_shardable(Scaled())


def test_a_task_that_steps_its_optimiser_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="steps it itself: choose strategy=ddp, ddp_cpu or auto"):
        equipoise.run("task=hyperparameter", "strategy=fsdp_cpu", "run_dir=run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed"])
def test_nothing_is_averaged_where_there_is_nothing_to_average(strategy: str) -> None:
    found = strategy_for(LightningModule(), {"strategy": strategy, "devices": 2})
    assert isinstance(found["strategy"], ProcessesWithoutGradients)


def test_what_needs_whole_weights_is_refused() -> None:
    sharded: Any = SimpleNamespace(strategy=ShardedNetwork())
    with pytest.raises(UserError, match=r"ema needs whole parameters .* strategy=ddp"):
        refuse_manual_and_sharded(sharded, LightningModule(), "ema")


def test_fsdp_is_the_second_one() -> None:
    task = LightningModule()
    task.layer = nn.Linear(2, 2)
    trainer = compose(["strategy=fsdp_cpu"]).config.trainer
    assert isinstance(strategy_for(task, trainer)["strategy"], ShardedNetwork)
    assert strategy_for(task, compose(["strategy=ddp_cpu"]).config.trainer) == {}


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_a_missing_package_is_named() -> None:
    task = LightningModule()
    task.layer = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[deepspeed\]', or choose"):
        strategy_for(task, compose(["strategy=deepspeed"]).config.trainer)

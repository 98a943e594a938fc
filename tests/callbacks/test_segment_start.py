"""Starts at the equilibrium of the segment before, in real runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equipoise.callbacks import ConvergenceMonitor, SegmentStart, WarmStart
from equipoise.equilibrium import Equilibrium
from equipoise.errors import UserError
from tests.callbacks.conftest import BATCH, BATCHES, ToyTask

Run = Callable[..., Any]


class Streams(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Batches of samples that move slowly; each third one begins anew."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        first, step = torch.randn(2, BATCH, 5, generator=generator)
        self.x = [first + 0.05 * number * step for number in range(BATCHES)]

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        x = self.x[number]
        return {"x": x, "y": (x[:, 0] > 0).long(), "start": torch.tensor(number % 3 == 0)}


class StreamTask(ToyTask):
    """The toy task on such batches; notes how many evaluations each step took."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        outputs = super().training_step((batch["x"], batch["y"]), batch_idx)
        self.spent.append(layer_of(self).report.nfe)  # type: ignore[union-attr]
        return outputs

    def evaluate(self, batch: Any, stage: str) -> None:
        super().evaluate((batch["x"], batch["y"]), stage)


def layer_of(task: ToyTask) -> Equilibrium:
    layer = task.model.equilibrium
    assert isinstance(layer, Equilibrium)
    return layer


@pytest.fixture
def task(toy: Run) -> StreamTask:
    built: Any = toy()
    built.__class__ = StreamTask
    built.spent = []
    streams: StreamTask = built
    return streams


@pytest.fixture
def streams() -> DataLoader[Any]:
    return DataLoader(Streams(), batch_size=None)


def test_a_segment_that_continues_another_needs_fewer_evaluations(
    task: StreamTask, streams: DataLoader[Any], make_trainer: Run
) -> None:
    make_trainer([SegmentStart()], max_epochs=1).fit(task, streams)
    begun, continued = task.spent[::3], task.spent[1::3] + task.spent[2::3]
    assert max(continued) < min(begun)
    assert layer_of(task).start is None
    assert not layer_of(task)._forward_hooks


def test_evaluation_follows_its_own_segments(
    task: StreamTask, streams: DataLoader[Any], make_trainer: Run
) -> None:
    monitor, spent = ConvergenceMonitor(), []
    for callbacks in ([monitor], [monitor, SegmentStart()]):
        make_trainer(callbacks, name=f"run{len(callbacks)}").test(task, streams, verbose=False)
        stats = monitor.solver_stats("test")
        assert stats is not None
        assert stats["residual_p95"] <= 1e-3
        spent.append(stats["nfe_mean"])
    assert spent[1] < 0.85 * spent[0]


def test_other_batches_and_other_starts_are_refused(
    toy: Run, task: StreamTask, loader: Any, streams: DataLoader[Any], make_trainer: Run
) -> None:
    with pytest.raises(UserError, match="continue each other"):
        make_trainer([SegmentStart()]).fit(toy(), loader)
    with pytest.raises(UserError, match="callbacks=warm_start and"):
        make_trainer([SegmentStart(), WarmStart()]).fit(task, streams)
    make_trainer([SegmentStart()]).fit(toy(equilibrium=False), loader)

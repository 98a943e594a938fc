"""Running statistics that follow the network from the first steps on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.callbacks import NormalizationWarmup

Run = Callable[..., Any]


def statistics(task: Any) -> list[torch.Tensor]:
    norm = task.model.norm
    return [norm.running_mean.clone(), norm.running_var.clone()]


@pytest.mark.parametrize("horizon", [1.0, 8.0])
def test_each_update_weighs_its_batch_by_the_rule(
    toy: Run, loader: Any, make_trainer: Run, horizon: float
) -> None:
    task = toy()
    make_trainer([NormalizationWarmup(horizon)], max_epochs=2).fit(task, loader)
    mean, variance = torch.zeros(5), torch.ones(5)
    for n, (x, _) in enumerate([*loader, *loader]):
        weight = max(0.1, horizon / (n + horizon))
        mean = mean.lerp(x.mean(0), weight)
        variance = variance.lerp(x.var(0), weight)
    torch.testing.assert_close(statistics(task), [mean, variance])
    assert task.model.norm.momentum == 0.1


def test_a_long_run_is_as_configured(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    warmup = NormalizationWarmup(horizon=1.0)
    make_trainer([warmup], max_epochs=2).fit(task, loader)
    assert warmup.momenta == {}  # over after 9 of 12 updates
    assert task.model.norm.momentum == 0.1


def test_training_itself_is_not_touched(toy: Run, loader: Any, make_trainer: Run) -> None:
    weights = []
    for callbacks in ([], [NormalizationWarmup()]):
        torch.manual_seed(3)
        task = toy()
        make_trainer(callbacks).fit(task, loader)
        weights.append(list(task.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_statistics_without_a_count_are_kept(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    task.model.norm.running_mean.fill_(7.0)
    make_trainer([NormalizationWarmup()], max_steps=1).fit(task, loader)
    first, _ = next(iter(loader))
    torch.testing.assert_close(task.model.norm.running_mean, 0.9 * 7.0 + 0.1 * first.mean(0))


@pytest.mark.parametrize("momentum", [None, 0.0])
def test_norms_that_do_not_average_by_a_momentum_are_left_alone(
    toy: Run, loader: Any, make_trainer: Run, momentum: float | None
) -> None:
    task = toy()
    task.model.norm = nn.BatchNorm1d(5, momentum=momentum)
    make_trainer([NormalizationWarmup()], max_epochs=1).fit(task, loader)
    assert task.model.norm.momentum == momentum
    if momentum == 0.0:
        assert not task.model.norm.running_mean.any()


def test_a_resumed_run_repeats_the_bits(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    def fit(epochs: int, resume_from: Path | None = None) -> tuple[Any, Any]:
        torch.manual_seed(3)
        task = toy()
        trainer = make_trainer([NormalizationWarmup()], max_epochs=epochs)
        trainer.fit(task, loader, ckpt_path=resume_from, weights_only=True)
        return trainer, task

    _, whole = fit(2)
    trainer, first = fit(1)
    assert int(first.model.norm.num_batches_tracked) == 6
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    _, resumed = fit(2, tmp_path / "first.ckpt")
    expected = whole.state_dict()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("nan"), float("inf")])
def test_a_horizon_is_a_positive_number(horizon: float) -> None:
    with pytest.raises(ValueError, match="horizon must be a positive number"):
        NormalizationWarmup(horizon)

"""The range test finds a rate, and the run after it does not notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.callbacks import DivergenceGuard, LearningRateFinder, RunReport, TrainingCurve
from equipoise.equilibrium import Auto
from equipoise.errors import UserError

Run = Callable[..., Any]


def finder(**settings: Any) -> LearningRateFinder:
    return LearningRateFinder(**{"num_training_steps": 20, "max_lr": 10.0, **settings})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_run_gives_the_same_bits_as_without_it(
    toy: Run, loader: Any, make_trainer: Run, optimizer: str
) -> None:
    ends = []
    for found in ([], [finder()]):
        torch.manual_seed(0)
        task = toy(optimizer=optimizer)
        task.model.head = nn.Sequential(nn.Dropout(0.3), task.model.head)
        task.model.equilibrium.gradient = Auto(every=4)
        callbacks = [TrainingCurve(), DivergenceGuard(), *found]
        trainer = make_trainer(callbacks, accumulate_grad_batches=2, gradient_clip_val=1.0)
        trainer.fit(task, loader, loader)
        assert isinstance(task.model.equilibrium.gradient, Auto)
        ends.append(
            {
                **{f"state/{name}": value for name, value in task.state_dict().items()},
                "calls": torch.tensor(task.model.equilibrium.gradient.calls),
                "losses": torch.tensor(task.losses),
                "random": torch.get_rng_state(),
                **{
                    f"moments/{name}/{key}": torch.as_tensor(value)
                    for name, state in trainer.optimizers[0].state_dict()["state"].items()
                    for key, value in state.items()
                    if value is not None
                },
            }
        )
    assert ends[0].keys() == ends[1].keys()
    assert [name for name, value in ends[0].items() if not torch.equal(ends[1][name], value)] == []


def test_what_it_finds_is_shown_and_comes_back_with_a_checkpoint(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, report = finder(early_stop_threshold=None), RunReport(tmp_path / "report")
    make_trainer([found, report], max_epochs=1).fit(toy(), loader)
    assert found.found is not None
    assert found.found.rates == pytest.approx([1e-6 * 10 ** (7 * n / 19) for n in range(20)])
    suggested = found.summary()["suggested_learning_rate"]
    assert 1e-3 < suggested < 10
    assert f"try optimizer.lr={suggested:.1e}" in capsys.readouterr().out
    assert "learning_rate_finder.png" in [picture.file for picture in report.added]
    assert (tmp_path / "report" / "learning_rate_finder.png").stat().st_size > 5000

    resumed = finder()
    resumed.load_state_dict(found.state_dict())
    again = RunReport(tmp_path / "again")
    make_trainer([resumed, again], max_epochs=1).fit(toy(), loader)
    assert resumed.found == found.found
    assert (tmp_path / "again" / "learning_rate_finder.png").is_file()


def test_it_ends_where_the_loss_is_no_number_or_too_high(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    too_high = finder(max_lr=1e6, early_stop_threshold=1.5)
    make_trainer([too_high], max_epochs=1).fit(toy(), loader)
    assert too_high.found is not None
    assert 2 < len(too_high.found.losses) < 20
    task = toy()
    steps = iter(range(1000))
    task.bad_loss = lambda step: next(steps) == 5  # of the test, not of the run
    broken = finder()
    make_trainer([broken], max_epochs=1).fit(task, loader)
    assert broken.found is not None
    assert len(broken.found.losses) == 5
    assert broken.summary() == {"suggested_learning_rate": None}


def test_what_a_task_logs_in_its_steps_is_that_of_the_run(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    task = toy()
    step = task.training_step

    def logging(batch: Any, batch_idx: int) -> Any:
        outputs = step(batch, batch_idx)
        task.log("train/raw", outputs["loss"], on_step=True)
        return outputs

    task.training_step = logging
    trainer = make_trainer([finder()], max_epochs=1)
    trainer.fit(task, loader)
    assert float(trainer.callback_metrics["train/raw"]) == pytest.approx(task.losses[-1])
    assert "log" not in vars(task)


def test_what_cannot_be_tested_is_refused(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    task.automatic_optimization = False
    with pytest.raises(UserError, match="leave callbacks=learning_rate_finder out"):
        make_trainer([finder()]).fit(task, loader)
    with pytest.raises(UserError, match="needs min_lr below max_lr, not 1 and 1"):
        LearningRateFinder(min_lr=1, max_lr=1)
    with pytest.raises(UserError, match="num_training_steps=3 is too few"):
        LearningRateFinder(num_training_steps=3)

"""The budget that follows from the measured contraction, in real runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.callbacks import ContractionBudget, ConvergenceMonitor, GradientSchedule, Phase
from equipoise.equilibrium import Unrolled
from equipoise.errors import UserError

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")


def test_the_budget_follows_the_contraction_and_is_written(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    task, budget, monitor = toy(), ContractionBudget(every=4, margin=0.0), ConvergenceMonitor()
    layer = task.model.equilibrium
    layer.solver = configured = replace(layer.solver, tol=0.0)
    budget.tol = 1e-2
    make_trainer([monitor, budget], log_every_n_steps=1, max_epochs=2).fit(task, loader)
    spent = [int(float(row["budget/max_steps"])) for row in rows("budget/max_steps")]
    assert [step for step, steps in enumerate(spent) if steps == 20] == [0, 4, 8]  # are measured
    assert 4 <= max(spent[1:4]) < 20
    assert [float(row["solver/nfe"]) for row in rows("solver/nfe")] == [float(n) for n in spent]
    told = budget.summary()["contraction_budget"]
    assert told["changes"][0]["max_steps"] == spent[1]
    assert told["max_steps"] == {"model.equilibrium": spent[-1]}
    assert 0 < told["contraction"]["model.equilibrium"] < 0.7  # f contracts by at most 0.5
    assert layer.solver is configured


def test_the_samples_of_a_run_reach_the_tolerance(toy: Run, loader: Any, make_trainer: Run) -> None:
    task, monitor = toy(), ConvergenceMonitor()
    budget = ContractionBudget(every=6, fraction=1.0, margin=0.3, tol=1e-2)
    layer = task.model.equilibrium
    layer.solver = replace(layer.solver, tol=0.0)
    make_trainer([monitor, budget]).fit(task, loader)
    stats = monitor.solver_stats("train")
    assert stats is not None
    assert stats["residual_p95"] < 1e-2
    assert stats["nfe_mean"] < 15


def test_a_resumed_run_has_the_same_budgets(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    from equipoise.callbacks.curve_rows import CurveState

    def callbacks() -> list[Any]:
        return [CurveState(), ContractionBudget(every=5)]

    torch.manual_seed(1)
    whole, first, resumed = (toy() for _ in range(3))
    first.load_state_dict(whole.state_dict())
    kept = callbacks()
    make_trainer(kept, max_epochs=2, name="whole").fit(whole, loader)
    trainer = make_trainer(callbacks(), max_epochs=1, name="first")
    trainer.fit(first, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = callbacks()
    make_trainer(again, max_epochs=2, name="again").fit(
        resumed, loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert again[1].summary() == kept[1].summary()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_a_schedule_keeps_its_phases(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy()
    schedule = GradientSchedule([Phase(0, Unrolled(2)), Phase(4, max_steps=9)])
    budget = ContractionBudget(every=3)
    make_trainer([schedule, budget], max_epochs=2).fit(task, loader)
    assert budget.changes[0]["step"] == 7  # the first measurement in the second phase is step 6
    assert max(change["max_steps"] for change in budget.changes) <= 9
    assert task.model.equilibrium.solver.max_steps == 9


def test_settings_without_sense_are_refused(toy: Run, loader: Any, make_trainer: Run) -> None:
    for wrong in ({"every": 0}, {"least": 5, "most": 4}, {"fraction": 0.0}, {"margin": -1.0},
                  {"tol": 0.0}):  # fmt: skip
        with pytest.raises(UserError, match="contraction_budget needs"):
            ContractionBudget(**wrong)  # type: ignore[arg-type]
    task = toy()
    task.model.equilibrium.solver = replace(task.model.equilibrium.solver, tol=0.0)
    with pytest.raises(UserError, match=r"contraction_budget\.tol"):
        make_trainer([ContractionBudget()]).fit(task, loader)

"""The convergence monitor in real runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.callbacks import ConvergenceMonitor, TrainingCurve
from equipoise.equilibrium import Equilibrium, FixedPoint, JacobianFree
from equipoise.running.messages import quiet_lightning

Run = Callable[..., Any]


def test_columns_of_a_run(toy: Run, loader: Any, make_trainer: Run, rows: Run) -> None:
    make_trainer([TrainingCurve(), ConvergenceMonitor()]).fit(toy(exact=True), loader)
    row = rows("solver/nfe")[-1]
    assert 1 < float(row["solver/nfe"]) <= 20
    assert 0 < float(row["solver/residual_median"]) <= float(row["solver/residual_p95"]) <= 1e-3
    assert float(row["solver/converged_fraction"]) == 1.0
    assert 1 < float(row["backward/nfe"]) <= 15
    assert 0 < float(row["backward/residual_median"]) <= 1e-4
    assert float(row["backward/fallback_fraction"]) == 0.0
    assert row["gradient"] == "exact"


def test_explicit_estimators_have_no_backward_residual(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    monitor = ConvergenceMonitor()
    make_trainer([monitor]).fit(toy(), loader)
    row = rows("solver/nfe")[0]
    assert row["gradient"] == "phantom"
    assert float(row["backward/nfe"]) == 2.0
    assert "backward/residual_median" not in row
    assert monitor.gradient_stats() == {
        "nfe_mean": 2.0,
        "residual_median": None,
        "fallback_fraction": 0.0,
    }


def test_each_stage_is_summed_up(toy: Run, loader: Any, make_trainer: Run) -> None:
    monitor, task = ConvergenceMonitor(), toy(exact=True)
    trainer = make_trainer([monitor])
    assert monitor.solver_stats("test") is None
    trainer.fit(task, loader, loader)
    trainer.test(task, loader, verbose=False)
    for stage in ("train", "val", "test"):
        summary = monitor.solver_stats(stage)
        assert summary is not None
        assert set(summary) == {
            "nfe_mean",
            "nfe_per_sample",
            "nfe_spent_per_sample",
            "residual_median",
            "residual_p95",
            "converged_fraction",
        }
        assert summary["converged_fraction"] == 1.0
    backward = monitor.gradient_stats()
    assert backward is not None
    assert backward["residual_median"] <= 1e-4


def test_the_test_summary_agrees_with_the_reports(toy: Run, loader: Any, make_trainer: Run) -> None:
    monitor, task = ConvergenceMonitor(), toy()
    make_trainer([monitor]).test(task, loader, verbose=False)
    residuals, evaluations = [], []
    task.eval()
    with torch.no_grad():
        for x, _ in loader:
            task.model(x)
            residuals.append(task.model.equilibrium.report.residual)
            evaluations.append(task.model.equilibrium.report.nfe)
    summary = monitor.solver_stats("test")
    assert summary is not None
    assert summary["nfe_mean"] == sum(evaluations) / len(evaluations)
    assert summary["residual_median"] == pytest.approx(torch.cat(residuals).quantile(0.5).item())


def test_a_budget_that_is_too_small_shows(toy: Run, loader: Any, make_trainer: Run) -> None:
    monitor, task = ConvergenceMonitor(), toy()
    task.model.equilibrium.solver = FixedPoint(max_steps=2, tol=1e-6)
    with pytest.warns(UserWarning, match="did not reach the tolerance"):
        make_trainer([monitor]).test(task, loader, verbose=False)
    summary = monitor.solver_stats("test")
    assert summary is not None
    assert (summary["nfe_mean"], summary["converged_fraction"]) == (2.0, 0.0)
    assert summary["nfe_per_sample"] == 2.0


MOST = "100 % of the test samples did not reach the tolerance 1e-06 in 2 evaluations"


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (FixedPoint(max_steps=2, tol=1e-6), [MOST]),
        (FixedPoint(max_steps=50, tol=1e-3), []),  # of little use to warn of
        (FixedPoint(max_steps=2, tol=0.0), []),  # the budget is what was asked for
    ],
)
def test_a_run_warns_at_its_end_and_only_where_most_did_not_converge(
    toy: Run, loader: Any, make_trainer: Run, solver: FixedPoint, expected: list[str]
) -> None:
    task = toy()
    task.model.equilibrium.solver = solver
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_lightning()
        trainer = make_trainer([ConvergenceMonitor()], max_epochs=1)
        trainer.fit(task, loader, loader)
        during = [str(w.message) for w in caught if "tolerance" in str(w.message)]
        trainer.test(task, loader, verbose=False)
        trainer.test(task, loader, verbose=False)
    said = [str(w.message) for w in caught if "tolerance" in str(w.message)]
    assert during == []
    assert [line.partition(":")[0] for line in said] == expected


def test_several_layers_are_merged_and_listed(toy: Run, loader: Any, make_trainer: Run) -> None:
    class Two(nn.Module):
        def __init__(self, first: nn.Module) -> None:
            super().__init__()
            self.first = first
            solver = FixedPoint(max_steps=40, tol=1e-2)
            self.second = Equilibrium(solver, JacobianFree())

        def forward(self, x: Tensor) -> Tensor:
            u = self.first(x)
            return self.second(lambda z, u: 0.5 * torch.tanh(z) + u, torch.zeros_like(u), u)

    monitor, task = ConvergenceMonitor(), toy()
    task.model = Two(task.model)
    make_trainer([monitor], max_epochs=1).fit(task, loader)
    summary = monitor.solver_stats("train")
    assert summary is not None
    details = summary["details"]
    assert set(details) == {"model.first.equilibrium", "model.second"}
    means = [layer["nfe_mean"] for layer in details.values()]
    assert summary["nfe_mean"] == pytest.approx(sum(means) / 2)
    assert monitor.active_gradient() == "phantom+jfb"


def test_a_change_of_estimator_brings_a_row(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    class Swap(ConvergenceMonitor):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            if trainer.global_step == 3:
                module.model.equilibrium.gradient = JacobianFree()

    make_trainer([Swap()], log_every_n_steps=5, max_epochs=1).fit(toy(), loader)
    assert [(int(r["step"]), r["gradient"]) for r in rows()] == [(4, "jfb"), (6, "jfb")]


def test_models_without_equilibrium_have_nothing_to_report(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    monitor, task = ConvergenceMonitor(), toy(equilibrium=False)
    trainer = make_trainer([TrainingCurve(), monitor])
    trainer.fit(task, loader, loader)
    trainer.test(task, loader, verbose=False)
    assert monitor.gradient_stats() is None
    assert [monitor.solver_stats(stage) for stage in ("train", "val", "test")] == [None] * 3
    assert not any(name.startswith(("solver", "gradient")) for name in rows()[0])

"""The gradient schedule in real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from equipoise.callbacks import ConvergenceMonitor, GradientSchedule, Phase, TrainingCurve
from equipoise.equilibrium import (
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Reversible,
    Unrolled,
    with_budget,
)
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError

Run = Callable[..., Any]


def three_phases() -> GradientSchedule:
    """Unrolled for a third of the run, the configured gradient, then one Jacobian-free step."""
    return GradientSchedule(
        [
            Phase(0.0, Unrolled(steps=3), max_steps=4),
            Phase(1 / 3),
            Phase(0.75, JacobianFree(), max_steps=7),
        ]
    )


def test_phase_at_takes_steps_and_fractions() -> None:
    schedule = GradientSchedule([Phase(5), Phase(0.5)])
    assert schedule.phase_at(4, 100) is None
    assert schedule.phase_at(5, 100) == 0
    assert schedule.phase_at(49, 100) == 0
    assert schedule.phase_at(50, 100) == 1


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([3, 2], "out of order"),
        ([0.5, 0.5], "out of order"),
        ([-1], "from 0 on"),
        ([1.5], "between 0.0 and 1.0"),
    ],
)
def test_impossible_phases_are_refused(starts: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GradientSchedule([Phase(start) for start in starts])


def test_mixed_starts_are_compared_once_the_length_is_known(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    schedule = GradientSchedule([Phase(0.5), Phase(2)])
    with pytest.raises(UserError, match="out of order"):
        make_trainer([schedule]).fit(toy(), loader)


def test_a_fraction_of_an_endless_run_is_refused(toy: Run, loader: Any, make_trainer: Run) -> None:
    trainer = make_trainer([GradientSchedule([Phase(0.5)])], max_epochs=-1)
    with pytest.raises(UserError, match="no end"):
        trainer.fit(toy(), loader)


def test_phases_are_visible_in_the_curve(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    callbacks = [TrainingCurve(), ConvergenceMonitor(), three_phases()]
    task = toy()
    make_trainer(callbacks, log_every_n_steps=100).fit(task, loader)
    # 12 steps: the phases start at 0, 4 and 9; each change writes the row of the batches before
    # it and the one of the first batch after it
    found = [(int(row["step"]), row["gradient"]) for row in rows("gradient")]
    assert found == [
        (4, "unrolled"),
        (5, "phantom"),
        (6, "phantom"),
        (9, "phantom"),
        (10, "jfb"),
        (12, "jfb"),
    ]
    first = rows("gradient")[0]
    assert float(first["solver/nfe"]) == 4.0  # the phase's budget, not the estimator's 3 steps
    assert task.model.equilibrium.solver.max_steps == 7


def test_a_phase_without_gradient_goes_back_to_the_configured_one(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    task = toy(exact=True)
    own, solver = task.model.equilibrium.gradient, task.model.equilibrium.solver
    schedule = GradientSchedule([Phase(0, Phantom(), max_steps=3), Phase(0.5)])
    make_trainer([schedule]).fit(task, loader)
    assert task.model.equilibrium.gradient is own
    assert task.model.equilibrium.solver is solver


def test_resuming_continues_in_the_right_phase(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    def checkpoint() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "saved", every_n_epochs=1, save_top_k=-1)

    whole = toy()
    trainer = make_trainer([three_phases(), checkpoint()], enable_checkpointing=True)
    trainer.fit(whole, loader)
    path = next((tmp_path / "saved").glob("epoch=0*.ckpt"))
    assert torch.load(path, weights_only=True)["gradient_phase"] == 1

    resumed, schedule = toy(), three_phases()
    make_trainer([schedule], name="resumed").fit(resumed, loader, ckpt_path=path, weights_only=True)
    assert schedule.active == 2
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_a_tolerance_may_be_loose_early_and_tight_late(
    toy: Run, loader: Any, make_trainer: Run, rows: Run
) -> None:
    task, schedule = toy(), GradientSchedule([Phase(0, tol=0.1), Phase(6, max_steps=15, tol=1e-4)])
    configured = task.model.equilibrium.solver
    make_trainer([ConvergenceMonitor(), schedule], log_every_n_steps=6).fit(task, loader)
    loose, tight = (float(row["solver/nfe"]) for row in rows("solver/nfe"))
    assert loose < 0.7 * tight
    solver = task.model.equilibrium.solver
    assert (solver.tol, solver.max_steps) == (1e-4, 15)
    schedule.restore(task, {"gradient_phase": 0})
    solver = task.model.equilibrium.solver
    assert (solver.tol, solver.max_steps) == (0.1, configured.max_steps)
    schedule.restore(task, {"gradient_phase": None})
    assert task.model.equilibrium.solver is configured


@pytest.mark.parametrize("tol", [-1e-3, float("nan"), float("inf")])
def test_a_tolerance_without_sense_is_refused(tol: float) -> None:
    with pytest.raises(UserError, match="has the tolerance"):
        GradientSchedule([Phase(0, Phantom(), tol=tol)])


def test_a_tolerance_of_an_own_iteration_is_refused(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    with pytest.raises(UserError, match="gradient=unrolled the tolerance"):
        GradientSchedule([Phase(0, Unrolled(3), tol=0.1)])
    task = toy()
    task.model.equilibrium.gradient = Unrolled(3)
    with pytest.raises(UserError, match="leave tol out"):
        make_trainer([GradientSchedule([Phase(0, tol=0.1)])]).fit(task, loader)


def test_restore_applies_the_phase_of_a_checkpoint(toy: Run) -> None:
    task, schedule = toy(), three_phases()
    schedule.restore(task, {"gradient_phase": 0})
    assert task.model.equilibrium.gradient == Unrolled(steps=4)
    schedule.restore(task, {"gradient_phase": 2})
    assert isinstance(task.model.equilibrium.gradient, JacobianFree)
    assert task.model.equilibrium.solver.max_steps == 7
    schedule.restore(task, {"gradient_phase": None})
    assert isinstance(task.model.equilibrium.gradient, Phantom)
    assert task.model.equilibrium.solver.max_steps == 20
    with pytest.raises(UserError, match="phase 4"):
        schedule.restore(task, {"gradient_phase": 3})


def test_without_phases_nothing_is_touched(toy: Run, loader: Any, make_trainer: Run) -> None:
    task = toy(exact=True)
    make_trainer([GradientSchedule()], max_epochs=1).fit(task, loader)
    assert isinstance(task.model.equilibrium.gradient, Exact)


@pytest.mark.parametrize("gradient", [Unrolled(steps=3), Reversible(steps=3), Phantom(3)])
@pytest.mark.parametrize("budget", [1, 4, 7])
def test_a_phase_has_its_budget_in_evaluations_of_f(
    toy: Run, gradient: GradientEstimator, budget: int
) -> None:
    task = toy()
    GradientSchedule([Phase(0, gradient, budget)]).restore(task, {"gradient_phase": 0})
    (layer,) = equilibrium_layers(task).values()
    assert layer.gradient == with_budget(gradient, budget)
    assert layer.solver.max_steps == budget

"""Outer steps: tolerances, what is counted and kept, the final solve, errors, and pictures."""

from __future__ import annotations

import csv
import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from equipoise.callbacks import GradientSchedule
from equipoise.callbacks.gradient_schedule import Phase
from equipoise.data import Tabular
from equipoise.equilibrium import (
    LBFGS,
    Anderson,
    ConjugateGradient,
    Equilibrium,
    Exact,
    Shine,
    Unrolled,
)
from equipoise.errors import UserError
from equipoise.models import KernelRidge, LogisticRegression, NonlinearLeastSquares
from equipoise.tasks import Hyperparameter
from equipoise.tasks.hypergradient_descent import HypergradientDescent
from equipoise.tasks.schedules import Constant

DESCENT = partial(HypergradientDescent, lr=1.0)
EXACT = Exact(solver=ConjugateGradient())
COLUMNS = {"loss", "suboptimality", "inner_iterations", "linear_iterations", "hypergradient",
           "seconds"}  # fmt: skip


def trainer(folder: Path, steps: int, **settings: Any) -> pl.Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0,
                **settings}  # fmt: skip
    return pl.Trainer(
        default_root_dir=folder, max_epochs=steps, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, **settings,
    )  # fmt: skip


def parts(
    kind: Any = LogisticRegression,
    gradient: Any = EXACT,
    solver: Any = None,
    optimizer: Any = DESCENT,
    data: Tabular | None = None,
    task: Any = Hyperparameter,
    first_tolerance: float = 1e-3,
    decrease: Any = "exponential",
    **settings: Any,
) -> tuple[Hyperparameter, Tabular]:
    """A task on the breast tumours, and the data."""
    data = data or Tabular(batch_size=50)
    sizes = data.inspect()
    if kind is not KernelRidge:
        sizes.pop("training_rows")
    layer = Equilibrium(solver or LBFGS(), gradient)
    model = kind(equilibrium=layer, **sizes, **settings)
    return task(model, optimizer, Constant(), first_tolerance, decrease), data


@pytest.mark.parametrize(
    ("decrease", "expected"),
    [
        ("exponential", [1.0, 0.9, 0.81, 0.729]),
        ("quadratic", [1.0, 1 / 4, 1 / 9, 1 / 16]),
        ("cubic", [1.0, 1 / 8, 1 / 27, 1 / 64]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_tolerances_tighten_as_the_schedule_says(decrease: str, expected: list[float]) -> None:
    task, _ = parts(first_tolerance=0.01, decrease=decrease)
    assert [task.tolerance(k) for k in range(4)] == pytest.approx([0.01 * e for e in expected])


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="decrease must be exponential, quadratic"):
        parts(decrease="linear")


class Watched(Hyperparameter):
    """Notes the tolerances of the solvers after each outer step."""

    seen: list[tuple[float, float]]

    def on_train_batch_end(self, *_: Any) -> None:
        layer = self.problem.equilibrium
        assert isinstance(layer.gradient, Exact)
        self.seen = [*getattr(self, "seen", []), (layer.solver.tol, layer.gradient.solver.tol)]


def test_both_solvers_follow_the_schedule_down_to_their_own_tolerance(tmp_path: Path) -> None:
    task, data = parts(
        task=Watched, decrease="cubic", solver=LBFGS(tol=1e-5),
        gradient=Exact(solver=ConjugateGradient(tol=1e-4)),
    )  # fmt: skip
    assert isinstance(task, Watched)
    trainer(tmp_path, 6).fit(task, data)
    wanted = [1e-3 / (k + 1) ** 3 for k in range(6)]
    assert [inner for inner, _ in task.seen] == pytest.approx([max(t, 1e-5) for t in wanted])
    assert [adjoint for _, adjoint in task.seen] == pytest.approx([max(t, 1e-4) for t in wanted])
    trainer(tmp_path, 0).test(task, data, verbose=False)
    assert task.problem.equilibrium.solver.tol == 1e-5


def test_phases_of_a_gradient_schedule_keep_their_budget_and_their_solvers(tmp_path: Path) -> None:
    task, data = parts(
        task=Watched, decrease="constant", first_tolerance=1e-9, solver=LBFGS(tol=1e-8),
        gradient=Exact(solver=ConjugateGradient(tol=1e-7)),
    )  # fmt: skip
    assert isinstance(task, Watched)
    other = Exact(solver=ConjugateGradient(tol=1e-4))
    phases = GradientSchedule([Phase(0, max_steps=2), Phase(2, gradient=other), Phase(3)])
    trainer(tmp_path, 5, callbacks=[phases]).fit(task, data)
    assert [adjoint for _, adjoint in task.seen] == [1e-7, 1e-7, 1e-4, 1e-7, 1e-7]
    inner = task.history["inner_iterations"]
    assert max(inner[:2]) == 2 < inner[2]


@pytest.mark.parametrize("kind", [LogisticRegression, NonlinearLeastSquares, KernelRidge])
@pytest.mark.parametrize("gradient", [EXACT, Shine(), Unrolled(steps=30)], ids=lambda g: g.name)
def test_outer_steps_lower_the_outer_loss_and_are_told(
    kind: Any, gradient: Any, tmp_path: Path
) -> None:
    task, data = parts(kind, gradient)
    fit = trainer(tmp_path, 8)
    fit.fit(task, data)
    history = task.history
    assert set(history) == COLUMNS
    assert {len(values) for values in history.values()} == {8} == {fit.global_step}
    assert min(history["loss"]) < 0.75 * history["loss"][0]
    assert history["suboptimality"] == pytest.approx(
        [loss - min(history["loss"][: k + 1]) for k, loss in enumerate(history["loss"])]
    )
    assert history["seconds"] == sorted(history["seconds"])
    assert all(n >= 1 for n in history["inner_iterations"])
    assert (max(history["linear_iterations"]) > 0) == (gradient.name != "shine")
    notes = task.epoch_notes()
    assert notes[0] == f"inner {history['inner_iterations'][-1]:.0f}"


def test_the_first_step_leaves_the_hyper_parameters_where_they_start(tmp_path: Path) -> None:
    task, data = parts(log_strength=-1.0)
    trainer(tmp_path, 1).fit(task, data)
    assert task.model.log_strength.tolist() == [-1.0]
    assert list(task.gradients) == ["log_strength"]
    trainer(tmp_path, 1).fit(task, data)
    assert task.model.log_strength.item() != -1.0


def test_a_checkpoint_holds_the_solution_that_belongs_to_its_hyper_parameters(
    tmp_path: Path,
) -> None:
    task, data = parts(strengths="feature", solver=LBFGS(tol=1e-9), first_tolerance=1e-9)
    trainer(tmp_path, 4).fit(task, data)
    other, _ = parts(strengths="feature", solver=LBFGS(tol=1e-9))
    other.load_state_dict(task.state_dict())
    batch = next(iter(data.train_dataloader()))
    kept = other.model.coefficients.clone()
    torch.testing.assert_close(other.problem.solve(batch["training"]).detach(), kept, atol=1e-6,
                               rtol=1e-6)  # fmt: skip


def test_a_step_that_went_too_far_is_taken_back(tmp_path: Path) -> None:
    task, data = parts(optimizer=partial(HypergradientDescent, lr=12.0), bounds=[-30.0, 30.0])
    trainer(tmp_path, 6).fit(task, data)
    losses = task.history["loss"]
    assert losses[1] > 1.02 * losses[0]
    assert min(losses) < losses[0]


def test_hyper_parameters_stay_in_their_bounds_and_those_that_press_are_counted(
    tmp_path: Path,
) -> None:
    task, data = parts(bounds=[-0.5, 2.0])
    trainer(tmp_path, 5).fit(task, data)
    details = task.details()
    assert details["lambda"] == -0.5
    assert details["at_bound"] == 1


def test_details_tell_what_was_found_and_what_it_cost(tmp_path: Path) -> None:
    task, data = parts(KernelRidge, scales="feature")
    assert task.details()["outer"] == {}
    trainer(tmp_path, 3).fit(task, data)
    details = task.details()
    assert details["lambda"] == task.model.log_strength.item()
    assert details["log_scale"] == pytest.approx(task.model.log_scale.tolist(), abs=1e-6)
    outer, history = details["outer"], task.history
    assert (outer["steps"], outer["lowest_loss"]) == (3, min(history["loss"]))
    assert outer["linear_iterations"] == sum(history["linear_iterations"])
    assert outer["seconds"] == history["seconds"][-1]


def test_of_very_many_hyper_parameters_details_have_quantiles() -> None:
    data = Tabular(data="sparse", rows=60, columns=1500, density=0.01)
    task, _ = parts(strengths="feature", data=data, drawn_by=0, bounds=[-2.0, 2.0])
    found = task.details()["lambda"]
    assert list(found) == ["0%", "25%", "50%", "75%", "100%"]
    assert list(found.values()) == pytest.approx([-2.0, -1.0, 0.0, 1.0, 2.0], abs=0.2)


def test_pictures_show_the_steps_and_the_hyper_parameters(tmp_path: Path) -> None:
    task, data = parts(KernelRidge, scales="feature")
    assert task.pictures(tmp_path) == []
    trainer(tmp_path, 3).fit(task, data)
    drawn = task.pictures(tmp_path)
    assert [picture.file for picture in drawn] == ["outer_loss.png", "log_scale.png"]
    assert all((tmp_path / picture.file).stat().st_size > 1000 for picture in drawn)
    with (tmp_path / "hyperparameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["lambda"] + ["log_scale"] * 30
    values = [float(row["value"]) for row in rows]
    assert values == [*task.model.log_strength.tolist(), *task.model.log_scale.tolist()]


@pytest.mark.parametrize("gradient", [EXACT, Shine(), Unrolled(steps=2)])
def test_the_test_judges_the_hyper_parameters_by_a_full_solve(
    gradient: Any, tmp_path: Path
) -> None:
    aims = LBFGS(opa_every=2) if isinstance(gradient, Shine) else LBFGS()
    task, data = parts(gradient=gradient, solver=aims)
    trainer(tmp_path, 2).fit(task, data)
    (result,) = trainer(tmp_path, 0).test(task, data, verbose=False)
    assert task.problem.equilibrium.gradient.name == gradient.name
    fresh, _ = parts(log_strength=task.model.log_strength.item(), solver=LBFGS(tol=1e-9))
    batch = next(iter(data.train_dataloader()))
    w = fresh.problem.solve(batch["training"])
    test = data.splits["test"].whole()
    scores = fresh.problem(test)
    loss = float(fresh.problem.outer_loss(w, test).detach())
    assert result["test/loss"] == pytest.approx(loss, rel=1e-4)
    accuracy = (fresh.problem.predicted(scores) == test["target"]).double().mean()
    assert result["test/accuracy"] == pytest.approx(float(accuracy))


def test_the_validation_judges_the_same_and_leaves_the_next_step_alone(tmp_path: Path) -> None:
    task, data = parts(strengths="feature", first_tolerance=0.1)
    fit = trainer(tmp_path, 4)
    fit.fit(task, data)
    alone, _ = parts(strengths="feature", first_tolerance=0.1)
    trainer(tmp_path, 4, limit_val_batches=0).fit(alone, data)
    for name in COLUMNS - {"seconds"}:
        assert task.history[name] == alone.history[name]
    for kept, expected in zip(task.state_dict().values(), alone.state_dict().values(), strict=True):
        if isinstance(expected, Tensor):
            assert torch.equal(kept, expected)
    fresh, _ = parts(strengths="feature", solver=LBFGS(tol=1e-9))
    fresh.model.log_strength.data.copy_(task.model.log_strength.detach())
    batch = next(iter(data.train_dataloader()))
    w = fresh.problem.solve(batch["training"])
    loss = float(fresh.problem.outer_loss(w, batch["validation"]).detach())
    assert float(fit.callback_metrics["val/loss"]) == pytest.approx(loss, rel=1e-4)
    assert task.history["loss"][-1] != pytest.approx(loss, rel=1e-4)


def test_a_validation_before_all_steps_leaves_nothing(tmp_path: Path) -> None:
    histories = []
    for sanity in (0, 1):
        task, data = parts()
        trainer(tmp_path, 2, num_sanity_val_steps=sanity).fit(task, data)
        histories.append({k: v for k, v in task.history.items() if k != "seconds"})
    assert histories[0] == histories[1]


def test_a_fit_goes_on_after_a_test(tmp_path: Path) -> None:
    task, data = parts()
    trainer(tmp_path, 2).fit(task, data)
    trainer(tmp_path, 0).test(task, data, verbose=False)
    trainer(tmp_path, 2).fit(task, data)
    losses = task.history["loss"]
    assert len(losses) == 4
    assert losses[3] < losses[1]


def test_the_test_of_an_early_checkpoint_forgets_no_later_step(tmp_path: Path) -> None:
    task, data = parts()
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="early", every_n_epochs=2)
    fit = trainer(tmp_path, 3, enable_checkpointing=True, callbacks=[saving])
    fit.fit(task, data)
    end = task.model.log_strength.item()
    fit.test(task, data, ckpt_path=tmp_path / "early.ckpt", verbose=False)
    assert task.model.log_strength.item() != end
    assert task.details()["outer"]["steps"] == 3
    fresh, _ = parts()
    trainer(tmp_path, 0).test(fresh, data, ckpt_path=tmp_path / "early.ckpt", verbose=False)
    assert fresh.details()["outer"]["steps"] == 2


def test_nothing_is_warned_of(tmp_path: Path) -> None:
    task, data = parts(gradient=Shine())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer(tmp_path, 2).fit(task, data)
    users = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    assert [message for message in users if "workers" not in message] == []


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true"])
def test_a_precision_below_that_of_the_coefficients_is_refused(
    precision: Any, tmp_path: Path
) -> None:
    task, data = parts()
    with pytest.raises(UserError, match="too coarse for hyper-gradients"):
        trainer(tmp_path, 1, precision=precision).fit(task, data)


@pytest.mark.parametrize("kind", [LogisticRegression, NonlinearLeastSquares])
def test_a_singular_hessian_is_told(kind: Any, tmp_path: Path) -> None:
    """With more features than rows, and next to no penalty."""
    data = Tabular(data="sparse", rows=60, columns=200, density=0.1)
    task, data = parts(kind, data=data, bounds=[-700.0, 0.0], log_strength=-700.0)
    with pytest.raises(UserError, match="singular or indefinite") as caught:
        trainer(tmp_path, 1).fit(task, data)
    assert "raise the lower end of model.bounds" in str(caught.value)


class Overflowing(LogisticRegression):
    """The outer loss is no number."""

    def outer_loss(self, w: Tensor, validation: Any) -> Tensor:
        return super().outer_loss(w, validation) * math.inf


def test_an_outer_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    task, data = parts(Overflowing, gradient=Shine())
    with pytest.raises(UserError, match="not finite: start nearer to 0"):
        trainer(tmp_path, 1).fit(task, data)


@pytest.mark.parametrize("log_strength", [-700.0, 700.0])
def test_the_farthest_strengths_give_numbers(log_strength: float, tmp_path: Path) -> None:
    shine = Shine()
    task, data = parts(
        gradient=shine, strengths="feature", bounds=[-700.0, 700.0], log_strength=log_strength
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*did not reach the tolerance")
        trainer(tmp_path, 3).fit(task, data)
    assert all(math.isfinite(value) for values in task.history.values() for value in values)


def test_another_optimiser_and_solver_serve_as_well(tmp_path: Path) -> None:
    task, data = parts(
        solver=Anderson(max_steps=200), optimizer=partial(torch.optim.Adam, lr=0.5)
    )  # fmt: skip
    trainer(tmp_path, 6).fit(task, data)
    assert task.history["loss"] == sorted(task.history["loss"], reverse=True)

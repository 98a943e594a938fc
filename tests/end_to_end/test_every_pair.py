"""Every solver with every gradient estimator, on the bundled task: it trains, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import equipoise
from equipoise.config.about import about, choice_files, written
from equipoise.config.compose import CONF, compose
from equipoise.errors import UserError
from tests.end_to_end.conftest import SMALL

SOLVERS = [  # of an equilibrium; those of a minimum are tried with task=hyperparameter
    file.stem
    for file in choice_files(CONF / "solver")
    if file.stem != "none" and not about(written(file), "finds")
]
GRADIENTS = [file.stem for file in choice_files(CONF / "gradient") if file.stem != "none"]
NEEDS = {
    "shine": ("broyden", "adjoint_broyden"),
    "unrolled": ("fixed_point",),
    "reversible": ("fixed_point",),
}
SHORT = [
    "trainer.max_steps=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    "callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false",
    "strategy=cpu", "task.batch_size=8", "task.eval_batch_size=8",
    "equilibrium.on_failure=fallback",
]  # fmt: skip
PAIRS = [(solver, gradient) for solver in SOLVERS for gradient in GRADIENTS]
WORKING = [(s, g) for s, g in PAIRS if s in NEEDS.get(g, SOLVERS)]


@pytest.mark.end_to_end
@pytest.mark.parametrize(("solver", "gradient"), WORKING)
def test_a_pair_that_can_work_trains(solver: str, gradient: str, tmp_path: Path) -> None:
    words = [*SMALL, *SHORT, f"solver={solver}", f"gradient={gradient}", f"run_dir={tmp_path}/run"]
    metrics = equipoise.run(*words)
    assert metrics["status"] == "completed"
    assert (metrics["solver"], metrics["gradient"], metrics["steps"]) == (solver, gradient, 2)
    assert metrics["train"]["loss"] < 10
    products = metrics["gradient_stats"]["nfe_mean"]
    assert (products == 0) == (gradient == "shine")  # it has the inverse from the forward solve


@pytest.mark.parametrize(("solver", "gradient"), [pair for pair in PAIRS if pair not in WORKING])
def test_a_pair_that_cannot_is_refused_with_those_that_can(solver: str, gradient: str) -> None:
    with pytest.raises(UserError) as refusal:
        compose([f"solver={solver}", f"gradient={gradient}"])
    message = str(refusal.value)
    assert f"gradient={gradient} cannot work with solver={solver}" in message
    assert all(f"solver={choice}" in message for choice in NEEDS[gradient])
    assert "lbfgs" not in message
    assert "\n" not in message


@pytest.mark.parametrize("gradient", [g for g in GRADIENTS if g not in ("phantom", "jfb")])
def test_a_correction_is_refused_with_estimators_that_need_a_fixed_point(gradient: str) -> None:
    with pytest.raises(UserError, match="choose gradient=phantom or gradient=jfb"):
        compose([f"gradient={gradient}", "regularizer=correction"])


@pytest.mark.parametrize("regularizer", ["jacobian", "correction"])
def test_a_regulariser_without_an_equilibrium_layer_is_refused(regularizer: str) -> None:
    with pytest.raises(UserError, match="would do nothing"):
        compose(["model=resnet", f"regularizer={regularizer}"])


@pytest.mark.end_to_end
@pytest.mark.parametrize("regularizer", ["jacobian", "correction"])
def test_a_regularised_run_shows_its_term_in_the_curve(regularizer: str, tmp_path: Path) -> None:
    words = [*SMALL, *SHORT, f"regularizer={regularizer}", f"run_dir={tmp_path}/run"]
    metrics = equipoise.run(*words)
    term = {"jacobian": "penalty", "correction": "corrected_loss"}[regularizer]
    assert metrics["train"][term] > 0
    assert f"train/{term}" in (tmp_path / "run" / "metrics.csv").read_text()

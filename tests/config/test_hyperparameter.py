"""Which solvers and estimators a minimum can have, and where the new solvers may stand."""

from __future__ import annotations

import re

import pytest

from equipoise.config.compose import compose, storable
from equipoise.config.recompose import recompose
from equipoise.config.stored import Stored
from equipoise.errors import UserError

MODELS = ("logistic_regression", "nonlinear_least_squares", "kernel_ridge")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("gradient", "solver"),
    [("exact", "lbfgs"), ("shine", "lbfgs"), ("jfb", "lbfgs"), ("neumann", "lbfgs"),
     ("unrolled", "lbfgs"), ("phantom", "lbfgs"), ("reversible", "lbfgs"),
     ("auto", "lbfgs")],
)  # fmt: skip
def test_every_estimator_composes_with_its_solver(model: str, gradient: str, solver: str) -> None:
    composition = compose(["task=hyperparameter", f"model={model}", f"gradient={gradient}"])
    assert composition.choices["solver"] == solver
    if gradient == "exact":
        adjoint = composition.config.gradient.solver
        assert adjoint._target_.endswith("ConjugateGradient")
        assert (adjoint.max_steps, adjoint.stop) == (1000, "absolute")


def test_the_task_brings_its_model_solver_estimator_and_optimiser() -> None:
    composition = compose(["task=hyperparameter"])
    choices = composition.choices
    assert (choices["model"], choices["solver"], choices["gradient"], choices["optimizer"]) == (
        "logistic_regression", "lbfgs", "exact", "hypergradient",
    )  # fmt: skip
    assert composition.config.task.monitor == "val/loss"


@pytest.mark.parametrize(
    "words",
    ["gradient=shine solver.opa_every=5", "solver=broyden gradient=shine", "solver=anderson",
     "solver@gradient.solver=anderson", "solver@eval_solver=lbfgs", "optimizer=adam",
     "gradient=jfb solver=fixed_point"],
)  # fmt: skip
def test_what_goes_together_composes(words: str) -> None:
    choices = compose(["task=hyperparameter", *words.split()]).choices
    for word in words.split():
        group, _, choice = word.partition("=")
        assert group not in choices or choices[group] == choice


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "task=digits solver=lbfgs",
            "solver=lbfgs minimises an objective, and model=mdeq has none: choose solver=anderson",
        ),
        ("task=digits solver@eval_solver=lbfgs", "eval_solver=lbfgs minimises an objective"),
        (
            "task=digits solver=conjugate_gradient",
            "solver=conjugate_gradient solves only adjoint systems: choose gradient=exact "
            "solver@gradient.solver=conjugate_gradient",
        ),
        ("task=hyperparameter solver=conjugate_gradient", "solves only adjoint systems"),
        (
            "task=digits gradient=exact solver@gradient.solver=conjugate_gradient",
            "does not fit the adjoint system of model=mdeq",
        ),
        (
            "task=hyperparameter solver@gradient.solver=lbfgs",
            "solver@gradient.solver=lbfgs does not fit the adjoint system",
        ),
        ("task=hyperparameter solver=anderson gradient=shine", "cannot work with solver=anderson"),
        (
            "task=hyperparameter solver@eval_solver=lbfgs eval_solver.opa_every=5",
            "leave eval_solver.opa_every out here",
        ),
        (
            "task=hyperparameter regularizer=jacobian",
            "model=logistic_regression minimises its objective as it is, so regularizer=jacobian",
        ),
        (
            "task=hyperparameter trainer.gradient_clip_val=1.0",
            "task=hyperparameter takes steps of its own, so trainer.gradient_clip_val=1.0 would do",
        ),
        (
            "task=hyperparameter trainer.accumulate_grad_batches=2",
            "so trainer.accumulate_grad_batches=2 would do nothing",
        ),
        ("task=hyperparameter callbacks=[default,ema]", "so callbacks=ema would do nothing"),
        (
            "task=hyperparameter callbacks=[default,learning_rate_finder]",
            "takes steps of its own, so callbacks=learning_rate_finder would do nothing",
        ),
        ("task=hyperparameter model=mdeq", "models for this task: kernel_ridge, logistic_"),
        ("task=digits model=kernel_ridge", "tasks for this model: hyperparameter"),
        ("task=hyperparameter solver.memory=0", "solver.memory=0 must be at least 1"),
        ("task=hyperparameter optimizer.growth=0.5", "optimizer.growth=0.5 must be at least 1"),
        ("task=hyperparameter task.objective.decrease=linear", "task.objective.decrease=linear"),
        ("task=hyperparameter model.strengths=two", "is not one of one, feature, coefficient"),
        ("task=hyperparameter model.log_strength=701", "model.log_strength=701 must be"),
        ("task=hyperparameter model.bounds=[-701,0]", "model.bounds"),
    ],
)
def test_what_cannot_work_is_refused(words: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        compose(words.split())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("gradient", ["exact", "shine", "unrolled", "jfb", "reversible"])
@pytest.mark.parametrize("typed", [(), ("gradient=exact",), ("gradient=shine",)])
def test_a_stored_run_goes_on_with_each_estimator(
    gradient: str, typed: tuple[str, ...], tmp_path
) -> None:
    """The adjoint's solver of the model's default estimator is no part of the others."""
    sizes = ("task.features=30", "task.classes=2", "task.training_rows=341")
    fresh = compose(["task=hyperparameter", f"gradient={gradient}", *sizes])
    stored = Stored(tmp_path / "last.ckpt", storable(fresh.config), fresh.choices, 1, 1, {})
    if gradient == "reversible" and typed == ("gradient=shine",):
        typed = (*typed, "solver=lbfgs")
    composition = recompose(stored, typed, "evaluate")
    assert composition.choices["gradient"] == (typed[0].split("=")[1] if typed else gradient)
    if composition.choices["gradient"] == "exact":
        assert composition.config.gradient.solver._target_.endswith("ConjugateGradient")

"""The coefficients that models settle on, and what they carry from one solve to the next."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.kernel_ridge import KernelRidge as PublishedRidge
from sklearn.linear_model import LogisticRegression as PublishedRegression

from equipoise.equilibrium import LBFGS, Anderson, NotConvergedError
from equipoise.models import KernelRidge, LogisticRegression, NonlinearLeastSquares
from equipoise.models.regularized.table import Table
from tests.models.regularized.tables import (
    MODELS,
    SHINE,
    build,
    bundled,
    drawn,
    error,
    hypergradient,
    table,
)


def arrays(rows: Table) -> tuple[np.ndarray, np.ndarray]:
    return rows["features"].numpy(), rows["target"].numpy()


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_logistic_regression_has_the_coefficients_of_scikit_learn(name, intercept):
    training, _ = bundled(name)
    x, y = arrays(training)
    strength = math.exp(-4.0)
    model = build(LogisticRegression, training, log_strength=-4.0, intercept=intercept)
    w = model.solve(training).detach()[0]
    published = PublishedRegression(
        C=1 / (strength * len(y)), fit_intercept=intercept, tol=1e-12, max_iter=10_000
    ).fit(x, y)
    expected = published.coef_.T.ravel()
    found, biases = w[: len(expected)].numpy(), w[len(expected) :].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    if intercept:  # of several classes, all may move together
        np.testing.assert_allclose(
            biases - biases.mean() * (len(biases) > 1),
            published.intercept_ - published.intercept_.mean() * (len(biases) > 1),
            atol=2e-6,
        )


@pytest.mark.parametrize("kind", [LogisticRegression, NonlinearLeastSquares])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_strength_for_each_coefficient_counts_for_that_one(kind, classes):
    training = drawn(60, 4, classes)
    model = build(kind, training, strengths="coefficient", drawn_by=3, bounds=[-5.0, 1.0])
    w = model.solve(training).detach()
    strength = torch.cat([model.log_strength.detach().exp(), w.new_zeros(model.outputs)])
    assert len(strength) == w.shape[1] == 5 * model.outputs

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(w).unsqueeze(0)
        value, gradient = model.objective(point, training)
        penalized = strength * point
        return float(value) + 0.5 * float((penalized * point).sum()), (
            (gradient + penalized)[0].numpy()
        )

    start = np.zeros(w.shape[1])
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    np.testing.assert_allclose(objective(w[0].numpy())[0], found.fun, rtol=1e-10)
    np.testing.assert_allclose(objective(w[0].numpy())[1], 0.0, atol=1e-10)


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_a_kernel_ridge_has_the_closed_form(name):
    training, validation = (
        table(part["features"][:200], part["target"][:200]) for part in bundled(name)
    )
    x, _ = arrays(training)
    model = build(KernelRidge, training, log_strength=-6.0, log_scale=0.5)
    w = model.solve(training).detach()
    wanted = model.wanted(training["target"]).numpy()
    published = PublishedRidge(
        alpha=len(x) * math.exp(-6.0), kernel="rbf", gamma=0.5 * math.exp(0.5) / x.shape[1]
    ).fit(x, wanted)
    np.testing.assert_allclose(w.view(200, -1).numpy(), published.dual_coef_, atol=1e-9)
    scores = published.predict(validation["features"].numpy())
    np.testing.assert_allclose(model(validation).detach().numpy(), scores, atol=1e-9)


@pytest.mark.parametrize("kind", MODELS)
def test_a_solve_begins_where_the_last_one_ended(kind):
    training = drawn(80, 8)
    first = build(kind, training, solver=LBFGS(tol=1e-8))
    first.solve(training)
    cold = first.equilibrium.report.nfe
    first.solve(training)
    assert first.equilibrium.report.nfe == 1 < cold
    with torch.no_grad():
        first.log_strength += 0.1
    other = build(kind, training, solver=LBFGS(tol=1e-8), log_strength=0.1)
    torch.testing.assert_close(first.solve(training), other.solve(training), atol=1e-6, rtol=1e-5)
    assert first.equilibrium.report.nfe < other.equilibrium.report.nfe


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("gradient", ["exact", "shine"])
def test_a_state_holds_everything_that_the_next_solve_begins_with(kind, gradient):
    training, validation = drawn(40, 6), drawn(20, 6, seed=1)
    choices = {"solver": LBFGS(tol=1e-4, opa_every=2 if gradient == "shine" else None)}
    if gradient == "shine":
        choices["gradient"] = SHINE
    going = build(kind, training, **choices)
    for _ in range(3):
        hypergradient(going, training, validation)
        with torch.no_grad():
            going.log_strength -= 0.3
    resumed = build(kind, training, **choices)
    resumed.load_state_dict(copy.deepcopy(going.state_dict()))
    for _ in range(2):
        expected = hypergradient(going, training, validation)
        assert torch.equal(hypergradient(resumed, training, validation), expected)
        assert torch.equal(resumed.coefficients, going.coefficients)
        for model in (going, resumed):
            with torch.no_grad():
                model.log_strength -= 0.3


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_copied_before_and_after_a_solve(kind):
    training, validation = drawn(30), drawn(20, seed=1)
    model = build(kind, training)
    copy.deepcopy(model)
    hypergradient(model, training, validation)
    expected = hypergradient(model, training, validation)
    assert error(hypergradient(copy.deepcopy(model), training, validation), expected) < 1e-9


@pytest.mark.parametrize("kind", MODELS)
def test_a_start_is_drawn_within_the_bounds_by_its_number_alone(kind):
    training = drawn(200, 100)
    settings = {"strengths": "coefficient", "bounds": [-3.0, -1.0]}
    if kind is KernelRidge:
        settings["log_scale"] = -2.0
    torch.manual_seed(0)
    one = build(kind, training, drawn_by=4, **settings).log_strength.detach()
    torch.manual_seed(1)
    assert torch.equal(one, build(kind, training, drawn_by=4, **settings).log_strength)
    assert not torch.equal(one, build(kind, training, drawn_by=5, **settings).log_strength)
    assert -3.0 <= float(one.min()) < -2.9
    assert -1.1 < float(one.max()) <= -1.0


def test_hyper_parameters_are_put_back_into_their_bounds():
    model = build(KernelRidge, drawn(6), scales="feature", bounds=[-2.0, 3.0])
    with torch.no_grad():
        model.log_strength.fill_(-9.0)
        model.log_scale.copy_(torch.tensor([-5.0, -1.0, 0.0, 2.0, 4.0]))
    model.project()
    assert model.log_strength.tolist() == [-2.0]
    assert model.log_scale.tolist() == [-2.0, -1.0, 0.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bounds": [2.0, 2.0]}, "a lower and a higher number"),
        ({"bounds": [-1.0, 1.0], "log_strength": 1.5}, "log_strength=1.5 lies outside"),
        ({"strengths": "columns"}, "strengths must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, said):
    with pytest.raises(ValueError, match=said):
        build(kind, drawn(6), **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scales": "coefficient"}, "scales must be one of"),
        ({"log_scale": 13.0}, "log_scale=13 lies outside"),
        ({"strengths": "feature"}, "strengths must be one of"),
    ],
)
def test_settings_of_a_kernel_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        build(KernelRidge, drawn(6), **settings)


@pytest.mark.parametrize("kind", MODELS)
def test_other_solvers_find_the_same_minimum(kind):
    training = drawn(40)
    expected = build(kind, training).solve(training)
    other = build(kind, training, solver=Anderson(tol=1e-10, max_steps=2000))
    torch.testing.assert_close(other.solve(training), expected, atol=1e-8, rtol=1e-6)
    with pytest.raises(NotConvergedError):
        build(kind, training, solver=LBFGS(max_steps=2)).solve(training)

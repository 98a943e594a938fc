"""What a layer takes, and how it says what it wants."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.equilibrium import Anderson, Auto, Broyden, Equilibrium, Exact, Phantom
from tests.equilibrium.gradients.estimators import layers

Z = torch.zeros(2, 3)


def plain(z: Any, x: Any = None) -> Any:
    return 0.5 * z


@pytest.mark.parametrize(
    ("solver", "gradient", "words"),
    [
        ("anderson", Exact(), "solver must be a solver .* not the string 'anderson'"),
        (Anderson, Exact(), r"not the class Anderson: write Anderson\(\)"),
        (None, Exact(), "solver must be a solver .* not None"),
        (Exact(), Anderson(), "solver must be a solver .* not a value of type Exact"),
        (Anderson(), "exact", "gradient must be an estimator .* not the string 'exact'"),
        (Anderson(), Phantom, r"not the class Phantom: write Phantom\(\)"),
        (Anderson(), None, "gradient must be an estimator .* not None"),
        (Anderson(), Anderson(), "not a value of type Anderson"),
    ],
)
def test_what_is_no_solver_and_no_estimator_is_refused(
    solver: Any, gradient: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        Equilibrium(solver, gradient)
    layer = Equilibrium(Anderson(), Exact())
    layer.solver, layer.gradient = solver, gradient
    with pytest.raises(TypeError, match=words):
        layer(plain, Z)


def test_a_solver_for_evaluation_is_checked() -> None:
    with pytest.raises(TypeError, match=r"eval_solver must be a solver .* the string"):
        Equilibrium(Anderson(), Exact(), "broyden")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("z0", "error", "words"),
    [
        ({"z": Z}, TypeError, "z0 must be a tensor or a tuple.*dict: pass its values as a tuple"),
        (None, TypeError, "z0 must be a tensor or a tuple of tensors, got None"),
        (0.0, TypeError, "got a value of type float"),
        ((Z, None), TypeError, "every part of z0 must be a tensor, got None"),
        ([Z, [Z]], TypeError, "every part of z0 must be a tensor, got a value of type list"),
        (Z.long(), TypeError, "z0 must be of a floating or complex dtype, got torch.int64"),
        (Z.bool(), TypeError, "got torch.bool"),
        ((), ValueError, "at least one tensor with a batch dimension"),
        (torch.tensor(1.0), ValueError, "batch dimension"),
        ((Z, Z[:1]), ValueError, "share the batch dimension"),
    ],
)
@pytest.mark.parametrize("gradient", ["exact", "unrolled", "reversible"])
def test_what_is_no_state_is_refused(
    gradient: str, z0: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        layers()[gradient](plain, z0)


def test_a_rule_for_the_start_is_checked() -> None:
    layer = Equilibrium(Anderson(), Exact())
    layer.start = lambda z0: None  # type: ignore[assignment, return-value]
    with pytest.raises(TypeError, match="the start of a solve must be a tensor"):
        layer(plain, Z)


def test_repr_shows_solver_and_estimator() -> None:
    layer = Equilibrium(Broyden(max_steps=7), Exact(), Anderson(tol=1e-5), on_failure="raise")
    for part in (
        "solver=Broyden(max_steps=7",
        "gradient=Exact(solver=Anderson(max_steps=20",
        "eval_solver=Anderson(max_steps=30, tol=1e-05",
        "on_failure='raise'",
    ):
        assert part in repr(layer)
    assert "gradient=Auto(" in repr(Equilibrium(Anderson(), Auto()))

"""Published thresholds and stopping modes as our solvers and estimators."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.equilibrium import Anderson, Broyden, FixedPoint
from equipoise.interop import DoesNotFit
from equipoise.interop.mdeq.configuration import Published
from equipoise.interop.mdeq.training import backward_solver, forward_solver, phantom_steps
from tests.interop.published_mdeq import SMALL


def test_a_threshold_is_the_budget() -> None:
    published = Published(SMALL)
    assert forward_solver(published).build() == Broyden(
        max_steps=8, tol=1e-3, stop="relative", memory=8
    )
    assert backward_solver(published).build() == Anderson(
        max_steps=7, tol=1e-3, stop="relative", memory=6
    )


def test_the_code_of_2020_solves_backward_with_the_forward_threshold() -> None:
    published = Published({"MODEL": {"F_THRES": 22, "B_THRES": 24}})
    assert forward_solver(published).settings["max_steps"] == 22
    assert backward_solver(published).settings["max_steps"] == 22
    assert backward_solver(published).settings["stop"] == "absolute"


def test_plain_iteration_has_no_memory() -> None:
    solver = forward_solver(Published({"DEQ": {"F_SOLVER": "fixed_point_iter", "F_THRES": 26}}))
    assert solver.build() == FixedPoint(max_steps=26, tol=1e-3, stop="absolute")


@pytest.mark.parametrize(
    ("train", "expected"),
    [({}, None), ({"PG_STEPS": 0}, (5, 0.5)), ({"PG_STEPS": 3, "TAU": 0.6}, (3, 0.6))],
)
def test_phantom_steps(train: dict[str, Any], expected: tuple[int, float] | None) -> None:
    assert phantom_steps(Published({"TRAIN": train})) == expected


@pytest.mark.parametrize(
    ("deq", "message"),
    [({"F_SOLVER": "newton"}, "F_SOLVER is newton"), ({"STOP_MODE": "x"}, "STOP_MODE is x")],
)
def test_unknown_words_are_answered_with_the_known(deq: dict[str, Any], message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        forward_solver(Published({"DEQ": deq}))

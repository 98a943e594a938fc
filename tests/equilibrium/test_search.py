"""The bookkeeping of a solve, its stopping rule and the best iterate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.equilibrium import FixedPoint, Status
from equipoise.equilibrium.search import BestIterate, CoupledSearch, Search
from equipoise.equilibrium.solution import StoppingRule, resolution
from equipoise.equilibrium.state import Layout


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_the_best_iterate_is_the_latest_that_improved(history: list[list[bool]]) -> None:
    z0 = torch.zeros(3, 2)
    best, expected = BestIterate(z0), z0.clone()
    for step, improved in enumerate(history, start=1):
        z = torch.full((3, 2), float(step))
        best.offer(z, torch.tensor(improved))
        expected[torch.tensor(improved)] = float(step)
        z.fill_(torch.nan)  # the iterate may be written to afterwards
    assert torch.equal(best.get(), expected)


def test_a_better_iterate_after_the_end_is_ignored() -> None:
    z = torch.ones(2, 1)
    search = Search(z, StoppingRule("absolute", 0.5, 1e-7), patience=9, keep_trace=False)
    search.observe(z, z, torch.tensor([[0.4], [3.0]]), 1)
    assert not search.check()
    search.observe(2 * z, z, torch.tensor([[0.1], [0.2]]), 2)
    assert search.check()
    search.finish(2)
    assert search.steps.tolist() == [1, 2]
    torch.testing.assert_close(search.best_residual, torch.tensor([0.4, 0.2]))
    assert torch.equal(search.best.get(), torch.tensor([[1.0], [2.0]]))


def test_a_sample_that_had_converged_keeps_that_status_when_it_breaks_later() -> None:
    z = torch.ones(1, 1)
    search = Search(z, StoppingRule("absolute", 0.5, 1e-7), patience=9, keep_trace=False)
    search.observe(z, z, torch.tensor([[0.4]]), 1)
    search.observe(z, torch.tensor([[torch.inf]]), torch.tensor([[torch.inf]]), 2)
    search.finish(2)
    assert search.status.tolist() == [Status.CONVERGED]


def test_coupled_with_others_it_has_not_converged_where_it_breaks_before_they_have() -> None:
    z = torch.ones(2, 1)
    search = CoupledSearch(z, StoppingRule("absolute", 0.5, 1e-7), patience=9, keep_trace=False)
    search.observe(z, z, torch.tensor([[0.4], [3.0]]), 1)
    assert not search.check()
    search.observe(z, z, torch.tensor([[torch.inf], [0.4]]), 2)
    assert search.check()
    search.finish(2)
    assert search.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]


@pytest.mark.parametrize("kind", [Search, CoupledSearch])
def test_without_a_tolerance_the_best_iterate_stands_however_it_goes_on(kind: type[Search]) -> None:
    """A quasi-Newton method divides by rounding errors once it has arrived."""
    z = torch.ones(2, 1)
    search = kind(z, StoppingRule("absolute", 0.0, 1e-7), patience=9, keep_trace=False)
    for number, residual in enumerate(([0.5, 1e-9], [1e-9, 1e-8], [0.9, 0.7]), start=1):
        search.observe(number * z, z, torch.tensor(residual).unsqueeze(1), number)
    search.finish(3)
    assert torch.equal(search.best.get(), torch.tensor([[2.0], [1.0]]))
    assert search.steps.tolist() == [2, 1]
    assert search.status.tolist() == [Status.CONVERGED, Status.CONVERGED]


def test_a_huge_value_does_not_count_as_converged() -> None:
    z = torch.ones(1, 1)
    search = Search(z, StoppingRule("absolute", 1e-3, 1e-7), patience=9, keep_trace=False)
    search.observe(z, z, torch.tensor([[1.0]]), 1)
    search.observe(z, torch.tensor([[1e12]]), torch.tensor([[1e12]]), 2)
    search.finish(2)
    assert search.status.tolist() == [Status.DIVERGED]


@pytest.mark.parametrize("coupled", [False, True])
def test_whether_a_solve_diverges_does_not_depend_on_the_units_of_the_state(coupled: bool) -> None:
    ends = []
    for size in (2.0**-40, 1.0, 2.0**40):
        z0 = torch.full((2, 3), size, dtype=torch.float64)
        units = z0.norm(dim=1) if coupled else None
        solution = FixedPoint(max_steps=60).solve(lambda z: -2.0 * z, z0, coupled_units=units)
        assert solution.status.tolist() == [Status.DIVERGED] * 2
        ends.append(solution.nfe)
    assert ends == [21] * 3  # twenty doublings are a factor of a million


def test_the_tolerance_has_a_floor_in_every_rule() -> None:
    size = torch.tensor([10.0])
    for stop, reached in (("relative", 0.009), ("absolute", 0.09), ("mixed", 0.009)):
        rule = StoppingRule(stop, 1e-9, 0.01)  # type: ignore[arg-type]
        assert rule.reached(torch.tensor([reached]), size)
        assert not rule.reached(torch.tensor([2 * reached]), size)


def test_the_resolution_is_that_of_the_coarsest_precision_in_use() -> None:
    z = torch.zeros(2, 3, dtype=torch.float64)
    assert resolution(z, Layout.of(z)) == torch.finfo(torch.float64).eps
    mixed = (z, z.to(torch.bfloat16))
    assert resolution(mixed, Layout.of(mixed)) == torch.finfo(torch.bfloat16).eps
    with torch.autocast("cpu", torch.bfloat16):
        assert resolution(z, Layout.of(z)) == torch.finfo(torch.bfloat16).eps

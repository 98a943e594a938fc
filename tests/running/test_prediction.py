"""Batches through a network: their outputs in order, and what stops them in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Equilibrium, NotConvergedError
from equipoise.equilibrium.gradients import JacobianFree
from equipoise.equilibrium.solvers import FixedPoint
from equipoise.errors import UserError
from equipoise.running.prediction import Batch, Convergence, SampleConvergence, outputs

BATCHES = [{"x": torch.full((n, 2), float(n))} for n in (3, 1)]
CPU = torch.device("cpu")


def test_every_batch_comes_with_its_output_and_without_a_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    found = list(outputs(lambda b: b["x"] @ weight, BATCHES, CPU, total=4, unit="thing"))
    assert [output.tolist() for _, output in found] == [[6.0] * 3, [2.0]]
    assert all(not output.requires_grad for _, output in found)
    assert [batch["x"].shape for batch, _ in found] == [(3, 2), (1, 2)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("at most 2 rows"), "the network cannot read this thing: at most 2 rows"),
        (NotConvergedError("1 of 3 failed"), "1 of 3 failed, and the run has equilibrium.on_fa"),
        (torch.OutOfMemoryError("CUDA"), "a batch of 3 does not fit into memory: lower batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), "a batch of 3 does not"),
    ],
)
def test_what_the_user_can_change_is_told_in_a_sentence(error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        list(outputs(failing(error), BATCHES, CPU, total=4, unit="thing"))


def test_an_error_of_the_program_is_none_of_the_users() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(outputs(failing(RuntimeError("shapes")), BATCHES, CPU, total=4, unit="thing"))


def failing(error: Exception) -> Callable[[Batch], Tensor]:
    def compute(batch: Batch) -> Tensor:
        raise error

    return compute


class Halving(nn.Module):
    """z = z / 2 + x, whose residual halves at each step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        solver = FixedPoint(max_steps=steps, tol=1e-3)
        self.layer = Equilibrium(solver, JacobianFree())

    def forward(self, batch: Batch) -> Tensor:
        x = batch["x"]
        state = self.layer(lambda z, *_: z / 2 + x, torch.zeros_like(x))
        assert isinstance(state, Tensor)
        return state


@pytest.mark.parametrize(("steps", "said"), [(40, "100.0 % of the equilibria"), (2, "0.0 % of")])
def test_convergence_is_counted_over_all_batches(steps: int, said: str) -> None:
    network = Halving(steps).eval()
    convergence = Convergence(network)
    assert convergence.described() is None
    assert len(list(outputs(network, BATCHES, CPU, total=4, unit="thing"))) == 2
    described = convergence.described()
    assert described is not None
    assert described.startswith(said)
    assert convergence.statistics.solves == 2


def test_a_network_without_equilibrium_has_nothing_to_tell() -> None:
    network = nn.Linear(2, 2)
    convergence = Convergence(network)
    network(torch.ones(1, 2))
    assert convergence.described() is None


class Twice(nn.Module):
    """Two solves of one layer: the first of x, the second of ten times as much."""

    def __init__(self) -> None:
        super().__init__()
        solver = FixedPoint(max_steps=8, tol=0.02, stop="absolute")
        self.layer = Equilibrium(solver, JacobianFree())

    def forward(self, x: Tensor) -> None:
        for factor in (1.0, 10.0):
            self.layer(lambda z, f=factor: z / 2 + f * x, torch.zeros_like(x))


def test_of_several_solves_the_worst_counts_for_each_sample() -> None:
    network = Twice().eval()
    convergence = SampleConvergence(network)
    x = torch.tensor([[0.0], [0.01], [0.2], [2.0]])
    network(x)
    found = convergence.take(4)
    assert found["converged"].tolist() == [True, True, True, False]
    alone = []
    for row in x:
        network(row.unsqueeze(0))
        alone.append(float(convergence.take(1)["residual"]))
    assert found["residual"].tolist() == pytest.approx(alone)
    assert found["residual"].argmax() == 3
    assert convergence.take(4) == {}


def test_rows_that_are_no_samples_tell_nothing() -> None:
    network = Twice().eval()
    convergence = SampleConvergence(network)
    network(torch.ones(6, 1))
    assert convergence.take(3) == {}
    assert SampleConvergence(nn.Linear(1, 1)).take(1) == {}

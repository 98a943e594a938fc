"""Compiled code of f gives the values and gradients of f itself, by every estimator."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import equipoise
from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    GradientEstimator,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
)
from equipoise.equilibrium.compiled import compiled
from equipoise.nn import NormalisedLinear, weights_computed_once

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
ESTIMATORS: dict[str, GradientEstimator] = {
    "exact": Exact(Anderson(max_steps=6, tol=0)),
    "phantom": Phantom(),
    "neumann": Neumann(),
    "shine": Shine(),
    "jfb": JacobianFree(),
    "unrolled": Unrolled(steps=4),
    "reversible": Reversible(steps=4),
}
PARITY = 1e-5
"""Relative to the whole vector, as in the parity tests."""


class Cell(nn.Module):
    """z = tanh(W gelu(V z) + x): what is saved for its product with J^T is worth reusing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(12, 12), NormalisedLinear(nn.Linear(12, 12))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.3 * self.second(nn.functional.gelu(self.first(z))) + x)


class Network(nn.Module):
    def __init__(self, estimator: GradientEstimator, compiles_f: bool) -> None:
        super().__init__()
        self.cell = Cell()
        self.equilibrium = Equilibrium(Broyden(max_steps=8, tol=0), estimator)
        self.equilibrium.compiles_f = compiles_f

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.equilibrium(weights_computed_once(self.cell), torch.zeros_like(x), x)
        return z


def passed(network: nn.Module, *inputs: Tensor) -> Tensor:
    """The output and all gradients as one vector."""
    network.zero_grad()
    output = network(*inputs)
    output = output if isinstance(output, Tensor) else output[0]
    output.square().sum().backward()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat([output.detach().flatten(), *gradients])


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.slow
def test_estimators_that_go_through_a_graph_once_or_often_agree_with_plain_f() -> None:
    x = torch.randn(3, 12)
    network, plain = Network(JacobianFree(), True), Network(JacobianFree(), False)
    names = list(network.state_dict())
    for name in ("jfb", "exact"):  # the same code, which the second keeps for many products
        for each in (network, plain):
            each.equilibrium.gradient = ESTIMATORS[name]
        assert distance(passed(network, x), passed(plain, x)) < PARITY
    assert network.cell._compiled_call_impl is not None
    assert plain.cell._compiled_call_impl is None
    assert list(network.state_dict()) == names
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied.cell._compiled_call_impl is None
        assert copied.equilibrium.compiles_f


def test_what_is_no_function_or_module_stays_as_it_is() -> None:
    class Objective:
        def __call__(self, z: Tensor) -> Tensor:
            return z

    f = Objective()
    assert compiled(f) is f


def test_a_module_is_found_behind_partials_and_wrappers() -> None:
    cell = Cell()
    f = partial(weights_computed_once(cell), 1)
    assert compiled(f) is f
    assert cell._compiled_call_impl is not None


@pytest.mark.slow
@pytest.mark.parametrize("form", ["method", "closure"])
def test_a_function_is_compiled_as_it_is(form: str) -> None:
    cell, x = Cell(), torch.randn(3, 12)
    f = cell.forward if form == "method" else (lambda z, x: cell(z, x))
    layers = [Equilibrium(FixedPoint(max_steps=8, tol=0), ESTIMATORS["exact"]) for _ in range(2)]
    layers[0].compiles_f = True
    found = []
    for layer in layers:
        cell.zero_grad()
        layer(f, torch.zeros_like(x), x).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in cell.parameters()]))  # type: ignore[union-attr]
    assert distance(*found) < PARITY


NETWORKS = {
    "mdeq": ("task=digits", "model=mdeq"),
    "deq_transformer": ("task=python_docs", "model=deq_transformer", "model.width=32"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_by_every_estimator_and_for_two_batches(name: str) -> None:
    solver = ("solver=broyden", "solver.max_steps=6", "solver.tol=0")
    pair = [
        equipoise.build(*NETWORKS[name], *solver, *word).double()
        for word in ((), ("compile=cell",))
    ]
    for network in pair:
        network.train()
    assert list(pair[0].state_dict()) == list(pair[1].state_dict())
    for batch in (4, 3):
        inputs = (
            torch.randn(batch, 1, 8, 8, dtype=torch.float64)
            if name == "mdeq"
            else torch.randint(100, (batch, 8))
        )
        for estimator in ESTIMATORS.values():
            for network in pair:
                layer = network.equilibrium
                layer.gradient, layer.eval_solver = estimator, None
            torch.manual_seed(1)
            expected = passed(pair[0], inputs)
            torch.manual_seed(1)
            assert distance(passed(pair[1], inputs), expected) < PARITY

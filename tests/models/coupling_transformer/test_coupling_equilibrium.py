"""One graph layer at its fixed point."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

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
    Solver,
    Unrolled,
)
from equipoise.models import CouplingTransformer
from equipoise.models.coupling_transformer.layer import GraphEquilibrium
from tests.models.coupling_transformer.molecule_batches import (
    KINDS,
    Batch,
    batched,
    loss,
    molecule,
    network,
    several,
)

TIGHT = FixedPoint(max_steps=300, tol=1e-13, patience=300)


def equilibrium(
    gradient: GradientEstimator | None = None, solver: Solver = TIGHT, **changes: Any
) -> CouplingTransformer:
    """From whose first weights plain iteration converges."""
    layer = Equilibrium(solver, gradient or Exact(TIGHT))
    return network(layer, **{"quads": True, **changes})


def core(model: CouplingTransformer) -> GraphEquilibrium:
    assert isinstance(model.equilibrium, GraphEquilibrium)
    return model.equilibrium


def solved(model: CouplingTransformer, batch: Batch) -> tuple[Tensor, Any, Any]:
    """The fixed point that a forward finds, f, and its inputs."""
    calls: list[Any] = []
    handle = core(model).layer.register_forward_hook(
        lambda _, args, z: calls.append((z, args[0], args[2:]))
    )
    model(batch)
    handle.remove()
    (call,) = calls
    return call


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_states_are_a_fixed_point_whatever_is_dropped(
    training: bool, weight_norm: bool
) -> None:
    """With dropout it is one only where every evaluation has the masks of the first."""
    model = equilibrium(dropout=0.3, weight_norm=weight_norm).train(training)
    z, f, inputs = solved(model, batched(several()))
    assert z.any()
    torch.testing.assert_close(f(z, *inputs), z, rtol=0, atol=1e-10)
    assert (len(inputs) == 5) == training


@pytest.mark.parametrize("solver", [Anderson(tol=1e-9), Broyden(tol=1e-9)])
def test_the_usual_solvers_find_it_within_their_steps(solver: Solver) -> None:
    model = equilibrium(solver=solver).eval()
    model(batched(several()))
    assert core(model).layer.report.converged.all()
    assert core(model).layer.report.nfe < 25


def test_padding_stays_0() -> None:
    batch = batched(several(), dict.fromkeys(KINDS, 2))
    model = equilibrium(dropout=0.3).train()
    z, f, inputs = solved(model, batch)
    there = torch.cat([batch[f"{kind}_present"] for kind in KINDS], dim=1)
    assert not z[~there].any()
    assert z[there].any(dim=-1).all()
    random = torch.randn_like(z)
    assert not f(random, *inputs)[~there].any()


def test_masks_are_the_same_for_every_node_and_other_ones_for_each_molecule() -> None:
    model = equilibrium(dropout=0.5).train()
    batch = batched(several())
    _, _, inputs = solved(model, batch)
    of_attention, of_inner = inputs[3:]
    assert of_attention.shape == (3, 1, 12)
    assert of_inner.shape == (3, 1, 16)
    assert not torch.equal(of_inner[0], of_inner[1])
    assert not torch.equal(of_inner, solved(model, batch)[2][4])


def gradients(gradient: GradientEstimator, **changes: Any) -> dict[str, Tensor]:
    model = equilibrium(gradient, **changes)
    loss(model(batched(several())).standardized).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}


@pytest.mark.parametrize("weight_norm", [True, False])
def test_the_exact_gradient_is_that_of_unrolled_evaluations(weight_norm: bool) -> None:
    exact = gradients(Exact(TIGHT), weight_norm=weight_norm)
    for name, unrolled in gradients(Unrolled(steps=200), weight_norm=weight_norm).items():
        torch.testing.assert_close(exact[name], unrolled, rtol=1e-7, atol=1e-9, msg=name)


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    model, batch = equilibrium().eval(), batched([molecule(4), molecule(5)])
    loss(model(batch).standardized).backward()
    step = 1e-6
    for name in ("gamma", "value_query_key.weight", "output.weight"):
        parameter = core(model).cell.attention.get_parameter(name)
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            parameter.data += sign * step * direction
            with torch.no_grad():
                values.append(loss(model(batch).standardized).item())
            parameter.data -= sign * step * direction
        assert parameter.grad is not None
        slope = float((parameter.grad * direction).sum())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    "gradient", [JacobianFree(), Phantom(), Neumann(), Shine(), Reversible(steps=20)]
)
def test_every_estimator_gives_every_parameter_a_gradient(gradient: GradientEstimator) -> None:
    found = gradients(gradient, solver=Broyden(max_steps=60, tol=1e-10, memory=60))
    exact = gradients(Exact(TIGHT))
    for name, grad in found.items():
        assert grad.isfinite().all()
        assert grad.any() or not exact[name].abs().max() > 1e-9, name


@pytest.mark.parametrize("share", [None, 0.1])
def test_a_molecule_has_the_answer_that_it_has_alone(share: float | None) -> None:
    """Though others are larger, and a solver may leave those out that have converged."""
    solver = Broyden(max_steps=100, tol=1e-12, memory=100, patience=100, compact_at=share)
    model, molecules = equilibrium(solver=solver).eval(), several()
    sizes: set[int] = set()
    handle = core(model).cell.register_forward_hook(lambda _, args, z: sizes.add(len(z)))
    together = model(batched(molecules)).standardized
    handle.remove()
    assert (min(sizes) < 3) == (share is not None)
    for row, one in enumerate(molecules):
        alone = model(batched([one])).standardized[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-8)


def test_more_padding_changes_nothing() -> None:
    model = equilibrium().eval()
    plain = model(batched(several())).standardized
    padded = model(batched(several(), dict.fromkeys(KINDS, 3))).standardized
    torch.testing.assert_close(padded[:, : plain.shape[1]], plain)


def test_the_heads_of_all_types_read_the_same_states() -> None:
    model, batch = equilibrium().eval(), batched(several())
    found, everything = model(batch).standardized[..., 0], model.of_all_types(batch)
    picked = everything.gather(1, (batch["pair"][..., 1] - 1).clamp(min=0).unsqueeze(1))[:, 0]
    asked = batch["type"] > 0
    torch.testing.assert_close(found[asked], picked[asked])


def test_it_has_one_layer_whatever_is_said_of_layers() -> None:
    counts = {
        sum(p.numel() for p in model.parameters())
        for model in (equilibrium(layers=2), equilibrium(layers=9))
    }
    assert len(counts) == 1
    assert not equilibrium().layers
    assert counts.pop() < sum(p.numel() for p in network(quads=True, layers=2).parameters())


def test_half_precision_solves_to_about_the_same() -> None:
    solver = Anderson(max_steps=20, tol=1e-3)
    model, batch = equilibrium(Phantom(), solver).float(), batched(several())
    batch = {n: t.float() if t.is_floating_point() else t for n, t in batch.items()}
    whole = model.eval()(batch).standardized
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch).standardized
        loss(half.float()).backward()
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_can_be_copied_after_a_step() -> None:
    model, batch = equilibrium(JacobianFree(), Broyden(max_steps=60, tol=1e-10)), batched(several())
    loss(model.train()(batch).standardized).backward()
    twin = copy.deepcopy(model).eval()
    torch.testing.assert_close(twin(batch).standardized, model.eval()(batch).standardized)

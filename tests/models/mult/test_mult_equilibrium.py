"""Crossmodal attention at its fixed point."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import (
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
from equipoise.models import MulT
from equipoise.models.mult.equilibrium import CrossmodalEquilibrium
from tests.models.mult.mult_models import PADDING, mult, streams

TIGHT = FixedPoint(max_steps=300, tol=1e-13, patience=300)


def network(
    gradient: GradientEstimator | None = None, solver: Solver = TIGHT, **changes: Any
) -> MulT:
    """Wide enough for plain iteration to converge from the first weights."""
    return mult(Equilibrium(solver, gradient or Exact(TIGHT)), **{"width": 30, **changes})


def core(model: MulT) -> CrossmodalEquilibrium:
    assert isinstance(model.crossmodal, CrossmodalEquilibrium)
    return model.crossmodal


def solved(model: MulT, batch: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Any, Any]:
    """The fixed point that a forward finds, f, and its inputs."""
    calls: list[Any] = []
    layer = core(model).layer
    handle = layer.register_forward_hook(lambda _, args, z: calls.append((z, args[0], args[2:])))
    model(batch)
    handle.remove()
    (call,) = calls
    return call


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_states_are_a_fixed_point_whatever_is_dropped(training: bool, masked: bool) -> None:
    """With dropout it is one only where every evaluation has the masks of the first."""
    drops = {"residual_dropout": 0.3, "relu_dropout": 0.3, "embedding_dropout": 0.3}
    model = network(key_padding_mask=masked, **drops).train(training)
    z, f, inputs = solved(model, streams())
    assert len(z) == 6
    for state, again in zip(z, f(z, *inputs), strict=True):
        torch.testing.assert_close(again, state, rtol=0, atol=1e-10)


def test_padding_has_what_a_query_of_zeros_attends_to_and_costs_no_evaluations() -> None:
    """Without an injection its iteration would creep, and keep its sample from converging."""
    model = network(solver=Broyden(max_steps=60, tol=1e-10, memory=60)).eval()
    z, _, _ = solved(model, streams())
    state = dict(zip(core(model).cells, z, strict=True))["language_from_vision"]
    cell = core(model).cells["language_from_vision"]
    pair = model._pairs(model.streams(streams()))["language_from_vision"]
    _, key, value, present = cell.inputs(pair.target, pair.source)
    attended = cell.attention.read(torch.zeros_like(state), key, value, pair.seen)
    for sample, rows in enumerate(PADDING[0]):
        torch.testing.assert_close(state[sample, :rows], attended[sample, :rows])
        assert present[sample].sum() == len(state[sample]) - rows
    padded_evaluations = core(model).layer.report.nfe
    model(streams(((0, 0, 0),) * 3))
    assert padded_evaluations <= 1.5 * core(model).layer.report.nfe


@pytest.mark.parametrize("masked", [True, False])
def test_padding_does_not_blow_up_the_gradient(masked: bool) -> None:
    """A norm of what is 0 multiplies its gradient by 300; a step of padding must pass none."""

    def largest(padding: Any) -> float:
        model = network(key_padding_mask=masked)
        model(streams(padding)).outputs.square().sum().backward()
        return max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)

    assert largest(PADDING) < 10 * largest(((0, 0, 0),) * 3)


def test_a_dropped_feature_is_dropped_at_every_step() -> None:
    model = network(residual_dropout=0.5).train()
    _, _, inputs = solved(model, streams())
    masks = [part for part in inputs if part.shape[1] == 1]
    assert len(masks) == 18
    assert {mask.shape for mask in masks} == {(3, 1, 30), (3, 1, 120)}
    assert not [part for part in solved(model.eval(), streams())[2] if part.shape[1] == 1]


def gradients(gradient: GradientEstimator, **changes: Any) -> dict[str, Tensor]:
    model = network(gradient, **changes)
    out = model(streams())
    (out.outputs.square().sum() + out.hidden.sin().sum()).backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    assert all(grad is not None for grad in found.values())
    return {n: grad for n, grad in found.items() if grad is not None}


@pytest.mark.parametrize("masked", [True, False])
def test_the_exact_gradient_is_that_of_unrolled_evaluations(masked: bool) -> None:
    exact = gradients(Exact(TIGHT), key_padding_mask=masked)
    for name, unrolled in gradients(Unrolled(steps=200), key_padding_mask=masked).items():
        torch.testing.assert_close(exact[name], unrolled, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    "gradient", [JacobianFree(), Phantom(), Neumann(), Shine(), Reversible(steps=20)]
)
def test_every_estimator_gives_every_parameter_a_gradient(gradient: GradientEstimator) -> None:
    found = gradients(gradient, solver=Broyden(max_steps=60, tol=1e-10, memory=60))
    exact = gradients(Exact(TIGHT))
    for name, grad in found.items():
        assert grad.isfinite().all()
        # Keys of an attention have no gradient from a bias that all of them have.
        assert grad.any() or not exact[name].abs().max() > 1e-9, name


@pytest.mark.parametrize("share", [None, 0.1])
def test_a_sample_has_the_answer_that_it_has_alone(share: float | None) -> None:
    """Though samples have other padding, and a solver may leave those out that have converged."""
    solver = Broyden(max_steps=100, tol=1e-11, memory=100, patience=100, compact_at=share)
    model, batch = network(solver=solver, key_padding_mask=True).eval(), streams()
    sizes: set[int] = set()
    cell = next(iter(core(model).cells.values()))
    cell.register_forward_hook(lambda _, args, z: sizes.add(len(z)))
    together = model(batch)
    assert (min(sizes) < 3) == (share is not None)
    for sample in range(3):
        alone = model({modality: stream[sample : sample + 1] for modality, stream in batch.items()})
        torch.testing.assert_close(alone.outputs[0], together.outputs[sample], rtol=0, atol=1e-8)
        torch.testing.assert_close(alone.hidden[0], together.hidden[sample], rtol=0, atol=1e-8)


def test_modalities_may_have_widths_of_their_own_and_all_orders_of_lengths() -> None:
    model = network(width=[30, 20, 10])
    z, _, _ = solved(model, streams())
    assert [tuple(state.shape[1:]) for state in z] == [
        (4, 30), (4, 30), (7, 20), (7, 20), (5, 10), (5, 10)
    ]  # fmt: skip


def test_maps_are_the_weights_at_the_fixed_point() -> None:
    model, batch = network(key_padding_mask=True).eval(), streams()
    z, _, _ = solved(model, batch)
    maps = model.attention_maps(batch)
    crossmodal = {name: weights for name, weights in maps.items() if "from" in name}
    assert len(crossmodal) == 6
    assert len(maps) == 6 + 3 * 3
    weights = maps["language from vision 1"]
    assert weights.shape == (3, 2, 4, 5)
    state = dict(zip(core(model).cells, z, strict=True))["language_from_vision"]
    cell = core(model).cells["language_from_vision"]
    sequences = model.streams(batch)
    pair = model._pairs(sequences)["language_from_vision"]
    u, _, value, present = cell.inputs(pair.target, pair.source)
    mixed = (weights @ cell.attention._split(value)).transpose(1, 2).flatten(2)
    attended = cell.attention.output(mixed)
    h = cell.norm(u + attended)
    again = cell.last_norm(h + cell.narrow(cell.widen(h).clamp(min=0)))
    torch.testing.assert_close(torch.where(present, again, attended), state, rtol=0, atol=1e-9)


def test_it_has_fewer_parameters_than_stacks_and_memory_of_the_least_depth() -> None:
    model, stacked = network(layers=5), mult(layers=5, width=30)
    assert len(model.memory["language"].layers) == 3
    count, most = (sum(p.numel() for p in m.parameters()) for m in (model, stacked))
    assert count < 0.5 * most


def test_it_can_be_copied_after_a_step() -> None:
    model = network(JacobianFree(), Broyden(max_steps=60, tol=1e-10, memory=60)).train()
    model(streams()).outputs.sum().backward()
    twin = copy.deepcopy(model).eval()
    torch.testing.assert_close(twin(streams()).outputs, model.eval()(streams()).outputs)


def test_true_is_no_layer() -> None:
    with pytest.raises(ValueError, match="equilibrium is the layer itself, or False"):
        mult(True)


def test_one_modality_alone_has_no_crossmodal_layer() -> None:
    with pytest.raises(ValueError, match="one modality alone has no crossmodal layer"):
        network(modalities=["audio"])

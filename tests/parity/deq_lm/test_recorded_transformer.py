"""The equilibrium transformer against recorded values, from attention to gradients."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from sequence_recordings import (
    TIGHT,
    Arrays,
    assert_same,
    assert_same_gradients,
    assert_same_summaries,
    memory_of,
    published_gradients,
    recorded_gradients,
    segment,
    transformer,
    trimmed,
    whole,
    with_tied_sums,
)

from equipoise.equilibrium import Broyden, JacobianFree, jacobian_norm
from equipoise.interop.deq_transformer import reference_forward
from equipoise.models import DEQTransformer

pytestmark = pytest.mark.usefixtures("compiles_f")

IN = ("data", "target", "mem_z", "mem_u", "z_in")
DRAWN = "equipoise.equilibrium.regularizers._gaussian"


def check_forward(variant: str, arrays: Arrays, number: int) -> None:
    recorded = segment(arrays, number)
    given = {name: recorded[name] for name in IN if name in recorded}
    ours = reference_forward(transformer(variant, arrays), given)
    compared = [name for name in ours if name in recorded]
    assert {"z_star", "nll_token_order", "loss"} <= set(compared)
    for name in compared:
        assert_same(ours[name], recorded[name], name)


def loss_of(model: DEQTransformer, recorded: Arrays) -> torch.Tensor:
    output = model(recorded["data"].T, memory_of(recorded))
    return model.token_losses(output.hidden, recorded["target"].T).mean()


def jacobian_gradients(model: DEQTransformer, recorded: Arrays) -> tuple[torch.Tensor, Arrays]:
    """The Jacobian loss with the recorded probe, and its gradients."""
    part = model.segment(recorded["data"].T, memory_of(recorded))
    probe, z = (recorded[name].transpose(1, 2) for name in ("jac_v", "z_star"))
    with mock.patch(DRAWN, return_value=probe):
        norm = jacobian_norm(part.f, z, 1, *part.inputs)
    norm.backward()
    return norm.detach(), published_gradients(model)


@pytest.mark.parametrize(("variant", "number"), [("A2", 0), ("A2", 1), ("B", 1)])
def test_a_segment(variant: str, number: int) -> None:
    check_forward(variant, trimmed(variant), number)


@pytest.mark.parametrize("variant", ["A2", "B"])
def test_exact_gradients_by_norm_and_product(variant: str) -> None:
    arrays = trimmed(variant)
    model = transformer(variant, arrays)
    loss_of(model, segment(arrays, 1)).backward()
    recorded = recorded_gradients(arrays, "seg1/grad_summary")
    assert_same_summaries(published_gradients(model), recorded)


@pytest.mark.parametrize("variant", ["A2", "B"])
def test_jacobian_loss_and_its_gradients_by_norm_and_product(variant: str) -> None:
    arrays = trimmed(variant)
    norm, gradients = jacobian_gradients(transformer(variant, arrays), segment(arrays, 1))
    assert_same(norm, arrays["seg1/jac_loss"])
    assert_same_summaries(gradients, recorded_gradients(arrays, "seg1/jac_grad_summary"))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("variant", ["A", "A2", "B"])
def test_whole_recordings_of_a_segment(variant: str, number: int) -> None:
    check_forward(variant, whole(variant), number)


@pytest.mark.parametrize(("variant", "number"), [("A", 0), ("A", 1), ("A2", 1), ("B", 1)])
def test_whole_recordings_of_exact_gradients(variant: str, number: int) -> None:
    arrays = whole(variant)
    model = transformer(variant, arrays)
    loss_of(model, segment(arrays, number)).backward()
    recorded = with_tied_sums(model, recorded_gradients(arrays, f"seg{number}/grad"))
    assert_same_gradients(published_gradients(model), recorded)


@pytest.mark.parametrize("variant", ["A", "A2", "B"])
def test_whole_recordings_of_the_jacobian_loss(variant: str) -> None:
    arrays = whole(variant)
    norm, gradients = jacobian_gradients(transformer(variant, arrays), segment(arrays, 1))
    assert_same(norm, arrays["seg1/jac_loss"])
    assert_same_gradients(gradients, recorded_gradients(arrays, "seg1/jac_grad"))


@pytest.mark.parametrize("number", [0, 1])
def test_whole_recordings_of_jacobian_free_gradients(number: int) -> None:
    arrays = whole("A")
    model = transformer("A", arrays, JacobianFree())
    loss_of(model, segment(arrays, number)).backward()
    recorded = recorded_gradients(arrays, f"seg{number}/jfb_grad")
    assert_same_gradients(published_gradients(model), recorded)


def test_whole_recordings_of_dropout() -> None:
    arrays, masks = whole("A"), whole("A_dropout_masks")
    recorded = segment(arrays, 1)
    model = transformer("A", arrays)
    part = model.segment(recorded["data"].T, memory_of(recorded))
    positions = model.positions(16) * masks["mask/pos_drop"].squeeze(-1)
    scene = model.cell.attention.scene(positions, 8, model.window)
    drawn = (
        masks["mask/attn_drop"].transpose(1, 2), masks["mask/ff_drop1"], masks["mask/ff_drop2"],
        masks["mask/dropatt"],
    )  # fmt: skip
    z = recorded["z_in"].transpose(1, 2)
    ours = model.cell(scene, z, *part.inputs, *drawn)
    assert_same(ours.transpose(1, 2), masks["f_z_in_train"])
    f = lambda z, *inputs: model.cell(scene, z, *inputs)  # noqa: E731
    solved = TIGHT.solve(f, part.z0, *part.inputs, *drawn).z
    assert isinstance(solved, torch.Tensor)
    assert_same(solved.transpose(1, 2), masks["z_star_train"])


@pytest.mark.parametrize("variant", ["A", "A2", "B"])
def test_whole_recordings_of_broyden(variant: str) -> None:
    """The published solver takes one norm over the batch, ours one a sample; the steps agree."""
    arrays = whole(variant)
    recorded = segment(arrays, 1)
    part = transformer(variant, arrays).segment(recorded["data"].T, memory_of(recorded))
    solver = Broyden(max_steps=31, tol=0, memory=30, trace=True, stop="absolute")
    trace = solver.solve(part.f, part.z0, *part.inputs).trace
    assert trace is not None
    absolute = trace.square().sum(dim=1).sqrt()[1:]
    theirs = recorded["broyden30_abs_trace"]
    taken = int(theirs.argmin()) + 1  # behind its end the trace repeats the lowest value
    assert taken >= 8
    torch.testing.assert_close(absolute[:taken], theirs[:taken], rtol=1e-6, atol=0)

"""The trellis networks against recorded values, from one evaluation to gradients."""

from __future__ import annotations

import pytest
from sequence_recordings import (
    Arrays,
    assert_same,
    assert_same_gradients,
    assert_same_summaries,
    equilibrium_trellis,
    explicit_trellis,
    recorded_gradients,
    segment,
    trimmed,
    whole,
)

from equipoise.interop import deq_trellisnet, trellisnet
from equipoise.interop.deq_trellisnet import published_name
from equipoise.interop.published_trellis import taps_in_a_row

pytestmark = pytest.mark.usefixtures("compiles_f")

IN = ("data", "target", "z0", "z_in", "h0", "c0")


def given(recorded: Arrays) -> Arrays:
    return {name: recorded[name] for name in IN if name in recorded}


def check_equilibrium(arrays: Arrays, number: int) -> None:
    recorded = segment(arrays, number)
    ours = deq_trellisnet.reference_forward(equilibrium_trellis(arrays), given(recorded))
    compared = [name for name in ours if name in recorded]
    assert {"f_z_in", "z_star", "loss_split", "loss_full"} <= set(compared)
    for name in compared:
        assert_same(ours[name], recorded[name], name)


def gradients_of(arrays: Arrays, number: int) -> Arrays:
    """Gradients of the split loss by published names."""
    recorded = segment(arrays, number)
    model = equilibrium_trellis(arrays)
    output = model(recorded["data"].T, (recorded["z0"].transpose(1, 2),))
    model.token_losses(output.hidden, recorded["target"].T).mean().backward()
    found = {published_name(n): p.grad for n, p in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found


def test_a_segment_of_the_equilibrium() -> None:
    check_equilibrium(trimmed("C"), 1)


def test_exact_gradients_of_the_equilibrium_by_norm_and_product() -> None:
    arrays = trimmed("C")
    recorded = recorded_gradients(arrays, "seg1/grad_summary")
    ours = gradients_of(arrays, 1)
    # The product was taken with the taps innermost.
    for name, gradient in ours.items():
        if name.endswith("weight_v"):
            ours[name] = gradient.unflatten(1, (2, -1)).transpose(1, 2).contiguous()
    assert_same_summaries(ours, recorded)


def test_a_segment_of_the_explicit_network() -> None:
    arrays = trimmed("C2")
    recorded = segment(arrays, 1)
    ours = trellisnet.reference_forward(explicit_trellis(arrays), given(recorded))
    for name in ("raw_out", "h1", "c1"):
        assert_same(ours[name], recorded[name], name)
    assert_same(ours["aux_logits"][:, :, 0], recorded["aux_logits_first_step"])


@pytest.mark.parametrize("number", [0, 1])
def test_whole_recordings_of_the_equilibrium(number: int) -> None:
    check_equilibrium(whole("C"), number)


@pytest.mark.parametrize("number", [0, 1])
def test_whole_recordings_of_exact_gradients(number: int) -> None:
    arrays = whole("C")
    recorded = taps_in_a_row(recorded_gradients(arrays, f"seg{number}/grad"))
    assert_same_gradients(gradients_of(arrays, number), recorded)


@pytest.mark.parametrize("number", [0, 1])
def test_whole_recordings_of_the_explicit_network(number: int) -> None:
    arrays = whole("C2")
    recorded = segment(arrays, number)
    ours = trellisnet.reference_forward(explicit_trellis(arrays), given(recorded))
    for name in ("raw_out", "logits", "h1", "c1", "aux_logits"):
        assert_same(ours[name], recorded[name], name)

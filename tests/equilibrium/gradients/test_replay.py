"""Repeating the circumstances of an evaluation."""

from __future__ import annotations

import torch

from equipoise.equilibrium.gradients.replay import Circumstances

CPU = torch.device("cpu")


def test_random_numbers_repeat_and_the_callers_go_on() -> None:
    torch.manual_seed(3)
    circumstances = Circumstances.now(CPU)
    first = torch.rand(4)
    state = torch.get_rng_state()
    with circumstances.again():
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_repeats_both_ways() -> None:
    weight, x = torch.ones(2, 2), torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Circumstances.now(CPU)
    outside = Circumstances.now(CPU)
    with inside.again():
        assert (weight @ x).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16), outside.again():
        assert (weight @ x).dtype == torch.float32

"""LARS: what it does to weights, biases and norms, and what it says where it cannot work."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.config.signatures import locate
from equipoise.errors import UserError

pytest.importorskip("timm")
lars = importlib.import_module("equipoise.tasks.lars")
RATE = 0.3


def parameters() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (2, 3, 1, 1), (4,))
    one, two, bias = (nn.Parameter(torch.randn(s, generator=generator).double()) for s in shapes)
    for parameter in (one, two, bias):
        parameter.grad = torch.randn(parameter.shape, generator=generator).double()
    return one, two, bias


def step_of(parameter: Tensor, **settings: float | bool) -> Tensor:
    """What one step without momentum takes from a parameter, by its rate."""
    before = parameter.detach().clone()
    lars.LARS([parameter], lr=RATE, momentum=0.0, **settings).step()
    return (before - parameter.detach()) / RATE


@given(st.floats(0, 1), st.floats(1e-4, 1))
def test_a_weight_moves_by_its_own_size(decay: float, trust: float) -> None:
    for weight in parameters()[:2]:
        assert weight.grad is not None
        size, slope = weight.norm(), weight.grad.norm()
        ratio = trust * size / (slope + decay * size)
        expected = ratio * (weight.grad + decay * weight)
        found = step_of(weight, weight_decay=decay, trust_coefficient=trust)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-12)


def test_a_bias_moves_as_in_plain_descent() -> None:
    bias = parameters()[2]
    found = step_of(bias, weight_decay=0.5)
    torch.testing.assert_close(found, bias.grad)


def test_the_clip_leaves_no_weight_a_rate_above_the_given() -> None:
    weight = parameters()[0]
    found = step_of(weight, trust_coefficient=1e3, trust_clip=True, weight_decay=0.0)
    torch.testing.assert_close(found, weight.grad)


def test_each_group_has_its_rate() -> None:
    groups = lars.LARS(iter(parameters()), lr=0.2, bias_lr=0.0048).param_groups
    assert [(len(group["params"]), group["lr"]) for group in groups] == [(2, 0.2), (1, 0.0048)]
    assert [group["lr"] for group in lars.LARS(parameters(), lr=0.2).param_groups] == [0.2, 0.2]
    assert len(lars.LARS(parameters()[:2], lr=0.2).param_groups) == 1


def test_a_weight_that_is_zero_leaves_it() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    assert bool((step_of(weight) == 1).all())


def test_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="give it parameters, not groups"):
        lars.LARS([{"params": list(parameters())}], lr=0.1)


def test_it_is_told_that_timm_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.optim.lars", None)
    monkeypatch.delitem(sys.modules, "equipoise.tasks.lars")
    with pytest.raises(UserError, match=r"needs the package timm: pip install 'equipoise\[ssl\]'"):
        locate("optimizer", "equipoise.tasks.lars.LARS")


def test_the_other_tasks_do_without_timm() -> None:
    code = "import sys, equipoise.tasks; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

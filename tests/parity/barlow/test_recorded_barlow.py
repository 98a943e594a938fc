"""Barlow Twins, its HSIC form and LARS against values recorded from the published codes in float32.

Each recorded array is the code's own result; what was recorded of cases lies in cases.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from safetensors.torch import load_file
from torch import nn

from equipoise import interop
from equipoise.config.compose import compose
from equipoise.nn.cross_correlation import RedundancyReduction
from equipoise.tasks.schedules import Cosine

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "cases.json").read_text())
LOSSES, ORIGINAL, LARS_STEPS = (
    np.load(HERE / f"{n}.npz") for n in ("loss", "facebook_loss", "lars")
)
TOLERANCE = 1e-6


def check(config: dict[str, Any], views: list[ndarray], gradients: list[ndarray]) -> None:
    """The three recorded values of a case, relative to their size, and the gradients."""
    model = interop.from_reference("barlow", config, {})
    found = interop.reference_forward("barlow", model, dict(zip(("z1", "z2"), views, strict=True)))
    names = {"loss": "loss", "on_diag": "on_diagonal", "off_diag": "off_diagonal"}
    for recorded, ours in names.items():
        assert found[ours] == pytest.approx(config[recorded], rel=TOLERANCE)
    inputs = [torch.tensor(view, requires_grad=True) for view in views]
    assert isinstance(model, RedundancyReduction)
    model(*inputs).loss.backward()
    for view, gradient in zip(inputs, gradients, strict=True):
        assert view.grad is not None
        assert np.abs(view.grad.numpy() - gradient).max() <= TOLERANCE


@pytest.mark.parametrize("case", RECORDED["loss"], ids=lambda case: case["key"])
def test_a_loss_of_the_hsic_code_and_its_gradients_are_as_recorded(case: dict[str, Any]) -> None:
    views = [LOSSES[f"z{view}_{case['z']}"] for view in (1, 2)]
    check(case, views, [LOSSES[f"g{view}_{case['key']}"] for view in (1, 2)])


@pytest.mark.parametrize("number", range(len(RECORDED["facebook_loss"])))
def test_a_loss_of_the_original_and_its_gradients_are_as_recorded(number: int) -> None:
    views = [ORIGINAL[f"z{view}_{number}"] for view in (1, 2)]
    case = RECORDED["facebook_loss"][number]
    check(case, views, [ORIGINAL[f"g{view}_{number}"] for view in (1, 2)])
    scaled = {"lamb": case["lambd"], "scale_loss": 0.024}  # solo-learn's words
    model = interop.from_reference("barlow", scaled, {})
    arrays = dict(zip(("z1", "z2"), views, strict=True))
    found = interop.reference_forward("barlow", model, arrays)["loss"]
    assert found == pytest.approx(case["solo_learn_scale0_024"], rel=TOLERANCE)


def test_the_projector_of_the_hsic_code_gives_what_was_recorded() -> None:
    model = interop.from_reference("barlow", {}, load_file(HERE / "head.weights.safetensors"))
    with np.load(HERE / "head.npz") as recorded:
        found = interop.reference_forward("barlow", model, {"x": recorded["x"]})
        for name in ("feature", "out_eval"):
            assert np.abs(found[name] - recorded[name]).max() <= TOLERANCE


def test_three_steps_of_lars_are_as_recorded() -> None:
    pytest.importorskip("timm")
    from equipoise.tasks.lars import LARS

    told = RECORDED["lars"]
    weight, bias = (nn.Parameter(torch.tensor(LARS_STEPS[name])) for name in ("w", "b"))
    optimizer = LARS(
        iter([weight, bias]), lr=1.0, momentum=told["momentum"],
        weight_decay=told["weight_decay"], trust_coefficient=told["eta"],
    )  # fmt: skip
    for step, rates in enumerate(zip(told["lr_w"], told["lr_b"], strict=True)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        weight.grad, bias.grad = (torch.tensor(LARS_STEPS[f"g{n}"][step]) for n in ("w", "b"))
        optimizer.step()
        for parameter, name in ((weight, "w_after"), (bias, "b_after")):
            difference = parameter.detach().numpy() - LARS_STEPS[name][step]
            assert np.abs(difference).max() <= TOLERANCE


def test_the_rates_of_the_original_are_those_of_a_cosine_with_a_factor() -> None:
    """Its warm-up begins with a step at rate 0, so that its step t is ours t - 1 until it ends.

    Our first step is one that learns; from the first step at the full rate on both are the same.
    """
    told = RECORDED["lars"]["schedule"]
    steps = told["epochs"] * told["len_loader"]
    warm = 10 * told["len_loader"]
    size = told["batch_size"] / 256
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": rate * size} for rate in (0.2, 0.0048)
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = Cosine(warmup=warm / steps, minimum=0.0, final_factor=0.001)(optimizer, steps)
    ours = []
    for _ in range(steps):
        ours.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for step, *rates in told["rows_step_lrw_lrb"]:
        if step > 0:
            assert ours[step - (step < warm)] == pytest.approx(rates, rel=1e-9)
    assert told["rows_step_lrw_lrb"][0] == [0, 0.0, 0.0]


def test_the_recipe_of_imagenet_has_the_recorded_rates_for_its_batch() -> None:
    told = RECORDED["lars"]["schedule"]
    config = compose(["task=ssl_imagenet", "task.path=somewhere"]).config
    batch = config.recipe.published.batch_size
    greatest = max(told["rows_step_lrw_lrb"], key=lambda row: row[1])[1:]
    rates = [config.optimizer.lr, config.optimizer.bias_lr]
    assert rates == pytest.approx([rate * batch / told["batch_size"] for rate in greatest])
    assert config.trainer.max_epochs * config.schedule.warmup == 10

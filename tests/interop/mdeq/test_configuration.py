"""Published configurations, however they are nested, and what the weights add to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.config.compose import compose, plain
from equipoise.equilibrium import Anderson, Broyden, FixedPoint
from equipoise.interop import DoesNotFit
from equipoise.interop.mdeq.configuration import (
    MDEQConfiguration,
    architecture,
    backward_solver,
    forward_solver,
    overrides,
    phantom_steps,
)
from equipoise.running.build import build_model
from tests.interop.published_mdeq import SMALL, configuration, published, small_network

FLAT: dict[str, Any] = {
    **{key: value for key, value in SMALL["MODEL"].items() if key != "EXTRA"},
    **SMALL["MODEL"]["EXTRA"]["FULL_STAGE"],
    "DEQ": SMALL["DEQ"],
    "TRAIN.PRETRAIN_STEPS": 100,
}
DOTTED: dict[str, Any] = {
    **{f"MODEL.{key}": value for key, value in SMALL["MODEL"].items() if key != "EXTRA"},
    **{
        f"MODEL.EXTRA.FULL_STAGE.{key}": value
        for key, value in SMALL["MODEL"]["EXTRA"]["FULL_STAGE"].items()
    },
    "DEQ.F_THRES": 8,
}


@pytest.mark.parametrize("config", [SMALL, FLAT, DOTTED])
def test_nested_flat_and_dotted_mean_the_same(config: dict[str, Any]) -> None:
    arguments = architecture(config, published(small_network()))
    assert arguments == {
        "classes": 10, "head_channels": [2, 3], "final_channels": 6, "channels": [4, 8],
        "blocks": [1, 1], "big_kernels": [0, 0], "expansion": 2, "groups": 4, "stem_stride": 1,
        "block_affine": True, "fusion_affine": True, "post_affine": False,
        "weight_norm": "published", "dropout": 0.1,
    }  # fmt: skip
    assert MDEQConfiguration(config).get("DEQ.F_THRES", 0) == 8


@pytest.mark.parametrize("weight_norm", ["none", "blocks", "published", "all"])
def test_the_weights_tell_which_are_normalised(weight_norm: Any) -> None:
    weights = published(small_network(weight_norm=weight_norm))
    silent = configuration(WNORM=None)
    assert architecture(silent, weights)["weight_norm"] == weight_norm


def test_norms_of_the_code_without_switches_are_affine() -> None:
    weights = published(small_network(post_affine=True))
    assert architecture(configuration(POST_GN_AFFINE=False), weights)["post_affine"]


def test_segmentation() -> None:
    weights = published(small_network(classes=None, mask_classes=5, final_kernel=3))
    config = {**configuration(FINAL_CONV_KERNEL=3), "DATASET": {"NUM_CLASSES": 5}}
    arguments = architecture(config, weights)
    assert (arguments["mask_classes"], arguments["final_kernel"]) == (5, 3)
    assert arguments["batch_norm_momentum"] == 0.01
    assert "classes" not in arguments


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "mapping of keys"),
        ({}, "needs NUM_CHANNELS"),
        (configuration(NUM_CHANNELS=[4, 8, 8]), "3 entries for 2 NUM_BRANCHES"),
        (configuration(HEAD_CHANNELS=None), "needs HEAD_CHANNELS"),
    ],
)
def test_what_is_missing_is_named(config: Any, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        architecture(config, published(small_network()))


def test_weights_without_a_head_are_refused() -> None:
    with pytest.raises(DoesNotFit, match="have no head"):
        architecture(SMALL, {"fc.weight": torch.ones(2)})


def test_a_threshold_is_the_budget() -> None:
    published = MDEQConfiguration(SMALL)
    assert forward_solver(published).build() == Broyden(
        max_steps=8, tol=1e-3, stop="relative", memory=8
    )
    assert backward_solver(published).build() == Anderson(
        max_steps=7, tol=1e-3, stop="relative", memory=6
    )


def test_the_code_of_2020_solves_backward_with_the_forward_threshold() -> None:
    published = MDEQConfiguration({"MODEL": {"F_THRES": 22, "B_THRES": 24}})
    assert forward_solver(published).settings["max_steps"] == 22
    assert backward_solver(published).settings["max_steps"] == 22
    assert backward_solver(published).settings["stop"] == "absolute"


def test_plain_iteration_has_no_memory() -> None:
    solver = forward_solver(
        MDEQConfiguration({"DEQ": {"F_SOLVER": "fixed_point_iter", "F_THRES": 26}})
    )
    assert solver.build() == FixedPoint(max_steps=26, tol=1e-3, stop="absolute")


@pytest.mark.parametrize(
    ("train", "expected"),
    [({}, None), ({"PG_STEPS": 0}, (5, 0.5)), ({"PG_STEPS": 3, "TAU": 0.6}, (3, 0.6))],
)
def test_phantom_steps(train: dict[str, Any], expected: tuple[int, float] | None) -> None:
    assert phantom_steps(MDEQConfiguration({"TRAIN": train})) == expected


@pytest.mark.parametrize(
    ("deq", "message"),
    [({"F_SOLVER": "newton"}, "F_SOLVER is newton"), ({"STOP_MODE": "x"}, "STOP_MODE is x")],
)
def test_unknown_words_are_answered_with_the_known(deq: dict[str, Any], message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        forward_solver(MDEQConfiguration({"DEQ": deq}))


def test_the_composed_network_has_the_same_weights() -> None:
    theirs = small_network()
    composition = compose(overrides(SMALL, published(theirs)))
    assert composition.choices["task"] == "cifar10"
    ours = build_model(plain(composition.config, resolve=True))
    ours.load_state_dict(theirs.state_dict())
    layer: Any = ours.equilibrium
    assert (layer.solver.name, layer.solver.max_steps, layer.solver.memory) == ("broyden", 8, 8)
    assert (layer.gradient.name, layer.gradient.solver.name) == ("exact", "anderson")
    assert composition.config.callbacks.gradient_schedule.phases == []


def test_a_phantom_gradient_is_chosen_with_its_steps() -> None:
    config = {**SMALL, "TRAIN": {"PG_STEPS": 3, "TAU": 0.6}}
    composed = compose(overrides(config, published(small_network()))).config
    assert (composed.gradient.steps, composed.gradient.damping) == (3, 0.6)


@pytest.mark.parametrize(
    ("dataset", "classes", "task"),
    [("imagenet", 20, "imagenet"), ("", 10, "cifar10"), ("", 1000, "imagenet")],
)
def test_task(dataset: str, classes: int, task: str) -> None:
    config = {**configuration(NUM_CLASSES=classes), "DATASET": {"DATASET": dataset}}
    lines = overrides(config, published(small_network(classes=classes)))
    assert lines[0] == f"task={task}"
    assert f"task.classes={classes}" in lines


def test_without_a_task_the_key_to_set_is_named() -> None:
    config = {**configuration(NUM_CLASSES=7), "DATASET": {}}
    with pytest.raises(DoesNotFit, match=r"set DATASET\.DATASET to cifar10"):
        overrides(config, published(small_network(classes=7)))

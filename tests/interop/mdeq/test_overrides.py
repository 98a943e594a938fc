"""A published configuration composes to a run of the same network."""

from __future__ import annotations

from typing import Any

import pytest

from equipoise.config.compose import compose, plain
from equipoise.interop import DoesNotFit
from equipoise.interop.mdeq.overrides import overrides
from equipoise.running.build import build_model
from tests.interop.published_mdeq import SMALL, configuration, published, small_network


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

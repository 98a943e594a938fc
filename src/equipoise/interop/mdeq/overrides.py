"""What one would type to compose a run of a published MDEQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.interop.errors import DoesNotFit
from equipoise.interop.mdeq.configuration import Published, architecture
from equipoise.interop.mdeq.state_dict import primary
from equipoise.interop.mdeq.training import (
    SolverChoice,
    backward_solver,
    forward_solver,
    phantom_steps,
)

TASKS = ("cifar10", "imagenet", "cityscapes")
TASK_OF_CLASSES = {10: "cifar10", 1000: "imagenet"}


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task, model, solver and gradient.

    The task is the configuration's dataset, or follows from the head. Raises DoesNotFit where there
    is none for it.
    """
    published = Published(config)
    arguments = architecture(config, primary(state_dict))
    counts = {name: arguments.pop(name, None) for name in ("classes", "mask_classes")}
    return [
        f"task={_task(published, counts)}",
        "model=mdeq",
        *_lines("task", {name: count for name, count in counts.items() if count is not None}),
        *_lines("model", arguments),
        *_solver("solver", "solver", forward_solver(published)),
        *_gradient(published),
        # The weights are trained: no phase of the recipe is left.
        "callbacks.gradient_schedule.phases=[]",
    ]


def _task(published: Published, counts: Mapping[str, int | None]) -> str:
    dataset = str(published.get("DATASET.DATASET", "")).lower()
    if dataset in TASKS:
        return dataset
    if counts["mask_classes"] is not None:
        return "cityscapes"
    if counts["classes"] in TASK_OF_CLASSES:
        return TASK_OF_CLASSES[counts["classes"]]
    raise DoesNotFit(
        f"no task fits {counts['classes']} classes: set DATASET.DATASET to {', '.join(TASKS)}"
    )


def _gradient(published: Published) -> list[str]:
    phantom = phantom_steps(published)
    if phantom:
        steps, damping = phantom
        return ["gradient=phantom", *_lines("gradient", {"steps": steps, "damping": damping})]
    chosen = backward_solver(published)
    return ["gradient=exact", *_solver("solver@gradient.solver", "gradient.solver", chosen)]


def _solver(group: str, place: str, choice: SolverChoice) -> list[str]:
    return [f"{group}={choice.name}", *_lines(place, choice.settings)]


def _lines(place: str, settings: Mapping[str, Any]) -> list[str]:
    return [f"{place}.{name}={_typed(value)}" for name, value in settings.items()]


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "")

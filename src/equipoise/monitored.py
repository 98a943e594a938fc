"""Whether what a run is told to monitor is measured at all: else it would keep no best weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from equipoise.errors import UserError, nearest

OURS = ("equipoise", "lightning")
BEST = "equipoise.callbacks.BestCheckpoint"


@runtime_checkable
class Measuring(Protocol):
    """A task that tells under which names it logs its metrics."""

    def logged(self, stage: str) -> set[str]:
        """The names of "val" or "test", such as val/loss."""
        ...


def check_monitored(task: Any, config: Mapping[str, Any]) -> None:
    """Raise UserError where a setting monitors what the task does not log in its validation.

    A task that does not tell, and callbacks of other packages, may log anything.
    """
    nodes = {key: node for key, node in config["callbacks"].items() if node}
    foreign = [n for n in nodes.values() if str(n["_target_"]).partition(".")[0] not in OURS]
    if foreign or not isinstance(task, Measuring):
        return
    known = sorted(task.logged("val"))
    for key, monitor in _settings(config["task"]["monitor"], nodes):
        if monitor not in known:
            hint = nearest(str(monitor), known)
            raise UserError(
                f"{key}={'null' if monitor is None else monitor} is not measured in the "
                f"validation{hint or ';'} this task measures {', '.join(known)}"
            )


def _settings(of_task: str, nodes: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Every setting that names a metric; only the best weights need one in any case."""
    yield "task.monitor", of_task
    for key, node in nodes.items():
        if node.get("monitor") is not None or node["_target_"] == BEST:
            yield f"callbacks.{key}.monitor", node.get("monitor")

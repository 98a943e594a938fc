"""A W&B workspace whose panels show what every run logs, under the names of docs/metrics.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"


class Chart(NamedTuple):
    """Curves over the steps: the named columns, or those that a regular expression matches."""

    title: str
    columns: Sequence[str] = ()
    matching: str | None = None
    logarithmic: bool = False


SECTIONS: dict[str, Sequence[Chart]] = {
    "Learning": (
        Chart("loss", ("train/loss", "val/loss")),
        Chart("validation", matching="^val/.*"),
        Chart("training", matching="^train/.*"),
    ),
    "Solver": (
        Chart("evaluations of f", ("solver/nfe", "solver/nfe_per_sample")),
        Chart("residual", ("solver/residual_median", "solver/residual_p95"), logarithmic=True),
        Chart("converged fraction", ("solver/converged_fraction",)),
    ),
    "Gradient": (
        Chart("products with the Jacobian", ("backward/nfe",)),
        Chart("residual of the backward solve", ("backward/residual_median",), logarithmic=True),
        Chart("fallback fraction", ("backward/fallback_fraction",)),
        Chart("against the exact gradient", ("fidelity/cosine", "fidelity/norm_ratio")),
    ),
    "Progress": (
        Chart("learning rate", matching="^lr-.*"),
        Chart("epoch", ("epoch",)),
    ),
}
PICTURES = ("convergence", "loss", "residual", "nfe", "converged", "confusion")
"""The pictures of a run's report that the gallery shows first."""


def workspace(entity: str, project: str, name: str) -> Workspace:
    """The workspace, not yet saved to W&B.

    Raises ModuleNotFoundError without the package `wandb-workspaces`.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(name=title, panels=[_line(chart) for chart in charts], is_open=True)
        for title, charts in SECTIONS.items()
    ]
    gallery = panels.MediaBrowser(
        title="pictures of the report", media_keys=[f"report/{name}" for name in PICTURES]
    )
    tested = panels.BarPlot(title="test loss", metrics=["test/loss"])
    last = workspaces.Section(
        name="Test and report", panels=[tested, gallery, panels.RunComparer(diff_only="split")]
    )
    settings = workspaces.WorkspaceSettings(x_axis=STEP)
    return workspaces.Workspace(
        entity=entity, project=project, name=name, sections=[*sections, last], settings=settings
    )


def specification(shown: Workspace) -> dict[str, Any]:
    """The request that creates the workspace at W&B, as plain values; it is not sent."""
    view = shown._to_model()
    described: dict[str, Any] = json.loads(view.model_dump_json(by_alias=True, exclude_none=True))
    return described


def _line(chart: Chart) -> Any:
    from wandb_workspaces.reports.v2 import LinePlot

    return LinePlot(
        title=chart.title, x=STEP, y=list(chart.columns), metric_regex=chart.matching,
        log_y=chart.logarithmic,
    )  # fmt: skip

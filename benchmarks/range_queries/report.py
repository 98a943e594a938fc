"""Printed tables, a file of figures, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from benchmarks.range_queries.errors import Cell
from benchmarks.range_queries.tables import Table

matplotlib.use("agg")


def header(methods: Iterable[str]) -> str:
    columns = ["people", "ε", *methods, "best"]
    return "\n".join((f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"))


def row(cell: Cell) -> str:
    """Mean squared errors, each with its standard error in per cent."""
    figures = [
        f"{cell.mean(method):.1e} ±{100 * cell.standard_error(method) / cell.mean(method):.0f} %"
        for method in cell.errors
    ]
    best = min(cell.errors, key=cell.mean)
    return f"| {' | '.join((cell.label, f'{cell.epsilon:g}', *figures, best))} |"


def write_figures(folder: Path, measured: Sequence[tuple[Table, Sequence[Cell]]]) -> Path:
    """Every mean squared error with its standard error and number of repeats, as csv."""
    path = folder / "range_queries.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("table", "people", "epsilon", "method", "mse", "standard_error", "n"))
        for table, cells in measured:
            for cell in cells:
                for method, errors in cell.errors.items():
                    figures = (cell.mean(method), cell.standard_error(method), len(errors))
                    writer.writerow((table.title, cell.label, cell.epsilon, method, *figures))
    return path


def draw_curves(folder: Path, measured: Sequence[tuple[Table, Sequence[Cell]]]) -> Path:
    """Error over epsilon: a row of panels for each table that has several epsilons."""
    curves = [
        (table, cells) for table, cells in measured if len({cell.epsilon for cell in cells}) > 1
    ]
    widest = max(len({cell.label for cell in cells}) for _, cells in curves)
    figure, axes = pyplot.subplots(
        len(curves), widest, figsize=(3 * widest, 3 * len(curves)), squeeze=False
    )
    for (table, cells), panels in zip(curves, axes, strict=True):
        labels = list(dict.fromkeys(cell.label for cell in cells))
        for panel in panels[len(labels) :]:
            panel.set_axis_off()
        for label, panel in zip(labels, panels, strict=False):
            draw_panel(panel, [cell for cell in cells if cell.label == label])
            panel.set_title(f"{label}\n{table.title}", fontsize=7)
        panels[0].set_ylabel("mean squared error")
        panels[0].legend(fontsize=6, loc="upper right", bbox_to_anchor=(-0.35, 1.0))
    figure.tight_layout()
    path = folder / "range_queries.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def draw_panel(panel: pyplot.Axes, cells: Sequence[Cell]) -> None:
    """One curve a method, with bars of two standard errors."""
    epsilons = [cell.epsilon for cell in cells]
    for method in cells[0].errors:
        means = [cell.mean(method) for cell in cells]
        bars = [min(2 * cell.standard_error(method), 0.9 * cell.mean(method)) for cell in cells]
        width = 2.0 if method in ("gls", "paper") else 0.9
        panel.errorbar(epsilons, means, bars, label=method, linewidth=width, capsize=2)
    panel.set_yscale("log")
    panel.set_xlabel("ε")

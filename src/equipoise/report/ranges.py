"""Pictures of a survey: its tree, its answers against the truth, and its error by length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.report.page import Picture
from equipoise.report.plot import (
    COLOURS,
    GRID,
    HALF,
    INK,
    logarithmic,
    new_axes,
    new_figure,
    save,
    style,
    write_out,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
BARS = 128
LENGTHS = 9
GREY = "#cbd5e0"


def draw_ranges(samples: Mapping[str, Any], folder: Path) -> list[Picture]:
    """Write the pictures of `samples` (as `equipoise.tasks.range_errors` makes them)."""
    pictures = [_draw_distribution(samples, folder / "distribution.png")]
    pictures += [_draw_answers(samples, folder / "answers.png")]
    return [*pictures, _draw_errors(samples, folder / "error_by_length.png")]


def _draw_distribution(samples: Mapping[str, Any], path: Path) -> Picture:
    if samples["grid"] is not None:
        _two_attributes(samples, path)
        return Picture(path.name, "True and estimated distribution; lines bound the leaves.")
    tree = samples["tree"]
    if len(samples["columns"]) == 1 and tree is not None and tree["depth"].max() > 1:
        _tree_below_histogram(samples, path)
        return Picture(
            path.name, "The first survey's estimate over the true histogram, and its tree below."
        )
    _histograms(samples, path)
    return Picture(path.name, "The first survey's estimate over the true histogram.")


def _histograms(samples: Mapping[str, Any], path: Path) -> None:
    """A histogram for each attribute, at most three in a row."""
    names = samples["columns"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(max(HALF, 3.6 * columns), 3.2 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for number, (axes, name) in enumerate(zip(grid, names, strict=False)):
        style(axes, name, "value", "fraction of people" if number % columns == 0 else "")
        _histogram(axes, samples, number)
    grid[0].legend(loc="best", edgecolor="none", framealpha=0.85)
    save(figure, path)


def _histogram(axes: Axes, samples: Mapping[str, Any], attribute: int) -> None:
    """The truth as bars behind the estimate as steps, in at most 128 bins of equal width."""
    true, estimated = samples["histograms"][attribute], samples["marginals"][attribute]
    width = -(-len(true) // BARS)
    starts = np.arange(0, len(true), width)
    edges = np.append(starts, len(true))
    bars = [np.add.reduceat(values, starts) for values in (true, estimated)]
    axes.stairs(bars[0], edges, fill=True, color=GREY, label="true")
    axes.stairs(bars[1], edges, color=COLOURS[0], linewidth=1.4, label="estimated", baseline=None)
    axes.set_xlim(0, len(true))
    axes.margins(x=0)


def _tree_below_histogram(samples: Mapping[str, Any], path: Path) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LogNorm

    figure = new_figure(HALF, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    style(upper, f"Distribution of {samples['columns'][0]}", "", "fraction of people")
    _histogram(upper, samples, 0)
    upper.legend(loc="best", edgecolor="none", framealpha=0.85)
    style(lower, "", samples["columns"][0], "level of the tree")
    tree = samples["tree"]
    low, high, depth = tree["low"][:, 0], tree["high"][:, 0], tree["depth"]
    density = tree["value"] / (high - low)
    floor = max(density.max() / 1e4, density[density > 0].min(initial=density.max()))
    boxes = [
        [(a, d - 0.5), (b, d - 0.5), (b, d + 0.5), (a, d + 0.5)]
        for a, b, d in zip(low, high, depth, strict=True)
    ]
    few = len(boxes) < 400
    nodes = PolyCollection(
        boxes, array=np.maximum(density, floor), cmap="Blues",
        norm=LogNorm(floor, density.max() * 1.0001), linewidth=0.5 if few else 0,
        edgecolor="#ffffff" if few else "face",
    )  # fmt: skip
    lower.add_collection(nodes)
    lower.grid(visible=False)
    lower.set_ylim(depth.max() + 0.5, -0.5)
    lower.set_yticks(range(0, int(depth.max()) + 1, 2 if depth.max() > 6 else 1))
    bar = figure.colorbar(
        nodes, ax=[upper, lower], label="estimated density", fraction=0.05, pad=0.02
    )
    write_out(bar.ax.yaxis)
    save(figure, path)


def _two_attributes(samples: Mapping[str, Any], path: Path) -> None:
    figure = new_figure(8.6, 4.2)
    grid = figure.subplots(1, 2)
    true, estimated = samples["grid"]
    sizes = [len(histogram) for histogram in samples["histograms"]]
    brightest = float(true.max())
    picture = None
    for axes, values, title in zip(grid, (true, estimated), ("True", "Estimated"), strict=True):
        picture = axes.imshow(
            values.T, origin="lower", extent=(0, sizes[0], 0, sizes[1]), aspect="auto",
            cmap="Blues", vmin=0, vmax=brightest, interpolation="nearest",
        )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=12, color=INK)
        axes.set_xlabel(samples["columns"][0], color=INK)
        axes.tick_params(colors=INK)
    grid[0].set_ylabel(samples["columns"][1], color=INK)
    if samples["tree"] is not None:
        _leaves(grid[1], samples["tree"])
    assert picture is not None
    figure.colorbar(picture, ax=list(grid), label="fraction of people", fraction=0.05, pad=0.02)
    save(figure, path)


def _leaves(axes: Axes, tree: Mapping[str, Any]) -> None:
    """The boxes of all nodes but the smallest ones, which would cover the picture."""
    from matplotlib.collections import PolyCollection

    low, high = tree["low"], tree["high"]
    large = (high - low).max(axis=1) * 40 >= high[0].max()
    boxes = [
        [(a, c), (b, c), (b, d), (a, d)]
        for (a, c), (b, d) in zip(low[large], high[large], strict=True)
    ]
    axes.add_collection(
        PolyCollection(boxes, facecolor="none", edgecolor=COLOURS[1], linewidth=0.4, alpha=0.7)
    )


def _draw_answers(samples: Mapping[str, Any], path: Path) -> Picture:
    figure, axes = new_axes("Answers of the first survey", "true fraction", "estimated fraction")
    random = ~samples["fixed"]
    truth, answer = samples["truth"][random], samples["answer"][random]
    ends = [min(0.0, float(answer.min())), max(1.0, float(answer.max()))]
    axes.plot(ends, ends, color=GREY, linewidth=1.2, zorder=1, label="exact")
    errors = samples["standard_error"]
    label = "no standard error" if errors is None else "± 2 standard errors"
    axes.errorbar(
        truth, answer, yerr=None if errors is None else 2 * errors[random], fmt="o", markersize=3.2,
        color=COLOURS[0], ecolor="#90cdf4", elinewidth=1, alpha=0.8, zorder=2,
        label=f"ranges with random ends, {label}",
    )  # fmt: skip
    axes.legend(loc="upper left", edgecolor="none", framealpha=0.85)
    save(figure, path)
    return Picture(path.name, "Estimated against true fraction of the people in each range.")


def _draw_errors(samples: Mapping[str, Any], path: Path) -> Picture:
    xlabel = "part of the domain that the range covers"
    figure, axes = new_axes("Error by length of the range", xlabel, "root mean squared error")
    volume, fixed = samples["volume"], samples["fixed"]
    squared = samples["error"] ** 2
    random = ~fixed & (volume > 0)
    axes.scatter(
        volume[random], np.sqrt(squared[:, random].mean(axis=0)), s=9, color=GREY, zorder=1,
        label="a range with random ends",
    )  # fmt: skip
    lines = [(squared.mean(axis=0), COLOURS[0], "-", "mean over such ranges")]
    if samples["standard_error"] is not None:
        lines.append((samples["standard_error"] ** 2, COLOURS[1], "--", "reported standard error"))
    for values, colour, dashes, label in lines:
        points = _by_length(volume[random], values[random])
        axes.plot(
            *points, dashes, color=colour, linewidth=1.8, marker="o", markersize=3, label=label
        )
    _fixed_volumes(axes, samples)
    logarithmic(axes.yaxis)
    axes.legend(loc="best", edgecolor="none", framealpha=0.85, fontsize=9)
    axes.grid(color=GRID, linewidth=0.6, which="both")
    save(figure, path)
    note = "the standard error is the one that the first survey reports"
    if samples["standard_error"] is None:
        note = "the method gives no standard error"
    return Picture(path.name, f"Errors over all surveys; {note}.")


def _by_length(volume: Floats, squared: Floats) -> tuple[list[float], list[float]]:
    """Mean volume and root mean square within equally large groups of queries."""
    order = np.argsort(volume)
    groups = [group for group in np.array_split(order, LENGTHS) if len(group)]
    means = [float(volume[group].mean()) for group in groups]
    return means, [float(np.sqrt(squared[group].mean())) for group in groups]


def _fixed_volumes(axes: Axes, samples: Mapping[str, Any]) -> None:
    """Root mean squared error at each fixed volume, with two standard errors."""
    volume, fixed = samples["volume"], samples["fixed"]
    volumes = sorted(set(np.round(volume[fixed], 6).tolist()))
    if not volumes:
        return
    squared = samples["error"] ** 2
    errors = []
    for v in volumes:
        means = squared[:, fixed & np.isclose(volume, v, atol=1e-6)].mean(axis=1)
        spread = 2 * means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
        low, middle, high = np.sqrt(np.maximum([means.mean() - spread, means.mean(),
                                                means.mean() + spread], 1e-12))  # fmt: skip
        errors.append((middle, middle - low, high - middle))
    middles, below, above = zip(*errors, strict=True)
    axes.errorbar(
        volumes, middles, yerr=(below, above), fmt="D", markersize=5, capsize=3,
        color=COLOURS[2], label="fixed volume, ± 2 standard errors", zorder=3,
    )  # fmt: skip

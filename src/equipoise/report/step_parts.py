"""Where the time of a training step goes: a table, and a stacked bar with the limit below."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from equipoise.equilibrium.timing import (
    ALGEBRA,
    BACKWARD_ALGEBRA,
    EVALUATIONS,
    NEEDED,
    PARTS,
    PRODUCTS,
    REPEATED,
)
from equipoise.report.plot import FULL, INK, new_figure, save, style
from equipoise.report.whole import whole

NAME = "profile"
FORWARD = "rest of the model and loss, forward"
BACKWARD = "rest of the model and loss, backward"
OPTIMISER = "optimiser"
DATA = "waiting for data"
CALLBACKS = "callbacks and logging"
LOOP = "Lightning's loop and the rest"
SHADES = {
    EVALUATIONS: "#1d4f91",
    PRODUCTS: "#4a8fd4",
    REPEATED: "#a9cdf0",
    ALGEBRA: "#b45309",
    BACKWARD_ALGEBRA: "#f6ad55",
    FORWARD: "#2f855a",
    BACKWARD: "#a7e3bd",
    OPTIMISER: "#6b46c1",
    DATA: "#f6e05e",
    CALLBACKS: "#b83280",
    LOOP: "#a0aec0",
}
"""The parts in the order of table and picture. Neighbours differ in lightness, too."""
OF_THE_MODEL = (FORWARD, BACKWARD)
"""The parts that bound a step's time where there is no equilibrium layer."""
LEAST_WRITTEN = 0.04
"""The smallest share of a step that is written into its bar."""
LEGEND_COLUMNS = 3


@dataclass
class StepTimes:
    """The measurements: the parts of each timed step, and whole steps, in seconds.

    parts, calls: for every timed step, by name of the part; parts add up to the step in `timed`.
    plain: the steps between the timed ones, without timers. synchronised: whether every part
    waited for the device.
    """

    parts: list[dict[str, float]] = field(default_factory=list)
    calls: list[dict[str, int]] = field(default_factory=list)
    timed: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    synchronised: bool = False


@dataclass(frozen=True)
class Part:
    """One line: milliseconds and share of a mean step, and the calls that a layer counts."""

    name: str
    milliseconds: float
    share: float
    calls: float


@dataclass(frozen=True)
class StepTable:
    """The parts of a mean step, in milliseconds, and the duration of a step without timers.

    limit: the time of the parts that no better bookkeeping shortens: evaluations of f and
    products, or forward and backward of a model without an equilibrium layer. plain: the median
    step without timers; timed: the same with them.
    """

    parts: Sequence[Part]
    steps: int
    step: float
    plain: float
    timed: float
    limit: float
    synchronised: bool

    @classmethod
    def of(cls, times: StepTimes) -> StepTable:
        """The table of the measured steps."""
        step = fmean(times.timed)
        parts = []
        for name in SHADES:
            seconds = fmean(part.get(name, 0.0) for part in times.parts)
            calls = fmean(count.get(name, 0) for count in times.calls) if name in PARTS else 0.0
            if seconds > 0:
                parts.append(Part(name, 1e3 * seconds, seconds / step, calls))
        spent: Mapping[str, float] = {part.name: part.milliseconds for part in parts}
        needed = NEEDED if any(name in spent for name in NEEDED) else OF_THE_MODEL
        return cls(
            parts=parts,
            steps=len(times.timed),
            step=1e3 * step,
            plain=1e3 * median(times.plain),
            timed=1e3 * median(times.timed),
            limit=sum(spent.get(name, 0.0) for name in needed),
            synchronised=times.synchronised,
        )

    @property
    def needed(self) -> str:
        """What the limit consists of."""
        if any(part.name in NEEDED for part in self.parts):
            return "its evaluations of f and products with J^T"
        return "forward and backward of the model"

    def lines(self) -> list[str]:
        """The printed table."""
        rows = [("part", "ms", "share", "calls")]
        rows += [
            (part.name, f"{part.milliseconds:.2f}", f"{100 * part.share:.1f} %", _calls(part))
            for part in self.parts
        ]
        rows.append(("a step", f"{self.step:.2f}", "100.0 %", ""))
        rows.append(("limit", f"{self.limit:.2f}", f"{100 * self.limit / self.step:.1f} %", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        table = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
            ).rstrip()
            for row in rows
        ]
        return [*table, *self.notes()]

    def notes(self) -> list[str]:
        """Notes on what the figures mean."""
        notes = [
            f"mean of {self.steps} steps; a step cannot be faster than {self.needed}: "
            f"{self.step / self.limit:.2f} x the limit"
            if self.limit > 0 else f"mean of {self.steps} steps",
            f"median step with timers {self.timed:.2f} ms, without {self.plain:.2f} ms "
            f"({100 * (self.timed / self.plain - 1):+.1f} %)",
        ]  # fmt: skip
        if self.synchronised:
            notes.append(
                "each part waits for the GPU, which steps without timers do not: the parts show "
                "where the time goes, the step without timers how long it takes"
            )
        return notes

    def write(self, folder: Path) -> list[Path]:
        """Write profile.csv, profile.png and profile.svg into the folder; return the first two."""
        table, picture = folder / f"{NAME}.csv", folder / f"{NAME}.png"
        with whole(table) as file:
            writer = csv.writer(file)
            writer.writerow(("part", "milliseconds", "share", "calls"))
            writer.writerows(
                (row.name, f"{row.milliseconds:.4f}", f"{row.share:.5f}", f"{row.calls:g}")
                for row in [*self.parts, *self._of_the_step()]
            )
        self.draw(picture)
        return [table, picture]

    def _of_the_step(self) -> list[Part]:
        whole = {
            "step": self.step,
            "limit": self.limit,
            "median step with timers": self.timed,
            "median step without timers": self.plain,
        }
        return [Part(name, value, value / self.step, 1) for name, value in whole.items()]

    def draw(self, path: Path) -> None:
        """Write the picture: the parts of a step in a row, and the limit below it."""
        figure = new_figure(FULL, 3.6)
        axes = figure.add_subplot()
        style(axes, "Where a training step's time goes", "milliseconds", "")
        start, handles = 0.0, []
        for part in self.parts:
            shade = SHADES[part.name]
            bars = axes.barh(
                [1], [part.milliseconds], left=start, height=0.62, color=shade,
                edgecolor="white", linewidth=1.0,
                label=f"{part.name}: {_written(part.milliseconds)} ms",
            )  # fmt: skip
            handles.append(bars)
            if part.share >= LEAST_WRITTEN:
                _write(axes, start + part.milliseconds / 2, f"{100 * part.share:.0f} %", shade)
            start += part.milliseconds
        axes.barh([0], [self.limit], height=0.4, color="white", edgecolor=INK, hatch="///")
        axes.axvline(self.limit, color=INK, linestyle="--", linewidth=1.2)
        axes.set_yticks([1, 0], ["a step", f"limit: {_written(self.limit)} ms"])
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.45, 1.5)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False,
            fontsize=9,
        )  # fmt: skip
        save(figure, path)


def _written(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _calls(part: Part) -> str:
    return f"{part.calls:.1f}".removesuffix(".0") if part.calls else ""


def _write(axes: object, x: float, text: str, shade: str) -> None:
    """Write into a bar, in black or white, whichever is more legible on it."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(shade)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    axes.text(  # type: ignore[attr-defined]
        x, 1, text, ha="center", va="center", fontsize=9, color="white" if dark else INK
    )

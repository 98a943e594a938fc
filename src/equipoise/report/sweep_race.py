"""How fast the jobs of a multirun reach the lowest value of a column, against their cost.

Source of the picture: Ramzi et al. 2022 (SHINE, arXiv 2106.00553), figure 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from equipoise.report.curves import CurveFile
from equipoise.report.plot import STYLES, logarithmic, save, style
from equipoise.report.summary import (
    Job,
    print_whole,
    read_jobs,
    sweep_row,
    swept_keys,
    table_of,
    write_summary,
)
from equipoise.report.sweep_cells import check_entries, label
from equipoise.report.sweep_picture import COLUMNS, MORE_COLOURS, new_panels
from equipoise.report.sweep_seeds import SEED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "suboptimality"
NEEDED, OPTIONAL = ("value", "against", "among"), ("label", "counts")
NEAR = 1e-3
"""A job has arrived once its value is at most this fraction above the lowest."""
RESOLUTION = 1e-7
"""Relative difference below which values in metrics.csv, of single precision, are equal."""
MOST_PRINTED = 40
INCHES_OF_LINE, INCHES_OF_LETTER = 0.7, 0.09
"""The room that an entry of the legend takes."""
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Race:
    """The columns of metrics.csv that a task's file names under `about.race`.

    value: the minimised column, such as val/loss, shown as `label`. against: the cost up to that
    row, such as train/seconds. among: the settings and groups in which the jobs of one race may
    differ. counts: columns summed for the table.
    """

    value: str
    against: str
    among: tuple[str, ...]
    label: str
    counts: tuple[str, ...]

    @classmethod
    def of(cls, node: Mapping[str, Any] | None) -> Race | None:
        """Read and check the file's entry; None where it has none. Raises UserError."""
        if not node:
            return None
        check_entries("the task's about.race", node, NEEDED, OPTIONAL)
        value, against = str(node["value"]), str(node["against"])
        label, counts = str(node.get("label", unit(value))), tuple(node.get("counts", ()))
        return cls(value, against, tuple(node["among"]), label, counts)


class Runner(NamedTuple):
    """One job; problem: swept settings outside the race, except the seed; way: those in it.

    spent: the column `against`. counts: sums over all steps, None where the file lacks some.
    """

    name: str
    way: str
    problem: Settings
    seed: str
    settings: Mapping[str, str | None]
    values: tuple[float, ...]
    spent: tuple[float, ...]
    counts: Mapping[str, float | None]


def show_race(directory: Path, race: Race | None) -> None:
    """Print the table of the race, and write it and its picture into the multirun's folder.

    A job races against those of the same seed and problem. Jobs that did not complete or lack
    the columns are listed. Nothing happens where no two jobs can race.
    """
    jobs = read_jobs(directory)
    if race is None or not any(within(key, race.among) for key in swept_keys(jobs)):
        return
    runners, reasons = _runners(jobs, directory, race)
    fields = fields_of(runners)
    raced = [runner for field in fields for runner in field]
    if not raced:
        return
    reasons |= {r.name: "alone in its problem and seed" for r in runners if r not in raced}
    rows = [_row(runner, lowest(field), race) for field in fields for runner in field]
    path = directory / f"{NAME}.csv"
    write_summary(path, list(rows[0]), rows)
    if len(rows) <= MOST_PRINTED:
        title = f"{race.label}, and {unit(race.against)} until it is within {NEAR:g} of the lowest"
        print_whole(table_of(title, list(rows[0]), rows))
    print("".join(f"not in {NAME}: {name}: {why}\n" for name, why in reasons.items()), end="")
    draw_race(path.with_suffix(".png"), fields, race)
    print(f"table:   {path}")
    print(f"picture: {path.with_suffix('.png')}")


def within(key: str, among: Sequence[str]) -> bool:
    """Whether a swept key is one of these settings or groups, or lies below one."""
    return any(re.match(rf"{re.escape(name)}(?=[.@]|$)", key) for name in among)


def outside(job: Job, swept: Sequence[str], among: Sequence[str]) -> Settings:
    """A job's swept settings except for these: the same in all jobs to be compared."""
    others = [key for key in swept if not within(key, among)]
    return tuple((key, str(job.settings.get(key))) for key in others)


def fields_of(runners: Sequence[Runner]) -> list[list[Runner]]:
    """The jobs that race against each other, problem by problem."""
    fields: dict[tuple[Settings, str], list[Runner]] = {}
    for runner in runners:
        fields.setdefault((runner.problem, runner.seed), []).append(runner)
    problems = list(dict.fromkeys(problem for problem, _ in fields))
    ordered = sorted(fields.items(), key=lambda field: problems.index(field[0][0]))
    return [field for _, field in ordered if len({runner.way for runner in field}) > 1]


def lowest(field: Sequence[Runner]) -> float:
    """The lowest value that any of the jobs reached."""
    return min(min(runner.values) for runner in field)


def arrival(runner: Runner, best: float) -> float | None:
    """The cost at which the job first came near enough to the lowest value; None if never."""
    enough = best + NEAR * abs(best)
    arrived = (x for x, value in zip(runner.spent, runner.values, strict=True) if value <= enough)
    return next(arrived, None)


def _runners(
    jobs: Sequence[Job], directory: Path, race: Race
) -> tuple[list[Runner], dict[str, str]]:
    """The jobs that can race, and the reasons why the others cannot."""
    swept = swept_keys(jobs)
    runners, reasons = [], {}
    for job in jobs:
        row = sweep_row(job, directory, swept)
        curve = CurveFile(job.folder / "metrics.csv")
        missing = [name for name in (race.value, race.against) if not curve.points(name)]
        if row["status"] != "completed":
            reasons[row["run"]] = str(row["status"])
        elif missing:
            reasons[row["run"]] = f"its metrics.csv has no column {missing[0]}"
        else:
            runners.append(_runner(job, row["run"], swept, curve, race))
    return runners, reasons


def _runner(job: Job, name: str, swept: Sequence[str], curve: CurveFile, race: Race) -> Runner:
    pairs = curve.pairs(race.value, race.against)
    counts = {unit(name): dict(curve.points(name)) for name in race.counts}
    settings = {key: job.settings.get(key) for key in swept}
    ways = [label(key, str(value)) for key, value in settings.items() if within(key, race.among)]
    return Runner(
        name,
        ", ".join(ways),
        outside(job, swept, (*race.among, SEED)),
        str(job.settings.get(SEED)),
        settings,
        tuple(value for value, _ in pairs),
        tuple(spent for _, spent in pairs),
        {name: sum(column.values()) if _whole(column) else None for name, column in counts.items()},
    )


def _whole(column: Mapping[float, float]) -> bool:
    """Whether there is a value for every step."""
    return bool(column) and sorted(column) == list(range(1, len(column) + 1))


def unit(column: str) -> str:
    """A column without the stage before it: seconds for train/seconds."""
    return column.rpartition("/")[2].replace("_", " ")


def _row(runner: Runner, best: float, race: Race) -> dict[str, Any]:
    return {
        "run": runner.name,
        **runner.settings,
        f"lowest {race.label}": min(runner.values),
        "relative to the lowest": (min(runner.values) - best) / (abs(best) or 1.0),
        unit(race.against): runner.spent[-1],
        f"{unit(race.against)} to within {NEAR:g}": arrival(runner, best),
        **runner.counts,
    }


def draw_race(path: Path, fields: Sequence[Sequence[Runner]], race: Race) -> None:
    """Write the PNG file: a panel for each problem, a colour for each way, a line for each job."""
    problems = list(dict.fromkeys(field[0].problem for field in fields))
    ways = list(dict.fromkeys(runner.way for field in fields for runner in field))
    several = len({field[0].seed for field in fields}) > 1
    above = f"{race.label} above the lowest"
    figure, grid = new_panels(len(problems))
    for place, (axes, problem) in enumerate(zip(grid, problems, strict=True)):
        named = ", ".join(label(key, value) for key, value in problem)
        title = named or f"Suboptimality{', a line for each seed' if several else ''}"
        style(axes, title, unit(race.against), above if place % COLUMNS == 0 else "")
        logarithmic(axes.yaxis)
        for field in fields:
            if field[0].problem == problem:
                _draw_field(axes, field, ways)
    lines: dict[str, Any] = {}
    for axes in grid:
        handles, names = axes.get_legend_handles_labels()
        lines |= dict(zip(names, handles, strict=True))
    wide = INCHES_OF_LINE + INCHES_OF_LETTER * max(map(len, ways))
    columns = max(1, int(figure.get_figwidth() / wide))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center",
                  ncols=columns, frameon=False)  # fmt: skip
    save(figure, path)


def _draw_field(axes: Axes, field: Sequence[Runner], ways: Sequence[str]) -> None:
    """Draw the lines of one seed; a value equal to the lowest is drawn at the floor."""
    best = lowest(field)
    floor = RESOLUTION * (abs(best) or 1.0)
    for runner in field:
        order = ways.index(runner.way)
        above = [max(value - best, floor) for value in runner.values]
        axes.plot(
            runner.spent, above, label=runner.way, linewidth=1.0, marker="o", markersize=2,
            color=MORE_COLOURS[order % len(MORE_COLOURS)],
            linestyle=STYLES[order // len(MORE_COLOURS) % len(STYLES)],
        )  # fmt: skip

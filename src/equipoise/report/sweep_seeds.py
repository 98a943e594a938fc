"""Mean and deviation of the results of a sweep's jobs that differ only in their seed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.table import Table

from equipoise.report.summary import number, print_whole, read_jobs, sweep_row, swept_keys
from equipoise.report.whole import whole

SEED = "seed"
FILE = "seeds.csv"
MOST_COLUMNS = 6
"""Most groups that are printed; the file has all."""


class OverSeeds(NamedTuple):
    """One metric over the completed jobs of a group; settings: those that the jobs share."""

    settings: tuple[tuple[str, str], ...]
    metric: str
    mean: float
    deviation: float
    seeds: int

    @property
    def text(self) -> str:
        """Mean ± standard deviation, rounded to the same digit."""
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


def show_over_seeds(directory: Path) -> None:
    """Print the mean ± sd of every test metric over the seeds, and write both to seeds.csv.

    Nothing happens where the sweep is not over seeds, or fewer than two of them completed.
    """
    jobs = read_jobs(directory)
    swept = swept_keys(jobs)
    if SEED not in swept:
        return
    rows = [sweep_row(job, directory, swept) for job in jobs]
    if measured := over_seeds(rows, [key for key in swept if key != SEED]):
        _write(directory / FILE, measured)
        if len({entry.settings for entry in measured}) <= MOST_COLUMNS:
            print_whole(_printed(measured))
        print(f"over seeds: {directory / FILE}")


def over_seeds(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[OverSeeds]:
    """Every test metric of each group of completed jobs that agree in the settings `keys`.

    The sample standard deviation, with the number of seeds minus one as the denominator.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "completed":
            groups.setdefault(tuple((key, str(row[key])) for key in keys), []).append(row)
    found = []
    for settings, alike in groups.items():
        metrics = [name for name in alike[0] if name.startswith("test ")]
        for metric in metrics:
            values = [row[metric] for row in alike if row.get(metric) is not None]
            if len(values) > 1:
                name = metric.removeprefix("test ")
                found.append(OverSeeds(settings, name, mean(values), stdev(values), len(values)))
    return found


def _printed(measured: Sequence[OverSeeds]) -> Table:
    """A row for each metric, a column for each group."""
    groups = list(dict.fromkeys(entry.settings for entry in measured))
    cells = {(entry.metric, entry.settings): entry.text for entry in measured}
    seeds = {entry.settings: entry.seeds for entry in measured}
    table = Table(title="mean ± standard deviation over seeds")
    table.add_column("test")
    for group in groups:
        named = "\n".join(f"{key}={value}" for key, value in group)
        table.add_column(f"{named}\n{seeds[group]} seeds".strip())
    for metric in dict.fromkeys(entry.metric for entry in measured):
        table.add_row(metric, *(cells.get((metric, group), number(None)) for group in groups))
    return table


def _write(file: Path, measured: Sequence[OverSeeds]) -> None:
    keys = [key for key, _ in measured[0].settings]
    with whole(file) as lines:
        writer = csv.writer(lines)
        writer.writerow([*keys, "metric", "mean", "sd", "seeds"])
        for entry in measured:
            values = [value for _, value in entry.settings]
            figures = [f"{entry.mean:.6g}", f"{entry.deviation:.6g}", entry.seeds]
            writer.writerow([*values, entry.metric, *figures])

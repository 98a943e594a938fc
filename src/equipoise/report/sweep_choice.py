"""The job that the validation chooses from a search such as a grid, with its test metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import UserError, read_json
from equipoise.report.summary import (
    plain_numbers,
    print_whole,
    read_jobs,
    sweep_row,
    swept_keys,
    table_of,
    write_summary,
)
from equipoise.report.sweep_cells import check_entries
from equipoise.report.sweep_race import outside

FILE = "choice.csv"
NEEDED, OPTIONAL = ("metric", "among"), ("best",)


@dataclass(frozen=True)
class Choice:
    """The description under `choice` in the file of a sweep.

    metric: a validation metric, with or without `val/`. best: "min" or "max". among: the searched
    settings; for each combination of the others, such as the seed, one job is chosen.
    """

    metric: str
    best: str
    among: tuple[str, ...]

    @classmethod
    def of(cls, node: Mapping[str, Any] | None) -> Choice | None:
        """Read and check the description; None without one. Raises UserError."""
        if not node:
            return None
        check_entries("the sweep's choice", node, NEEDED, OPTIONAL)
        best = str(node.get("best", "min"))
        if best not in ("min", "max"):
            raise UserError(f"the sweep's choice has best: {best}; give min or max")
        among = [node["among"]] if isinstance(node["among"], str) else node["among"]
        return cls(str(node["metric"]).removeprefix("val/"), best, tuple(map(str, among)))


def show_choice(directory: Path, choice: Choice | None) -> None:
    """Print the chosen jobs, and write all to choice.csv, the best of each comparison first.

    Only completed jobs can be chosen; without any, nothing happens.
    """
    if choice is None:
        return
    rows = _ranked(directory, choice)
    if not rows:
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_summary(directory / FILE, columns, rows)
    chosen = [row for row in rows if row["rank"] == 1]
    title = f"chosen from {len(rows)} jobs by the validation's {choice.metric}"
    print_whole(table_of(title, [name for name in columns if name != "rank"], chosen))
    spent = sum(row["seconds"] for row in rows)
    print(f"the {len(rows)} jobs trained for {spent:.3g} s")
    print(f"choice:  {directory / FILE}")


def _ranked(directory: Path, choice: Choice) -> list[dict[str, Any]]:
    """A row for each completed job that has the metric, with its rank in its comparison."""
    jobs = read_jobs(directory)
    swept = swept_keys(jobs)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for job in jobs:
        row = sweep_row(job, directory, swept)
        metrics = _metrics(job.folder)
        value = (metrics.get("val") or {}).get(choice.metric)
        if row["status"] == "completed" and value is not None:
            told = {key: row[key] for key in ("run", *swept)}
            test = {name: x for name, x in row.items() if name.startswith("test ")}
            told |= {f"val {choice.metric}": value, **test, **plain_numbers(metrics["details"])}
            told |= {"seconds": row["seconds"]}
            groups.setdefault(outside(job, swept, choice.among), []).append(told)
    return [row for group in groups.values() for row in _in_order(group, choice)]


def _in_order(rows: Sequence[dict[str, Any]], choice: Choice) -> list[dict[str, Any]]:
    ordered = sorted(
        rows, key=lambda row: float(row[f"val {choice.metric}"]), reverse=choice.best == "max"
    )
    return [{"rank": place, **row} for place, row in enumerate(ordered, start=1)]


def _metrics(folder: Path) -> dict[str, Any]:
    file = folder / "metrics.json"
    metrics: dict[str, Any] = read_json(file) if file.is_file() else {}
    return metrics

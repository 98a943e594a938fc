"""The names that docs/metrics.md lists, and those in the files of each logger."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
PLACEHOLDER = re.compile(r"<\w+>")
WANDB_OWN = {"_step", "_runtime", "_timestamp"}
Points = dict[str, list[int]]
"""Name to the steps at which it stands, in the order of the file."""


def documented() -> set[str]:
    """The names in the first columns of the page's tables, and examples of those with a part."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    names = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    also = re.findall(r"`((?:val|test)/\w+)`", PAGE.read_text())
    pictures = ("convergence", "loss", "residual", "nfe", "converged", "confusion")
    return {*names, *also, "lr-Adam", *(f"report/{name}" for name in pictures)}


def undocumented(names: Iterable[str]) -> list[str]:
    """Those of the names that no name of the page stands for."""
    patterns = [PLACEHOLDER.sub(r"[\\w-]+", re.escape(name)) for name in documented()]
    known = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return sorted(name for name in set(names) if not known.fullmatch(name))


def of_csv(run: Path) -> Points:
    points: Points = {}
    with (run / "metrics.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            for name in (name for name, value in row.items() if value):
                points.setdefault(name, []).append(int(float(row["step"])))
    return points


def of_tensorboard(run: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # what it would purge would hide that a step stands there twice
    board = EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False
    ).Reload()
    points = {n: [event.step for event in board.Scalars(n)] for n in board.Tags()["scalars"]}
    return points | {n: [event.step for event in board.Images(n)] for n in board.Tags()["images"]}


def of_wandb(run: Path) -> Points:
    """By W&B's own reader, over the files of all offline runs of the folder in their order."""
    points: Points = {}
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for row in (r["history"]["item"] for r in wandb_records(file) if r["type"] == "history"):
            for name in {n if "/" not in n else ".".join(n.split(".")[:1]) for n in row}:
                if name not in WANDB_OWN:
                    points.setdefault(name, []).append(int(row["_step"]))
    return points


def wandb_records(file: Path) -> list[dict]:
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(read, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in printed.splitlines()]


def of_mlflow(run: Path) -> Points:
    points: Points = {}
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM runs").fetchone()
        assert count == 1
        for name, step in database.execute("SELECT key, step FROM metrics ORDER BY step"):
            points.setdefault(name, []).append(step)
    for file in (run / "mlflow").rglob("*.png"):
        points[f"report/{file.stem}"] = [0]
    return points


READERS = {
    "csv": of_csv, "tensorboard": of_tensorboard, "wandb": of_wandb, "mlflow": of_mlflow,
}  # fmt: skip

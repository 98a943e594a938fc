"""Errors of AHEAD and its baselines on range queries: every table, what it shows, a picture.

    python -m benchmarks.range_queries [--table NAME ...] [--repeats N] [--adult FILE]
                                       [--output FOLDER]

Tables: small and large (one attribute, 100,000 and 1,000,000 people), plane (two attributes), three
and five (attributes), adult (real people, where their file is named). The exit status is 1 where a
limit is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.range_queries import findings
from benchmarks.range_queries.errors import Cell
from benchmarks.range_queries.findings import Finding
from benchmarks.range_queries.report import draw_curves, header, row, write_figures
from benchmarks.range_queries.tables import (
    Table,
    many_attributes,
    one_attribute,
    people,
    two_attribute_plane,
)

SIZE = 1024
ADULT_SIZES = {"attribute_0": 1024, "attribute_1": 74, "attribute_2": 1024}
Judge = Callable[[Sequence[Cell]], list[Finding]]


def chosen(arguments: argparse.Namespace) -> list[tuple[Table, Judge]]:
    """The tables that were asked for, each with what it is held to."""
    repeats = arguments.repeats
    few = max(2, repeats // 4)  # a million people of several attributes take longer
    every: dict[str, tuple[Table, Judge]] = {
        "small": (
            one_attribute(100_000, SIZE, repeats),
            lambda cells: findings.of_one_attribute(cells, 0.75),
        ),
        "large": (
            one_attribute(1_000_000, SIZE, repeats),
            lambda cells: findings.of_one_attribute(cells, 0.65),
        ),
        "plane": (two_attribute_plane(few), findings.of_the_plane),
        "three": (many_attributes(3, few), lambda cells: findings.of_many_attributes(cells[0])),
        "five": (many_attributes(5, few), lambda cells: findings.of_many_attributes(cells[0])),
    }
    if arguments.adult is not None:
        table = people(arguments.adult, ADULT_SIZES, max(5 * repeats, 50))
        every["adult"] = (table, lambda cells: findings.of_people(cells[0]))
    return [every[name] for name in arguments.table or every]


def show(table: Table, judge: Judge) -> tuple[list[Cell], bool]:
    """Measure a table row by row; what was measured, and whether all limits hold."""
    print(f"\n{table.title}: mean squared error\n\n{header(table.methods)}", flush=True)
    cells = []
    for cell in tqdm(table.rows(), total=table.length, leave=False, disable=None):
        tqdm.write(row(cell), file=sys.stdout)
        cells.append(cell)
    verdicts = judge(cells)
    prefix = "pairs " if "pairs gls" in table.methods else ""
    default, published = f"{prefix}gls", f"{prefix}paper"
    sharpness = 100 * findings.sharpness(cells, default)
    print(f"\nMedian standard error of {default}: {sharpness:.1f} %")
    rivals = [*findings.rivals(cells, default), *findings.rivals(cells, published)]
    for line in (*verdicts, *rivals):
        print(f"- {line}", flush=True)
    return cells, all(verdict.holds for verdict in verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = ("small", "large", "plane", "three", "five", "adult")
    parser.add_argument("--table", action="append", choices=names, help="several may be named")
    parser.add_argument(
        "--repeats", type=int, default=40, help="a quarter of it in two and more attributes"
    )
    parser.add_argument("--adult", type=Path, help="parquet file with attribute_0 to attribute_2")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of csv and picture")
    arguments = parser.parse_args()
    if arguments.adult is None and "adult" in (arguments.table or ()):
        parser.error("the table of real people needs --adult FILE")
    if arguments.repeats < 2:
        parser.error("--repeats must be at least 2: a standard error needs two")
    arguments.output.mkdir(parents=True, exist_ok=True)
    measured, held = [], []
    for table, judge in chosen(arguments):
        cells, holds = show(table, judge)
        measured.append((table, cells))
        held.append(holds)
    print(f"\nFigures: {write_figures(arguments.output, measured)}")
    if any(table.length > 3 for table, _ in measured):
        print(f"Picture: {draw_curves(arguments.output, measured)}")
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()

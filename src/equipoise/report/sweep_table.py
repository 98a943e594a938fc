"""The tables printed and written at the end of a sweep.

A job that diverged or failed appears in its table as such, with the reason below.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from equipoise.report.summary import number, print_whole
from equipoise.report.sweep_cells import (
    NOT_RUN,
    Cell,
    Cells,
    Point,
    SweepTable,
    cells_of,
    columns_of,
    label,
    read_outcomes,
    rows_of,
)
from equipoise.report.whole import whole, write_whole


def show_sweep_tables(
    directory: Path, tables: Sequence[SweepTable], planned: Sequence[Sequence[str]]
) -> None:
    """Print the tables, and write each as csv, as Markdown and as a picture.

    planned: the overrides of every job; jobs that have not run appear in the tables as such.
    """
    outcomes = read_outcomes(directory, planned)
    for table in tables:
        if cells := cells_of(table, outcomes):
            _show(directory, table, cells)


def _show(directory: Path, table: SweepTable, cells: Cells) -> None:
    from equipoise.report.sweep_picture import draw

    path = directory / f"{table.name}.csv"
    write_csv(path, table, cells)
    write_whole(path.with_suffix(".md"), markdown(table, cells))
    print_whole(printed(table, cells))
    print("".join(f"{line}\n" for line in reasons(table, cells)), end="")
    draw(path.with_suffix(".png"), table, cells)
    print(f"table:   {path} and {path.with_suffix('.md').name}")
    print(f"picture: {path.with_suffix('.png')}")


def printed(table: SweepTable, cells: Cells) -> Table:
    """The table for the terminal, the best value of a row in bold with a star."""
    shown = Table(title=f"test {table.metric}", caption=f"* {table.most} in its row")
    for head in table.heads:
        shown.add_column(head)
    for name in columns_of(cells):
        shown.add_column(label(table.columns, name), justify="right")
    for point, texts in _marked(table, cells, "[bold]{} *[/bold]", "{}  "):
        shown.add_row(*point, *texts)
    return shown


def markdown(table: SweepTable, cells: Cells) -> str:
    """The table as Markdown, best values in bold, and below it the missing values and why."""
    heads = [*table.heads, *(label(table.columns, name) for name in columns_of(cells))]
    rules = [":--"] * len(table.heads) + ["--:"] * (len(heads) - len(table.heads))
    rows = [[*point, *texts] for point, texts in _marked(table, cells, "**{}**", "{}")]
    escaped = [[text.replace("|", "\\|") for text in row] for row in (heads, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (escaped[0], rules, *escaped[1:])]
    title = f"Test {table.metric}, the {table.most} of each row in bold."
    below = [f"- {line}" for line in reasons(table, cells)]
    return "\n".join([title, "", *lines, *([""] if below else []), *below, ""])


def _marked(
    table: SweepTable, cells: Cells, best: str, other: str
) -> Iterator[tuple[Point, list[str]]]:
    """Each row and the texts of its cells, in one of two formats."""
    choose = max if table.best == "max" else min
    for point in rows_of(cells):
        row = [cells.get((point, name), Cell(None, None, ((NOT_RUN, ""),)))
               for name in columns_of(cells)]  # fmt: skip
        means = [cell.mean for cell in row if cell.mean is not None]
        wins = choose(means) if means else None
        formats = [best if wins is not None and cell.mean == wins else other for cell in row]
        yield point, [form.format(cell.text) for form, cell in zip(formats, row, strict=True)]


def reasons(table: SweepTable, cells: Cells) -> list[str]:
    """A line for each cell with a job that has no value, with the reason."""
    lines = []
    for (point, name), cell in cells.items():
        known = list(dict.fromkeys(why for _, why in cell.lost if why))
        place = ", ".join([*map(label, table.rows, point), label(table.columns, name)])
        lines += [f"{place}: {reason}" for reason in known]
    return lines


def write_csv(file: Path, table: SweepTable, cells: Cells) -> None:
    """A line for each row and column: mean and standard error, or why there is no mean."""
    with whole(file) as lines:
        writer = csv.writer(lines)
        writer.writerow([*table.rows, "column", "mean", "standard_error", "lost", "reason"])
        for point in rows_of(cells):
            for name in columns_of(cells):
                if (point, name) in cells:
                    cell = cells[point, name]
                    figures = ["" if x is None else number(x) for x in (cell.mean, cell.error)]
                    lost = ["; ".join(dict.fromkeys(end[i] for end in cell.lost)) for i in (0, 1)]
                    writer.writerow([*point, name, *figures, *lost])

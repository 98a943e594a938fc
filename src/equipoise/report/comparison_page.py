"""The page of a comparison: its tables in HTML, Markdown and csv, and its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from equipoise.report.comparison import Comparison, plots
from equipoise.report.groups_of_runs import NAME, Group, draw_groups, markdown
from equipoise.report.page import (
    Picture,
    command_line,
    document,
    gallery,
    rows_of_cells,
    written,
)
from equipoise.report.summary import (
    filled,
    number,
    print_rows,
    print_whole,
    table_of,
    write_summary,
)
from equipoise.report.whole import write_whole


def write_comparison(comparison: Comparison, folder: Path, origin: Mapping[str, Any]) -> None:
    """Write index.html, comparison.md, the tables as csv and the pictures, and print the tables.

    origin: the command, the date and the revision that the page shows.
    """
    groups, title = comparison.groups, f"{len(comparison.runs)} runs"
    cells = [group.cells(comparison.monitored) for group in groups]
    heads = list(dict.fromkeys(name for row in cells for name in row))
    over = f"mean ± standard deviation over {', '.join(comparison.over)}"
    write_summary(folder / "runs.csv", comparison.columns, comparison.rows)
    text = f"# {title}\n\n"
    if groups:
        _write_groups(comparison, folder)
        text += f"{over[0].upper()}{over[1:]}:\n\n{markdown(heads, cells)}\n"
    text += markdown(comparison.columns, comparison.rows)
    write_whole(folder / "comparison.md", text)
    told = [str(origin[key]) for key in ("date", "revision") if origin.get(key)]
    html = document(
        title,
        f'<p class="status">{escape(" · ".join(told))}</p>\n',
        _means(over, heads, cells),
        f'<div class="wide">{_table(comparison, folder)}</div>\n',
        gallery(_pictures(comparison, groups, folder), folder),
        command_line(str(origin.get("command") or "")),
    )
    write_whole(folder / "index.html", html)
    print_rows(title, comparison.columns, comparison.rows, comparison.differences)
    if groups:
        print_whole(table_of(over, heads, cells))


def _write_groups(comparison: Comparison, folder: Path) -> None:
    rows = [group.numbers(comparison.monitored) for group in comparison.groups]
    write_summary(folder / f"{NAME}.csv", list(dict.fromkeys(k for row in rows for k in row)), rows)


def _pictures(comparison: Comparison, groups: Sequence[Group], folder: Path) -> list[Picture]:
    """Draw the means and the curves."""
    pictures = []
    if drawn := draw_groups(groups, folder):
        caption = f"Test {', '.join(drawn)}: each run a dot, and the mean ± standard deviation."
        pictures.append(Picture(f"{NAME}.png", caption))
    for plot in plots(comparison):
        plot.draw(folder)
        pictures.append(Picture(f"{plot.name}.png", plot.caption))
    return pictures


def _means(title: str, heads: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> str:
    if not cells:
        return ""
    rows = [["" if not filled(row, k) else escape(number(row[k])) for k in heads] for row in cells]
    table = rows_of_cells(heads, rows)
    return f'<div class="wide"><p>{escape(title)}</p>{table}</div>\n'


def _table(comparison: Comparison, folder: Path) -> str:
    """A row for each run; its name links to its page."""
    cells = []
    for run, row in zip(comparison.runs, comparison.rows, strict=True):
        values = ["" if not filled(row, c) else escape(written(row[c])) for c in comparison.columns]
        page = run.folder / "report" / "index.html"
        if page.is_file():
            link = Path(os.path.relpath(page, folder.resolve())).as_posix()
            values[0] = f'<a href="{escape(link)}">{values[0]}</a>'
        cells.append(values)
    return rows_of_cells(comparison.columns, cells)

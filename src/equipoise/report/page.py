"""The page that shows a run: tables of its settings and results, and its pictures."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #2d3748; background: #f7fafc; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
.status { color: #718096; margin: 0 0 1rem; }
.status b { color: #2f855a; } .status b.failed { color: #c53030; }
.status b.interrupted { color: #b7791f; }
.tables { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: start; }
table { border-collapse: collapse; width: 100%; background: #fff; align-self: start; }
caption { text-align: left; font-weight: 600; padding: .35rem 0; }
td { border-top: 1px solid #e2e8f0; padding: .35rem .7rem; vertical-align: top; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.texts th { text-align: left; padding: .35rem .7rem; }
.texts td:last-child { text-align: left; }
figure { margin: 0; background: #fff; border: 1px solid #e2e8f0; padding: .75rem;
  box-sizing: border-box; max-width: 100%; }
figure > div, .wide { overflow-x: auto; }
figure img { height: auto; display: block; }
figcaption { color: #718096; font-size: .9rem; padding-top: .4rem; }
pre { background: #fff; border: 1px solid #e2e8f0; padding: .75rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
summary { cursor: pointer; font-weight: 600; padding: .35rem 0; }
"""

RUN = ("task", "model", "solver", "gradient", "seed", "parameters", "epochs", "steps", "seconds",
       "peak_rss_mb", "peak_gpu_mb", "date", "device", "revision", "project_revision")  # fmt: skip
UNITS = {"seconds": " s", "peak_rss_mb": " MB", "peak_gpu_mb": " MB"}
TABLES = {
    "test": "Test",
    "val": "Validation",
    "train": "Training, last epoch",
    "solver_stats": "Forward solves",
    "gradient_stats": "Backward",
}
MOST_ROWS = 30
"""Most rows of a table that is shown unfolded."""
CSS_PIXELS = 96
INCH = 0.0254
"""One inch in metres, and in CSS pixels."""
METRE = 1
"""The unit byte of a PNG's pHYs chunk that means metres."""


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the page, and its caption; an SVG file of the same name is linked."""

    file: str
    caption: str


def page(
    metrics: Mapping[str, Any],
    pictures: Sequence[Picture],
    folder: Path,
    note: str,
    configuration: str = "",
) -> str:
    """The page of a run; its title, figures and tables are those of metrics.json.

    metrics: the dictionary of metrics.json; any part of it may be missing. configuration: the
    text of config.yaml.
    """
    names = [str(metrics[key]) for key in ("task", "model") if metrics.get(key)]
    return document(
        " · ".join(names) or "Equipoise run",
        f'{_status(metrics)}<div class="tables">\n{_tables(metrics)}</div>\n',
        _texts(metrics.get("details") or {}),
        gallery(pictures, folder),
        f"<p>{escape(note)}</p>\n" if note else "",
        command_line(str(metrics.get("command") or "")),
        folded("Configuration", f"<pre>{escape(configuration)}</pre>") if configuration else "",
    )


def document(title: str, *parts: str) -> str:
    """A self-contained page: style and pictures are inside. parts: its HTML."""
    title = escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def gallery(pictures: Sequence[Picture], folder: Path) -> str:
    """The section of the pictures, which lie in the folder; empty without pictures."""
    figures = "".join(_figure(picture, folder) for picture in pictures)
    return f'<h2>Pictures</h2>\n<div class="pictures">\n{figures}</div>\n' if figures else ""


def command_line(command: str) -> str:
    """The section that shows a command; empty without one."""
    return f"<h2>Command line</h2>\n<pre>{escape(command)}</pre>\n" if command else ""


def folded(title: str, html: str) -> str:
    """A section that shows only its title until it is opened."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{html}</details>\n"


def _status(metrics: Mapping[str, Any]) -> str:
    status = escape(str(metrics.get("status") or ""))
    return f'<p class="status"><b class="{status}">{status}</b></p>\n' if status else ""


def _tables(metrics: Mapping[str, Any]) -> str:
    tables = [
        ("Run", {key: metrics.get(key) for key in RUN}),
        *((title, metrics.get(key)) for key, title in TABLES.items()),
        *_details(metrics.get("details") or {}),
    ]
    return "".join(_table(title, values) for title, values in tables if values)


def _details(details: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The named lists in `details`, such as a value for each class."""
    named = [(key, values) for key, values in details.items() if isinstance(values, Mapping)]
    return [(_title(key).replace("Iou", "IoU"), values) for key, values in named]


def _texts(details: Mapping[str, Any]) -> str:
    """The rows of texts in `details`, such as sentences and their translations.

    The rows of an entry with several lists, such as weights taken and left out, may hold numbers.
    """
    lists = {key: rows for key, rows in details.items() if _are_rows(rows, str)}
    for key, value in details.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        lists |= {f"{key}: {name}": rows for name, rows in inner if _are_rows(rows, str | int)}
    return "".join(_text_table(key, rows) for key, rows in lists.items())


def _are_rows(rows: Any, kind: Any) -> bool:
    """Whether the value is a list of mappings with values of the given type."""
    mappings = isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows)
    return bool(mappings) and all(isinstance(text, kind) for row in rows for text in row.values())


def _text_table(title: str, rows: Sequence[Mapping[str, str | int]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[escape(written(row.get(name, ""))) for name in names] for row in rows]
    return f"<h2>{escape(_title(title))}</h2>\n" + rows_of_cells(map(_title, names), cells)


def rows_of_cells(heads: Iterable[str], cells: Iterable[Sequence[str]]) -> str:
    """A table with a head above each column; the cells are HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in cells
    )
    return f'<table class="texts">\n<tr>{head}</tr>\n{body}</table>\n'


def _title(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _table(title: str, values: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    rows = "".join(
        f"<tr><td>{escape(key.replace('_', ' '))}</td>"
        f"<td>{escape(written(value))}{UNITS.get(key, '')}</td></tr>\n"
        for key, value in shown.items()
    )
    if len(shown) > MOST_ROWS:
        return f"<div>\n{folded(f'{title} ({len(shown)})', f'<table>{rows}</table>')}</div>\n"
    return f"<table><caption>{escape(title)}</caption>\n{rows}</table>\n" if rows else ""


def written(value: str | int | float) -> str:
    """Integers are written with separators, other numbers with four significant digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _figure(picture: Picture, folder: Path) -> str:
    """A picture at its own size, however wide the page is, so that its text stays legible."""
    content = (folder / picture.file).read_bytes()
    width = shown_width(content)
    card = f' style="width: calc({width}px + 1.5rem + 2px)"' if width else ""
    file, caption = escape(picture.file), escape(picture.caption)
    vector = Path(picture.file).with_suffix(".svg")
    link = f' <a href="{escape(str(vector))}">SVG</a>' if (folder / vector).is_file() else ""
    return (
        f'<figure{card}><div><a href="{file}"><img alt="{caption}" width="{width or "100%"}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}"></a></div>'
        f"<figcaption>{caption}{link}</figcaption></figure>\n"
    )


def shown_width(content: bytes) -> int | None:
    """The width of a PNG file in CSS pixels by its stated resolution; None if it states none.

    Source: Portable Network Graphics (ISO/IEC 15948), chunks IHDR and pHYs.
    """
    place = content.find(b"pHYs")
    if place < 0:
        return None
    (pixels,) = struct.unpack(">I", content[16:20])
    of_a_metre, _, unit = struct.unpack(">IIB", content[place + 4 : place + 13])
    return round(pixels / (of_a_metre * INCH) * CSS_PIXELS) if unit == METRE else None

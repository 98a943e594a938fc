"""Rows of texts on the page of a run: each in its column, and as text whatever it holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from equipoise.report.page import CSS_PIXELS, Picture, page
from equipoise.report.plot import FULL, HALF, new_figure, save

SAMPLES = [
    {"source": "Ein <b>Hund</b>", "reference": "A dog", "translation": "A & dog"},
    {"source": "Zwei", "reference": "Two"},
]

ONE = b"\0\0\0\1"
PLAIN = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + ONE * 2 + b"pHYs" + ONE * 2 + b"\0"
"""A PNG file whose resolution has no unit."""


def shown(details: dict[str, Any], folder: Path) -> str:
    return page({"task": "t", "details": details}, [], folder, "")


def test_texts_are_a_table_with_a_column_for_each_name(tmp_path: Path) -> None:
    html = shown({"samples": SAMPLES}, tmp_path)
    assert "<h2>Samples</h2>" in html
    (table,) = re.findall(r'<table class="texts">(.*?)</table>', html, re.DOTALL)
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    assert rows[0] == ["Source", "Reference", "Translation"]
    assert rows[1] == ["Ein &lt;b&gt;Hund&lt;/b&gt;", "A dog", "A &amp; dog"]
    assert rows[2] == ["Zwei", "Two", ""]


@pytest.mark.parametrize("inches", [3.0, HALF, FULL])
def test_a_picture_is_shown_as_large_as_it_was_drawn(inches: float, tmp_path: Path) -> None:
    save(new_figure(inches, 1.0), tmp_path / "own.png")
    html = page({}, [Picture("own.png", "Own.")], tmp_path, "")
    assert f'width="{round(inches * CSS_PIXELS)}"' in html
    assert 'href="own.svg"' in html


@pytest.mark.parametrize("content", [b"\x89PNG", PLAIN])
def test_a_picture_that_tells_no_size_fills_its_card(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(content)
    html = page({}, [Picture("own.png", "Own.")], tmp_path, "")
    assert 'width="100%"' in html
    assert ".svg" not in html


@pytest.mark.parametrize(("classes", "folds"), [(10, False), (1000, True)])
def test_a_long_table_is_folded_up(classes: int, folds: bool, tmp_path: Path) -> None:
    accuracies = {f"class {number}": number / classes for number in range(classes)}
    html = shown({"accuracy_by_class": accuracies}, tmp_path)
    assert ("<summary>Accuracy by class (1000)</summary>" in html) == folds
    assert html.count("<td>class ") == classes


@pytest.mark.parametrize("rows", [[], [1, 2], [{"nfe": 3, "loss": 0.5}], [SAMPLES[0], "text"]])
def test_other_lists_are_not_on_the_page(rows: list[Any], tmp_path: Path) -> None:
    assert '<table class="texts">' not in shown({"points": rows}, tmp_path)

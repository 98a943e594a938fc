"""Rows of texts on the page of a run: each in its column, and as text whatever it holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from equipoise.report.page import page

SAMPLES = [
    {"source": "Ein <b>Hund</b>", "reference": "A dog", "translation": "A & dog"},
    {"source": "Zwei", "reference": "Two"},
]


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


@pytest.mark.parametrize("rows", [[], [1, 2], [{"nfe": 3, "loss": 0.5}], [SAMPLES[0], "text"]])
def test_other_lists_are_not_on_the_page(rows: list[Any], tmp_path: Path) -> None:
    assert '<table class="texts">' not in shown({"points": rows}, tmp_path)

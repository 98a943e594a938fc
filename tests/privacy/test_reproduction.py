"""The tables of `python -m benchmarks.range_queries`, with few repeats. `-s` prints them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.range_queries import findings
from benchmarks.range_queries.errors import Cell, geometric_mean_ratio
from benchmarks.range_queries.findings import Finding
from benchmarks.range_queries.report import draw_curves, header, row, write_figures
from benchmarks.range_queries.tables import (
    Table,
    many_attributes,
    one_attribute,
    people,
    two_attribute_plane,
)
from equipoise.privacy import Ahead, Uniform


def measured(table: Table) -> list[Cell]:
    print(f"\n{table.title}\n{header(table.methods)}")
    cells = []
    for cell in table.rows():
        print(row(cell), flush=True)
        cells.append(cell)
    return cells


def assert_all_hold(found: Sequence[Finding]) -> None:
    print(*found, sep="\n")
    assert all(finding.holds for finding in found), [str(f) for f in found if not f.holds]


@pytest.mark.slow
@pytest.mark.parametrize(("users", "limit"), [(100_000, 0.75), (1_000_000, 0.65)])
def test_the_table_of_one_attribute(users: int, limit: float) -> None:
    cells = measured(one_attribute(users, 1024, 10))
    assert_all_hold(findings.of_one_attribute(cells, limit))


@pytest.mark.slow
def test_two_attributes() -> None:
    assert_all_hold(findings.of_the_plane(measured(two_attribute_plane(5))))


@pytest.mark.slow
@pytest.mark.parametrize("attributes", [3, 5])
def test_many_attributes(attributes: int) -> None:
    assert_all_hold(findings.of_many_attributes(measured(many_attributes(attributes, 5))[0]))


@pytest.mark.slow
def test_real_people() -> None:
    """Runs where EQUIPOISE_DATA names a folder that holds adult/adult.parquet."""
    folder = os.environ.get("EQUIPOISE_DATA")
    if folder is None:
        pytest.skip("EQUIPOISE_DATA does not name the folder of the real data")
    table = people(Path(folder) / "adult" / "adult.parquet", {"attribute_0": 1024}, 100)
    assert_all_hold(findings.of_people(measured(table)[0]))


def cell(label: str, **errors: Sequence[float]) -> Cell:
    return Cell(label, 1.0, {name: np.array(values) for name, values in errors.items()})


def test_findings_tell_gains_from_losses() -> None:
    """The checks of the tables can fail."""
    bases = dict.fromkeys(("uniform", "flat", "hio", "dht"), (4.0, 4.2))
    good = cell("zipf", paper=(2.0, 2.1), gls=(1.0, 1.1), **bases)
    bad = cell("zipf", paper=(9.0, 9.1), gls=(8.0, 8.1), **bases)
    other = cell("uniform", paper=(9.0, 9.1), gls=(99.0, 99.1), **bases)
    assert all(f.holds for f in findings.of_one_attribute([good, other], 0.75))
    assert [f.figure for f in findings.of_one_attribute([bad], 0.75)] == [8.05 / 9.05, 4]
    assert not any(f.holds for f in findings.of_one_attribute([bad], 0.75))
    ratio = (1.05 / 2.05 * 8.05 / 9.05) ** 0.5
    assert geometric_mean_ratio([good, bad], "gls", "paper") == pytest.approx(ratio)
    assert good.beats("paper", "flat")
    assert not bad.beats("paper", "flat")
    assert cell("x", paper=(4.0, 4.4), flat=(4.1, 4.2)).beats("paper", "flat")
    sentence = findings.rivals([good, bad], "gls")[1]
    assert sentence.startswith("flat has a smaller error than gls in 1 of 2 rows")
    assert str(Finding("x", 5.0, 1.0, 4.0)) == "DOES NOT HOLD: x: 5 (from 1 to 4)"


def test_a_small_table_becomes_figures_and_a_picture(tmp_path: Path) -> None:
    methods = {"uniform": Uniform(), "gls": Ahead()}
    table = one_attribute(2_000, 16, 2, methods)
    cells = measured(table)
    assert len(cells) == table.length == 30
    path = write_figures(tmp_path, [(table, cells)])
    assert len(path.read_text().splitlines()) == 1 + 30 * len(methods)
    assert draw_curves(tmp_path, [(table, cells)]).read_bytes().startswith(b"\x89PNG")

"""People from files: what is read, what is binned, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from equipoise.data.range_query import RangeQuery
from equipoise.errors import UserError


def csv(folder: Path, text: str) -> str:
    (folder / "people.csv").write_text(text)
    return str(folder / "people.csv")


def refused(**settings: object) -> str:
    with pytest.raises(UserError) as refusal:
        RangeQuery(**settings).inspect()  # type: ignore[arg-type]
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_a_csv_and_a_parquet_file_give_the_same_people(tmp_path: Path) -> None:
    path = csv(tmp_path, "age,hours\n3,40\n0,12\n9,99\n")
    table = pyarrow.table({"hours": [40, 12, 99], "age": [3, 0, 9]})
    pyarrow.parquet.write_table(table, tmp_path / "people.parquet")
    for file in (path, str(tmp_path / "people.parquet")):
        data = RangeQuery(path=file, columns=["age", "hours"], domain=[10, 100])
        assert data.population().values.tolist() == [[3, 40], [0, 12], [9, 99]]
    told = RangeQuery(path=path, columns=["age", "hours"]).inspect()
    assert told == {
        "domain": [10, 100], "columns": ["age", "hours"], "limits": None, "users": 3,
    }  # fmt: skip


def test_the_only_column_needs_no_name_and_some_rows_can_be_taken(tmp_path: Path) -> None:
    path = csv(tmp_path, "age\n" + "\n".join(str(age) for age in range(50)) + "\n")
    people = RangeQuery(path=path, users=20, seed=1).population()
    assert len(people) == len({int(value) for value in people.values[:, 0]}) == 20
    assert people.domain == (50,)


def test_numbers_with_fractions_are_binned_between_their_limits(tmp_path: Path) -> None:
    path = csv(tmp_path, "height\n1.0\n1.49\n1.5\n1.99\n2.0\n")
    people = RangeQuery(path=path, domain=2, limits=[[1.0, 2.0]]).population()
    assert people.values[:, 0].tolist() == [0, 0, 1, 1, 1]
    mostly = csv(tmp_path, "height\n1.25\n1.5\n2.75\n3.25\n")
    data = RangeQuery(path=mostly, domain=4)
    assert data.population().values[:, 0].tolist() == [0, 0, 3, 3]
    assert data.inspect()["limits"] == [[1.25, 3.25]]


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("age\n3\n12\n", {"domain": 10}, "1 value(s) outside the domain 0 to 9"),
        ("age\n3\n-2\n", {"domain": 10}, "1 negative value(s), the least is -2"),
        ("age,b\n3,1\n,1\n4,1\n", {"columns": ["age"]}, "1 missing or infinite value(s)"),
        ("age\n3.0\nnan\n4.0\n", {}, "missing or infinite"),
        ("age\n3\n4.5\n4\n", {"domain": 10}, "1 value(s) that are no integers, the first is 4.5"),
        ("age\n3\nold\n4\n", {}, "must hold integers, but it holds 'old'"),
        ("age\n3\n4\n", {"domain": 1}, "needs 2 or more values, got 1"),
        ("age\n0\n0\n", {}, "holds nothing but 0"),
        ("age\n3\n4\n", {"columns": ["agee"]}, "has no column 'agee', only age"),
        ("a,b\n3,4\n", {}, "has the columns a, b: choose with task.columns"),
        ("a,b\n3,4\n", {"columns": ["a", "a"]}, "names a twice"),
        ("a,b\n3,4\n", {"columns": ["a", "b"], "domain": [9]}, "has 1 size(s) for 2 column(s)"),
        ("age\n", {}, "has no rows"),
        ("age\n3\n4\n", {"users": 3}, "has only 2 rows"),
        ("age\n3\n4\n", {"limits": [[5, 1]]}, "must rise"),
        ("age\n3\n7\n", {"limits": [[0, 5]]}, "1 value(s) outside its limits 0 to 5"),
        ("age\n3\n4\n", {"volumes": [1.5]}, "must lie above 0, up to 1"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, text: str, settings: dict[str, object], said: str
) -> None:
    assert said in refused(path=csv(tmp_path, text), **settings)


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    assert "There is no file" in refused(path=str(tmp_path / "nowhere.csv"))
    (tmp_path / "people.xlsx").write_text("3")
    assert "must end in .csv or .parquet" in refused(path=str(tmp_path / "people.xlsx"))
    (tmp_path / "broken.parquet").write_text("PAR1 and no more")
    assert "cannot be read" in refused(path=str(tmp_path / "broken.parquet"))


def test_a_domain_that_is_no_power_of_two_is_kept_whole(tmp_path: Path) -> None:
    path = csv(tmp_path, "age\n" + "\n".join(str(age) for age in range(100)) + "\n")
    data = RangeQuery(path=path, domain=100)
    data.setup("test")
    whole = np.array([[[0, 100]]])
    assert data.people.fractions(whole).tolist() == [1.0]

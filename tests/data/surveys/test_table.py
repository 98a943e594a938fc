"""People from files: what is read, what is binned, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from equipoise.data.surveys.range_query import RangeQuery
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
        ("age\n3\n4.5\n4\n", {"domain": 10}, "1 non-integer value(s), the first is 4.5"),
        ("age\n3\nold\n4\n", {}, "must hold integers, but it holds 'old'"),
        ("age\n3\n4\n", {"domain": 1}, "needs 2 or more values, got 1"),
        ("age\n0\n0\n", {}, "holds nothing but 0"),
        ("age\n3\n4\n", {"columns": ["agee"]}, "has no column 'agee', only age"),
        ("a,b\n3,4\n", {}, "has the columns a, b: choose with task.columns"),
        ("a,b\n3,4\n", {"columns": ["a", "a"]}, "names a twice"),
        ("a,b\n3,4\n", {"columns": ["a", "b"], "domain": [9]}, "has 1 size(s) for 2 column(s)"),
        ("age\n", {}, "has no rows"),
        ("age\n3\n4\n", {"users": 3}, "has only 2 rows"),
        ("age\n3\n4\n", {"limits": [[5, 1]]}, "must increase"),
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


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_csv_file_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    """By its mark where it has one, else by its name; the column's name has two umlauts."""
    (tmp_path / "people.csv").write_bytes("größe,alter\n3,40\n0,12\n".encode(encoding))
    settings = {"path": str(tmp_path / "people.csv"), "columns": ["größe"], "domain": 10}
    if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert RangeQuery(**settings).population().values.tolist() == [[3], [0]]
    elif encoding.startswith("utf"):
        assert "line 1 holds a NUL character" in refused(**settings) or "not text" in refused(
            **settings
        )
    else:
        told = refused(**settings)
        assert "people.csv, line 1: this is not text in UTF-8" in told
        assert "task.encoding=latin-1" in told
    if encoding != "utf-8-sig":
        data = RangeQuery(**settings, encoding=encoding)
        assert data.population().values.tolist() == [[3], [0]]


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        (b"", {}, "people.csv is empty"),
        (b"\xef\xbb\xbf", {}, "people.csv is empty"),
        (b"\n\n \n", {}, "people.csv is empty"),
        (b"age\n", {}, "has no rows"),
        (b"age\n3\n4\xe9\n", {}, "people.csv, line 3: this is not text in UTF-8"),
        (b"age\n3\n\x004\n", {}, "people.csv, line 3 holds a NUL character"),
        (b"\xff\xfea", {}, "people.csv, line 1: this is not text in utf-16"),
        (b"age\n3\n", {"encoding": "klingon"}, "task.encoding='klingon' is not an encoding"),
        (b"age\n3\n", {"encoding": "hex"}, "task.encoding='hex' is not an encoding"),
        (b"age\n3\n", {"encoding": "a\0b"}, "is not an encoding"),
        (b"a,a\n1,2\n", {"columns": ["a"]}, "has 2 columns named 'a' in its first line"),
        (b"a,b\n1,2\n\n3,4,5\n", {"columns": ["a"]}, "line 4 has 3 field(s) where the first"),
        (b"a,b\n1,2\n3\n", {"columns": ["a"]}, "people.csv, line 3 has 1 field(s)"),
        (b'a,b\n1,"x\ny"\n3\n', {"columns": ["a"]}, "people.csv, line 4 has 1 field(s)"),
        (b"a,b\n1," + b"x" * 3_000_000 + b"\n3\n", {"columns": ["a"]}, "line 3 has 1 field(s)"),
        (b'a,b\n3,"x\n4,y\n5,z\n', {"columns": ["a"]}, "line 2: a quote is not closed"),
        (b'"age\n3\n4\n', {}, "people.csv, line 1: a quote is not closed"),
        (b"age\n3\nold\n", {}, "it holds 'old' in line 3 of people.csv: map each"),
        (b"age\n3\n\n\nold\n", {}, "it holds 'old' in line 5 of people.csv"),
        (b"age\n3\n" + b"x" * 900_000 + b"\n", {}, "x...' in line 3 of people.csv"),
        (b'age\n3\n"o\nl\nd"\n', {}, "it holds 'o l d' in line 5 of people.csv"),
        (b"age,b\n3,1\n,1\n", {"columns": ["age"]}, "the first in line 3 of people.csv"),
        (b"age\n3\n1e999\n", {}, "the first in line 3 of people.csv"),
        (b"3\n4\n5\n", {}, "begins with '3': its first line must name the column"),
        (b"a;b\n1;2\n", {"columns": ["a"]}, "has no column 'a', only a;b"),
        (b"," * 9_000 + b"\n", {"columns": ["a"]}, "has no column 'a'"),
        (b"," * 70_000 + b"\n", {"columns": ["a"]}, "more than 10,000 are not read"),
        (b"2020-01-01\n2021-01-01\n", {}, "must hold integers"),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_a_csv_file_that_cannot_be_used_is_said_with_its_line(
    tmp_path: Path, data: bytes, settings: dict[str, object], said: str
) -> None:
    (tmp_path / "people.csv").write_bytes(data)
    assert said in refused(path=str(tmp_path / "people.csv"), **settings)


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\r\n3,x\r\n0,y\r\n",
        b"a,b\r3,x\r0,y\r",
        b'a,b\n3,"x\ny, z"\n0,"say ""yes"""\n',
        b'a,b\n3,5" nail\n0,y\n',
        b"a,b\n3," + b"x" * 3_000_000 + b"\n0,y\n",
        b"a,b,b\n3,1,2\n0,1,2\n",
        b"\n\na,b\n\n3,1\n0,2",
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_csv_files_of_many_hands_are_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "people.csv").write_bytes(data)
    people = RangeQuery(path=str(tmp_path / "people.csv"), columns=["a"], domain=10)
    assert people.population().values.tolist() == [[3], [0]]


def test_a_column_whose_name_is_a_number_can_be_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "2019\n4\n5\n")
    assert RangeQuery(path=path, columns=["2019"]).population().values.tolist() == [[4], [5]]


def test_folders_and_homes_of_nobody_are_said(tmp_path: Path) -> None:
    (tmp_path / "people.csv").mkdir()
    assert "people.csv is a folder" in refused(path=str(tmp_path / "people.csv"))
    assert "There is no file ~nobody-of-this-name" in refused(path="~nobody-of-this-name/a.csv")
    assert "There is no file" in refused(path="a\0b.csv")


def test_two_columns_of_one_name_in_a_parquet_file_are_said(tmp_path: Path) -> None:
    table = pyarrow.table([[1, 2], [3, 4]], names=["age", "age"])
    path = str(tmp_path / "people.parquet")
    pyarrow.parquet.write_table(table, path)
    told = refused(path=path, columns=["age"])
    assert "2 columns named 'age'" in told or "cannot be read" in told
    assert "task.encoding is for csv files" in refused(path=path, encoding="latin-1")


def test_a_domain_that_is_no_power_of_two_is_kept_whole(tmp_path: Path) -> None:
    path = csv(tmp_path, "age\n" + "\n".join(str(age) for age in range(100)) + "\n")
    data = RangeQuery(path=path, domain=100)
    data.setup("test")
    whole = np.array([[[0, 100]]])
    assert data.people.fractions(whole).tolist() == [1.0]

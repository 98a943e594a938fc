"""Submissions and their truth as csv files, and their errors as one file."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from equipoise.commands.ensemble.submissions import (
    names_of,
    read_submission,
    read_truth,
    store_errors,
    write_submission,
)
from equipoise.errors import UserError

SUBMISSION = "id,scalar_coupling_constant\n"
TRUTH = "id,type,scalar_coupling_constant\n"
GOOD = TRUTH + "7,1JHC,80.5\n3,3JHN,1.25\n5,2JHH,-11\n"
TRAIN = (
    "id,molecule_name,atom_index_0,atom_index_1,type,scalar_coupling_constant\n"
    "0,dsgdb9nsd_000001,1,0,1JHC,84.8\n1,{other},1,2,2JHH,-11.2\n"
)


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_the_truth_is_read_with_its_types(tmp_path: Path) -> None:
    truth = read_truth(written(tmp_path, GOOD))
    assert truth.id.tolist() == [7, 3, 5]
    assert truth.types == ("1JHC", "2JHH", "3JHN")
    assert truth.kind.tolist() == [1, 3, 2]
    assert truth.value.tolist() == [80.5, 1.25, -11]
    assert not truth.competition


def test_types_are_groups_whatever_their_names(tmp_path: Path) -> None:
    truth = read_truth(written(tmp_path, TRUTH + "1,long,2\n4,1JFC,3\n2, long ,4\n"))
    assert truth.types == ("1JFC", "long")
    assert truth.kind.tolist() == [2, 1, 2]


@pytest.mark.parametrize(("other", "competition"), [("dsgdb9nsd_133884", True), ("benzene", False)])
def test_the_competition_is_known_by_its_molecules(
    tmp_path: Path, other: str, competition: bool
) -> None:
    truth = read_truth(written(tmp_path, TRAIN.format(other=other)))
    assert truth.competition == competition
    assert truth.kind.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv cannot be read"),
        (SUBMISSION, "a.csv: no row follows the first line"),
        ("id,value\n1,2\n", "a.csv: the first line has no scalar_coupling_constant"),
        (GOOD, "a.csv has a column type: a submission has id and scalar_coupling_constant"),
        (SUBMISSION + "1,nan\n", "a.csv has nan for id 1: give a coupling in Hz"),
        (SUBMISSION + "1,\n", "a.csv has nan for id 1"),
        (SUBMISSION + "1,-inf\n", "a.csv has -inf for id 1"),
        (SUBMISSION + "1,3e12\n", r"a.csv has 3e\+12 for id 1"),
        (SUBMISSION + "1,2\n,3\n", "a.csv has a row without id"),
        (SUBMISSION + "1,2\n2,3\n1,2\n", "a.csv has id 1 more than once"),
        (SUBMISSION + "1.5,2\n", "a.csv cannot be read .*'1.5'"),
        (SUBMISSION + "1,two\n", "a.csv cannot be read .*'two'"),
        (SUBMISSION + "1,2,3\n", "a.csv cannot be read"),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        read_submission(written(tmp_path, text))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SUBMISSION + "1,2\n", "a.csv: the first line has no type"),
        ("type," + TRUTH + "1JHC,1,1JHC,2\n", "a.csv: the first line has several type"),
        (TRUTH + "1,1JHC,2\n7,,2\n", "a.csv has no type for id 7: name it, or delete the row"),
        (TRUTH + "1, ,2\n", "a.csv has no type for id 1"),
        (TRUTH + "1,1JHC,\n", "has nan for id 1"),
    ],
)
def test_what_is_no_truth_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_truth(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.csv does not exist"):
        read_submission(tmp_path / "no.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_truth(tmp_path)


def test_errors_stand_in_the_order_of_the_truth(tmp_path: Path) -> None:
    truth = read_truth(written(tmp_path, GOOD + "9,1JHC,3\n", "truth.csv"))
    files = [
        written(tmp_path, SUBMISSION + "3,1.5\n5,-10\n7,80\n", "a.csv"),
        written(tmp_path, '"id","scalar_coupling_constant"\n7,81.5\n3,1\n5,-11\n', "b.csv"),
    ]
    known = truth.of(read_submission(files[0]))
    assert known.id.tolist() == [7, 3, 5]
    assert known.kind.tolist() == [1, 3, 2]
    store_errors(files, 2, known, tmp_path / "errors")
    found = np.fromfile(tmp_path / "errors", np.float32).reshape(2, 3)
    assert found.tolist() == [[-0.5, 0.25, 1], [1, -0.25, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("3,1\n7,1\n", r"b.csv lacks 1 of the ids that .*a.csv has, such as 5"),
        ("3,1\n5,1\n7,1\n99,1\n", r"a.csv lacks 1 of the ids that .*b.csv has, such as 99"),
        ("3,1\n5,1\n8,1\n", r"b.csv lacks 1 of the ids that .*a.csv has, such as 7"),
    ],
)
def test_submissions_of_other_couplings_are_refused(
    tmp_path: Path, rows: str, message: str
) -> None:
    files = [
        written(tmp_path, SUBMISSION + "3,1.5\n5,-10\n7,80\n", "a.csv"),
        written(tmp_path, SUBMISSION + rows, "b.csv"),
    ]
    known = read_truth(written(tmp_path, GOOD, "truth.csv")).of(read_submission(files[0]))
    with pytest.raises(UserError, match=message):
        store_errors(files, 2, known, tmp_path / "errors")


def test_ids_that_the_truth_lacks_are_refused(tmp_path: Path) -> None:
    truth = read_truth(written(tmp_path, GOOD, "truth.csv"))
    submission = read_submission(written(tmp_path, SUBMISSION + "3,1\n4,1\n"))
    with pytest.raises(UserError, match=r"truth.csv lacks 1 of the ids that .*a.csv has.* 4: all"):
        truth.of(submission)


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = read_truth(written(tmp_path, GOOD))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(4 * 5 * 3 - 1))
    with pytest.raises(UserError, match=r"5 submissions of 3 couplings need 0\.0 GB"):
        store_errors([], 5, truth, tmp_path / "errors")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(4 * 5 * 3))
    store_errors([], 5, truth, tmp_path / "errors")


def test_a_blend_is_written_as_a_submission(tmp_path: Path) -> None:
    values = np.array([1 / 3, -2.5, 80.0])
    write_submission(np.array([9, 2, 5]), values, tmp_path / "out.csv")
    found = read_submission(tmp_path / "out.csv")
    assert found.id.tolist() == [2, 5, 9]
    assert found.value.tolist() == [-2.5, 80, 1 / 3]


def test_names_tell_submissions_apart(tmp_path: Path) -> None:
    assert names_of([Path("x/a.csv"), Path("y/b.csv")]) == ["a", "b"]
    assert names_of([Path("x/a.csv"), Path("y/a.csv")]) == ["x/a.csv", "y/a.csv"]
    with pytest.raises(UserError, match=r"a.csv is given twice: give it once"):
        names_of([tmp_path / "a.csv", tmp_path / "b" / ".." / "a.csv"])

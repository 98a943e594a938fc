"""What is read is what was written, and what is broken is named with its line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from equipoise.data.tabular.libsvm import MOST_COLUMNS, fault, read_libsvm
from equipoise.errors import UserError

GOOD = "+1 1:0.5 3:2 # nan in a comment\n\n# nobody\n-1 2:1e-3 3:-4.\n"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


def written(folder: Path, text: str, name: str = "rows.libsvm") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.dictionaries(st.integers(1, 40), NUMBERS, max_size=6)),
        min_size=1, max_size=12,
    ),
    st.integers(0, 1),
)  # fmt: skip
def test_the_values_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, dict[int, float]]], first: int
) -> None:
    rows = [*rows, (0, {1 if first else 0: 1.0})]  # the file counts from its least index
    lines = [
        f"{label} " + " ".join(f"{i}:{values[i]!r}" for i in sorted(values))
        for label, values in rows
    ]
    path = written(tmp_path_factory.mktemp("libsvm"), "\n".join(lines))
    (read,) = read_libsvm([path])
    dense = np.zeros((len(rows), 1 - first + max(max(values, default=0) for _, values in rows)))
    for row, (_, values) in enumerate(rows):
        for index, value in values.items():
            dense[row, index - first] = value
    assert isinstance(read.features, sparse.csr_array)
    assert np.array_equal(read.features.toarray(), dense)
    assert read.labels.tolist() == [label for label, _ in rows]


@pytest.mark.parametrize("ending", PACKED)
def test_packed_files_are_read_and_damaged_ones_named(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"rows{ending}"
    file.write_bytes(PACKED[ending](GOOD.encode()))
    (read,) = read_libsvm([str(file)])
    assert read.features.toarray().tolist() == [[0.5, 0, 2], [0, 1e-3, -4]]
    assert read.place(1) == f"{file}, line 4"
    if ending:
        file.write_bytes(PACKED[ending](GOOD.encode() * 5000)[:-9])
        with pytest.raises(UserError, match=r"rows\.\w+ cannot be read beyond line \d+ \(.*\): "):
            read_libsvm([str(file)])


def test_files_are_equally_wide_and_count_from_the_same_index(tmp_path: Path) -> None:
    narrow, wide = written(tmp_path, "1 2:1\n", "a"), written(tmp_path, "1 1:1 7:1\n", "b")
    assert [part.features.shape for part in read_libsvm([narrow, wide])] == [(1, 7), (1, 7)]
    from_zero = written(tmp_path, "1 0:1 2:1\n", "c")
    (first, second) = read_libsvm([narrow, from_zero])
    assert first.features.toarray().tolist() == [[0, 0, 1]]
    assert second.features.toarray().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("yes 1:2", "its label 'yes' is not a number of at most"),
        ("1,2 1:2", "its label '1,2' is not"),
        ("nan 1:2", "its label 'nan' is not"),
        ("\ufeff1 1:2", r"its label '\\ufeff1' is not"),
        ("1 2 3", "'2' does not begin with an integer and a colon"),
        ("1 x:3", "'x:3' does not begin with an integer"),
        ("1 1.0:3", "'1.0:3' does not begin with an integer"),
        ("1 1_0:3", "'1_0:3' does not begin with an integer"),
        ("1 1:", "the value of '1:' is not a number of at most"),
        ("1 1:2:3", "the value of '1:2:3' is not"),
        ("1 1:0,5", "the value of '1:0,5' is not"),
        ("1 1:1_0", "the value of '1:1_0' is not"),
        ("1 1:-inf", "the value of '1:-inf' is not"),
        ("1 1:NaN", "the value of '1:NaN' is not"),
        ("1 1:1e400", "the value of '1:1e400' is not"),
        ("1 1:1e300", r"the value of '1:1e300' is not a number of at most 1e\+100"),
        ("1e400 1:1", "its label '1e400' is not"),
        ("1 -1:3", "the index of '-1:3' must be at least 0, "),
        ("1 2:3 2:4", "the index of '2:4' must be above 2, the one before it, "),
        ("1 5:3 2:4", "the index of '2:4' must be above 5, the one before it, "),
        (
            f"1 {MOST_COLUMNS + 2}:3",
            f"the index of '{MOST_COLUMNS + 2}:3' must be .*, and at most 100,000,000",
        ),
        (f"1 {10**30}:3", f"the index of '{10**30}:3' must be .* at most 100,000,000"),
    ],
)
def test_the_first_broken_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, GOOD + line + "\n1 1:nan\n1 b\n")
    with pytest.raises(UserError, match=rf"rows\.libsvm, line 5: {said}.*; each line must be <lab"):
        read_libsvm([path])
    good = written(tmp_path, GOOD, "good")
    with pytest.raises(UserError, match=r"rows\.libsvm, line 5: "):
        read_libsvm([good, path, good])


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "has no rows"), ("# only this\n", "has no rows"), ("1\n-1 2:0\n", "has no values")],
)
def test_files_without_content_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_libsvm([written(tmp_path, text)])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder: name a file"):
        read_libsvm([str(tmp_path)])
    with pytest.raises(UserError, match="nowhere does not exist: name a file"):
        read_libsvm([str(tmp_path / "nowhere")])


@pytest.mark.parametrize("line", [b"", b"# x", b"1", b"1 qid:3 1:2", b"+1 +1:3. 2:.5", b"-1e0 0:0"])
def test_good_lines_have_no_fault(line: bytes) -> None:
    assert fault(line) is None

"""The csv files of molecules: what is read, and what is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.data.molecules.couplings import Couplings, read_couplings, with_contributions
from equipoise.data.molecules.features import graphs_of
from equipoise.data.molecules.preparation import CouplingFiles, prepared
from equipoise.data.molecules.tables import TYPES, read_structures
from equipoise.errors import UserError
from tests.data.molecules.csv_writing import (
    CYANIDE,
    ETHYNE,
    METHANE,
    METHANE_PAIRS,
    PAIRS,
    WATER,
    pair_lines,
    structure_lines,
    write,
)

MOLECULE = structure_lines("methane", METHANE)
COUPLINGS = pair_lines("methane", METHANE_PAIRS)
Lines = list[str]
Change = Callable[[Lines, Lines], None]


def read(folder: Path) -> Couplings:
    structures = read_structures(folder / "structures.csv")
    return read_couplings(folder / "train.csv", structures, labelled=True)


def of_structures(row: int, line: str) -> Change:
    def apply(structures: Lines, pairs: Lines) -> None:
        structures[row] = line

    return apply


def of_pairs(row: int, line: str) -> Change:
    def apply(structures: Lines, pairs: Lines) -> None:
        pairs[row] = line

    return apply


def without_structure(row: int) -> Change:
    def apply(structures: Lines, pairs: Lines) -> None:
        del structures[row]

    return apply


WRONG: dict[str, tuple[Change, str]] = {
    "a missing atom": (without_structure(1), "methane has no atom 1: number its atoms from 0"),
    "a last atom missing": (
        without_structure(4), "id 3 names atoms 4 and 0 of methane, which has 4, from 0"),
    "an atom twice": (of_structures(1, MOLECULE[0]), "methane has atom 0 once too often"),
    "a negative atom": (of_structures(0, "methane,-1,C,0,0,0"), "methane has atom -1 once too"),
    "a far position": (of_structures(2, "methane,2,H,1e20,0,0"), "within 10,000 Angstrom: correct"),
    "no position": (of_structures(2, "methane,2,H,nan,0,0"), "atom 2 of methane has no position"),
    "an empty position": (of_structures(2, "methane,2,H,,0,0"), "atom 2 of methane has no"),
    "a shared position": (
        of_structures(2, "methane,2,H,0,0,0"), "atoms 0 and 2 of methane lie in one place"),
    "words for numbers": (of_structures(2, "methane,2,H,left,0,0"), "cannot be read .*left"),
    "a truncated line": (of_structures(4, "methane,4,H"), "cannot be read .*Expected 6 columns"),
    "no index": (of_structures(4, "methane,,H,0,0,9"), "row 5 has no atom_index: correct it"),
    "an index out of range": (
        of_pairs(0, "0,methane,9,0,1JHC,1"), "id 0 names atoms 9 and 0 of methane, which has 5"),
    "a negative index": (of_pairs(0, "0,methane,1,-1,1JHC,1"), "id 0 names atoms 1 and -1 of meth"),
    "an atom with itself": (of_pairs(0, "0,methane,1,1,2JHH,1"), "give two different ones of them"),
    "a pair twice": (of_pairs(2, "7,methane,1,0,1JHC,1"), "ids 0 and 7 are the same pair of atoms"),
    "a reversed pair": (of_pairs(2, "7,methane,0,1,1JHC,1"), "ids 0 and 7 are the same pair of at"),
    "an id twice": (of_pairs(2, "0,methane,2,0,1JHC,1"), "id 0 is there twice: give each row an"),
    "an id too large": (of_pairs(2, f"{2**63},methane,2,0,1JHC,1"), "cannot be read"),
    "a huge coupling": (of_pairs(1, "1,methane,1,2,2JHH,1e30"), "within 100,000 Hz: correct"),
    "nan": (of_pairs(1, "1,methane,1,2,2JHH,nan"), "id 1 has no scalar_coupling_constant within"),
    "infinity": (of_pairs(1, "1,methane,1,2,2JHH,inf"), "id 1 has no scalar_coupling_const"),
    "an empty coupling": (of_pairs(1, "1,methane,1,2,2JHH,"), "id 1 has no scalar_coupling"),
    "an unknown molecule": (of_pairs(1, "1,ethane,1,2,2JHH,1"), "ethane is not among the struct"),
    "an unknown type": (of_pairs(1, "1,methane,1,2,4JHH,1"), "'4JHH' is no known type: give one"),
    "a type of other elements": (
        of_pairs(1, "1,methane,1,2,3JHC,1"), "id 1 is 3JHC between H and H of methane: correct"),
    "elements of another type": (
        of_structures(0, "methane,0,N,0,0,0"), "id 0 is 1JHC between H and N of methane"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    structures, pairs = list(MOLECULE), [*COUPLINGS[:2], "3,methane,4,0,1JHC,112"]
    change, message = WRONG[case]
    read(write(tmp_path / "right", structures, pairs))
    change(structures, pairs)
    with pytest.raises(UserError, match=rf"csv:? .*{message}"):
        read(write(tmp_path, structures, pairs))


def test_an_unknown_element_is_refused(tmp_path: Path) -> None:
    structures = [*MOLECULE, "methane,5,Qq,9,9,9"]
    folder = write(tmp_path, structures, COUPLINGS)
    with pytest.raises(UserError, match="Atom 5 of methane is 'Qq', which is no element"):
        prepared(CouplingFiles(folder / "structures.csv", folder / "train.csv"))


@pytest.mark.parametrize("column", PAIRS.split(","))
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    folder = write(tmp_path, MOLECULE, COUPLINGS)
    file = folder / "train.csv"
    file.write_text(file.read_text().replace(column, "other", 1))
    if column == "atom_index_1":
        file.write_text(file.read_text().replace("other", "atom_index_one"))
    with pytest.raises(UserError, match=f"the first line has no {column}"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (PAIRS.encode() + b"\n", "no row follows"),
        (b"\xff\xfe\x00", "cannot be read|the first line has no"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write(tmp_path, MOLECULE, COUPLINGS)
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"structures\.csv does not exist"):
        read_structures(tmp_path / "structures.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_may_come_in_any_order_and_lines_end_as_they_like(tmp_path: Path, end: str) -> None:
    structures = [*structure_lines("b", METHANE), *structure_lines("a", WATER)][::-1]
    folder = write(tmp_path, structures, pair_lines("b", METHANE_PAIRS)[::-1], end)
    read_back = read_structures(folder / "structures.csv")
    assert read_back.names == ("a", "b")
    assert read_back.symbols.tolist() == ["O", "H", "H", "C", "H", "H", "H", "H"]
    np.testing.assert_array_equal(read_back.positions[3:], [place for _, *place in METHANE])
    couplings = read(folder)
    assert couplings.values is not None
    assert couplings.values[:, 0].tolist() == [112.4, -12.9, 112.5]
    assert [TYPES[kind - 1] for kind in couplings.types] == ["1JHC", "2JHH", "1JHC"]


def test_a_mark_of_the_byte_order_and_more_columns_do_no_harm(tmp_path: Path) -> None:
    folder = write(tmp_path, [f"{line},extra" for line in MOLECULE], COUPLINGS)
    file = folder / "structures.csv"
    first, rest = file.read_text().split("\n", 1)
    file.write_bytes(b"\xef\xbb\xbf" + f"{first},more\n{rest}".encode())
    assert len(read(folder)) == 3


def test_large_ids_come_back_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path, MOLECULE, pair_lines("methane", METHANE_PAIRS, first=2**62 + 1))
    graphs = prepared(CouplingFiles(folder / "structures.csv", folder / "train.csv"))
    rows = graphs.level("pair").columns["row"]
    assert sorted(rows[rows >= 0]) == [2**62 + 1, 2**62 + 2, 2**62 + 3]


def test_symbols_are_read_as_people_write_them(tmp_path: Path) -> None:
    folder = write(tmp_path, ["m,0, c,0,0,0", "m,1,CL ,1.7,0,0"], [])
    assert read_structures(folder / "structures.csv").symbols.tolist() == ["C", "Cl"]


def contributions(folder: Path, rows: Lines) -> Path:
    file = folder / "parts.csv"
    header = "molecule_name,atom_index_0,atom_index_1,type,fc,sd,pso,dso"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_contributions_find_their_couplings(tmp_path: Path) -> None:
    folder = write(tmp_path, MOLECULE, COUPLINGS)
    structures = read_structures(folder / "structures.csv")
    rows = ["methane,0,2,1JHC,4,3,2,1", "methane,2,1,2JHH,8,7,6,5", "methane,1,0,1JHC,9,9,9,9"]
    with pytest.warns(UserWarning, match="of 3 of 3 couplings do not add up to them, first those"):
        values = with_contributions(read(folder), contributions(folder, rows), structures).values
    assert values is not None
    assert values.tolist() == [[112.5, 9, 9, 9, 9], [-12.9, 8, 7, 6, 5], [112.4, 4, 3, 2, 1]]


@pytest.mark.parametrize("last", ["methane,4,0,1JHC,9,9,9,9", "methane,2,0,1JHC,9,9,nan,9"])
def test_a_coupling_without_contributions_is_refused(tmp_path: Path, last: str) -> None:
    folder = write(tmp_path, MOLECULE, COUPLINGS)
    structures = read_structures(folder / "structures.csv")
    rows = ["methane,1,0,1JHC,4,3,2,1", "methane,2,1,2JHH,8,7,6,5", last]
    with pytest.raises(UserError, match="coupling of id 2 has no fc, sd, pso, dso within"):
        with_contributions(read(folder), contributions(folder, rows), structures)


def test_without_a_list_all_pairs_within_three_bonds_are_found(tmp_path: Path) -> None:
    lines = [*structure_lines("a", CYANIDE), *structure_lines("b", ETHYNE)]
    lines += structure_lines("c", WATER)
    structures = read_structures(write(tmp_path, lines, []) / "structures.csv")
    pairs = graphs_of(structures, None).level("pair")
    kinds = pairs.columns["type"]
    found = [
        (int(molecule), *pairs.columns["atoms"][row].tolist(), TYPES[kinds[row] - 1])
        for row in np.flatnonzero(kinds)
        for molecule in [np.searchsorted(pairs.starts, row, side="right") - 1]
    ]
    assert found == [
        (0, 2, 0, "1JHC"), (0, 2, 1, "2JHN"),
        (1, 2, 0, "1JHC"), (1, 2, 1, "2JHC"), (1, 2, 3, "3JHH"), (1, 3, 0, "2JHC"),
        (1, 3, 1, "1JHC"), (2, 1, 2, "2JHH"),
    ]  # fmt: skip

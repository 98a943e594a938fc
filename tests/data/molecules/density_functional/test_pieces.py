"""The folder of computed molecules: what a later run finds in it, and its csv files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equipoise.data.molecules.couplings import read_couplings, with_contributions
from equipoise.data.molecules.density_functional.calculation import (
    TABLES,
    Calculated,
    Job,
    jobs_of_smiles,
    jobs_of_structures,
)
from equipoise.data.molecules.density_functional.pieces import Pieces
from equipoise.data.molecules.tables import TYPES, read_structures
from equipoise.errors import UserError

AMIDOGEN = Calculated(
    name="b/1, odd", level="pcj0", smiles="N", symbols=["N", "H", "H"],
    positions=[[0.0, 0.0, 0.1], [0.0, 0.9, 0.5], [0.0, -0.9, 1 / 3]],
    pairs=[[1, 0, "1JHN"], [1, 2, "2JHH"], [2, 0, "1JHN"]],
    contributions=[[30.0, 1.0, 0.5, 0.25], [-11.0, 0.5, 2.0, -3.0], [31.0, 1.0, 0.5, 0.25]],
    energy=-56.4, dipole=[0.0, 0.1, -2.0], charges=[-0.7, 0.35, 0.35], functions=19, gap=9.2,
    seconds=1.5,
)  # fmt: skip


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    made = Pieces(tmp_path / "deep" / "out")
    made.prepare([Job("a", "pcj0", smiles="C")])
    return made


def test_pieces_come_back_as_they_were(pieces: Pieces) -> None:
    other = replace(AMIDOGEN, name="a")
    for piece in (AMIDOGEN, other, other):
        pieces.store(piece)
    assert list(pieces) == [other, AMIDOGEN]
    assert len(list(pieces.place.iterdir())) == 2


def test_the_tables_can_be_read(pieces: Pieces) -> None:
    for name in ("a", AMIDOGEN.name):
        pieces.store(replace(AMIDOGEN, name=name))
    assert pieces.write_tables() == (2, 6)
    assert {file.name for file in pieces.folder.iterdir()} == {"pieces", *TABLES}
    structures = read_structures(pieces.folder / "structures.csv")
    assert structures.names == ("a", AMIDOGEN.name)
    np.testing.assert_allclose(structures.positions[3:], AMIDOGEN.positions, atol=1e-9)
    couplings = with_contributions(
        read_couplings(pieces.folder / "train.csv", structures, labelled=True),
        pieces.folder / "scalar_coupling_contributions.csv",
        structures,
    )
    assert couplings.ids.tolist() == list(range(6))
    assert [TYPES[kind - 1] for kind in couplings.types[:3]] == ["1JHN", "2JHH", "1JHN"]
    assert couplings.values is not None
    assert couplings.values[:3].tolist() == [
        [sum(parts), *parts] for parts in AMIDOGEN.contributions
    ]
    (_, row, _) = (pieces.folder / "molecules.csv").read_text().splitlines()
    assert row == "a,N,1,3,19,1.50,9.200"


def test_without_a_piece_no_table_is_written(pieces: Pieces) -> None:
    assert pieces.write_tables() == (0, 0)
    assert [file.name for file in pieces.folder.iterdir()] == ["pieces"]


def test_a_later_run_finds_its_molecules_and_no_others(pieces: Pieces) -> None:
    pieces.store(AMIDOGEN)
    pieces.store(replace(AMIDOGEN, name="of another file"))
    jobs = [Job(AMIDOGEN.name, "pcj0", smiles="N"), Job("new", "pcj0", smiles="C")]
    assert pieces.prepare(jobs) == {AMIDOGEN.name}


def test_given_geometries_are_found_by_their_positions(pieces: Pieces, tmp_path: Path) -> None:
    pieces.store(replace(AMIDOGEN, smiles=""))
    pieces.write_tables()
    exact = Job(
        AMIDOGEN.name, "pcj0", symbols=("N", "H", "H"),
        positions=tuple((x, y, z) for x, y, z in AMIDOGEN.positions),
    )  # fmt: skip
    assert pieces.prepare([exact]) == {AMIDOGEN.name}
    (read,) = jobs_of_structures(pieces.folder / "structures.csv", "pcj0")
    assert (read.name, read.symbols) == (exact.name, exact.symbols)
    with pytest.raises(UserError, match=r"another molecule named b/1, odd: choose a new folder"):
        pieces.prepare([read])  # written with ten digits, which 1/3 has more of


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("x", "champs", smiles="N"), "computed with --level pcj0, and levels must not be"),
        (Job(AMIDOGEN.name, "pcj0", smiles="CN"), "has another molecule named b/1, odd"),
    ],
)
def test_a_folder_of_something_else_is_refused(pieces: Pieces, job: Job, message: str) -> None:
    pieces.store(AMIDOGEN)
    with pytest.raises(UserError, match=message):
        pieces.prepare([job])


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "x"', "\x00"])
def test_a_damaged_piece_is_named(pieces: Pieces, text: str) -> None:
    (pieces.place / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json is damaged .*: delete it"):
        list(pieces)


def test_files_of_another_origin_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("mine")
    with pytest.raises(UserError, match=r"has a train\.csv of another origin: choose a new"):
        Pieces(tmp_path).prepare([Job("x", "pcj0", smiles="N")])
    with pytest.raises(UserError, match="cannot be written"):
        Pieces(tmp_path / "train.csv" / "out").prepare([Job("x", "pcj0", smiles="N")])


def test_lines_of_smiles(tmp_path: Path) -> None:
    file = tmp_path / "smiles.txt"
    file.write_text("C\n\n# two more\n  CC   an ethane \nN\tammonia\nO\n")
    jobs = jobs_of_smiles(file, "champs")
    assert [(job.name, job.smiles, job.level) for job in jobs] == [
        ("molecule_000000", "C", "champs"), ("an ethane", "CC", "champs"),
        ("ammonia", "N", "champs"), ("molecule_000003", "O", "champs"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "is empty: write a SMILES a line"),
        (b"C one\nN one\n", "names two molecules one: give each a name of its own"),
        (b"\xff\xfe", "cannot be read .* give a text file of SMILES"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "smiles.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        jobs_of_smiles(file, "pcj0")
    with pytest.raises(UserError, match="No such file"):
        jobs_of_smiles(tmp_path / "nothing", "pcj0")

"""make-nmr as it is typed: molecules computed, failed, interrupted, and gone on with."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from equipoise import commands
from equipoise.commands import make_nmr
from equipoise.data.molecules.couplings import read_couplings
from equipoise.data.molecules.tables import read_structures
from equipoise.errors import RunFailed, UserError
from tests.data.molecules.density_functional.bundled import molecules
from tests.end_to_end.conftest import environment, heed_interrupts

pytest.importorskip("pyscf")
pytest.importorskip("rdkit")

LARGE = "CCCCCCCC"
ROOM = 0.05
"""Hz, of the 0.2 that are asked for."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smiles.txt").write_text("C\nxx odd one\nCl\n")
    return tmp_path


def couplings(folder: Path) -> np.ndarray:
    structures = read_structures(folder / "structures.csv")
    found = read_couplings(folder / "train.csv", structures, labelled=True).values
    assert found is not None
    return found[:, 0]


def test_what_can_be_computed_is_and_what_cannot_is_named(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["make-nmr", "smiles.txt", "out", "--workers", "1"]
    assert commands.run(words) == 1
    said = capsys.readouterr()
    assert "3 molecules at level pcj0\n" in said.out
    assert "odd one (xx) failed: RDKit cannot read the SMILES" in said.out
    assert "molecule_000002 (Cl) failed: it holds Cl" in said.out
    assert "out: 10 couplings of 1 molecules" in said.out
    assert "task=champs and task.path=out" in said.out
    assert "2 of 3 molecules failed" in said.out
    assert "couplings: 100%" in said.err
    assert "Warning" not in said.out + said.err
    np.testing.assert_allclose(couplings(there / "out"), molecules()["C"].total, atol=ROOM)
    Path("smiles.txt").write_text("C\n")
    assert commands.run(words) == 0
    assert "1 molecules at level pcj0; 1 of them are in out" in capsys.readouterr().out


def test_given_geometries_are_computed_as_they_are(there: Path) -> None:
    ammonia = molecules()["N"]
    positions = ammonia.positions + 1.0
    rows = [
        f"given,{atom},{symbol},{','.join(map(repr, position))}"
        for atom, (symbol, position) in enumerate(
            zip(ammonia.symbols, positions.tolist(), strict=True)
        )
    ]
    header = "molecule_name,atom_index,atom,x,y,z"
    Path("given.csv").write_text("\n".join([header, *rows]) + "\n")
    assert commands.run(["make-nmr", "--structures", "given.csv", "out", "--workers", "1"]) == 0
    np.testing.assert_allclose(couplings(there / "out"), ammonia.total, atol=ROOM)
    assert read_structures(there / "out" / "structures.csv").positions == pytest.approx(positions)


@pytest.fixture
def running(there: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has finished methane and is at a molecule that takes minutes."""
    Path("smiles.txt").write_text(f"C\n{LARGE}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "equipoise", "make-nmr", "smiles.txt", "out", "--workers", "1"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not Path("out/pieces/molecule_000000.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    yield process
    process.kill()


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interruption_keeps_what_is_finished(
    running: subprocess.Popen[str], number: signal.Signals, there: Path
) -> None:
    workers = children(running.pid)
    assert workers
    running.send_signal(number)
    out, error = running.communicate(timeout=30)
    assert running.returncode == 128 + number
    assert "Traceback" not in error
    assert error.splitlines()[-1] == (
        "Interrupted: 1 of 2 molecules are computed, and the same command goes on from there"
    )
    assert "out: 10 couplings of 1 molecules" in out
    assert len(couplings(there / "out")) == 10
    assert all_end(workers)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_processes_end_with_the_first(running: subprocess.Popen[str]) -> None:
    workers = children(running.pid)
    running.kill()
    running.wait()
    assert all_end(workers)


def all_end(processes: Sequence[int]) -> bool:
    """Whether the processes end within 30 s: multiprocessing's tracker outlives the first one."""
    until = time.monotonic() + 30
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(alive, processes))


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(number) for number in listed.read_text().split()]


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_process_is_told(there: Path) -> None:
    others = set(multiprocessing.active_children())

    def kill() -> None:
        while not (started := set(multiprocessing.active_children()) - others):
            time.sleep(0.05)
        started.pop().kill()

    threading.Thread(target=kill, daemon=True).start()
    sentence = r"a process was killed, perhaps for lack of memory: .* 0 of 3 molecules are computed"
    with pytest.raises(RunFailed, match=sentence):
        commands.run(["make-nmr", "smiles.txt", "out", "--workers", "1"])
    assert not list(Path("out").glob("*.csv"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out"], "give a file of SMILES, or one with --structures, and the folder"),
        (["smiles.txt", "out", "--structures", "x.csv"], "give a file of SMILES, or one with"),
        (["nothing.txt", "out"], "nothing.txt cannot be read"),
        (["out", "--structures", "x.csv"], "x.csv does not exist"),
        (["smiles.txt", "out", "--workers", "0"], "--workers 0: it takes 1 or more"),
        (["smiles.txt", "out", "--workers", "few"], "invalid int value: 'few'"),
        (["smiles.txt", "out", "--level", "mp2"], "invalid choice: 'mp2'"),
        (["smiles.txt", "smiles.txt"], "smiles.txt cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused(there: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        commands.run(["make-nmr", *words])
    assert not Path("out").exists()


@pytest.mark.parametrize("package", ["pyscf", "rdkit"])
def test_without_the_extra_it_says_what_to_install(
    there: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(make_nmr, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(UserError, match=rf"computes with {package} \(pip install 'equipoise\[nmr"):
        commands.run(["make-nmr", "smiles.txt", "out"])

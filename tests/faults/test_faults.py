"""Every fault of the table in a real run: what it does, what it leaves, and that it goes on.

`pytest -m slow -s tests/faults` prints a line for each.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.commands import Commands, Ended, fresh
from tests.faults.fault import Base, Fault
from tests.faults.table import FAULTS, PARTS, rows

pytestmark = pytest.mark.end_to_end
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
LITTER = re.compile(r"\.(partial|part|tmp)$")
ALWAYS = ("full disk: last.ckpt", "loss: not finite once")
"""What the default suite injects; the rest are slow."""


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as started:
        yield started


@pytest.fixture(scope="module")
def whole(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The runs without a fault, by their bases; made when they are first asked for."""
    return {}


def reference(
    base: Base, commands: Commands, made: dict[int, Path], factory: pytest.TempPathFactory
) -> Path:
    if id(base) not in made:
        folder = factory.mktemp("whole")
        base.prepare(folder)
        ended = commands.run([*base.words, "callbacks.report=null"], folder)
        assert ended.status == 0, ended.said
        made[id(base)] = folder / "run"
    return made[id(base)]


def weights(run: Path) -> dict[str, Any]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {"step": content["global_step"], **content["state_dict"]}


def curve(run: Path) -> list[dict[str, str]]:
    """The rows of training, without cells that were left empty."""
    with (run / "metrics.csv").open(newline="") as file:
        rows_of_all = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows_of_all if "train/loss" in row]


def litter(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if LITTER.search(path.name)]


def status_of(run: Path) -> str | None:
    file = run / "metrics.json"
    return json.loads(file.read_text())["status"] if file.is_file() else None


def injected(fault: Fault, commands: Commands, folder: Path) -> Ended:
    """The run with the fault in it, after the one before it."""
    fault.base.prepare(folder)
    fault.prepare(folder)
    if fault.earlier is not None:
        before = FAULTS[fault.earlier]
        assert commands.run(before.line, folder, before.name).status == before.status
        fault.spoil(folder / "run")
    if fault.fresh is not None:
        return fresh(fault.line, folder, fault.variables, fault.fresh)
    return commands.run(fault.line, folder, fault.name, fault.program)


def check_end(fault: Fault, ended: Ended, folder: Path) -> None:
    """One sentence at most, the status, no litter, no process, and checkpoints that load."""
    assert ended.status == fault.status, ended.said
    assert re.search(fault.said, ended.said), ended.said
    assert "Traceback" not in ended.said, ended.said
    sentences = len(re.findall("^error: ", ended.errors, re.MULTILINE))
    # Of several processes the others tell what has become of one that is killed.
    assert sentences <= 1 if fault.status < 0 else sentences == (fault.status in (1, 2))
    assert not ended.left
    assert status_of(folder / "run") == fault.reached
    if fault.status > 0:  # what is killed cannot tidy up
        assert not litter(folder)
    if not fault.damages:
        for file in (folder / "run" / "checkpoints").glob("*.ckpt"):
            assert torch.load(file, weights_only=True)["state_dict"]
    fault.check(folder, ended.said)


def check_going_on(fault: Fault, commands: Commands, folder: Path) -> None:
    """Without the fault the same command line completes the run."""
    last = folder / "run" / "checkpoints" / "last.ckpt"
    if fault.damages and last.is_file():
        last.unlink()
    fault.mend(folder)
    words = [word for word in fault.line if not word.startswith(("resume=", "ckpt_path="))]
    ended = commands.run([*words, "resume=auto"], folder)
    assert ended.status == 0, ended.said
    assert status_of(folder / "run") == "completed"
    assert not litter(folder)


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS],
)
def test_a_fault_loses_what_the_table_says(
    name: str, commands: Commands, whole: dict[int, Path], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    fault, began = FAULTS[name], time.monotonic()
    ended = injected(fault, commands, tmp_path)
    check_end(fault, ended, tmp_path)
    if fault.reached != "completed" and fault.resumes:
        check_going_on(fault, commands, tmp_path)
    if fault.same and fault.resumes and fault.program == "train":
        run, other = tmp_path / "run", reference(fault.base, commands, whole, tmp_path_factory)
        reached, expected = weights(run), weights(other)
        assert [k for k in expected if not _equal(reached[k], expected[k])] == []
        if "curve" not in fault.lost and "rows" not in fault.lost and "written" not in fault.lost:
            assert curve(run) == curve(other)
    print(f"{name:<40} status {ended.status:>4}  {time.monotonic() - began:5.1f} s  {fault.then}")


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_there_are_sixty_faults_and_more() -> None:
    assert len(FAULTS) - 1 >= 60
    assert len(FAULTS) == sum(len(part) for part in PARTS.values())


def test_the_page_tells_every_fault() -> None:
    text = PAGE.read_text()
    for part in PARTS:
        assert f"## {part}\n" in text
        for row in rows(part):
            assert row in text, row

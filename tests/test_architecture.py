"""The house is what docs/architecture.md draws, and stays as legible as it was made."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.api import read_configuration

from benchmarks.structure import PACKAGE, circles, figures, imports

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ARROW = re.compile(r"^ +(\w+) --> (\w+(?: & \w+)*)$", re.MULTILINE)
FLOOR = re.compile(r"^ +subgraph [^\n]*\n((?: +\w+\n)+) +end$", re.MULTILINE)
PATH = re.compile(r"`([\w./]+(?:\.py|/))`")
QUESTIONS = ("solver", "gradient estimator", "model", "task", "dataset", "callback", "command")


def picture() -> str:
    """The page's one Mermaid picture."""
    (drawn,) = re.findall(r"^```mermaid\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert isinstance(drawn, str)
    return drawn


def drawn_arrows() -> set[tuple[str, str]]:
    return {
        (room, other) for room, others in ARROW.findall(picture()) for other in others.split(" & ")
    }


def drawn_floors() -> list[set[str]]:
    """The rooms of each floor, the top one first."""
    return [set(rooms.split()) for rooms in FLOOR.findall(picture())]


def floors_of_the_contract() -> list[set[str]]:
    """The layers of the contract, without the entry point, which is no room."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = [set(re.findall(r"\w+", layer)) - {"equipoise"} for layer in layers]
    return [floor for floor in rooms if floor != {"__main__"}]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_rooms() -> set[tuple[str, str]]:
    """Which room imports which, imports inside functions and for types alone with the rest."""
    pairs = {
        (room_of(module), room_of(other))
        for module, others in imports(PACKAGE).items()
        for other in others
    }
    return {(a, b) for a, b in pairs if a not in ("", b, "__main__") and b not in ("", "errors")}


def test_the_picture_has_the_floors_of_the_import_contract() -> None:
    assert drawn_floors() == floors_of_the_contract()


def test_the_picture_has_every_room_and_no_other() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert set().union(*drawn_floors()) == folders | {"errors"}


def test_the_picture_has_the_arrows_of_the_code() -> None:
    assert drawn_arrows() == imported_rooms()


def test_no_arrow_leads_upwards() -> None:
    height = {room: -floor for floor, rooms in enumerate(drawn_floors()) for room in rooms}
    assert not [(a, b) for a, b in drawn_arrows() if height[a] < height[b]]


def test_the_page_names_files_that_exist_and_answers_every_question() -> None:
    text = PAGE.read_text()
    paths = set(PATH.findall(text))
    assert len(paths) > 20
    missing = [path for path in paths if not ((ROOT / path).exists() or (PACKAGE / path).exists())]
    assert not missing
    for thing in QUESTIONS:
        assert re.search(rf"^\| an? (?:\w+ )*{thing} \|", text, re.MULTILINE), thing


def test_nothing_is_loose_at_the_top_of_the_package() -> None:
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}


def test_no_imports_go_in_a_circle() -> None:
    assert circles(imports(PACKAGE)) == []


def test_files_and_functions_keep_their_measure() -> None:
    measured = figures(PACKAGE)
    assert measured["file lines, max"] <= 400
    assert measured["file lines, median"] >= 100
    assert measured["file lines, p90"] <= 250
    assert measured["function lines, median"] <= 8
    assert measured["function lines, p90"] <= 20
    # a solver or a dataset that only its package's facade imports is no module too many
    assert measured["the same without their own facade, %"] <= 12


@pytest.mark.parametrize(
    ("folder", "base", "method"),
    [("solvers", "solver", "solve"), ("gradients", "estimator", "attach")],
)
def test_the_folders_of_methods_hold_methods_only(folder: str, base: str, method: str) -> None:
    names = {path.stem for path in (PACKAGE / "equilibrium" / folder).glob("*.py")}
    assert {"__init__", base} < names
    for name in sorted(names - {"__init__", base}):
        module = import_module(f"equipoise.equilibrium.{folder}.{name}")
        classes = [c for c in vars(module).values() if isinstance(c, type)]
        own = [c for c in classes if c.__module__ == module.__name__]
        assert [c for c in own if hasattr(c, method)], name

"""One source of the version, extras that exist where they are named, and `python -m equipoise`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import tomllib

import equipoise
from equipoise import commands

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_has_one_source() -> None:
    assert "version" not in PROJECT["project"]
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{equipoise.__version__}"' in source.read_text()
    assert version("equipoise") == equipoise.__version__


def test_extras_that_are_named_exist_and_all_are_in_the_readme() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    files = [*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(file.read_text() for file in files)
    named = re.findall(r"(?:equipoise|'\.)\[([a-z,]+)\]", text)
    assert {"subword", "tensorboard"} <= {name for group in named for name in group.split(",")}
    assert {name for group in named for name in group.split(",")} <= extras
    readme = (ROOT / "README.md").read_text()
    assert [extra for extra in extras if f"`{extra}`" not in readme] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version"], f"equipoise {equipoise.__version__}"),
        (["train", "--version"], f"equipoise {equipoise.__version__}"),
        (["train", "--help"], "usage: python train.py"),
        (["train", "--cfg", "job", "-p", "solver"], "equipoise.equilibrium.Anderson"),
        (["evaluate", "--help"], "usage: python evaluate.py"),
        ([], "  train "),
        ([], "  evaluate "),
    ],
)
def test_python_m_equipoise_trains_and_evaluates(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.exit_status(commands.run, words) == 0
    assert said in capsys.readouterr().out


def test_the_readme_links_every_page_on_solvers_and_gradients() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in ("solvers", "gradients"):
        pages = [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / folder).iterdir()]
        assert [page for page in pages if f"]({page})" not in readme] == []


def test_what_needs_hydra_is_imported_when_it_is_asked_for() -> None:
    lines = [
        "import sys, equipoise",
        "assert not {'hydra', 'omegaconf', 'torch'} & set(sys.modules)",
        "assert {'run', 'build', 'evaluate'} <= set(equipoise.__all__)",
        "assert all(callable(getattr(equipoise, name)) for name in ('run', 'build', 'evaluate'))",
        "assert 'torch' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)

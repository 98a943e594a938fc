"""README and docs: commands compose, links lead somewhere, worked examples work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from equipoise.commands import multirun
from equipoise.commands.arguments import configured
from equipoise.config.compose import compose

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"(?:^|\s)python (?:train|evaluate)\.py(?=\s|$)(.*)", re.MULTILINE)
EXAMPLE = re.compile(
    r"^(New file|Add to) `([^`]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
TRAIN_AND_TEST = """
import sys, pytest
from equipoise.commands import train
choices = ["task=bars", "model=perceptron", "solver=heavy_ball", "gradient=rayleigh"]
assert train.main([*choices, "debug=smoke", "run_dir=run"]) == 0
sys.exit(pytest.main(["-p", "no:cacheprovider", "tests"]))
"""
PLACEHOLDERS = {"<run>": "runs/run", "<task>": "digits", "<folder>": "tests/conf"}


class Example(NamedTuple):
    """A file that a page tells the reader to write, or lines to add to one."""

    action: str
    path: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_of(page: Path) -> list[str]:
    """Shell blocks, with continued lines joined, and code inside the running text."""
    text = page.read_text()
    shell = [body for language, body in FENCED.findall(text) if language in ("", "bash", "sh")]
    inline = INLINE.findall(FENCED.sub("", text))
    return [code.replace("\\\n", " ") for code in [*shell, *inline]]


def commands() -> list[tuple[str, str]]:
    """Page and arguments of every `python train.py` and `python evaluate.py`."""
    pages = [(name_of(page), code) for page in PAGES for code in code_of(page)]
    found = [(page, words.strip()) for page, code in pages for words in COMMAND.findall(code)]
    return list(dict.fromkeys(found))


def examples() -> list[Example]:
    return [Example(*found) for page in PAGES for found in EXAMPLE.findall(page.read_text())]


def write(example: Example, folder: Path) -> None:
    file = folder / example.path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w" if example.action == "New file" else "a") as target:
        target.write(example.text)


@pytest.fixture(scope="module")
def examples_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `conf` with the choices that the worked examples add."""
    folder = tmp_path_factory.mktemp("examples")
    for example in examples():
        if example.path.startswith("conf/"):
            write(example, folder)
    return folder / "conf"


def test_the_pages_hold_what_the_other_tests_look_for() -> None:
    assert len(commands()) > 20
    assert len(examples()) > 15


@pytest.mark.parametrize(("page", "arguments"), commands())
def test_a_command_composes(page: str, arguments: str, examples_conf: Path) -> None:
    for placeholder, value in PLACEHOLDERS.items():
        arguments = arguments.replace(placeholder, value)
    words = shlex.split(arguments, comments=True)
    if "--help" in words:
        return
    typed = configured("train.py", str, words)
    overrides = typed.overrides
    if not any(line.startswith("hydra.searchpath=") for line in overrides):
        overrides = [f"hydra.searchpath=[file://{examples_conf}]", *overrides]
    jobs = multirun.jobs(overrides) if typed.multirun else [overrides]
    for job in jobs:
        config = compose(job).config
        assert {"model", "task", "trainer"} <= set(config)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for code in code_of(page) for name in re.findall(r"\bmake ([a-z-]+)", code)}
    assert named <= targets


@pytest.mark.end_to_end
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = [body for language, body in FENCED.findall((ROOT / "README.md").read_text())
              if language == "python"]  # fmt: skip
    checks = "assert 0 <= metrics['test']['accuracy'] <= 1 and layer.report.converged.all()"
    script = tmp_path / "readme.py"
    script.write_text("\n".join([*blocks, checks]))
    succeed([str(script)], tmp_path, ROOT)


@pytest.mark.end_to_end
def test_the_worked_examples_train_together_and_pass_their_own_tests(tmp_path: Path) -> None:
    for folder in ("src", "conf"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for example in examples():
        write(example, tmp_path)
    script = tmp_path / "both.py"
    script.write_text(TRAIN_AND_TEST)
    said = succeed([str(script)], tmp_path, tmp_path)
    assert "perceptron on bars" in said
    assert (tmp_path / "run" / "metrics.json").is_file()


def succeed(arguments: list[str], directory: Path, sources: Path) -> str:
    """Run Python in `directory` with the package of `sources`; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(sources / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

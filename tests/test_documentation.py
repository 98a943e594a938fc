"""README and docs: every command composes, and the worked examples work."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from equipoise import equilibrium
from equipoise.commands import continuing, launchers, multirun, search_plan
from equipoise.commands.arguments import configured
from equipoise.config.compose import compose
from equipoise.config.search import search_of
from tests.documentation.pages import (
    INLINE,
    PAGES,
    ROOT,
    all_lines,
    lines_of,
    name_of,
    python_blocks,
)
from tests.documentation.workshop import OF_LINE

COMMAND = re.compile(r"python (?:train|evaluate)\.py(?=\s|$)(.*)")
EXAMPLE = re.compile(
    r"^(New file|Add to) `([^`]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
TRAIN_AND_TEST = """
import sys, pytest
from equipoise.commands import train
choices = ["model=perceptron", "solver=heavy_ball", "gradient=rayleigh"]
assert train.main([*choices, "debug=smoke", "run_dir=run"]) == 0
sys.exit(pytest.main(["-p", "no:cacheprovider", "tests"]))
"""
CHECKS_OF_CONF = ("test_limits.py", "test_signatures.py")
PLACES_OF_A_TASK = re.compile(
    r"(src/equipoise/(models|data|tasks)/\S+\.py|conf/(model|task|recipe)/\w+\.yaml"
    r"|(docs|tests)/\S+)"
)
KIND = "locator on spots"
BEST = "ckpt_path=run/checkpoints/best.ckpt"
OWN_COMMAND = re.compile(r"equipoise-train (--config-dir conf .*)")
OWN_PROJECT = ROOT / "examples" / "own_project"
OWN_CODE = ROOT / "docs" / "own_code.md"
FIRST_PAGES = ("README.md", "docs/configuration.md", "docs/systems.md", "docs/concepts.md")
PLACEHOLDERS = {"<run>": "runs/run", "<task>": "digits", "<folder>": "tests/conf"}


class Example(NamedTuple):
    """A file that a page tells the reader to write, or lines to add to one."""

    action: str
    path: str
    text: str


def slow_elsewhere(page: str) -> tuple[pytest.MarkDecorator, ...]:
    """The commands of most pages are composed with the slow tests, which also carry them out."""
    composed = page in FIRST_PAGES or page.startswith(("docs/add_a_", "docs/tutorials/"))
    return () if composed else (pytest.mark.slow,)


def commands() -> list[tuple[str, str]]:
    """Page and arguments of every `python train.py` and `python evaluate.py`, cards aside."""
    lines = [line for line in all_lines() if line.page != "docs/model_cards.md"]
    found = [(page, match[1]) for page, text in lines if (match := COMMAND.search(text))]
    return [(page, re.sub(r'\)"$', "", words).strip()) for page, words in found]


def examples(pages: Sequence[Path] = PAGES) -> list[Example]:
    return [Example(*found) for page in pages for found in EXAMPLE.findall(page.read_text())]


def write(example: Example, folder: Path) -> None:
    file = folder / example.path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w" if example.action == "New file" else "a") as target:
        target.write(example.text)


@pytest.fixture(scope="module")
def examples_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `conf` with the choices that the worked examples add, and README's own model."""
    folder = tmp_path_factory.mktemp("examples")
    for example in examples():
        if example.path.startswith(("conf/", "my_model")):
            write(example, folder)
    return folder / "conf"


def test_the_pages_hold_what_the_other_tests_look_for() -> None:
    assert len(commands()) > 20
    assert len(examples()) > 15


@pytest.mark.parametrize(
    ("page", "arguments"),
    [pytest.param(*command, marks=slow_elsewhere(command[0])) for command in commands()],
)
def test_a_command_composes(
    page: str, arguments: str, examples_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(examples_conf.parent), *sys.path])
    # of a run of another kind; tests/documentation/test_commands.py evaluates it
    if "ckpt_path=<run>" in arguments and any(re.search(of, arguments) for _, of in OF_LINE):
        return
    for placeholder, value in PLACEHOLDERS.items():
        arguments = arguments.replace(placeholder, value)
    words = shlex.split(arguments, comments=True)
    # a probe stands on a checkpoint, which tests/end_to_end/test_self_supervised.py has
    if {"--help", "-sc", "task=linear_probe"} & set(words):
        return
    for launcher in [w.partition("=")[2] for w in words if w.startswith("hydra/launcher=")]:
        pytest.importorskip(f"hydra_plugins.{launchers.PACKAGES[launcher][0]}")
    typed = configured("train.py", str, words)
    overrides = typed.overrides
    if not any(line.startswith("hydra.searchpath=") for line in overrides):
        overrides = [f"hydra.searchpath=[file://{examples_conf}]", *overrides]
    if "glob(" in arguments:
        overrides = multirun.planned(overrides)[0]
    if typed.multirun and search_of(overrides) is not None:
        overrides = multirun.planned(continuing.without_resume(overrides))[0]
        jobs = [search_plan.first_job(overrides)]
    else:
        jobs = multirun.jobs(overrides) if typed.multirun else [overrides]
    for job in jobs:
        config = compose(job).config
        assert {"model", "task", "trainer"} <= set(config)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [line.text for line in lines_of(page)] + INLINE.findall(page.read_text())
    named = {name for words in code for name in re.findall(r"^make ([a-z-]+)", words)}
    assert named <= targets


@pytest.mark.end_to_end
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = python_blocks(ROOT / "README.md")
    checks = "assert 0 <= metrics['test']['accuracy'] <= 1 and layer.report.converged.all()"
    script = tmp_path / "readme.py"
    script.write_text("\n".join([*blocks, checks]))
    succeed([str(script)], tmp_path, ROOT)


@pytest.mark.parametrize("page", [OWN_CODE, OWN_PROJECT / "README.md"], ids=name_of)
def test_the_commands_of_a_project_of_ones_own_compose(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(OWN_PROJECT)
    lines = [words for line in lines_of(page) for words in OWN_COMMAND.findall(line.text)]
    assert len(lines) == 3
    for words in map(shlex.split, lines):
        if "--help" not in words:
            config = compose(configured("train.py", str, words).overrides).config
            assert config.model._target_ == "stripes.StripeNetwork"


def test_the_python_of_the_page_on_own_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(OWN_CODE)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, OWN_CODE.name, "exec"), names)
    assert names["layer"].report.converged.all()
    assert names["monitor"].solver_stats("train")["converged_fraction"] == 1
    (curve,) = Path("logs").rglob("metrics.csv")
    assert "solver/residual_median" in curve.read_text().partition("\n")[0]


def test_the_table_for_those_who_come_from_torchdeq_names_what_there_is() -> None:
    table = OWN_CODE.read_text().partition("## Coming from torchdeq")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    named = {name for row in rows for name in re.findall(r"\b([A-Z]\w+)\b(?=[`(])", row)}
    assert named >= {"Equilibrium", "Anderson", "JacobianFree", "Unrolled"}
    assert named <= set(equilibrium.__all__)


@pytest.fixture(scope="module")
def with_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which all worked examples have been carried out."""
    folder = tmp_path_factory.mktemp("with_examples")
    for part in ("src", "conf"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for file in ("pyproject.toml", "train.py", "evaluate.py"):
        shutil.copy(ROOT / file, folder)
    for example in examples():
        write(example, folder)
    return folder


@pytest.mark.end_to_end
def test_the_worked_examples_train_together_and_pass_their_own_tests(with_examples: Path) -> None:
    for name in CHECKS_OF_CONF:  # they judge every file of conf/, those of the examples too
        shutil.copy(ROOT / "tests" / "config" / name, with_examples / "tests")
    script = with_examples / "together.py"
    script.write_text(TRAIN_AND_TEST)
    said = succeed([str(script)], with_examples, with_examples)
    assert "perceptron on digits" in said
    assert (with_examples / "run" / "metrics.json").is_file()


def test_a_kind_of_task_lies_in_its_model_data_task_conf_docs_and_test_files() -> None:
    of_task = examples([ROOT / "docs" / "add_a_task.md"])
    assert {"models", "data", "tasks"} <= {part for e in of_task for part in Path(e.path).parts}
    assert not [e.path for e in of_task if not PLACES_OF_A_TASK.fullmatch(e.path)]
    facades = {e.path for e in of_task if e.action == "Add to"}
    assert all(path.endswith("/__init__.py") for path in facades)
    new = [e for e in of_task if e.action == "New file"]
    assert not [e.path for e in new if (ROOT / e.path).exists()]


class Trained(NamedTuple):
    """Where the new kind of task was trained, into `run`, and what that has printed."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def trained(with_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("kind")
    words = ["train.py", "task=spots", "debug=smoke", "run_dir=run"]
    return Trained(folder, succeed([str(with_examples / words[0]), *words[1:]], folder))


@pytest.mark.end_to_end
def test_a_run_shows_what_a_new_kind_of_task_offers(trained: Trained) -> None:
    shows_what_the_task_offers(trained.folder / "run", trained.said)
    assert re.search(r"^epoch 1/1  .*  val distance \S+  worst \S+  ", trained.said, re.MULTILINE)
    metrics = json.loads((trained.folder / "run" / "metrics.json").read_text())
    assert set(metrics["val"]) == {"loss", "distance"}
    assert metrics["solver_stats"] is None


@pytest.mark.end_to_end
def test_an_evaluation_shows_it_too(with_examples: Path, trained: Trained) -> None:
    words = [BEST, "run_dir=tested", "task.radius=2.5"]
    said = succeed([str(with_examples / "evaluate.py"), *words], trained.folder)
    shows_what_the_task_offers(trained.folder / "tested", said)


def shows_what_the_task_offers(run: Path, said: str) -> None:
    """Its metrics, its summary and its picture: in metrics.json, on the page, on the screen."""
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["test"]) == {"loss", "distance"}
    assert 0 <= metrics["details"]["hits"] <= 1
    assert set(metrics["details"]["distance_quartiles"]) == {"25 %", "50 %", "75 %"}
    drawn = (run / "report" / "positions.png").read_bytes()
    page = (run / "report" / "index.html").read_text()
    assert base64.b64encode(drawn).decode() in page
    for words in ("True and predicted positions", "Distance quartiles", "<td>distance</td>"):
        assert words in page
    assert KIND in said
    for row in ("test distance", "test loss", "hits"):
        assert re.search(rf"^│ {row} +│ \S+ +│$", said, re.MULTILINE)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("script", "words", "sentence"),
    [
        ("evaluate.py", [BEST, "task.radios=3"], "did you mean task.radius?"),
        ("evaluate.py", [BEST, "task.objective.tolerence=1"], "mean task.objective.tolerance?"),
        ("evaluate.py", [BEST, "task.radius=40"], "must be at least 1 and at most 16"),
        ("evaluate.py", [BEST, "model=resnet"], "is of model=locator, and its weights fit only"),
        ("train.py", ["task=spots", "model=resnet"], "models for this task: locator;"),
        ("train.py", ["model=locator", "task=digits"], "tasks for this model: spots"),
    ],
)
def test_what_does_not_fit_a_new_kind_of_task_is_refused_in_a_sentence(
    script: str, words: list[str], sentence: str, with_examples: Path, trained: Trained
) -> None:
    done = python([str(with_examples / script), *words], trained.folder, with_examples)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def succeed(arguments: list[str], directory: Path, sources: Path | None = None) -> str:
    """Run Python in `directory`; what it printed. sources: by default those beside the script."""
    done = python(arguments, directory, sources or Path(arguments[0]).parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(
    arguments: list[str], directory: Path, sources: Path
) -> subprocess.CompletedProcess[str]:
    """Run Python in `directory` with the package of `sources`."""
    environment = {**os.environ, "PYTHONPATH": str(sources / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

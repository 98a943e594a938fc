"""What there is, read from the files alone: every choice, every pair, every place of data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import datasets
import pytest
import yaml
from datasets.naming import camelcase_to_snakecase
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise import commands, interop
from equipoise.commands.list import lines_of, named
from equipoise.commands.list.datasets import hub_cache, hub_copy, place_of
from equipoise.commands.list.entries import LISTS, Shelf, plural
from equipoise.config.about import choice_files
from equipoise.config.compose import CONF, compose
from equipoise.errors import UserError
from equipoise.interop.published_files import FILES, UNPUBLISHED

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
SHELF = Shelf([CONF])


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert commands.run(["list", *words]) == 0
    return capsys.readouterr().out


def entries(name: str, shelf: Shelf = SHELF) -> dict[str, list[str]]:
    return {entry.name: entry.said for entry in named(name, shelf).entries}


def test_it_names_everything_without_torch() -> None:
    probe = "; assert not {'torch', 'datasets', 'lightning', 'pandas'} & set(sys.modules)"
    code = f"import sys; from equipoise import commands; commands.run(['list']){probe}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = {word.rstrip("*") for line in done.stdout.splitlines() for word in line.split()[:1]}
    for group in GROUPS:
        assert {file.stem for file in choice_files(CONF / group)} <= words, group
    assert not [word for word in words if word.startswith("_")]


def test_every_choice_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "solver") == printed(capsys, "solvers")
    for group in GROUPS:
        said = printed(capsys, plural(group))
        lines = said.splitlines()[1:]
        assert len(lines) == len(choice_files(CONF / group))
        assert all(len(line.strip().split("  ", 1)[1].strip()) > 3 for line in lines), group


@pytest.mark.parametrize("task", ["digits", "ptb", "range_query", "multi30k"])
def test_the_pairs_are_those_that_compose(task: str) -> None:
    """The check of composing names the models of a task."""
    with pytest.raises(UserError, match="models for this task: ") as caught:
        compose([f"task={task}", "model=mult"])
    named_by_the_check = str(caught.value).partition("models for this task: ")[2]
    (said,) = entries("pairs")[task]
    assert named_by_the_check.partition(";")[0] == said.replace("*", "")


def test_a_pair_with_a_recipe_is_marked() -> None:
    marked = {
        f"{task}_{name.rstrip('*')}"
        for task, (said,) in entries("pairs").items()
        for name in said.split(", ")
        if name.endswith("*")
    }
    assert marked == {file.stem for file in choice_files(CONF / "recipe")}


def test_a_task_tells_its_kind_its_metric_and_its_data() -> None:
    found = entries("tasks")
    assert found["digits"][0] == "classification, highest accuracy; bundled or generated"
    assert found["ptb_char"][0].startswith("language modelling, lowest bits per character; needs")
    assert "MDEQ LARGE on CIFAR-10" in entries("recipes")["cifar10_mdeq"][0]
    assert "solver=broyden, gradient=exact" in entries("recipes")["cifar10_mdeq"][1]
    assert entries("models")["mdeq"][1].startswith("tasks: cifar10, cityscapes")


def test_folders_of_ones_own_are_listed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "decoder").mkdir()
    own = {
        "about": {"gives": "image", "wants": "logits"},
        "path": str(tmp_path),
        "monitor": "val/f",
    }
    (tmp_path / "task" / "mine.yaml").write_text(f"# My own pictures\n{yaml.safe_dump(own)}")
    (tmp_path / "decoder" / "deep.yaml").write_text("# A deep one\nwidth: 3\n")
    for words in (["--config-dir", str(tmp_path)], [f"hydra.searchpath=[file://{tmp_path}]"]):
        said = printed(capsys, "tasks", "pairs", "decoders", *words)
        assert f"image to logits, lowest f; task.path={tmp_path}: there; My own pictures" in said
        assert "  mine                 mdeq, resnet\n" in said
        assert "  deep  A deep one\n" in said
    assert "  mine " not in printed(capsys, "tasks")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["solvrs"], "there is no list 'solvrs'; did you mean solvers?"),
        (["xyzzy"], "there is no list 'xyzzy'; lists: anytime, callbacks"),
        (["--config-dir", "nowhere"], "there is no folder nowhere"),
        (["--confg-dir", "x"], "there is no flag --confg-dir; did you mean --config-dir?"),
        (["tasks", "task.path=x"], "there is no list 'task.path=x'"),
    ],
)
def test_a_wrong_word_is_answered(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        commands.run(["list", *words])
    assert said in str(caught.value)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", [*LISTS, "callbacks"])
def test_lines_keep_to_the_terminal(name: str, width: int) -> None:
    lines = list(lines_of(named(name, SHELF), width))
    assert not [line for line in lines if len(line) >= width and not line.startswith("    https:")]
    plain = " ".join(" ".join(lines_of(named(name, SHELF), None)).replace(";", " ").split())
    assert plain == " ".join(" ".join(lines).replace(";", " ").split())


def test_each_entry_is_one_line_where_nobody_reads_it() -> None:
    section = named("weights", SHELF)
    _, *lines = lines_of(section, None)
    assert [line.strip().split("  ")[0] for line in lines] == [e.name for e in section.entries]


@pytest.mark.parametrize(
    ("node", "said", "there"),
    [
        ({}, "bundled or generated", True),
        ({"path": None}, "bundled or generated", True),
        ({"path": None, "about": {"without_path": "fetch\nit"}}, "needs task.path", False),
        ({"path": "."}, "task.path=.: there", True),
        ({"path": "./gone"}, "task.path=./gone: not there", False),
        ({"path": "${oc.env:DATA}"}, "task.path=${oc.env:DATA}", None),
        ({"path": "o/n", "about": {"from_hub": True}}, "hub dataset o/n: not fetched yet", False),
        ({"about": {"of_checkpoint": True}}, "the data of the checkpoint", None),
    ],
)
def test_a_place_of_data(
    node: dict[str, object], said: str, there: bool | None, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    place = place_of(node)
    assert (place.said, place.there) == (said, there)
    assert place.advice != "fetch\nit"


def test_the_cache_is_that_of_datasets() -> None:
    assert hub_cache() == Path(datasets.config.HF_DATASETS_CACHE)


@settings(max_examples=30, deadline=None)
@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True))
def test_a_copy_is_found_by_the_name_that_datasets_gives_it(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    version = cache / f"me___{camelcase_to_snakecase(name)}" / "plain" / "0.0.0" / "abc"
    version.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(cache))
        assert hub_copy(f"me/{name}") is None  # a folder that an interrupted download has left
        (version / "dataset_info.json").touch()
        assert hub_copy(f"me/{name}") == version.parents[2]
        assert hub_copy(f"me/{name}", "plain") == version.parents[1]
        assert hub_copy(f"me/{name}", "other") is None
        assert hub_copy(f"you/{name}") is None


def test_the_published_files_are_of_families_that_can_be_imported() -> None:
    assert {file.family for file in FILES} | set(UNPUBLISHED) == set(interop.NETWORKS)
    assert len({file.name for file in FILES}) == len(FILES)
    for file in FILES:
        assert urlsplit(file.address).scheme == "https"
        assert file.parameters is None or file.parameters > 1e6

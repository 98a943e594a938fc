"""`init_from` on the command line: every way to write it, and what it cannot go together with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from equipoise.commands import multirun
from equipoise.config.compose import compose, plain
from equipoise.config.init_from import spelled_out
from equipoise.config.recompose import Purpose, recompose
from equipoise.errors import UserError
from tests.config.test_recompose import stored

WHERE = "ckpt_path=run/checkpoints/last.ckpt"


def node(*typed: str) -> dict[str, Any]:
    return plain(compose(typed).config.init_from)


@pytest.mark.parametrize(
    ("typed", "path", "parts"),
    [
        ((), None, None),
        (("init_from=null",), None, None),
        (("init_from=runs/one",), "runs/one", None),
        (("+init_from=runs/one",), "runs/one", None),
        (("init_from='of lr=0.1/last.ckpt'",), "of lr=0.1/last.ckpt", None),
        (("init_from.path=runs/one",), "runs/one", None),
        (("init_from=one", "init_from.parts=[stem,cell]"), "one", ["stem", "cell"]),
        (("init_from.parts=[stem,cell]", "init_from=one"), "one", ["stem", "cell"]),
        (("init_from={path: one, parts: [stem]}",), "one", ["stem"]),
        (("init_from={path: one}", "init_from.parts=[stem]"), "one", ["stem"]),
    ],
)
def test_a_path_stands_for_the_path_of_both(
    typed: tuple[str, ...], path: str | None, parts: list[str] | None
) -> None:
    assert node(*typed) == {"path": path, "parts": parts}


def test_other_words_are_left_as_they_are() -> None:
    words = [
        "task=digits",
        "init_from.path=a",
        "init_from={path: a}",
        "model.init_from=a",
        "a=init_from=b",
    ]
    assert spelled_out(words) == words


def test_a_sweep_lists_files_and_none() -> None:
    words = multirun.written_out(["init_from=null,one.ckpt", "seed=1,2"])
    jobs = multirun.jobs(words)
    assert [compose(job).config.init_from.path for job in jobs] == [None, None] + ["one.ckpt"] * 2


def test_a_file_of_choices_may_write_a_path_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "tuned.yaml").write_text(
        "# @package _global_\ninit_from: runs/one\n"
    )
    found = node(f"hydra.searchpath=[file://{tmp_path}]", "experiment=tuned")
    assert found == {"path": "runs/one", "parts": None}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("init_from=[a,b]",), r"init_from\.path=\['a', 'b'\] is not of type str"),
        (("init_from=3",), r"init_from\.path=3 is not of type str"),
        (("init_from=a", "init_from.parts=stem"), r"init_from\.parts=stem is not of type list"),
        (("init_from=a", "init_from.parts=[1]"), r"init_from\.parts=\[1\] is not of type list"),
        (("init_from.parts=[stem]",), r"add init_from=<checkpoint"),
        (("init_from.prats=[stem]",), r"did you mean init_from\.parts"),
        (("init_from={paht: a}",), r"no setting 'init_from\.paht'.*; did you mean init_from\.path"),
        (("init_from=a", "task=range_query"), r"model=ahead trains no weights"),
    ],
)
def test_what_cannot_be_meant_is_refused(typed: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        compose(typed)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
@pytest.mark.parametrize("typed", ["init_from=a", "init_from.parts=[stem]"])
def test_a_checkpoint_is_not_taken_and_started_from(purpose: Purpose, typed: str) -> None:
    with pytest.raises(UserError, match="leave one of the two out"):
        recompose(stored(), [WHERE, typed], purpose)


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_a_checkpoint_tells_what_its_run_started_from(purpose: Purpose) -> None:
    run = stored("init_from=one", "init_from.parts=[stem]")
    config = recompose(run, [WHERE], purpose).config
    assert OmegaConf.to_container(config.init_from) == {"path": "one", "parts": ["stem"]}

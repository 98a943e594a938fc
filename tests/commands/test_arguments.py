"""What the flags and the grammar of Hydra do here: each works, or is refused in one sentence."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from equipoise import __version__, build
from equipoise.commands import evaluate, exit_status, train
from equipoise.config.compose import compose, storable

Command = Callable[[Sequence[str]], int]


def in_words(value: list[str] | str) -> str:
    return " ".join(value) if isinstance(value, list) else ""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return tmp_path


QUICK = ["debug=smoke"]  # a line that is not refused, as it should be, then ends soon


def refusal(
    words: Sequence[str], capsys: pytest.CaptureFixture[str], command: Command = train.main
) -> str:
    """The one sentence that is the answer, with nothing printed beside it and nothing left."""
    before = set(Path.cwd().iterdir())
    quick = QUICK if command is train.main else []
    status = exit_status(command, [*quick, *words])
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
    assert set(Path.cwd().iterdir()) == before
    return said.err


def answer(
    words: Sequence[str], capsys: pytest.CaptureFixture[str], command: Command = train.main
) -> str:
    """What is printed by a command that works and leaves nothing."""
    before = set(Path.cwd().iterdir())
    status = exit_status(command, words)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert set(Path.cwd().iterdir()) == before
    return said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg"], "--cfg alone has nothing to show: it takes job, hydra, all"),
        (["--cfg", "job", "--cfg", "all"], "--cfg is given twice"),
        (["--cfg", "jobs"], "--cfg jobs has nothing to show"),
        (["--cfg", "job", "-p", "nothing"], "no package 'nothing'"),
        (["--cfg", "job", "-p", "solvr"], "did you mean solver?"),
        (["--cfg", "job", "-p"], "--package needs a value"),
        (["-p", "solver"], "--package works only with --cfg job"),
        (["--resolve"], "--resolve works only with --cfg job"),
        (["-m", "--cfg", "job", "seed=1,2"], "cannot be combined"),
        (["--info"], "it takes defaults, defaults-tree, plugins, searchpath"),
        (["--info", "config"], "--cfg job shows"),
        (["-i", "all"], "--info all has nothing to show"),
        (["--config-dir", "nowhere"], "there is no folder nowhere"),
        (["--config-dir"], "--config-dir needs a value"),
        (["--config-name", "other"], "always starts from conf/train.yaml"),
        (["-cn", "train"], "always starts from conf/train.yaml"),
        (["--config-path=conf"], "always starts from conf/train.yaml"),
        (["--experimental-rerun", "x.pickle"], "would unpickle a file"),
        (["-sc"], "takes install, uninstall or query of one shell"),
        (["-sc", "install=tcsh"], "takes install, uninstall or query of one shell"),
        (["--multrun", "seed=1,2"], "there is no flag --multrun; did you mean --multirun?"),
        (["-seed=1"], "there is no flag -seed=1"),
        (["--multirun=yes", "seed=1,2"], "--multirun takes no value"),
    ],
    ids=in_words,
)
def test_a_flag_that_does_not_work_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(words, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg", "job"], "\noptimizer:\n"),
        (["-c", "job", "--resolve", "-p", "solver", "solver=broyden"], "memory: 8"),
        (["--cfg=hydra"], "hydra:\n  run:\n"),
        (["--cfg", "hydra", "-p", "hydra.run"], "dir: "),
        (["--cfg", "all"], "\noptimizer:\n"),
        (["--version"], f"equipoise {__version__}\n"),
        (["--help"], "usage: python train.py"),
    ],
    ids=in_words,
)
def test_what_is_shown_without_a_run(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in answer(words, capsys)


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Hydra's --info lets the root logger write to the screen."""
    before, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


@pytest.mark.usefixtures("same_logging")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-sc", "install=bash"], "complete -o nospace"),
        (["--hydra-help"], "Configuration groups"),
        (["--info", "searchpath"], "schema"),
        (["-i", "defaults-tree"], ""),
    ],
    ids=in_words,
)
def test_what_hydra_answers(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_status(train.main, words) == 0
    assert said in capfd.readouterr().out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=interval(1e-4,1e-2)"], "a grid needs values, not an interval"),
        (["solver=glob(x*)"], "lists no values"),
        (["seed=glob(*)"], "glob lists the choices of a group, but seed is a setting"),
        (["seed=range(0,1000000000)"], "one sweep may have"),
        (["seed=range(1,2,0)"], "seed=range(1,2,0): range() arg 3 must not be zero"),
        (["seed=choice()"], "empty choice is not legal"),
        (["gradient=exact,phantomm"], "did you mean phantom?"),
        (["solver=glob(*b*)"], "type 'solver=glob(*b*,exclude=lbfgs)'"),
        (["solver.tol=a,b"], "must be a number"),
        (["run_dir=x", "seed=1,2"], "run_dir is the folder of one run"),
        (["hydra.run.dir=x", "seed=1,2"], "hydra.run.dir is the folder of one run"),
        (["hydra.sweep.subdir=same", "seed=1,2"], "puts two jobs into same"),
        (["hydra.output_subdir=null", "seed=1,2"], "hydra.output_subdir must stay .hydra"),
    ],
    ids=in_words,
)
def test_a_sweep_that_cannot_be_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(["-m", *words], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *(
            ([f"seed={sweep}"], "add -m")
            for sweep in (
                "1,2",
                "range(3)",
                "choice(1,2)",
                "shuffle(1,2)",
                "interval(1,2)",
                "glob(*)",
                "tag(a,choice(1,2))",
                "sort(2,1)",
            )
        ),
        *(
            ([f"run_dir={text}"], f"\"run_dir='{text}'\"")
            for text in ("a=b", "a#b", "é", "a(b)", "[a", "{a", "a,b")
        ),
        (["gradient=[exact,phantom]"], "-m gradient=exact,phantom"),
        (["gradient=[]"], "gradient=[]"),
        (["model=[mdeq]"], "one choice"),
        (["gradient={a: 1}"], "one choice"),
        *(
            ([f"{group}=null"], "null")
            for group in (
                "solver",
                "gradient",
                "model",
                "task",
                "logger",
                "callbacks",
                "debug",
                "experiment",
                "recipe",
                "sweep",
                "solver@eval_solver",
            )
        ),
        (["hydra.sweep.dir=x"], "belongs to a multirun"),
        (["hydra.job.chdir=true"], "a run stays in the folder where it was started"),
        (["+hydra.callbacks.mine={_target_: my.Mine}"], "Hydra calls them only in a multirun"),
        (["hydra.run.dir=x", "run_dir=y"], "set the same folder"),
        (["trainer.devices=1000000000", "strategy=cpu"], "is too many: this machine has"),
        (["trainer.devices=0", "trainer.accelerator=cpu"], "must be 1 or more"),
        (["trainer.num_nodes=1000000000"], "needs processes on other machines"),
        (["trainer.num_nodes=0"], "must be 1 or more"),
        (["task.num_workers=100000"], "is too many: this machine has"),
    ],
    ids=in_words,
)
def test_what_one_run_cannot_be_told_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(words, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m"], "--multirun is a flag of train.py"),
        (["--cfg"], "it takes job"),
        (["--cfg", "hydra"], "only --cfg job"),
        (["--cfg", "job"], "a checkpoint is needed"),
        (["-sc", "install=bash"], "is a flag of train.py"),
        (["ckpt_path=trained.ckpt", "hydra.run.dir=x"], "set the folder with run_dir"),
        (["ckpt_path=trained.ckpt", "--cfg", "job", "-p", "nothing"], "no package"),
    ],
    ids=in_words,
)
def test_what_an_evaluation_cannot_be_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(Path("trained.ckpt"))
    assert said in refusal(words, capsys, evaluate.main)


@pytest.mark.parametrize("name", ["trained.ckpt", "a=b é,(#[ 'c'.ckpt"])
def test_an_evaluation_shows_its_configuration(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(Path(name))
    typed = "'" + name.replace("'", r"\'") + "'"
    words = [f"ckpt_path={typed}", "solver.max_steps=77", "--cfg", "job", "-p", "solver"]
    assert "max_steps: 77" in answer(words, capsys, evaluate.main)


def write_checkpoint(path: Path) -> None:
    composition = compose([])
    content = {"config": storable(composition.config), "choices": composition.choices}
    weights = {f"model.{name}": tensor for name, tensor in build().state_dict().items()}
    torch.save({**content, "state_dict": weights, "epoch": 1, "global_step": 1}, path)

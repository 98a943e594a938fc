"""What can stand where the cursor is, by itself and in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise import commands
from equipoise.commands.completion import candidates, files, shell_words
from equipoise.commands.completion.shells import PROGRAMS, SCRIPTS, script
from equipoise.commands.list.entries import LISTS
from equipoise.config.about import choice_files
from equipoise.config.compose import CONF
from equipoise.interop import NETWORKS

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group_is_offered(group: str) -> None:
    names = [file.stem for file in choice_files(CONF / group)]
    assert candidates(f"python train.py {group}=") == [f"{group}={name}" for name in names]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("python train.py sol", ["solver.", "solver="]),
        ("python train.py solver@", ["solver@eval_solver=", "solver@gradient.solver="]),
        ("python train.py solver@eval_solver=bro", ["solver@eval_solver=broyden"]),
        ("python train.py solver.ma", ["solver.max_steps="]),
        ("python train.py solver=broyden solver.stor", ["solver.storage_dtype="]),
        ("python train.py task=imagenet gradient.so", ["gradient.solver."]),  # as its recipe says
        ("python train.py nonsense=3 solver.to", ["solver.tol="]),
        ("python train.py -m solver=broyden,anderson solver.stor", ["solver.storage_dtype="]),
        ("python train.py solver.trace=", ["solver.trace=false", "solver.trace=true"]),
        ("python train.py solver.stop=r", ["solver.stop=relative"]),
        ("python train.py seed=", ["seed=0"]),
        ("python train.py -m gradient=exact,ph", ["gradient=exact,phantom"]),
        ("python train.py 'gradient=exa", ["gradient=exact"]),
        ("python train.py callbacks=[default,gradient_f", ["callbacks=[default,gradient_fidelity"]),
        ("python train.py solver=[bro", []),
        ("python train.py ~callbacks.rep", ["~callbacks.report", "~callbacks.report."]),
        ("python train.py ++callbacks.report.d", ["++callbacks.report.dirpath="]),
        ("python train.py trainer.foo.bar", []),
        ("python train.py --conf", ["--config-dir"]),
        ("python train.py --cfg ", ["all", "hydra", "job"]),
        ("python train.py --cfg job -p sol", ["solver"]),
        ("python train.py hydra.sweep.d", ["hydra.sweep.dir="]),
        ("/opt/python3.11 ../x/train.py gradient=ex", ["gradient=exact"]),
        ("python evaluate.py anytime=c", ["anytime=curve"]),
        ("python -m equipoise tr", ["train", "translate"]),
        ("python -m equipoise train gradient=ex", ["gradient=exact"]),
        ("equipoise evaluate gradient=ex", ["gradient=exact"]),
        ("equipoise-train gradient=ex", ["gradient=exact"]),
        ("python foo.py gradient=ex", []),
        ("equipoise predict gradient=ex", []),
        ("", []),
    ],
)
def test_a_word_is_completed(line: str, said: list[str]) -> None:
    assert candidates(line) == said


def test_lists_commands_and_families_are_completed() -> None:
    assert candidates("equipoise ") == sorted(commands.NAMES)
    assert set(LISTS) < set(candidates("equipoise list "))
    assert candidates("equipoise import-weights ") == sorted(NETWORKS)
    assert candidates("equipoise import-weights mdeq ") == []
    assert candidates("equipoise profile st") == ["steps=", "strategy="]
    assert candidates("equipoise profile steps=3 task=digits_") == ["task=digits_and_scenes"]


def test_folders_of_ones_own_are_offered(tmp_path: Path) -> None:
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text("# Mine\n_target_: my_package.Mine\nwidth: 3\n")
    for words in (f"--config-dir {tmp_path}", f"hydra.searchpath=[file://{tmp_path}]"):
        assert candidates(f"python train.py {words} solver=m") == ["solver=mine"]
        assert candidates(f"python train.py {words} solver=mine solver.w") == ["solver.width="]


def test_files_are_completed_where_a_path_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("a.ckpt", "b.ckpt", "with space.ckpt", ".hidden"):
        (tmp_path / "runs" / name).touch()
    assert candidates("python train.py ckpt_path=r") == ["ckpt_path=runs/"]
    found = ["ckpt_path=runs/a.ckpt", "ckpt_path=runs/b.ckpt"]
    assert candidates("python train.py ckpt_path=runs/") == found
    assert candidates("python train.py task=cifar10 task.path=./r") == ["task.path=./runs/"]
    assert candidates("python train.py --config-dir ru") == ["runs/"]
    assert files("runs/.h") == ["runs/.hidden"]
    assert files("nowhere/") == []


@pytest.mark.parametrize(
    ("line", "words", "last"),
    [
        ("a b", ["a"], "b"),
        ("a b ", ["a", "b"], ""),
        ("a 'b c", ["a"], "b c"),
        ('a "b', ["a"], "b"),
        ("a 'b'", ["a"], "b"),
        (r"a b\ ", ["a"], "b "),
        ("a b\\", ["a"], "b"),
        ("   ", [], ""),
    ],
)
def test_a_line_is_split_as_a_shell_would(line: str, words: list[str], last: str) -> None:
    assert shell_words(line) == (words, last)


@pytest.fixture(scope="module")
def surroundings() -> dict[str, str]:
    """This python first on the path, as `python` and as the installed programs."""
    here = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def said_by(shell: list[str], program: str, surroundings: dict[str, str]) -> str:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]} here")
    done = subprocess.run(
        [*shell, program], env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BASH = r"""
complete -F _somebody_elses python
_somebody_elses() { COMPREPLY=(theirs); }
eval "$(python -m equipoise train -sc install=bash)"
type_in() {
    COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _equipoise_completion python "" ""
    echo "${COMPREPLY[*]}"
}
type_in "python -m equipoise train solver=bro"
type_in "python -m equipoise train 'gradient=exa"
type_in "python other.py solver=bro"
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
type_in "python -m equipoise train -m solver=broyden,an"
eval "$(python -m equipoise train -sc uninstall=bash)"
complete -p python
"""


def test_bash_replaces_what_follows_its_last_separator(surroundings: dict[str, str]) -> None:
    said = said_by(["bash", "--norc", "-c"], BASH, surroundings)
    assert said.splitlines() == [
        "broyden", "gradient=exact", "theirs", "solver=broyden,anderson",
        "complete -F _somebody_elses python",
    ]  # fmt: skip


def test_fish_asks_for_the_word_at_the_cursor(surroundings: dict[str, str]) -> None:
    program = (
        "python -m equipoise train -sc install=fish | source\n"
        'complete -C "python -m equipoise train solver=bro"\n'
        'complete -C "python other.py solver=bro"\n'
        "python -m equipoise train -sc uninstall=fish | source\n"
        'complete -C "python -m equipoise train solver=bro"\n'
    )
    assert said_by(["fish", "--no-config", "-c"], program, surroundings) == "solver=broyden\n"


@pytest.mark.parametrize("shell", sorted(SCRIPTS["install"]))
@pytest.mark.parametrize("action", sorted(SCRIPTS))
def test_a_script_can_be_read_by_its_shell(
    action: str, shell: str, surroundings: dict[str, str]
) -> None:
    text = script(action, shell)
    assert "@" not in text.replace("$@", "").replace("[@]", "").replace("(@", "").replace("/@:", "")
    assert action == "uninstall" or all(name in text for name in PROGRAMS.split())
    said_by([shell, "-n", "-c"] if shell != "fish" else ["fish", "-n", "-c"], text, surroundings)


def test_an_answer_needs_no_torch() -> None:
    code = (
        "import sys; from equipoise.commands import train; "
        "train.main(['-sc', 'query=bash']); assert 'torch' not in sys.modules"
    )
    line = "equipoise-train solver=bro and what is behind the cursor"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": "26"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "solver=broyden\n"

"""Every command of the pages is carried out, or says in one sentence what it lacks."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from equipoise import commands
from equipoise.commands import multirun
from equipoise.commands.arguments import configured
from tests.documentation.pages import Line, all_lines
from tests.documentation.workshop import SHORT, Workshop

ELSEWHERE = {
    r"^make (install|lint|test|test-slow|format|bench|bench-gpu|docs|train)\b": "Makefile",
    r"^make (coverage|mutants)\b": "Makefile",
    r"^source |^eval ": "the shell's own",
    r"^(torchrun|srun|wandb) ": "programs of others",
    r"^python -m pytest": "tests/test_documentation.py, in a copy with the worked examples",
    r"^python -m benchmarks": "tests/test_benchmarks.py",
    r"^python (examples|docs)/": "tests/test_examples.py, test_generated.py",
    r"heavy_ball|rayleigh|perceptron|spots|out.csv split=test": "tests/test_documentation.py",
    r"--config-dir conf|^equipoise|stripes": "tests/test_own_project.py",
    r"launcher=(submitit|ray)": "tests/end_to_end/test_launchers.py",
    r"-sc install": "tests/commands/test_completion.py",
    r"\[<|\[key=|\.\.\.$| <command>": "the form of a command, not one",
    r"strategy=\w+_cpu": "tests/end_to_end/test_two_processes.py, test_sharded.py",
}
"""Commands that are carried out by other tests, or are not ours, and where."""
LACKS = {
    "data that have to be fetched": r"(task|experiment)=(cifar10|imagenet|cityscapes|champs|mosi"
    r"|mosei|iemocap|iwslt14|multi30k|wikitext|ptb|ssl_(?!digits)|image_hub|news20)",
    "published files": r"<weights>|weights\.pth|(mdeq|mult|barlow|couplings)\.ckpt|\.pkl",
    "a GPU": r"strategy=(gpu|ddp|fsdp)\b|device=cuda",
    "a package of one's own": r"trust[= ]\[?my_package",
    "an account or a server": r"equipoise (push|dashboard)|logger=wandb|\[csv,wandb\]|http:",
    "files of one's own": r"structures\.csv|predictions(/|\.csv)|<files>|a\.jpg|path=five"
    r"|compare (multirun|<)|path=nmr|ckpt_path=<folder>|runs/nmr_small|train task=|weights/",
    "words that follow": r"equipoise (evaluate|predict|export|ensemble|compare|profile"
    r"|reproduce)$",
}
"""What a command may end for want of, with status 2 and one sentence."""
FEWER = {"task=range_query": "task.repeats=1", "sweep=optuna": "sweep.trials=2"}
QUICK = (
    "python train.py", "python train.py --help", "python train.py --cfg job",
    "python -m equipoise list", "python -m equipoise list datasets",
    "python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt",
    "python train.py model._target_=my_model.MyModel trainer.max_epochs=3",
    "python -m equipoise compare <run> <run>",
)  # fmt: skip
"""Commands of README that the default suite carries out; the others are `slow`."""
PROGRAMS = (
    (r"^python train\.py", "train"),
    (r"^python evaluate\.py", "evaluate"),
    (r"^python -m equipoise", ""),
)


def elsewhere(line: Line) -> str | None:
    """Where a command is carried out if not here."""
    return next((place for words, place in ELSEWHERE.items() if re.search(words, line.text)), None)


def lacks(line: Line) -> list[str]:
    """What a command may miss on a machine without network and GPU."""
    return [what for what, words in LACKS.items() if re.search(words, line.text)]


def words_of(line: Line) -> list[str]:
    """The words behind `python -m equipoise`, without redirections."""
    program, command = next(pair for pair in PROGRAMS if re.match(pair[0], line.text))
    text = re.sub(r"(?<!\S)[<>] \S+", "", line.text[re.match(program, line.text).end() :])
    return [word for word in [command, *shlex.split(text, comments=True)] if word]


def shortened(words: list[str], most: int = 4) -> list[str]:
    """The command with three steps; of more jobs than so many the first one."""
    if words[0] != "train" or {"--help", "--version", "--cfg"} & set(words):
        return words
    typed = {word.partition("=")[0] for word in words}
    short = list(words)
    if not {"ckpt_path", "debug"} & typed:
        short += [word for word in SHORT if word.partition("=")[0] not in typed]
    short += [word for name, word in FEWER.items() if any(w.startswith(name) for w in words)]
    if "-m" not in words or any(word.startswith("sweep=optuna") for word in words):
        return short
    jobs = multirun.jobs(multirun.planned(configured("train.py", str, short[1:]).overrides)[0])
    one = [word for word in jobs[0] if not word.startswith("hydra")]
    many = ["-m"] if any(word.startswith("sweep=") for word in one) else []
    return short if len(jobs) <= most else ["train", *many, *one]


HERE = [line for line in all_lines() if elsewhere(line) is None]
PARAMETERS = [
    pytest.param(
        line, id=f"{line.page}: {line.text}", marks=[pytest.mark.slow] * (line.text not in QUICK)
    )
    for line in HERE
]  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("line", PARAMETERS)
def test_a_command_does_what_the_page_says(line: Line, workshop: Workshop) -> None:
    words = shortened(workshop.words(line, words_of(line)), most=1 if lacks(line) else 4)
    done = workshop.carry_out(line, words)
    if done.status != 0 and lacks(line):
        assert done.refusal, f"{words}\n{done.out[-500:]}{done.err[-1500:]}"
        return
    assert done.status == 0, f"{words}\n{done.out[-500:]}{done.err[-1500:]}"


def test_the_commands_are_as_many_as_the_pages_have() -> None:
    quick = [line.text for line in HERE if line.text in QUICK]
    assert sorted(quick) == sorted(QUICK)
    assert len(HERE) > 250
    counts = Counter("may lack something" if lacks(line) else "carried out" for line in HERE)
    assert counts["carried out"] > 150


def test_every_program_of_a_page_is_known() -> None:
    unknown = [line for line in HERE if not any(re.match(p, line.text) for p, _ in PROGRAMS)]
    assert unknown == []
    missing = [
        name for name in commands.NAMES if not any(f" {name}" in x.text for x in all_lines())
    ]
    assert set(missing) <= {"evaluate", "train"}


def test_commands_that_lack_something_are_told_from_those_that_fail(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    done = workshop.carry_out(Line("", ""), ["train", "task=imagenet", "task.path=empty"])
    assert done.refusal is not None
    assert workshop.carry_out(Line("", ""), ["list", "tasks"]).status == 0

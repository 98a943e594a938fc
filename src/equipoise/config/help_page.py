"""The page of `python train.py --help`: every group, its choices, a line on each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from equipoise.config.about import choice_files
from equipoise.config.compose import CONF

HEAD = """Train models whose output is an equilibrium z* = f(z*, x).

usage: python train.py [group=choice ...] [setting=value ...] [flag ...]

group=choice picks one of the choices below; setting=value changes a setting of what is chosen,
such as solver.max_steps=60 or optimizer.lr=1e-3. The rest has defaults, so any of these runs:
  python train.py                                       the network MDEQ on bundled images of digits
  python train.py gradient=exact solver=broyden         another estimator, another solver
  python train.py trainer.max_epochs=3 seed=1           shorter, with another seed
  python train.py task=cifar10 task.path=<folder>       the published recipe on local data
  python train.py -m gradient=jfb,phantom seed=1,2      four runs and a table of their results
  python train.py run_dir=<folder> resume=auto          continue a run where it stopped
  python train.py ckpt_path=<run>/checkpoints/last.ckpt trainer.max_epochs=20
  python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt solver.max_steps=60

flags:
  --cfg job [-p solver]  print all settings with their values, or those of one group; run nothing
  -m                     several runs: one for each combination of the values given with commas
  --config-dir <folder>  choices of your own, in a folder laid out like conf/
  -sc install=bash       complete groups, choices and settings in the shell; also zsh, fish
  --version, --help

Which models fit which task, and where the data are: python -m equipoise list
Quote a value with = , # brackets or é: python train.py "run_dir='lr=0.1'"
On all GPUs of this machine: strategy=ddp (task.batch_size is the batch size per process)
Choices marked * are the default.
"""

EVALUATE = """Evaluate a checkpoint on the test split of its task.

usage: python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt [setting=value ...]

The configuration is the checkpoint's; settings can be changed on top of it:
  solver.max_steps=60      another budget
  solver=broyden           another solver
  task=cifar10             another dataset with images of the same kind
  anytime=curve            metric and residual against the budget, from several starts
  trust=[my_package]       packages of your own whose classes the checkpoint may name
  run_dir=<folder>         where metrics.json and the report go

See what would be evaluated: python evaluate.py ckpt_path=<checkpoint> --cfg job
"""

NOTES = {
    "anytime": "of evaluate.py alone: a test with several budgets of evaluations",
    "callbacks": "what watches or steers a run; several at once: callbacks=[default,ema]",
    "debug": "short runs that look for mistakes",
    "encoder": "the network inside model=barlow",
    "experiment": "complete runs, published ones among them: each sets task, model and the rest",
    "gradient": "how the gradient passes through the equilibrium",
    "logger": "where the curves go; several at once: logger=[csv,wandb]",
    "model": "the network",
    "objective": "the loss of model=barlow",
    "optimizer": "what updates the weights; the learning rate is optimizer.lr",
    "recipe": "selected automatically: <task>_<model>, if that file exists",
    "regularizer": "what is added to the loss to keep the equilibrium stable",
    "schedule": "the learning rate over the run",
    "solver": "how z* is found; solver@eval_solver=<choice> sets another one for evaluation",
    "strategy": "devices and processes",
    "sweep": "several runs, with -m",
    "task": "the data, and what is learnt from them",
    "trainer": "the arguments of Lightning's Trainer, such as trainer.max_epochs=3",
}
"""What a group decides, in a clause."""

FRONT = ("task", "model", "solver", "gradient", "regularizer")


def text(roots: Sequence[Path] = (CONF,)) -> str:
    """The whole page, with the choices of every root: `conf/` and the user's folders."""
    defaults = default_choices()
    own = ", ".join(map(str, roots[1:]))
    head = f"{HEAD}Choices marked + are from {own}.\n" if own else HEAD
    return "\n".join([head, *(group_lines(group, roots, defaults) for group in groups(roots))])


def default_choices() -> dict[str, str]:
    """The choice of each group in the defaults list of train.yaml."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {group: choice for group, choice in pairs if choice is not None}


def groups(roots: Sequence[Path]) -> list[str]:
    """The groups that have a choice: those of the mathematics first, then by name."""
    folders = [folder for root in roots for folder in root.iterdir() if folder.is_dir()]
    names = {folder.name for folder in folders if choice_files(folder)}
    return sorted(names, key=lambda name: (FRONT.index(name) if name in FRONT else 9, name))


def group_lines(group: str, roots: Sequence[Path], defaults: dict[str, str]) -> str:
    """A group's name and its choices, by name."""
    note = f"  ({NOTES[group]})" if group in NOTES else ""
    files = [file for root in roots for file in choice_files(root / group)]
    width = max(len(file.stem) for file in files)
    lines = [f"{group}={note}"]
    for file in sorted(files, key=lambda file: file.stem):
        own = "+" if file.parent.parent != CONF else " "
        mark = "*" if defaults.get(group) == file.stem else own
        lines.append(f" {mark} {file.stem:<{width}}  {description(file)}")
    return "\n".join([*lines, ""])


def description(file: Path) -> str:
    """The first comment of a yaml file that is not Hydra's package directive."""
    for line in file.read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ")
    return ""

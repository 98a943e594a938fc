"""Train a model, as `python train.py` does, from wherever this is installed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from equipoise.commands import multirun, showing
from equipoise.commands.arguments import check_flags, configured
from equipoise.config import help_page, machine
from equipoise.config.checks import check_single_run
from equipoise.config.compose import Composition, parse
from equipoise.config.hydra import hydra_config, hydra_setting, job_of_hydra
from equipoise.config.refusals import how_to_quote
from equipoise.errors import UserError
from equipoise.running import folders
from equipoise.running.api import checked, completed, execute, say_beginning
from equipoise.running.resumption import beginning


def main(words: Sequence[str]) -> int:
    """Check the arguments, then run one job, or the jobs of a multirun; returns the exit status.

    Raises UserError before anything is started, RunFailed and RunInterrupted.
    """
    arguments = configured("train.py", help_page.text, words)
    if arguments.shell_completion:
        return showing.show_completion(arguments.overrides)
    if showing.is_of_hydra(arguments):
        return showing.show_of_hydra(arguments)
    overrides = arguments.overrides
    arguments.multirun |= is_multirun(overrides)
    check_flags(arguments)
    if arguments.multirun:
        return multirun.start(overrides)
    check_single(overrides)
    if arguments.cfg:
        return showing.show_training(checked(overrides, surroundings=False), arguments)
    start = beginning(overrides)
    if start.completed is not None:
        completed(start)
        return 0
    composition = replace(checked(start.overrides), command=overrides)
    with job(composition, start.leftovers) as directory:
        say_beginning(start, composition, directory)
        execute(composition, directory)
    return 0


def is_multirun(overrides: Sequence[str]) -> bool:
    """Whether `hydra.mode=MULTIRUN`, which stands for -m, is among the overrides."""
    modes = [str(o.value()) for o in parse(overrides) if o.key_or_group == "hydra.mode"]
    return modes[-1:] == ["MULTIRUN"]


def check_single(overrides: Sequence[str]) -> None:
    """Raise UserError for words that only a multirun takes, and for a folder named twice."""
    settings = parse(overrides)
    check_single_run(settings)
    keys = {override.key_or_group for override in settings}
    for name in sorted(keys & {"hydra.sweep.dir", "hydra.sweep.subdir"}):
        raise UserError(f"{name} belongs to a multirun: add -m, or set run_dir=<folder>")
    if {"run_dir", "hydra.run.dir"} <= keys:
        raise UserError("run_dir and hydra.run.dir set the same folder: give one of them")
    for override in settings:
        line = override.input_line or ""
        if override.is_sweep_override():
            raise UserError(
                f"{line}: several values at once need a multirun, add -m{how_to_quote(line)}"
            )
        if override.key_or_group.replace("/", ".").startswith("hydra.callbacks"):
            raise UserError(
                f"{line}: Hydra calls them only in a multirun; a run takes "
                "callbacks of Lightning, such as +callbacks.mine={_target_: my_package.Mine}"
            )
        if override.key_or_group == "hydra.job.chdir" and override.value():
            raise UserError(
                f"{line}: a run stays in the folder where it was started, to "
                "which all paths are relative; leave it out"
            )


@contextmanager
def job(composition: Composition, leftovers: Collection[str] = ()) -> Iterator[Path]:
    """The folder of a single run while it runs, with Hydra's usual work around it.

    leftovers: files that the folder may hold when a run starts anew.
    A process that takes part in another's run leaves all that to the other. Raises UserError where
    the folder cannot be used.
    """
    settings = hydra_config(composition.hydra_overrides())
    named = any(o.key_or_group == "hydra.run.dir" for o in parse(composition.overrides))
    of_hydra = hydra_setting(settings, "hydra.run.dir") if named else None
    directory = folders.run_directory(composition, "train", of_hydra, leftovers)
    if not machine.decides(composition.config.trainer):
        yield directory
        return
    record = {hydra_setting(settings, "hydra.output_subdir") or "",
              f"{hydra_setting(settings, 'hydra.job.name')}.log"}  # fmt: skip
    with (
        folders.held(directory, record),
        job_of_hydra(settings, composition.config, directory),
    ):
        yield directory

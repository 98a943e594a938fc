"""A multirun: its jobs are checked before the first one starts, and Hydra starts them."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig, OmegaConf

from equipoise.commands import continuing, launchers, search, search_plan
from equipoise.commands.jobs import (
    Choices,
    choices_of,
    draws_values,
    globs,
    jobs,
    of_sweeper,
    subdirectory,
    without_none,
    written_out,
)
from equipoise.config import machine
from equipoise.config.about import about
from equipoise.config.compose import (
    CONF,
    SEARCH_PATH,
    composable,
    on_choices,
    parse,
    plain,
    with_grid,
)
from equipoise.config.hydra import as_text, hydra_config, hydra_setting, quoted
from equipoise.config.recompose import with_folders_of_checkpoint
from equipoise.config.search import is_search, with_search
from equipoise.config.stored import read_stored
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running import folders, sweep_record
from equipoise.running.api import checked, composed, execute
from equipoise.running.resumption import clear

MOST_CHECKED = 64


def start(typed: Sequence[str]) -> int:
    """Run all jobs of a multirun and, however it ends, the summary of those that have run.

    Returns the exit status: if the sweep ends in a table, a diverged job counts as a result, which
    the table shows. Raises UserError before anything is started, RunInterrupted.
    """
    launchers.chosen(typed)
    overrides, config = planned(continuing.without_resume(typed))
    check_one_process(config)
    hand = partial(hand_over, config)
    if is_search(overrides):
        return search.carry_out(typed, overrides, config, hand)
    return carry_out(typed, overrides, config, hand)


def carry_out(
    typed: Sequence[str],
    overrides: Sequence[str],
    config: DictConfig,
    hand_over: search.HandOver,
) -> int:
    """Run the jobs and show their results; config: that of one of them.

    typed: the words before sweeps were written out into `overrides`. hand_over: has Hydra start
    the jobs, given the words that name the folders.
    """
    from equipoise.report.summary import print_sweep
    from equipoise.report.sweep_cells import tables_of
    from equipoise.report.sweep_choice import Choice, show_choice
    from equipoise.report.sweep_race import Race, show_race
    from equipoise.report.sweep_seeds import show_over_seeds
    from equipoise.report.sweep_table import show_sweep_tables

    node = config.get("sweep")
    sweep = plain(node, resolve=True) if node else {}
    tables, choice = tables_of(sweep), Choice.of(sweep.get("choice"))
    raced = about(config.task, "race")
    race = Race.of(None if raced is None else plain(raced))
    results = ("completed", "diverged") if tables else ("completed",)
    expected = [] if draws_values(parse(overrides)) else jobs(overrides)
    with continuing.held(typed, overrides, results) as directory:
        sweep_record.record(directory, typed, len(expected) or None)
        named = [f"hydra.sweep.dir={quoted(str(directory))}"]
        if not continuing.is_typed(overrides, "hydra.sweep.subdir"):
            named.append(f"hydra.sweep.subdir='{subdirectory(overrides)}'")
        else:
            check_subdirectories(overrides)
        try:
            if not sweep_record.standing(directory).is_finished(results):
                hand_over(named, overrides)
        finally:
            status = print_sweep(directory, results)
            status |= continuing.say_unfinished(directory, results)
            show_over_seeds(directory)
            show_sweep_tables(directory, tables, expected)
            show_choice(directory, choice)
            show_race(directory, race)
        return status


def on_checkpoint(overrides: list[str]) -> list[str]:
    """The overrides after task and model of the checkpoint, so that Hydra knows their keys."""
    path = next((o.value() for o in parse(overrides) if o.key_or_group == "ckpt_path"), None)
    if not isinstance(path, str | QuotedString):
        return overrides
    choices = read_stored(as_text(path)).choices
    return on_choices(overrides, {group: choices[group] for group in ("task", "model")})


def planned(typed: Sequence[str]) -> tuple[list[str], DictConfig]:
    """The words with all sweeps written out, and the configuration of a job that can run.

    A sweep starts if at least one job of each combination of choices can run: its summary names
    the others. Raises UserError.
    """
    typed = with_search(with_folders_of_checkpoint(typed))
    overrides = on_checkpoint(written_out(with_grid(written_out(typed))))
    check_folders(overrides)
    if is_search(overrides):
        return overrides, search_plan.planned(overrides)
    accepted, refused = tried(overrides)
    overrides = without_none(overrides, globs(typed), accepted, refused)
    if more := of_sweeper(overrides):
        return planned([*more, *typed])
    return overrides, next(iter(accepted.values()))


def tried(overrides: Sequence[str]) -> tuple[dict[Choices, DictConfig], dict[Choices, UserError]]:
    """What the requested jobs (the first of many) compose to, or why they cannot.

    Both by the choices of the job; choices with which any job can run are not among the refused.
    """
    accepted: dict[Choices, DictConfig] = {}
    refused: dict[Choices, UserError] = {}
    for job in itertools.islice(jobs(overrides), MOST_CHECKED):
        choices = choices_of(job)
        try:
            accepted.setdefault(choices, checked(job).config)
        except UserError as error:
            refused.setdefault(choices, error)
    return accepted, {c: error for c, error in refused.items() if c not in accepted}


def check_folders(overrides: Sequence[str]) -> None:
    """Raise where a folder is named by a setting that a multirun ignores."""
    keys = {override.key_or_group for override in parse(overrides)}
    for name in sorted(keys & {"run_dir", "hydra.run.dir"}):
        raise UserError(f"{name} is the folder of one run: with -m, set hydra.sweep.dir=<folder>")
    if "hydra.output_subdir" in keys:
        raise UserError(
            "hydra.output_subdir must stay .hydra in a multirun, whose summary reads from there"
        )


def check_one_process(config: DictConfig) -> None:
    """Raise where a multirun of multi-process jobs was itself started in several processes."""
    outside = {"RANK", "LOCAL_RANK"} & set(os.environ) or machine.rank()
    if outside and machine.several_processes(config.trainer):
        raise UserError(
            "a multirun starts the processes of its jobs itself: start it once, without torchrun "
            "or srun, or start each of its jobs with them"
        )


def check_subdirectories(overrides: Sequence[str]) -> None:
    """Raise where two jobs would share a folder by the typed `hydra.sweep.subdir`."""
    seen: set[str | None] = set()
    for number, job in enumerate(itertools.islice(jobs(overrides), MOST_CHECKED)):
        numbered = [*job, f"hydra.job.num={number}", f"hydra.job.id='{number}'"]
        name = hydra_setting(hydra_config(composable(numbered)), "hydra.sweep.subdir")
        if name in seen:
            raise UserError(
                f"hydra.sweep.subdir puts two jobs into {name}: quote it, with a key that tells "
                "them apart, such as 'hydra.sweep.subdir=${hydra.job.num}_${seed}'"
            )
        seen.add(name)


def hand_over(config: DictConfig, named: Sequence[str], overrides: Sequence[str]) -> None:
    """Let Hydra call `run_job` for each job; `named` are the overrides that name the folders.

    config: that of one of the jobs. Raises RunInterrupted where the jobs were told to stop.
    """
    places = {o.key_or_group: Path(as_text(o.value())) for o in parse(named)}
    sweep = places["hydra.sweep.dir"]
    launcher = launchers.chosen(overrides)
    share = launchers.shared_machine(launcher, overrides, config.trainer)
    named = [*named, *launchers.settings(launcher, overrides, share)]
    keys = {line.partition("=")[0] for line in named}
    first = composable(search_plan.first_job(overrides))
    added = {line.partition("=")[0].lstrip("+") for line in first if line.startswith("++")}
    rest = [line for line in overrides if line.partition("=")[0] not in keys]
    rest = [f"++{line}" if line.partition("=")[0] in added else line for line in rest]
    sys.argv = [sys.argv[0], "--multirun", "hydra.job.name=train", *rest, *named]
    with launchers.side_by_side(launcher, sweep):
        task = launchers.job(launcher, run_job, sweep, share)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(task)()


def run_job(config: DictConfig) -> float | None:
    """Compose one of several jobs with our rules and run it; returns the monitored value.

    An error that ends it is printed and kept in its folder, and the other jobs still run. In a
    resumed sweep, a job that has already ended is skipped.
    """
    from equipoise.report.summary import ERROR_LOG

    directory = folders.shortened(Path(HydraConfig.get().runtime.output_dir))
    if (directory / ERROR_LOG).is_file():
        return None
    try:
        metrics = metrics_of_job(directory)
    except RunInterrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.status) from error
    except (Exception, SystemExit) as error:
        (directory / ERROR_LOG).write_text(f"{sentence(error)}\n\n{traceback.format_exc()}")
        print(f"error: {directory.name}: {sentence(error)}", file=sys.stderr)
        return None
    return search.value_of(metrics, OmegaConf.select(config, "task.monitor", default=""))


def metrics_of_job(directory: Path) -> Mapping[str, Any]:
    """Run the current job in its folder, or resume it there; returns its metrics.json."""
    settings = HydraConfig.get()
    record = {str(settings.output_subdir), f"{settings.job.name}.log"}
    start = continuing.beginning_of_job(overrides_of_job(), directory)
    if start.completed is not None:
        print(f"{directory.name}: completed before")
        return start.completed
    if start.said:
        print(start.said)
    begun = start.standing.checkpoint if start.standing else None
    folders.claim(directory, begun, "hydra.sweep.subdir", {*record, *start.leftovers})
    with folders.held(directory, record=()):
        clear(directory, start.leftovers - record)
        return execute(composed(start.overrides), directory)


def overrides_of_job() -> list[str]:
    """The current job's overrides; Hydra lists the search path among its own overrides."""
    overrides = HydraConfig.get().overrides
    lines = [*(line for line in overrides.hydra if SEARCH_PATH in line), *overrides.task]
    return [*lines, *search.lines_of_trial(lines)]


def sentence(error: BaseException) -> str:
    """The first line of an error's message, preceded by its class if it is not one of ours."""
    text = (str(error).strip() or "no message").splitlines()[0]
    ours = isinstance(error, UserError | RunFailed)
    return text if ours else f"{type(error).__name__}: {text}"

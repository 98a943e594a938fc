"""A multirun whose jobs Optuna draws: its space, its trials one batch after another, its end."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from equipoise.commands.jobs import jobs, subdirectory
from equipoise.config import machine
from equipoise.config.compose import CONF, composable, keys, parse, plain, search_path
from equipoise.config.hydra import quoted
from equipoise.config.overrides import Menu, is_of_hydra
from equipoise.config.search import SWEEPER, Search, is_search, search_of
from equipoise.config.search_space import Case, Parameter, Space, as_space, described, parameter_of
from equipoise.errors import UserError
from equipoise.report.search import Found, show_search
from equipoise.report.summary import ERROR_LOG, KILLED, number, read_jobs, sweep_row
from equipoise.running.api import checked
from equipoise.running.study import (
    Asked,
    Outcome,
    TrialStudy,
    check_optuna,
    storage_place,
    study_name,
)

Launch = Callable[[Sequence[Sequence[str]], int], Any]
MOST_CASES = 256
LONGER = 4
"""The best settings are to be trained for so many times the length of a trial."""
ENDS = ("completed", "pruned", "diverged", "killed")
"""The status of a trial that a search can do with: others are failures to look at."""
NOT_OF_A_JOB = ("resume",)


def space_of(lines: Sequence[str]) -> Space:
    """What the overrides of a search draw from. Raises UserError where none of it can run."""
    of_jobs = [o for o in parse(lines) if not is_of_hydra(o) or o.key_or_group == "hydra.searchpath"]
    words = [(o.input_line or "").lstrip("+") if not o.is_sweep_override() else o.input_line or ""
             for o in of_jobs if o.key_or_group not in NOT_OF_A_JOB]  # fmt: skip
    return _space(tuple(words))


@lru_cache(maxsize=8)
def _space(lines: tuple[str, ...]) -> Space:
    overrides = parse(lines)
    menu = Menu.of([CONF, *search_path(overrides)])
    swept = [override for override in overrides if override.is_sweep_override()]
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    groups = [parameter_of(override) for override in swept if menu.offers(override)]
    settings = [parameter_of(override) for override in swept if not menu.offers(override)]
    cases, refused = _cases(fixed, groups, settings)
    _check_settings(fixed, cases, settings)
    return as_space(fixed, groups, cases, refused)


def _cases(
    fixed: Sequence[str], groups: Sequence[Parameter], settings: Sequence[Parameter]
) -> tuple[list[Case], bool]:
    """The choices of groups with which a job can run, and whether there are others."""
    combinations = list(itertools.product(*(group.values for group in groups)))
    if len(combinations) > MOST_CASES:
        raise UserError(
            f"the search combines {len(combinations)} choices of groups, more than {MOST_CASES}: "
            "list fewer"
        )
    cases: list[Case] = []
    reason: UserError | None = None
    for values in combinations:
        chosen = [line for group, v in zip(groups, values, strict=True) for line in group.lines(v)]
        try:
            known = set(keys(_config([*fixed, *chosen])))
        except UserError as error:
            reason = reason or error
            continue
        have = [p for p in settings if p.name in known or p.word.startswith("+")]
        cases.append(Case(tuple(chosen), tuple(have)))
    if not cases and reason is not None:
        raise reason
    return cases, reason is not None


def _check_settings(
    fixed: Sequence[str], cases: Sequence[Case], settings: Sequence[Parameter]
) -> None:
    """Raise UserError where no case has a setting, or where an end of it cannot run."""
    seen: set[str] = set()
    for case in cases:
        new = [p for p in case.parameters if p.name not in seen]
        seen |= {parameter.name for parameter in new}
        for place in range(2 if new else 0):
            _config([*fixed, *case.lines, *(parameter.ends[place] for parameter in new)])
    for parameter in settings:
        if parameter.name not in seen:
            _config([*fixed, *cases[0].lines, parameter.ends[0]])


def _config(lines: Sequence[str]) -> DictConfig:
    return _checked(tuple(lines))


@lru_cache(maxsize=MOST_CASES)
def _checked(lines: tuple[str, ...]) -> DictConfig:
    """The configuration of a job, which several steps on the way to the first one ask for."""
    return checked(lines).config


def planned(lines: Sequence[str]) -> DictConfig:
    """The configuration of one job of a search, after every check. Raises UserError."""
    check_optuna()
    config = _config(space_of(lines).job())
    if config.trainer.limit_val_batches == 0:
        raise UserError(
            f"a search compares trials by {config.task.monitor}, and trainer.limit_val_batches=0 "
            "leaves out the validation"
        )
    return config


def first_job(lines: Sequence[str]) -> list[str]:
    """The overrides of the first job of a multirun, with those for Hydra itself."""
    if not is_search(lines):
        return jobs(lines)[0]
    of_hydra = [o.input_line or "" for o in parse(lines) if is_of_hydra(o)]
    job = space_of(lines).job()
    return [*(line for line in of_hydra if line not in job), *job]


def subdirectory_of_trial(lines: Sequence[str]) -> str:
    """<n>_<key-value of what all jobs have drawn>, for Hydra to fill in."""
    shared = set(space_of(lines).shared)
    named = [o.input_line or "" for o in parse(lines)
             if not o.is_sweep_override() or o.get_key_element() in shared]  # fmt: skip
    return subdirectory(named)


def open_study(lines: Sequence[str], directory: Path) -> TrialStudy:
    """The study of a search in its folder. Raises UserError where it cannot be used."""
    search, config = search_of(lines), planned(lines)
    if search is None:
        raise UserError(f"{SWEEPER} draws from the space of a search: add one, such as sweep=optuna")
    return TrialStudy(search, space_of(lines), str(config.task.monitor_mode), directory)


def carry_on(launch: Launch, lines: Sequence[str], config: DictConfig) -> None:
    """Let the jobs run, a batch after another, until the study has all its trials.

    launch: what the launcher does with the overrides of a batch and the number of its first job.
    config: what Hydra composes of all that is not searched.
    """
    directory = Path(config.hydra.sweep.dir)
    study = open_study(lines, directory)
    for killed in study.recover(outcomes(directory)):
        mark_killed(directory, killed)
    most = study.search.at_once or side_by_side(config.hydra.launcher)
    while asked := study.ask(most):
        for batch in consecutive(asked):
            launch([composable(trial.lines) for trial in batch], batch[0].number)
        found = outcomes(directory)
        for trial in asked:
            outcome = found.get(trial.number, Outcome("failed", None))
            study.tell(trial.number, outcome)
            print(f"trial {trial.number}: {outcome.status}, {number(outcome.value)}", flush=True)


def side_by_side(launcher: DictConfig) -> int:
    """How many jobs a launcher runs at once, as far as its settings tell."""
    if str(launcher.get("_target_")).startswith("hydra._internal.core_plugins."):
        return 1
    count = launcher.get("n_jobs")
    return count if isinstance(count, int) and count > 0 else machine.cores()


def consecutive(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Trials with one number after another: a study of several sweeps may leave gaps."""
    batches: list[list[Asked]] = []
    for trial in asked:
        if batches and trial.number == batches[-1][-1].number + 1:
            batches[-1].append(trial)
        else:
            batches.append([trial])
    return batches


def outcomes(directory: Path) -> dict[int, Outcome]:
    """What came of each job by its number."""
    found = {}
    for job in read_jobs(directory):
        ended = any((job.folder / name).is_file() for name in (ERROR_LOG, "metrics.json"))
        status = sweep_row(job, directory, ())["status"] if ended else "killed"
        found[job.number] = Outcome(status, _value(job.folder / "metrics.json"))
    return found


def value_of(metrics: Mapping[str, Any], monitor: str) -> float | None:
    """The best validation of a run where it has kept that, else the last one."""
    best = (metrics["details"].get("best_validation") or {}).get("value")
    value = metrics["val"].get(monitor.removeprefix("val/")) if best is None else best
    return None if value is None else float(value)


def _value(file: Path) -> float | None:
    return value_of(json.loads(file.read_text()), "") if file.is_file() else None


def mark_killed(directory: Path, killed: int) -> None:
    """Have the summary know of a job that ended with its process and will be repeated."""
    for job in read_jobs(directory):
        if job.number == killed:
            sentence = f"{KILLED}: it ended with its process, and another trial repeats it"
            (job.folder / ERROR_LOG).write_text(f"{sentence}\n")


def lines_of_trial(config: DictConfig) -> list[str]:
    """The overrides that tell the job at hand which trial it is; none outside a search."""
    settings = HydraConfig.get()
    search = Search.of(plain(config.sweep)) if config.get("sweep") else None
    if search is None or not settings.sweeper.get("_target_", "").startswith("hydra_plugins.equi"):
        return []
    if OmegaConf.select(config, "callbacks.trial") is None:
        return []
    directory = Path(settings.sweep.dir)
    return [
        f"callbacks.trial.storage={quoted(storage_place(search, directory))}",
        f"callbacks.trial.study={quoted(study_name(search, directory))}",
        f"callbacks.trial.number={settings.job.num}",
    ]


def show(lines: Sequence[str], directory: Path, config: DictConfig) -> None:
    """Print and write what a search has found so far."""
    study = open_study(lines, directory)
    runs = {job.number: job.folder for job in read_jobs(directory)}
    rows = [
        dataclasses.replace(
            row, run=runs[row.number].relative_to(directory).as_posix() if row.number in runs else None
        )
        for row in study.rows()
    ]  # fmt: skip
    found = Found(
        str(config.task.monitor), str(config.task.monitor_mode), rows, study.search.trials,
        described(study.space.parameters), study.importances(),
    )  # fmt: skip
    best = found.best
    folder = None if best is None else runs.get(best.number)
    show_search(directory, found, None if folder is None else longer(folder))


def longer(folder: Path) -> str:
    """The command that trains a job's settings for longer than the job did."""
    from equipoise.running.origin import command_line

    lines = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) or []
    trainer = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]
    lengths = {key: trainer.get(key) for key in ("max_epochs", "max_steps")}
    kept = [line for line in lines
            if not line.lstrip("+").startswith(("sweep.", "trainer.max_epochs=", "trainer.max_steps="))]  # fmt: skip
    more = [f"trainer.{key}={LONGER * count}" for key, count in lengths.items()
            if isinstance(count, int) and count > 0]  # fmt: skip
    return command_line("train", [*kept, *more])

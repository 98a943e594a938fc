"""A multirun whose jobs Optuna draws: runs its trials batch by batch, and shows the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from equipoise.commands import launchers
from equipoise.commands.continuing import is_asked, is_typed
from equipoise.commands.search_plan import first_job, planned, space_of, subdirectory_of_trial
from equipoise.config.compose import composable, parse
from equipoise.config.hydra import hydra_config, hydra_setting, quoted
from equipoise.config.search import (
    FAILED,
    SWEEPER,
    Asked,
    Outcome,
    search_of,
    storage_place,
    study_name,
)
from equipoise.config.search_space import described
from equipoise.errors import UserError, read_json, read_yaml
from equipoise.running import folders

if TYPE_CHECKING:
    from equipoise.running.study import TrialStudy

Launch = Callable[[Sequence[Sequence[str]], int], Any]
HandOver = Callable[[Sequence[str], Sequence[str]], None]
SWEEP_DIR = "hydra.sweep.dir"
TRIAL = "callbacks.trial"
LONGER = 4
"""How many times longer than a trial to train with the best settings."""
LENGTHS = ("max_epochs", "max_steps")
METRICS = "metrics.json"
OF_THE_SEARCH = ("sweep", "callbacks", "logger")
"""Groups that do not describe the best trial."""
ENDS = ("completed", "pruned", "diverged", "killed")
"""The statuses of a trial that a search can use; others are failures to investigate."""


def carry_out(
    typed: Sequence[str], overrides: Sequence[str], config: DictConfig, hand_over: HandOver
) -> int:
    """Run the trials and show the results, however they end; returns the exit status.

    typed: the words before the search was written out into `overrides`. config: that of a job.
    hand_over: has Hydra start our sweeper, given the words that name the folders.
    """
    from equipoise.report.summary import print_sweep

    with held(typed, overrides) as directory:
        named = [f"{SWEEP_DIR}={quoted(str(directory))}"]
        if not is_typed(overrides, "hydra.sweep.subdir"):
            named.append(f"hydra.sweep.subdir='{subdirectory_of_trial(overrides)}'")
        open_study(overrides, directory)
        try:
            hand_over(named, overrides)
        finally:
            status = print_sweep(directory, ENDS)
            show(overrides, directory, config)
        return status


@contextmanager
def held(typed: Sequence[str], overrides: Sequence[str]) -> Iterator[Path]:
    """The folder of a search while it runs: a new one, or the one to continue in.

    Raises UserError where it holds other files.
    """
    named = is_typed(overrides, SWEEP_DIR)
    if not named and is_asked(typed):
        raise UserError(
            f"resume=auto continues a search in its folder: add {SWEEP_DIR}=multirun/<time>"
        )
    if not named:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = folders.claim_new(Path("multirun"), stamp)
    else:
        settings = hydra_config(composable(first_job(overrides)))
        path = folders.shortened(Path(str(hydra_setting(settings, SWEEP_DIR))))
        path = folders.claim(path, name=SWEEP_DIR, record=_contents(typed, overrides, path))
    with folders.held(path, {"multirun.yaml"}):
        yield path


def _contents(typed: Sequence[str], overrides: Sequence[str], path: Path) -> set[str]:
    """The files allowed in the folder of a continued search: all, if its study is there."""
    search = search_of(overrides)
    if search is None or not is_asked(typed) or not path.is_dir():
        return set()
    inside = {entry.name for entry in path.iterdir()} - {folders.LOCK}
    place = storage_place(search, path).rpartition("sqlite:///")[2]
    if inside and "://" not in place and not Path(place).is_file():
        raise UserError(
            f"{SWEEP_DIR}={path} has no study to continue ({Path(place).name} is "
            "missing): choose another folder"
        )
    return inside


def open_study(lines: Sequence[str], directory: Path) -> TrialStudy:
    """The study of a search in its folder. Raises UserError where it cannot be used."""
    from equipoise.running.study import TrialStudy

    search, config = search_of(lines), planned(lines)
    if search is None:
        raise UserError(
            f"{SWEEPER} draws from the space of a search: add one, such as sweep=optuna"
        )
    return TrialStudy(search, space_of(lines), str(config.task.monitor_mode), directory)


def carry_on(launch: Launch, lines: Sequence[str], config: DictConfig) -> None:
    """Run the jobs, batch by batch, until the study has all its trials.

    launch: runs jobs, given the overrides of a batch and the number of its first job.
    config: Hydra's composition of everything that is not searched.
    """
    from equipoise.report.summary import number

    directory = Path(config.hydra.sweep.dir)
    study, monitor = open_study(lines, directory), str(planned(lines).task.monitor)
    for killed in study.recover(outcomes(directory, monitor)):
        mark_killed(directory, killed)
    most = study.search.at_once or launchers.at_once(config.hydra.launcher)
    while asked := study.ask(most):
        for batch in consecutive(asked):
            launch([composable(trial.lines) for trial in batch], batch[0].number)
        found = outcomes(directory, monitor)
        told = {t.number: found[t.number] for t in asked if t.number in found}
        told = {place: outcome for place, outcome in told.items() if outcome.ended}
        stopped = not told or any(found[t.number].interrupted for t in asked if t.number in found)
        for trial in asked:
            if trial.number in told or not stopped:
                outcome = told.get(trial.number, Outcome(FAILED, None))
                study.tell(trial.number, outcome)
                print(
                    f"trial {trial.number}: {outcome.status}, {number(outcome.value)}", flush=True
                )
        if stopped:  # the trials that were running are left as they are, to be repeated
            return


def consecutive(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Trials with consecutive numbers: a study of several sweeps may leave gaps."""
    batches: list[list[Asked]] = []
    for trial in asked:
        if batches and trial.number == batches[-1][-1].number + 1:
            batches[-1].append(trial)
        else:
            batches.append([trial])
    return batches


def outcomes(directory: Path, monitor: str) -> dict[int, Outcome]:
    """The outcome of each job by its number; monitor: the metric that is compared."""
    from equipoise.report.summary import ERROR_LOG, read_jobs, sweep_row

    found = {}
    for job in read_jobs(directory):
        ended = any((job.folder / name).is_file() for name in (ERROR_LOG, "metrics.json"))
        status = sweep_row(job, directory, ())["status"] if ended else "killed"
        found[job.number] = Outcome(status, _value(job.folder / "metrics.json", monitor))
    return found


def value_of(metrics: Mapping[str, Any], monitor: str) -> float | None:
    """The best validation of a run if it kept that, else the last one."""
    best = (metrics["details"].get("best_validation") or {}).get("value")
    value = metrics["val"].get(monitor.removeprefix("val/")) if best is None else best
    return None if value is None else float(value)


def _value(file: Path, monitor: str) -> float | None:
    return value_of(read_json(file), monitor) if file.is_file() else None


def mark_killed(directory: Path, killed: int) -> None:
    """Record for the summary that a job ended with its process and will be repeated."""
    from equipoise.report.summary import ERROR_LOG, KILLED, read_jobs

    for job in read_jobs(directory):
        if job.number == killed:
            sentence = f"{KILLED}: it ended with its process, and another trial repeats it"
            (job.folder / ERROR_LOG).write_text(f"{sentence}\n")


def lines_of_trial(lines: Sequence[str]) -> list[str]:
    """The overrides that tell the current job which trial it is; none outside a search."""
    settings = HydraConfig.get()
    if settings.runtime.choices.get("hydra/sweeper") != SWEEPER.partition("=")[2]:
        return []
    search = search_of(lines)
    keys = [override.key_or_group for override in parse(lines)]
    if search is None or TRIAL in keys:  # the callback was left out, or is the user's own
        return []
    directory = Path(settings.sweep.dir)
    return [
        f"{TRIAL}.storage={quoted(storage_place(search, directory))}",
        f"{TRIAL}.study={quoted(study_name(search, directory))}",
        f"{TRIAL}.number={settings.job.num}",
    ]


def show(lines: Sequence[str], directory: Path, config: DictConfig) -> None:
    """Print and write the results of a search so far."""
    from equipoise.report.search import Found, show_search
    from equipoise.report.summary import read_jobs

    study = open_study(lines, directory)
    runs = {job.number: job.folder for job in read_jobs(directory)}
    names = {place: folder.relative_to(directory).as_posix() for place, folder in runs.items()}
    rows = [dataclasses.replace(row, run=names.get(row.number)) for row in study.rows()]
    found = Found(
        str(config.task.monitor), str(config.task.monitor_mode), rows, study.search.trials,
        described(study.space.parameters), study.importances(),
    )  # fmt: skip
    best = found.best
    folder = None if best is None else runs.get(best.number)
    show_search(directory, found, None if folder is None else longer(folder))
    if study.unfinished:
        print(
            f"to continue: the same command with {SWEEP_DIR}={quoted(str(directory))} resume=auto"
        )


def longer(folder: Path) -> str:
    """The command that trains with a job's settings for longer than the job, without the search.

    It includes the choices of the search's file, such as a regulariser whose weight was drawn.
    """
    from equipoise.config.compose import compose
    from equipoise.running.origin import command_line

    words = read_yaml(folder / ".hydra" / "overrides.yaml") or []
    trainer = read_yaml(folder / "config.yaml")["trainer"]
    replaced = ("sweep=", "sweep.", *(f"trainer.{key}=" for key in LENGTHS))
    kept = [word for word in words if not word.lstrip("+").startswith(replaced)]
    groups = [word for word in kept if "." not in word.partition("=")[0]]
    plain, choices = compose(groups).choices, read_json(folder / METRICS)["choices"]
    chosen = {group: choices.get(group) for group in plain if group not in OF_THE_SEARCH}
    added = [f"{g}={choice}" for g, choice in chosen.items() if choice and choice != plain[g]]
    counts = {key: trainer.get(key) for key in LENGTHS}
    more = [f"trainer.{k}={LONGER * n}" for k, n in counts.items() if isinstance(n, int) and n > 0]
    return command_line("train", [*added, *kept, *more])

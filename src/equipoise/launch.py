"""The command line of train.py around Hydra: what is checked, folders, one job or many."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from equipoise import folders, machine
from equipoise.compose import CONF, SEARCH_PATH, parse, plain, search_path
from equipoise.config.checks import check_curve_in_training, check_single_run
from equipoise.config.overrides import Menu
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.flags import is_multirun
from equipoise.hydra_settings import hydra_setting
from equipoise.interrupts import STATUS
from equipoise.quoting import quoted
from equipoise.run import composed, execute, run_directory
from equipoise.surroundings import check_surroundings
from equipoise.sweeping import jobs, subdirectory

__all__ = ["check", "is_multirun", "jobs", "start"]

MOST_CHECKED = 64
DEFAULTS = {"hydra.output_subdir": ".hydra", "hydra.job.name": "train"}


def check(overrides: Sequence[str], multirun: bool, surroundings: bool = True) -> None:
    """Compose every job that was asked for (the first ones of a large sweep), and drop the result.

    A sweep begins where of each combination of choices at least one job can run: the others will be
    named in its summary. surroundings: whether data and accounts have to be there.
    Raises UserError before anything is started.
    """
    check_folders(overrides, multirun)
    if not multirun:
        check_single_run(parse(overrides))
        check_job(overrides, surroundings)
        return
    accepted: set[tuple[str, ...]] = set()
    refused: dict[tuple[str, ...], UserError] = {}
    for job in itertools.islice(jobs(overrides), MOST_CHECKED):
        chosen = choices_of(job)
        try:
            check_job(job, surroundings)
            accepted.add(chosen)
        except UserError as error:
            refused.setdefault(chosen, error)
    for chosen, refusal in refused.items():
        if chosen not in accepted:
            raise refusal


def check_job(overrides: Sequence[str], surroundings: bool) -> None:
    """Compose one job; of one that begins anew look at what it needs around it."""
    composition = composed(overrides)
    check_curve_in_training(composition.config, composition.choices)
    if surroundings and not composition.config.ckpt_path:
        check_surroundings(composition.config)


def choices_of(job: Sequence[str]) -> tuple[str, ...]:
    """Those of a job's overrides that choose from a group."""
    overrides = parse(job)
    menu = Menu.of([CONF, *search_path(overrides)])
    return tuple(o.input_line or "" for o in overrides if menu.offers(o))


def check_folders(overrides: Sequence[str], multirun: bool) -> None:
    """Raise where a folder is named twice, or by a setting that would not be heeded."""
    typed = {override.key_or_group for override in parse(overrides)}
    if multirun and typed & {"run_dir", "hydra.run.dir"}:
        (name, *_) = sorted(typed & {"run_dir", "hydra.run.dir"})
        raise UserError(f"{name} is the folder of one run: with -m type hydra.sweep.dir=<folder>")
    if not multirun and typed & {"hydra.sweep.dir", "hydra.sweep.subdir"}:
        (name, *_) = sorted(typed & {"hydra.sweep.dir", "hydra.sweep.subdir"})
        raise UserError(f"{name} belongs to a multirun: add -m, or type run_dir=<folder>")
    if multirun and typed & {"hydra.output_subdir"}:
        raise UserError(
            "hydra.output_subdir stays .hydra in a multirun: its summary reads from there"
        )
    if {"run_dir", "hydra.run.dir"} <= typed:
        raise UserError("run_dir and hydra.run.dir name the same folder: type one of them")


def start(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Run one job, or each job of a multirun, in folders of their own; returns the exit status."""
    outcome.clear()
    if is_multirun(flags):
        return start_sweep(overrides)
    composition = composed(overrides)
    if not machine.decides(composition.config.trainer):
        execute(composition, run_directory(composition, "train"))
        return 0
    with folders.held(job_folder(overrides), record(overrides)) as directory:
        hand_over([f"hydra.run.dir={quoted(str(directory))}"], overrides)
        return outcome_code()


def start_sweep(overrides: Sequence[str]) -> int:
    """All jobs of a multirun, and the summary of those that there are, however it ends."""
    from equipoise.sweep_summary import print_sweep

    check_one_process(jobs(overrides)[0])
    with folders.held(sweep_folder(overrides), {"multirun.yaml"}) as directory:
        named = [f"hydra.sweep.dir={quoted(str(directory))}"]
        if not typed_value(overrides, "hydra.sweep.subdir"):
            named.append(f"hydra.sweep.subdir='{subdirectory(overrides)}'")
        else:
            check_subdirectories(overrides)
        status = 1
        try:
            hand_over(named, overrides, "--multirun")
        finally:
            status = print_sweep(directory)
        show_table(overrides, directory)
        return status


def hand_over(folder: Sequence[str], overrides: Sequence[str], *flags: str) -> None:
    """Let Hydra call `job`: once, or once for each job."""
    rest = [line for line in overrides if line.partition("=")[0] not in settled(folder)]
    sys.argv = [sys.argv[0], *flags, "hydra.job.name=train", *rest, *folder]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(job)()


def settled(folder: Sequence[str]) -> set[str]:
    """The keys of overrides."""
    return {line.partition("=")[0] for line in folder}


def show_table(overrides: Sequence[str], directory: Path) -> None:
    """The table that the chosen sweep ends in."""
    sweep = composed(jobs(overrides)[0]).config.get("sweep")
    if sweep:
        from equipoise.sweep_table import show_sweep_table

        show_sweep_table(directory, plain(sweep)["table"])


outcome: list[Exception] = []
"""What ended the single job of this process, if not well: Hydra would print a traceback."""


def job(config: DictConfig) -> float | None:
    """One job: compose it with our rules, run it, and give a sweeper its monitored value."""
    settings = HydraConfig.get()
    directory = shortened(Path(settings.runtime.output_dir))
    if settings.mode == RunMode.MULTIRUN:
        made = {str(settings.output_subdir), f"{settings.job.name}.log"}
        return job_of_sweep(config, directory, made)
    try:
        execute(composed(typed_for_job()), directory)
    except (UserError, RunFailed, RunInterrupted) as error:
        outcome.append(error)
    return None


def typed_for_job() -> list[str]:
    """What was typed for the job at hand; Hydra lists the search path among its own overrides."""
    overrides = HydraConfig.get().overrides
    return [*(line for line in overrides.hydra if SEARCH_PATH in line), *overrides.task]


def job_of_sweep(config: DictConfig, directory: Path, made: Collection[str]) -> float | None:
    """One job of several: whatever ends it is told and kept in its folder, and the others go on."""
    from equipoise.sweep_summary import ERROR_LOG

    try:
        folders.claim(directory, name="hydra.sweep.subdir", record=made)
        with folders.held(directory, record=()):
            metrics = execute(composed(typed_for_job()), directory)
    except RunInterrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(STATUS) from error
    except Exception as error:
        (directory / ERROR_LOG).write_text(f"{sentence(error)}\n\n{traceback.format_exc()}")
        print(f"error: {directory.name}: {sentence(error)}", file=sys.stderr)
        return None
    monitor = OmegaConf.select(config, "task.monitor", default="").removeprefix("val/")
    value = metrics["val"].get(monitor)
    return None if value is None else float(value)


def sentence(error: Exception) -> str:
    """What is said of an error in one line; of one that is not ours also what it is."""
    said = (str(error).strip() or "no message").splitlines()[0]
    ours = isinstance(error, UserError | RunFailed)
    return said if ours else f"{type(error).__name__}: {said}"


def shortened(path: Path) -> Path:
    """The path from the working directory where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def outcome_code() -> int:
    """Raise again what ended the single job."""
    if outcome:
        raise outcome[0]
    return 0


def record(overrides: Sequence[str]) -> set[str]:
    """What Hydra puts into the folder of a job before the job begins."""
    return {
        of_hydra(overrides, "hydra.output_subdir"),
        f"{of_hydra(overrides, 'hydra.job.name')}.log",
    }


def of_hydra(overrides: Sequence[str], key: str) -> str:
    """One of Hydra's own settings, as the jobs see it."""
    return hydra_setting(jobs(overrides)[0], key) if typed_value(overrides, key) else DEFAULTS[key]


def typed_value(overrides: Sequence[str], key: str) -> bool:
    """Whether a setting of Hydra was typed."""
    return any(override.key_or_group == key for override in parse(overrides))


def job_folder(overrides: Sequence[str]) -> Path:
    """Make the folder of a single run: that of `hydra.run.dir`, or what our own rules say."""
    composition = composed(overrides)
    if not typed_value(overrides, "hydra.run.dir"):
        return run_directory(composition, "train")
    path = Path(hydra_setting(overrides, "hydra.run.dir"))
    return folders.claim(shortened(path), composition.config.ckpt_path, "hydra.run.dir")


def sweep_folder(overrides: Sequence[str]) -> Path:
    """Make the folder of a multirun: that of `hydra.sweep.dir`, or multirun/<time>."""
    if typed_value(overrides, "hydra.sweep.dir"):
        path = Path(hydra_setting(jobs(overrides)[0], "hydra.sweep.dir"))
        return folders.claim(shortened(path), name="hydra.sweep.dir")
    return folders.claim_new(Path("multirun"), datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def check_subdirectories(overrides: Sequence[str]) -> None:
    """Raise where two jobs would share a folder by the typed `hydra.sweep.subdir`."""
    seen: set[str] = set()
    for number, job in enumerate(itertools.islice(jobs(overrides), MOST_CHECKED)):
        numbered = [*job, f"hydra.job.num={number}", f"hydra.job.id='{number}'"]
        name = hydra_setting(numbered, "hydra.sweep.subdir")
        if name in seen:
            raise UserError(
                f"hydra.sweep.subdir puts two jobs into {name}: type it in quotes, with what tells "
                "them apart, such as 'hydra.sweep.subdir=${hydra.job.num}_${seed}'"
            )
        seen.add(name)


def check_one_process(overrides: Sequence[str]) -> None:
    """Raise where a multirun of jobs with several processes was started in several itself."""
    outside = {"RANK", "LOCAL_RANK"} & set(os.environ) or machine.rank()
    if outside and machine.several_processes(composed(overrides).config.trainer):
        raise UserError(
            "a multirun starts the processes of its jobs itself: start it once, without torchrun "
            "or srun, or start each of its jobs by them"
        )

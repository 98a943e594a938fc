"""A multirun: what is swept, written out value by value, and its jobs, which Hydra starts."""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
import traceback
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from equipoise.config import machine
from equipoise.config.about import about
from equipoise.config.compose import (
    CONF,
    SEARCH_PATH,
    composable,
    on_choices,
    parse,
    plain,
    search_path,
    with_grid,
)
from equipoise.config.hydra import as_text, hydra_config, hydra_setting, quoted
from equipoise.config.overrides import Menu
from equipoise.config.recompose import with_folders_of_checkpoint
from equipoise.config.stored import read_stored
from equipoise.config.sweeps import as_override
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running import folders
from equipoise.running.api import checked, composed, execute
from equipoise.running.interrupts import STATUS

MOST_JOBS = 10_000
MOST_CHECKED = 64
MOST_NAMED = 4  # swept keys in a folder's name, which a file system limits to 255 bytes


def start(overrides: Sequence[str]) -> int:
    """All jobs of a multirun, and the summary of those that there are, however it ends.

    Returns the exit status: a job that diverges is a result where the sweep ends in a table, which
    tells it. Raises UserError before anything is started.
    """
    from equipoise.report.summary import print_sweep
    from equipoise.report.sweep_cells import tables_of
    from equipoise.report.sweep_choice import Choice, show_choice
    from equipoise.report.sweep_race import Race, show_race
    from equipoise.report.sweep_seeds import show_over_seeds
    from equipoise.report.sweep_table import show_sweep_tables

    overrides = with_folders_of_checkpoint(overrides)
    overrides = on_checkpoint(written_out(with_grid(written_out(overrides))))
    config = check(overrides)
    check_one_process(config)
    node = config.get("sweep")
    sweep = plain(node, resolve=True) if node else {}
    tables, choice = tables_of(sweep), Choice.of(sweep.get("choice"))
    raced = about(config.task, "race")
    race = Race.of(None if raced is None else plain(raced))
    with folders.held(sweep_folder(overrides), {"multirun.yaml"}) as directory:
        named = [f"hydra.sweep.dir={quoted(str(directory))}"]
        if not is_typed(overrides, "hydra.sweep.subdir"):
            named.append(f"hydra.sweep.subdir='{subdirectory(overrides)}'")
        else:
            check_subdirectories(overrides)
        results = ("completed", "diverged") if tables else ("completed",)
        try:
            hand_over(named, overrides)
        finally:
            status = print_sweep(directory, results)
            show_over_seeds(directory)
            planned = [] if draws_values(parse(overrides)) else jobs(overrides)
            show_sweep_tables(directory, tables, planned)
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


def check(overrides: Sequence[str]) -> DictConfig:
    """Compose the jobs that were asked for (the first ones of many); returns one that can run.

    A sweep begins where of each combination of choices at least one job can run: the others will be
    named in its summary. Raises UserError.
    """
    check_folders(overrides)
    accepted: dict[tuple[str, ...], DictConfig] = {}
    refused: dict[tuple[str, ...], UserError] = {}
    for job in itertools.islice(jobs(overrides), MOST_CHECKED):
        choices = choices_of(job)
        try:
            accepted.setdefault(choices, checked(job).config)
        except UserError as error:
            refused.setdefault(choices, error)
    for choices, refusal in refused.items():
        if choices not in accepted:
            raise refusal
    return next(iter(accepted.values()))


def check_folders(overrides: Sequence[str]) -> None:
    """Raise where a folder is named by a setting that a multirun ignores."""
    keys = {override.key_or_group for override in parse(overrides)}
    for name in sorted(keys & {"run_dir", "hydra.run.dir"}):
        raise UserError(f"{name} is the folder of one run: with -m, set hydra.sweep.dir=<folder>")
    if "hydra.output_subdir" in keys:
        raise UserError(
            "hydra.output_subdir stays .hydra in a multirun: its summary reads from there"
        )


def choices_of(job: Sequence[str]) -> tuple[str, ...]:
    """Those of a job's overrides that choose from a group."""
    overrides = parse(job)
    menu = Menu.of([CONF, *search_path(overrides)])
    return tuple(o.input_line or "" for o in overrides if menu.offers(o))


def check_one_process(config: DictConfig) -> None:
    """Raise where a multirun of jobs with several processes was started in several itself."""
    outside = {"RANK", "LOCAL_RANK"} & set(os.environ) or machine.rank()
    if outside and machine.several_processes(config.trainer):
        raise UserError(
            "a multirun starts the processes of its jobs itself: start it once, without torchrun "
            "or srun, or start each of its jobs with them"
        )


def sweep_folder(overrides: Sequence[str]) -> Path:
    """Make the folder of a multirun: that of `hydra.sweep.dir`, or multirun/<time>."""
    if is_typed(overrides, "hydra.sweep.dir"):
        path = Path(
            str(hydra_setting(hydra_config(composable(jobs(overrides)[0])), "hydra.sweep.dir"))
        )
        return folders.claim(folders.shortened(path), name="hydra.sweep.dir")
    return folders.claim_new(Path("multirun"), datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def is_typed(overrides: Sequence[str], key: str) -> bool:
    """Whether the command line sets this setting of Hydra."""
    return any(override.key_or_group == key for override in parse(overrides))


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


def hand_over(named: Sequence[str], overrides: Sequence[str]) -> None:
    """Let Hydra call `run_job` for each job; `named` are the overrides that name the folders."""
    keys = {line.partition("=")[0] for line in named}
    first = composable(jobs(overrides)[0])
    added = {line.partition("=")[0].lstrip("+") for line in first if line.startswith("++")}
    rest = [line for line in overrides if line.partition("=")[0] not in keys]
    rest = [f"++{line}" if line.partition("=")[0] in added else line for line in rest]
    sys.argv = [sys.argv[0], "--multirun", "hydra.job.name=train", *rest, *named]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(run_job)()


def run_job(config: DictConfig) -> float | None:
    """Compose one of several jobs with our rules and run it; gives a sweeper its monitored value.

    Whatever ends it is printed and kept in its folder, and the other jobs run all the same.
    """
    from equipoise.report.summary import ERROR_LOG

    settings = HydraConfig.get()
    directory = folders.shortened(Path(settings.runtime.output_dir))
    record = {str(settings.output_subdir), f"{settings.job.name}.log"}
    try:
        folders.claim(directory, name="hydra.sweep.subdir", record=record)
        with folders.held(directory, record=()):
            metrics = execute(composed(overrides_of_job()), directory)
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


def overrides_of_job() -> list[str]:
    """The overrides of the job at hand; Hydra lists the search path among its own overrides."""
    overrides = HydraConfig.get().overrides
    return [*(line for line in overrides.hydra if SEARCH_PATH in line), *overrides.task]


def sentence(error: Exception) -> str:
    """The first line of an error's message, after its class where it is not one of ours."""
    text = (str(error).strip() or "no message").splitlines()[0]
    ours = isinstance(error, UserError | RunFailed)
    return text if ours else f"{type(error).__name__}: {text}"


def written_out(lines: Sequence[str]) -> list[str]:
    """The overrides, with a list of values in place of every range, glob and shuffled choice.

    So the checks, the names of the folders and the jobs all see the same values in the same order.
    A sweeper that draws values itself gets them as they are. Raises UserError for what cannot be
    listed, and for too many jobs.
    """
    overrides = parse(lines)
    if draws_values(overrides):
        return list(lines)
    menu = Menu.of([CONF, *search_path(overrides)])
    swept = {number: values(o, menu) for number, o in enumerate(overrides) if o.is_sweep_override()}
    count = math.prod(len(entries) for entries in swept.values())
    if count > MOST_JOBS:
        raise UserError(
            f"these are {count} jobs, more than the {MOST_JOBS} that one sweep may have"
        )
    return [
        f"{override.get_key_element()}={','.join(swept[number])}" if number in swept else line
        for number, (override, line) in enumerate(zip(overrides, lines, strict=True))
    ]


def jobs(lines: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a grid sweep, as Hydra's basic sweeper makes them.

    Where the sweeper draws values itself: one job without them.
    """
    overrides = parse(lines)
    if draws_values(overrides):
        return [[o.input_line or "" for o in overrides if not o.is_sweep_override()]]
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line or ""]
        for o in overrides
    ]
    return [list(job) for job in itertools.product(*choices)]


def draws_values(overrides: Sequence[Override]) -> bool:
    """Whether another sweeper than Hydra's grid was chosen."""
    sweepers = [o.value() for o in overrides if o.key_or_group == "hydra/sweeper"]
    return bool(sweepers) and sweepers[-1] != "basic"


def values(override: Override, menu: Menu) -> list[str]:
    """The values of a sweep, each as the command line writes it."""
    line = override.input_line
    if override.is_interval_sweep():
        raise UserError(
            f"{line}: a grid needs values, not an interval: give some, such as "
            f"{override.key_or_group}=1e-3,1e-2, or choose a sweeper that draws them "
            "(hydra/sweeper)"
        )
    if isinstance(override.value(), Glob):
        entries = _matching(override, menu)
    else:
        try:
            entries = list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        except (HydraException, ValueError) as error:
            raise UserError(f"{line}: {str(error).splitlines()[0]}") from error
    if not entries:
        raise UserError(f"{line} lists no values")
    return entries


def _matching(override: Override, menu: Menu) -> list[str]:
    if not menu.offers(override):
        raise UserError(
            f"{override.input_line}: glob lists the choices of a group, and "
            f"{override.key_or_group} is a setting"
        )
    glob: Any = override.value()
    return [str(name) for name in glob.filter(menu.groups[override.key_or_group])]


def subdirectory(lines: Sequence[str]) -> str:
    """<n>_<key-value of what is swept>, without = and comma, for Hydra to fill in."""
    named = [o for o in parse(lines) if o.is_sweep_override() and readable(o)]
    keys = [key for override in named for key in swept_keys(override)]
    groups = Menu.of([CONF, *search_path(parse(lines))]).groups
    parts = [f"{key.rpartition('.')[2]}-{reference(key, groups)}" for key in keys]
    return "_".join(["${hydra.job.num}", *parts[:MOST_NAMED]])


def swept_keys(override: Override) -> list[str]:
    """The key of a sweep, or those below it where its values are mappings of the same settings."""
    first: Any = next(override.sweep_iterator())
    if not isinstance(first, dict):
        return [override.key_or_group]
    return [f"{override.key_or_group}.{name}" for name in first]


def readable(override: Override) -> bool:
    """Whether all swept values are known, short, and can stand in a folder's name."""
    if not override.is_discrete_sweep():
        return False
    entries: list[Any] = list(override.sweep_iterator())
    keys = {tuple(entry) if isinstance(entry, dict) else () for entry in entries}
    words = [as_override(v) for e in entries for v in (e.values() if isinstance(e, dict) else [e])]
    return len(keys) == 1 and all(re.fullmatch(r"[\w.+-]{1,30}", word) for word in words)


def reference(key: str, groups: Collection[str]) -> str:
    """An interpolation of the job's value: of a group its choice, else the setting."""
    return "${hydra:runtime.choices." + key + "}" if key in groups else "${" + key + "}"

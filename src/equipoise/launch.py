"""The command line of train.py around Hydra: flags, multirun, folders, `--cfg`."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from equipoise.checks import check_curve_in_training, check_single_run
from equipoise.compose import CONF, SEARCH_PATH, parse, plain
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.run import composed, execute, rehearse, run_directory
from equipoise.surroundings import check_surroundings

WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
              "--config-dir", "-cd", "--info", "-i", "--experimental-rerun"}  # fmt: skip
MOST_CHECKED = 64
INTERRUPTED = 130  # the shell's code for a process ended by SIGINT


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags (with their values) and the overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in WITH_VALUE:
            flags.extend(itertools.islice(words, 1))
    return flags, overrides


def is_multirun(flags: Sequence[str]) -> bool:
    """Whether several jobs were asked for."""
    return bool({"-m", "--multirun"} & set(flags))


def check(overrides: Sequence[str], multirun: bool, surroundings: bool = True) -> None:
    """Compose every job that was asked for (the first ones of a large sweep), and drop the result.

    surroundings: whether data and accounts have to be there. Raises UserError before anything is
    started.
    """
    if not multirun:
        check_single_run(parse(overrides))
    for job in itertools.islice(jobs(overrides) if multirun else [list(overrides)], MOST_CHECKED):
        composition = composed(job)
        check_curve_in_training(composition.config, composition.choices)
        if surroundings and not composition.config.ckpt_path:
            check_surroundings(composition.config)


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a grid sweep, as Hydra's basic sweeper makes them."""
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line or ""]
        for o in parse(overrides)
    ]
    return [list(job) for job in itertools.product(*choices)]


def show_config(argv: Sequence[str]) -> int:
    """`--cfg job`: print what would run, with what recipes and estimators add; `-p` one package."""
    flags, overrides = split_flags(argv)
    if flags[flags.index("--cfg") + 1 : flags.index("--cfg") + 2] != ["job"]:
        return start(flags, overrides)
    composition = composed(overrides)
    rehearse(composition)
    config: Any = composition.config
    for flag in ("-p", "--package"):
        if flag in flags:
            config = OmegaConf.select(config, flags[flags.index(flag) + 1])
    print(OmegaConf.to_yaml(config, resolve="--resolve" in flags))
    return 0


def start(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Hand over to Hydra, which makes the folders and calls `job` once, or once for each job."""
    folders = sweep_folder(overrides) if is_multirun(flags) else job_folder(overrides)
    sys.argv = [sys.argv[0], *flags, *overrides, *folders, "hydra.job.name=train"]
    outcome.clear()
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(job)()
    if not is_multirun(flags):
        return outcome_code()
    from equipoise.summary import print_sweep
    from equipoise.sweep_table import show_sweep_table

    directory = Path(folders[0].partition("=")[2])
    status = print_sweep(directory)
    if table := sweep_table(overrides):
        show_sweep_table(directory, table)
    return status


def sweep_table(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The table that the chosen sweep ends in."""
    sweep = composed(jobs(overrides)[0]).config.get("sweep")
    return plain(sweep)["table"] if sweep else None


outcome: list[Exception] = []
"""What ended jobs of this process that did not end well: Hydra would print a traceback."""


def job(config: DictConfig) -> float | None:
    """One job: compose it with our rules, run it, and give a sweeper its monitored value."""
    settings = HydraConfig.get()
    directory = shortened(Path(settings.runtime.output_dir))
    try:
        searched = [line for line in settings.overrides.hydra if SEARCH_PATH in line]
        metrics = execute(composed([*searched, *settings.overrides.task]), directory)
    except (UserError, RunFailed, RunInterrupted) as error:
        outcome.append(error)
        if settings.mode == RunMode.RUN:
            remove_unused(directory)
        if settings.mode == RunMode.MULTIRUN:
            if isinstance(error, RunInterrupted):
                print(error, file=sys.stderr)
                raise SystemExit(INTERRUPTED) from error
            print(f"error: {error}", file=sys.stderr)
        return None
    monitor = OmegaConf.select(config, "task.monitor", default="").removeprefix("val/")
    value = metrics["val"].get(monitor)
    return None if value is None else float(value)


def remove_unused(directory: Path) -> None:
    """Remove the folder of a run that could not begin: it holds only what Hydra has put there.

    So are the folders above it, up to runs/, that are left empty.
    """
    if not {path.name for path in directory.iterdir()} <= {".hydra", "train.log"}:
        return
    shutil.rmtree(directory)
    for parent in shortened(directory).parents:
        if parent.parts[:1] != ("runs",) or any(parent.iterdir()):
            return
        parent.rmdir()


def shortened(path: Path) -> Path:
    """The path from the working directory where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def outcome_code() -> int:
    """Raise again what ended the single job."""
    if outcome:
        raise outcome[0]
    return 0


def job_folder(overrides: Sequence[str]) -> list[str]:
    """The override that tells Hydra the run's folder; a process started beside ours is told."""
    if any(line.startswith("hydra.run.dir=") for line in overrides):
        return []
    composition = composed(overrides)
    return [f"hydra.run.dir={run_directory(composition, 'train')}"]


def sweep_folder(overrides: Sequence[str]) -> list[str]:
    """multirun/<time>/<n>_<key-value of what is swept>, without = and comma."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    named = [o for o in parse(overrides) if o.is_sweep_override() and readable(o)]
    parts = [f"{o.key_or_group.rpartition('.')[2]}-{reference(o)}" for o in named]
    return [
        f"hydra.sweep.dir=multirun/{stamp}",
        "hydra.sweep.subdir='" + "_".join(["${hydra.job.num}", *parts]) + "'",
    ]


def readable(override: Override) -> bool:
    """Whether all swept values can stand in a folder's name."""
    return all(re.fullmatch(r"[\w.+-]+", str(v)) for v in override.sweep_string_iterator())


def reference(override: Override) -> str:
    """An interpolation of the job's value: of a group its choice, else the setting."""
    group = override.key_or_group
    if (CONF / group).is_dir():
        return "${hydra:runtime.choices." + group + "}"
    return "${" + group + "}"

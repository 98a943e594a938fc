"""The two commands, train.py and evaluate.py: their flags, and how they end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise import __version__, launch, showing
from equipoise import flags as known_flags
from equipoise.compose import parse, with_grid
from equipoise.config import help_page
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.interrupts import STATUS, Stopped, end_at_next, leave, stoppable
from equipoise.run import composed, evaluate, evaluation_of, execute
from equipoise.sweeping import written_out


def train_main() -> None:
    """`python train.py`."""
    leave(answered(lambda: train(sys.argv[1:])))


def evaluate_main() -> None:
    """`python evaluate.py`."""
    leave(answered(lambda: evaluation(sys.argv[1:])))


def answered(command: Callable[[], int]) -> int:
    """The exit status of a command: 2 with one sentence for the user's errors, 1 if a run fails."""
    try:
        with stoppable():
            return command()
    except Stopped:
        end_at_next()
        print("Interrupted before there was anything to keep", file=sys.stderr)
        return STATUS
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") or "debug=smoke" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunInterrupted as stop:
        end_at_next()
        print(stop, file=sys.stderr)
        return STATUS
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed by the end of the process
        return 0
    except RunFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1


def train(argv: Sequence[str]) -> int:
    """Check what was typed, then let Hydra start the job, or the jobs of a multirun."""
    flags, overrides = known_flags.split(argv)
    if "--help" in flags or "--version" in flags:
        print(help_page.text() if "--help" in flags else version())
        return 0
    if showing.is_of_hydra(flags):
        return showing.show_of_hydra(flags, overrides)
    overrides = known_flags.with_config_dir(flags, overrides)
    flags = [*flags, *multirun_by_mode(overrides)]
    if launch.is_multirun(flags):
        overrides = written_out(with_grid(overrides))
    launch.check(overrides, multirun=launch.is_multirun(flags), surroundings="--cfg" not in flags)
    if "--cfg" in flags:
        return showing.show_config(flags, overrides)
    return launch.start(flags, overrides)


def multirun_by_mode(overrides: Sequence[str]) -> list[str]:
    """The flag that `hydra.mode=MULTIRUN` stands for."""
    typed = [str(o.value()) for o in parse(overrides) if o.key_or_group == "hydra.mode"]
    return ["--multirun"] if typed[-1:] == ["MULTIRUN"] else []


def evaluation(argv: Sequence[str]) -> int:
    """Evaluate a checkpoint."""
    flags, overrides = known_flags.split(argv)
    if "--help" in flags or "--version" in flags:
        print(help_page.EVALUATE if "--help" in flags else version())
        return 0
    overrides = known_flags.with_config_dir(flags, overrides)
    known_flags.check_evaluation(flags, overrides)
    if "--cfg" in flags:
        config = evaluation_of(overrides).config
        return showing.show(config, known_flags.value_of(flags, "--package"), "--resolve" in flags)
    evaluate(*overrides)
    return 0


def version() -> str:
    """The line of --version."""
    return f"equipoise {__version__}"


def told_main(told: Mapping[str, Any]) -> None:
    """One of a run's other processes: do what the first one has told, and end in silence."""
    leave(answered(lambda: take_part(told)))


def take_part(told: Mapping[str, Any]) -> int:
    """The part of one process in a run that another process has decided on.

    An interruption is the end that all processes have agreed on: the first one tells of it.
    """
    directory = Path(told["directory"])
    try:
        if told["purpose"] == "evaluate":
            evaluate(*told["typed"], directory=directory)
        else:
            execute(composed(told["typed"]), directory)
    except RunInterrupted:
        return 0
    return 0

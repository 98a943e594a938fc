"""The two commands, train.py and evaluate.py: their flags, and how they end."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from equipoise import help_page, launch
from equipoise.compose import with_grid
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.interrupts import STATUS, Stopped, stoppable
from equipoise.run import evaluate


def train_main() -> None:
    """`python train.py`."""
    sys.exit(answered(lambda: train(sys.argv[1:])))


def evaluate_main() -> None:
    """`python evaluate.py`."""
    sys.exit(answered(lambda: evaluation(sys.argv[1:])))


def answered(command: Callable[[], int]) -> int:
    """The exit status of a command: 2 with one sentence for the user's errors, 1 if a run fails."""
    try:
        with stoppable():
            return command()
    except Stopped:
        print("Interrupted before there was anything to keep", file=sys.stderr)
        return STATUS
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") or "debug=smoke" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunInterrupted as stop:
        print(stop, file=sys.stderr)
        return launch.INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed by the end of the process
        return 0
    except RunFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1


def train(argv: Sequence[str]) -> int:
    """Check what was typed, then let Hydra start the job, or the jobs of a multirun."""
    flags, overrides = launch.split_flags(argv)
    if {"--help", "-h"} & set(flags):
        print(help_page.text())
        return 0
    if launch.is_multirun(flags):
        overrides = with_grid(overrides)
    launch.check(overrides, multirun=launch.is_multirun(flags), surroundings="--cfg" not in flags)
    if "--cfg" in flags:
        return launch.show_config(argv)
    return launch.start(flags, overrides)


def evaluation(argv: Sequence[str]) -> int:
    """Evaluate a checkpoint."""
    if {"--help", "-h"} & set(argv):
        print(help_page.EVALUATE)
        return 0
    evaluate(*argv)
    return 0

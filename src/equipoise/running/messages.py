"""The messages of a run: a sentence for each refusal, and warnings without adverts."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException

from equipoise.config.own_code import origin
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running import folders

if TYPE_CHECKING:
    from equipoise.running.parts import Run


LONGEST = 300
ADVICE = {
    "backend found": "choose strategy=auto or strategy=cpu",
    "`enable_progress_bar=False`": "add callbacks.progress=null",
    "`enable_checkpointing=False`": "add callbacks.checkpoint_best=null "
    "callbacks.checkpoint_last=null",
    "out of memory": "choose smaller sizes, or another device",
    "can't allocate memory": "choose smaller sizes",
}
"""Remedies for messages of other libraries that name none."""
LOST_PROCESS = re.compile(r"by peer|NCCL (error|communicator)|Gloo .*(timed out|timeout)", re.I)
"""The errors of a run's processes after one of them has died."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""The system's errors where a disk, a quota or a file is full."""


@contextmanager
def refusals(key: str, packages: Collection[str] = ()) -> Iterator[None]:
    """Turn whatever is raised while a part is built into a UserError that names its key.

    Every library has its own exceptions for values that it refuses: Lightning
    MisconfigurationException, torch RuntimeError, W&B UsageError. All of them mean that the
    configuration cannot be built; HYDRA_FULL_ERROR=1 shows where. For an error in one of the user's
    `packages` the line is reported.
    """
    try:
        yield
    except (RunFailed, RunInterrupted):
        raise
    except InstantiationException as error:
        raise _refused(key, error.__cause__ or error, packages) from error
    except Exception as error:
        raise _refused(key, error, packages) from error


def _refused(key: str, error: BaseException, packages: Collection[str]) -> UserError:
    text = located(error, packages)
    return UserError(text if text.startswith(key) else f"{key}: {text}")


@contextmanager
def errors_of_own_code(packages: Collection[str]) -> Iterator[None]:
    """Report an error in one of the user's packages in a sentence, with its line."""
    try:
        yield
    except (UserError, RunFailed, RunInterrupted):
        raise
    except Exception as error:
        if not origin(error, packages):
            raise
        raise UserError(located(error, packages)) from error


def located(error: BaseException, packages: Collection[str]) -> str:
    """An exception's sentence, after its line and class where it comes from the user's packages."""
    where = "" if isinstance(error, UserError) else origin(error, packages)
    kind = f"{type(error).__name__}: " if where and not isinstance(error, KeyError) else ""
    return f"{where}{kind}{sentence(error)}"


def sentence(error: BaseException) -> str:
    """The first sentence or two of an exception's message, on one line."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({str(error).strip() or 'as much as was asked for'})"
    words = " ".join(str(error).split())
    if not words or isinstance(error, KeyError):
        words = f"{type(error).__name__} {words}".strip()
    if len(words) > LONGEST:
        words = words[:LONGEST].rsplit(" ", 1)[0] + " …"
    advice = next((advice for part, advice in ADVICE.items() if part in words), "")
    return f"{words.rstrip('!.')}: {advice}" if advice else words


@contextmanager
def refusals_of_run(built: Run) -> Iterator[None]:
    """Report in a sentence what cannot be set up, or does not fit in memory.

    Anything else that a step raises is an error of the program and keeps its traceback. A run that
    is refused before its first step leaves nothing.
    """
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from equipoise.running.parts import TrainingBegun

    observer = built.find(TrainingBegun)
    try:
        yield
    except (RunFailed, RunInterrupted):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            where = error.filename or built.directory
            raise RunFailed(
                f"{where} could not be written: {error.strerror}; free space there, or choose "
                "another folder with run_dir="
            ) from error
        if built.trainer.world_size > 1 and LOST_PROCESS.search(str(error)):
            raise RunFailed(
                "another process of this run has ended, and the run needs it: if it was ended from "
                "outside, perhaps for lack of memory, resume=auto continues from the last "
                "checkpoint"
            ) from error
        begun = observer is not None and observer.begun
        outside = built.trainer.state.fn == "fit" and not begun
        refused = (UserError, MisconfigurationException, MemoryError, torch.OutOfMemoryError)
        refusal = outside or isinstance(error, refused) or "can't allocate memory" in str(error)
        if refusal and not begun:
            folders.refuse(built.directory)
        own = origin(error, built.own_code.packages)
        if (refusal or own) and not isinstance(error, UserError):
            if isinstance(error, OSError) and error.filename and not own:
                raise UserError(
                    f"{error.filename} cannot be used: {error.strerror}; grant permission there, "
                    "or set another place"
                ) from error
            told = located(error, built.own_code.packages)
            raise UserError(f"the run cannot continue: {told}") from error
        raise


@contextmanager
def opening(directory: Path) -> Iterator[None]:
    """Report in a sentence that a run's folder cannot be written before its first step.

    A folder that was empty is left empty.
    """
    try:
        yield
    except UserError:
        folders.refuse(directory)
        raise
    except OSError as error:
        folders.refuse(directory)
        raise UserError(
            f"{error.filename or directory} cannot be written: {error.strerror or error}; free "
            "space or grant write permission there, or choose another folder with run_dir="
        ) from error


@contextmanager
def failed_after_a_step(built: Run, steps: int) -> Iterator[None]:
    """Turn a refusal after the first step, as in the test, into a failed run: it cost a training.

    The results so far are kept. steps: those of the checkpoint that the run resumed.
    """
    try:
        yield
    except UserError as error:
        if built.trainer.global_step > steps:
            raise RunFailed(str(error)) from error
        raise


def quiet_lightning() -> None:
    """Leave out Lightning's adverts and the advice about workers that our loaders do not need."""
    adverts = ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda")
    for name in (*adverts, "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for name in ("lightning.pytorch.loggers.mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report that a database is new
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    warnings.formatwarning = lambda message, *_, **__: on_whole_words(f"warning: {message}")
    # at the first step nothing is learnt yet; the convergence monitor warns when it matters
    warnings.filterwarnings("ignore", ".*did not reach the tolerance.*once per layer")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None..*")
    warnings.filterwarnings("ignore", ".*recommended to use .self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # for a checkpoint of an earlier revision; our own classes keep the score
    warnings.filterwarnings("ignore", "The dirpath has changed from")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty.*")


def on_whole_words(sentence: str) -> str:
    """A line for stderr, wrapped between words on a terminal."""
    if not sys.stderr.isatty():
        return f"{sentence}\n"
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"

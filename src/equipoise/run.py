"""Run one composed configuration: from the command line, from a checkpoint, or from Python.

Nothing heavy is imported before the configuration has been checked, so that a misspelt word is
answered at once.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import folders, machine
from equipoise.building import (
    build_model,
    build_run,
    check_weights,
    instantiate,
    open_folder,
    restored_model,
    settle_data,
)
from equipoise.checkpoints import read_checkpoint
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.refusals import sentence
from equipoise.resuming import (
    check_resumable,
    goes_on_in,
    keep_earlier_curve,
    settle_wandb_run,
)
from equipoise.surroundings import check_surroundings, data_is_there

if TYPE_CHECKING:
    from torch import nn

    from equipoise.anytime import AnytimeCurve
    from equipoise.compose import Composition
    from equipoise.config.stored import Stored
    from equipoise.training import Run


def run(*overrides: str) -> dict[str, Any]:
    """Do what `python train.py <overrides>` does; returns the dictionary of metrics.json.

    Raises UserError, RunFailed or RunInterrupted with one sentence.
    """
    composition = composed(overrides)
    check_no_folder_of_hydra(overrides)
    with folders.held(run_directory(composition, "train")) as directory:
        return execute(composition, directory)


def composed(typed: Sequence[str]) -> Composition:
    """What train.py makes of `typed`: of a checkpoint's configuration where `ckpt_path` names one.

    Raises UserError.
    """
    from equipoise.compose import Typed, compose

    path = Typed.of(typed).value("ckpt_path")
    if not isinstance(path, str | int):  # of a sweep's list composing says what is wrong
        composition = compose(typed)
        path = composition.config.ckpt_path
        if not path:
            return composition
    from equipoise.checkpoints import read_stored
    from equipoise.config.recompose import recompose

    return recompose(read_stored(str(path)), typed, "train")


def build(*overrides: str) -> nn.Module:
    """The network that `overrides` describe, with the weights that a run of their seed starts from.

    With `ckpt_path` it is the checkpoint's network with its weights, and `overrides` on top. The
    program's own random numbers are left as they are. Raises UserError.
    """
    import torch

    from equipoise.compose import plain
    from equipoise.config.signatures import check_signatures

    composition = composed(overrides)
    config = composition.config
    check_trust(composition)
    if not (config.task.get("classes") or config.task.get("mask_classes")):
        settle_data(config)
    parts = plain(config, resolve=True)
    layer = ("model", "solver", "gradient", "eval_solver", "regularizer", "equilibrium")
    check_signatures({part: parts[part] for part in layer if parts.get(part)})
    with torch.random.fork_rng():
        torch.manual_seed(parts["seed"])
        if not config.ckpt_path:
            return build_model(parts)
        path = Path(config.ckpt_path)
        return restored_model(parts, read_checkpoint(path)["state_dict"], path)


def evaluate(*overrides: str, directory: Path | None = None) -> dict[str, Any]:
    """Do what `python evaluate.py <overrides>` does; returns the dictionary of metrics.json.

    The configuration is the checkpoint's, with `overrides` on top. directory: where another
    process has decided to leave the results. Raises UserError.
    """
    composition = evaluation_of(overrides)
    check_no_folder_of_hydra(overrides)
    if directory is not None:
        return execute_evaluation(composition, directory)
    with folders.held(run_directory(composition, "evaluate")) as directory:
        return execute_evaluation(composition, directory)


def evaluation_of(overrides: Sequence[str]) -> Composition:
    """The configuration of an evaluation: the checkpoint's with `overrides` on top."""
    from equipoise.compose import Typed
    from equipoise.config import checks

    words = Typed.of(overrides)
    path = words.value("ckpt_path")
    if not path:
        raise UserError("a checkpoint is needed: ckpt_path=runs/<...>/checkpoints/best.ckpt")
    from equipoise.checkpoints import read_stored
    from equipoise.config.recompose import recompose

    composition = recompose(read_stored(str(path)), overrides, "evaluate")
    if not any(o.key_or_group.partition(".")[0] == "logger" for o in words.overrides):
        composition.config.logger = {}  # the training's loggers belong to the training
    checks.check_curve_on_model(composition.config, composition.choices)
    return composition


def execute_evaluation(composition: Composition, directory: Path) -> dict[str, Any]:
    """Test a checkpoint by one composition in `directory`."""
    from equipoise.checkpoints import read_stored
    from equipoise.compose import parse

    path = composition.config.ckpt_path
    built = prepared(composition, directory, read_stored(path))
    curve = instantiate_curve(composition)
    open_folder(composition.config, built)
    checkpoint = read_checkpoint(path)
    from equipoise import processes, training

    if {o.key_or_group.split(".")[0] for o in parse(composition.typed)} & {"solver", "gradient"}:
        checkpoint.pop("gradient_phase", None)  # what was typed outranks the schedule
    training.restore(built, checkpoint)
    exit_code = 1
    try:
        telling = processes.telling(built.trainer, "evaluate", composition.typed, directory)
        with refusals_of_run(built), telling:
            metrics = training.evaluate(built, checkpoint, curve)
        exit_code = 0
        _finish(built, metrics)
        return metrics
    finally:
        close_wandb(exit_code)


def instantiate_curve(composition: Composition) -> AnytimeCurve | None:
    """The anytime curve that was asked for."""
    from equipoise.compose import plain

    node = composition.config.get("anytime")
    if not node:
        return None
    curve: AnytimeCurve = instantiate("anytime", plain(node, resolve=True))
    return curve


def execute(composition: Composition, directory: Path) -> dict[str, Any]:
    """Train and test one composition in `directory`, which gets everything that a run leaves."""
    from equipoise.config import checks

    checks.check_curve_in_training(composition.config, composition.choices)
    resume_from = composition.config.ckpt_path
    stored = resumed_from(composition)
    if stored is not None:
        check_resumable(stored, composition.config.trainer)
    settle_wandb_run(composition.config, composition.typed, goes_on_in(directory, resume_from))
    built = prepared(composition, directory, stored)
    open_folder(composition.config, built)
    from equipoise import processes, training

    if stored is not None:
        keep_earlier_curve(built.trainer.loggers, stored, directory)
    if built.trainer.is_global_zero:
        processes.say_global_batch(composition.config, built.trainer)
    exit_code = 1
    try:
        telling = processes.telling(built.trainer, "train", composition.typed, directory)
        steps = 0 if stored is None else stored.steps
        with failed_after_a_step(built, steps), refusals_of_run(built), telling:
            metrics = training.fit_and_test(
                built, resume_from, None if stored is None else stored.steps
            )
        exit_code = 0
        _finish(built, metrics)
        return metrics
    finally:
        close_wandb(exit_code)


@contextmanager
def refusals_of_run(built: Run) -> Iterator[None]:
    """Tell what cannot be set up, or does not fit in memory, in a sentence.

    Anything else that a step raises is an error of the program and keeps its traceback. A run that
    is refused before its first step leaves nothing.
    """
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from equipoise.callbacks.training_begun import TrainingBegun

    observer = built.find(TrainingBegun)
    try:
        yield
    except (RunFailed, RunInterrupted):
        raise
    except Exception as error:
        begun = observer is not None and observer.begun
        outside = built.trainer.state.fn == "fit" and not begun
        refused = (UserError, MisconfigurationException, MemoryError, torch.OutOfMemoryError)
        told = outside or isinstance(error, refused) or "can't allocate memory" in str(error)
        if told and not begun:
            folders.refuse(built.directory)
        if told and not isinstance(error, UserError):
            raise UserError(f"the run cannot go on: {sentence(error)}") from error
        raise


@contextmanager
def failed_after_a_step(built: Run, steps: int) -> Iterator[None]:
    """What is refused after a step, as in the test, has cost a training: that run has failed.

    What it had reached is kept. steps: those of the checkpoint that it goes on from.
    """
    try:
        yield
    except UserError as error:
        if built.trainer.global_step > steps:
            raise RunFailed(str(error)) from error
        raise


def rehearse(composition: Composition) -> None:
    """Check all that a run checks before it starts, down to building every part, and start nothing.

    What the dataset's files tell is filled into the configuration; of a dataset that is not on this
    machine nothing can be built, and the configuration alone is checked. Raises UserError.
    """
    if not data_is_there(composition.config.task):
        return
    typed = composition.config.run_dir
    prepared(composition, Path(typed or "runs"), resumed_from(composition))
    composition.config.run_dir = typed


def resumed_from(composition: Composition) -> Stored | None:
    """The run behind the checkpoint that a composition goes on from, None where it begins anew."""
    from equipoise.checkpoints import read_stored

    return None if composition.trusted is None else read_stored(composition.config.ckpt_path)


def prepared(composition: Composition, directory: Path, stored: Stored | None) -> Run:
    """The parts of a run, after every check that a run makes before it writes anything.

    Raises UserError.
    """
    _prepare(composition, directory)
    built = build_run(composition, directory)
    if stored is not None:
        check_weights(built.task, stored.shapes, stored.path)
    return built


def run_directory(composition: Composition, purpose: str) -> Path:
    """Make the folder of the run: `run_dir` where it was typed, else runs/<task>/<model>/<time>.

    A process that takes part in the run of another makes none. Raises UserError where `run_dir`
    holds other results, or another run is at work in it: only a training may go on in the folder
    of the run that its checkpoint belongs to.
    """
    config, choices = composition.config, composition.choices
    decides = machine.decides(config.trainer)
    if config.run_dir and any(line.startswith("run_dir=") for line in composition.typed):
        named = Path(config.run_dir)
        resumed = config.ckpt_path if purpose == "train" else None
        return folders.claim(named, resumed) if decides else named
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    parent = Path("runs") / choices["task"] / choices["model"]
    name = stamp if purpose == "train" else f"{stamp}_{purpose}"
    return folders.claim_new(parent, name) if decides else parent / name


def check_no_folder_of_hydra(overrides: Sequence[str]) -> None:
    """Raise where Hydra, which runs nothing here, is told a folder."""
    for line in overrides:
        if line.startswith(("hydra.run.", "hydra.sweep.", "hydra.mode=")):
            raise UserError(f"{line}: Hydra runs nothing here; the folder is named by run_dir")


def _prepare(composition: Composition, directory: Path) -> None:
    """Settle the folder, let the dataset be looked at, and check types by the signatures."""
    from equipoise.compose import plain
    from equipoise.config.signatures import check_signatures

    composition.config.run_dir = str(directory)
    check_trust(composition)
    check_surroundings(composition.config)
    settle_data(composition.config)
    check_signatures(plain(composition.config, resolve=True))
    quiet_lightning()


def check_trust(composition: Composition) -> None:
    """Let a configuration out of a checkpoint name no other code than what is trusted."""
    from equipoise.compose import plain
    from equipoise.config.signatures import check_targets

    if composition.trusted is not None:
        check_targets(plain(composition.config), composition.trusted)


def close_wandb(exit_code: int) -> None:
    """End a W&B run, so that the next job of a multirun does not write into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _finish(built: Run, metrics: dict[str, Any]) -> None:
    if built.trainer.is_global_zero:
        from equipoise.summary import print_result

        print_result(metrics, built.directory)


def quiet_lightning() -> None:
    """Leave out Lightning's adverts and the advice about workers that our loaders do not need."""
    import logging

    adverts = ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda")
    for name in (*adverts, "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    warnings.formatwarning = lambda message, *_, **__: on_whole_words(f"warning: {message}")
    # at the first step nothing is learnt yet; the convergence monitor warns where it matters
    warnings.filterwarnings("ignore", ".*did not reach the tolerance.*comes once a layer")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None..*")
    warnings.filterwarnings("ignore", ".*recommended to use .self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # of a checkpoint that an earlier revision has written; our own classes keep the score
    warnings.filterwarnings("ignore", "The dirpath has changed from")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty.*")


def on_whole_words(sentence: str) -> str:
    """A line for stderr, on a terminal broken between words."""
    if not sys.stderr.isatty():
        return f"{sentence}\n"
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"

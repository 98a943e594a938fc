"""Run one composed configuration: from the command line, from a checkpoint, or from Python.

Nothing heavy is imported before the configuration has been checked, so that a misspelt word is
answered at once.
"""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import folders, machine
from equipoise.building import build_model, build_run, instantiate, settle_data
from equipoise.checkpoints import read_checkpoint
from equipoise.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from equipoise.anytime import AnytimeCurve
    from equipoise.compose import Composition
    from equipoise.training import Run


def run(*overrides: str) -> dict[str, Any]:
    """Do what `python train.py <overrides>` does; returns the dictionary of metrics.json.

    Raises UserError, RunFailed or RunInterrupted with one sentence.
    """
    from equipoise.compose import compose

    composition = compose(overrides)
    check_no_folder_of_hydra(overrides)
    with folders.held(run_directory(composition, "train")) as directory:
        return execute(composition, directory)


def build(*overrides: str) -> nn.Module:
    """The network that `overrides` describe, with the weights that it starts from."""
    from equipoise.compose import compose, plain
    from equipoise.schema import check_signatures

    composed = compose(overrides).config
    if not (composed.task.get("classes") or composed.task.get("mask_classes")):
        settle_data(composed)
    config = plain(composed, resolve=True)
    check_signatures(
        {part: config[part] for part in ("model", "solver", "gradient", "regularizer")}
    )
    return build_model(config)


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
    from equipoise import checks
    from equipoise.compose import override_stored, parse

    typed = parse(overrides)
    path = str({o.key_or_group: o.value() for o in typed}.get("ckpt_path") or "")
    if not path:
        raise UserError("a checkpoint is needed: ckpt_path=runs/<...>/checkpoints/best.ckpt")
    checkpoint = read_checkpoint(path)
    composition = override_stored(checkpoint["config"], checkpoint["choices"], overrides)
    if not any(o.key_or_group == "logger" for o in typed):
        composition.config.logger = {}  # the training's loggers belong to the training
    checks.check_curve_on_model(composition.config, composition.choices)
    return composition


def execute_evaluation(composition: Composition, directory: Path) -> dict[str, Any]:
    """Test a checkpoint by one composition in `directory`."""
    from equipoise.compose import parse

    _prepare(composition, directory)
    curve = instantiate_curve(composition)
    checkpoint = read_checkpoint(composition.config.ckpt_path)
    built = build_run(composition, directory)
    from equipoise import processes, training

    typed = parse(composition.typed)
    if {o.key_or_group.split(".")[0] for o in typed} & {"solver", "gradient"}:
        checkpoint.pop("gradient_phase", None)  # what was typed outranks the schedule
    training.restore(built, checkpoint)
    exit_code = 1
    try:
        with processes.telling(built.trainer, "evaluate", composition.typed, directory):
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
    from equipoise import checks

    checks.check_curve_in_training(composition.config, composition.choices)
    resume_from = composition.config.ckpt_path
    if resume_from:
        composition = _resumed(composition, resume_from)
    _prepare(composition, directory)
    built = build_run(composition, directory)
    from equipoise import processes, training

    keep_earlier_curve(built.trainer.loggers, resume_from)
    if built.trainer.is_global_zero:
        processes.say_global_batch(composition.config, built.trainer)
    exit_code = 1
    try:
        with processes.telling(built.trainer, "train", composition.typed, directory):
            metrics = training.fit_and_test(built, resume_from)
        exit_code = 0
        _finish(built, metrics)
        return metrics
    finally:
        close_wandb(exit_code)


def keep_earlier_curve(loggers: Sequence[Any], resume_from: str | None) -> None:
    """Hand the rows of an interrupted run's metrics.csv to the logger that would replace the file.

    Only where the run goes on in its own folder.
    """
    from lightning.pytorch.loggers import CSVLogger

    for logger in loggers:
        file = Path(logger.log_dir) / "metrics.csv" if isinstance(logger, CSVLogger) else None
        if resume_from and file is not None and file.is_file():
            with file.open(newline="") as lines:
                rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
            logger.experiment.metrics.extend(rows)


def _resumed(composition: Composition, path: str) -> Composition:
    """The stored configuration with what was typed on top."""
    from equipoise.compose import override_stored

    checkpoint = read_checkpoint(path)
    return override_stored(checkpoint["config"], checkpoint["choices"], composition.typed)


def run_directory(composition: Composition, purpose: str) -> Path:
    """Make the folder of the run: `run_dir` where it was typed, else runs/<task>/<model>/<time>.

    A process that takes part in the run of another makes none. Raises UserError where `run_dir`
    holds other results, or another run is at work in it: only the run that a checkpoint belongs to
    may be gone on with.
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
    from equipoise.schema import check_signatures

    composition.config.run_dir = str(directory)
    settle_data(composition.config)
    check_signatures(plain(composition.config, resolve=True))
    quiet_lightning()


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
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None..*")
    warnings.filterwarnings("ignore", ".*recommended to use .self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty.*")

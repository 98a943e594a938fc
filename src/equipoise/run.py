"""Run one composed configuration: from the command line, from a checkpoint, or from Python.

Nothing heavy is imported before the configuration has been checked, so that a misspelt word is
answered at once.
"""

from __future__ import annotations

import csv
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    return execute(composition, run_directory(composition, "train"))


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


def evaluate(*overrides: str) -> dict[str, Any]:
    """Do what `python evaluate.py <overrides>` does; returns the dictionary of metrics.json.

    The configuration is the checkpoint's, with `overrides` on top. Raises UserError.
    """
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
    directory = run_directory(composition, "evaluate")
    _prepare(composition, directory)
    curve = instantiate_curve(composition)
    built = build_run(composition, directory)
    from equipoise import training

    if {o.key_or_group.split(".")[0] for o in typed} & {"solver", "gradient"}:
        checkpoint.pop("gradient_phase", None)  # what was typed outranks the schedule
    training.restore(built, checkpoint)
    exit_code = 1
    try:
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
    from equipoise import training

    keep_earlier_curve(built.trainer.loggers, resume_from)
    exit_code = 1
    try:
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
    """The folder of the run: `run_dir` where it was typed, else runs/<task>/<model>/<time>.

    Raises UserError where `run_dir` holds other results: only the run that a checkpoint belongs to
    may be gone on with.
    """
    config, choices = composition.config, composition.choices
    typed = any(line.startswith("run_dir=") for line in composition.typed)
    if typed and config.run_dir:
        directory = Path(config.run_dir)
        checkpoint = Path(config.ckpt_path or ".").resolve()
        inside = directory.resolve() in checkpoint.parents
        if directory.is_dir() and any(directory.iterdir()) and not inside:
            raise UserError(f"run_dir={directory} is not empty; name a new folder")
        return directory
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    suffix = "" if purpose == "train" else f"_{purpose}"
    parent = Path("runs") / choices["task"] / choices["model"]
    names = [f"{stamp}{suffix}", *(f"{stamp}{suffix}_{n}" for n in range(2, 100))]
    return next(parent / name for name in names if not (parent / name).exists())


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

    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    warnings.formatwarning = lambda message, *_, **__: on_whole_words(f"warning: {message}")
    # at the first step nothing is learnt yet; the convergence monitor warns where it matters
    warnings.filterwarnings("ignore", ".*did not reach the tolerance.*comes once a layer")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*configure_optimizers. returned .None..*")
    warnings.filterwarnings("ignore", ".*recommended to use .self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty.*")


def on_whole_words(sentence: str) -> str:
    """A line for stderr, on a terminal broken between words."""
    if not sys.stderr.isatty():
        return f"{sentence}\n"
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"

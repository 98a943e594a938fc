"""Run one composed configuration: from the command line, from a checkpoint, or from Python.

Nothing heavy is imported before the configuration has been checked, so that a typing error is
reported within a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.config import changes, checks, machine
from equipoise.config.about import about
from equipoise.config.compose import Composition, compose, parse, plain
from equipoise.config.overrides import CommandLine
from equipoise.config.own_code import own_packages
from equipoise.config.stored import Stored, read_checkpoint, read_stored
from equipoise.errors import RunInterrupted, UserError
from equipoise.running import folders
from equipoise.running.folders import check_no_folder_of_hydra, run_directory
from equipoise.running.loggers import assign_wandb_run, keep_earlier_curve, name_in_sweep
from equipoise.running.messages import (
    errors_of_own_code,
    failed_after_a_step,
    opening,
    quiet_lightning,
    refusals_of_run,
)
from equipoise.running.resumption import Beginning, beginning, clear, record, reopen
from equipoise.running.surroundings import (
    check_resumable,
    check_surroundings,
    data_is_there,
    initial_file,
    resumes_in_place,
)

if TYPE_CHECKING:
    from torch import nn

    from equipoise.running.anytime import AnytimeCurve
    from equipoise.running.parts import Run


@contextmanager
def wandb_run() -> Iterator[None]:
    """End the W&B run that the block began, with its exit status, however the block ends."""
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        close_wandb(exit_code)


def close_wandb(exit_code: int) -> None:
    """End a W&B run, so that the next job of a multirun does not write into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def run(*overrides: str) -> dict[str, Any]:
    """Do what `python train.py <overrides>` does; returns the dictionary of metrics.json.

    Raises UserError, RunFailed or RunInterrupted with one sentence.
    """
    check_no_folder_of_hydra(overrides)
    start = beginning(overrides)
    if start.completed is not None:
        return completed(start)
    composition = replace(composed(start.overrides), command=list(overrides))
    leftovers = start.leftovers
    with folders.held(run_directory(composition, "train", leftovers=leftovers)) as directory:
        say_beginning(start, composition, directory)
        return execute(composition, directory)


def completed(start: Beginning) -> dict[str, Any]:
    """Show the results of a run that has nothing left to do; returns its metrics.json."""
    from equipoise.report.summary import print_result

    metrics, place = start.completed, start.standing
    assert metrics is not None
    assert place is not None
    if machine.rank() == 0:
        print(start.said)
        print_result(metrics, place.folder)
    return metrics


def say_beginning(start: Beginning, composition: Composition, directory: Path) -> None:
    """If a run resumes automatically, say so, and clear away a start without a checkpoint."""
    if start.said and machine.decides(composition.config.trainer):
        print(start.said)
        clear(directory, start.leftovers)


def checked(overrides: Sequence[str], surroundings: bool = True) -> Composition:
    """The configuration of a training, after every check that needs no heavy imports.

    surroundings: whether the data and accounts of a new run must be present. Raises
    UserError.
    """
    composition = composed(overrides)
    checks.check_curve_in_training(composition.config, composition.choices)
    if surroundings and not composition.config.ckpt_path:
        check_surroundings(composition.config)
        if composition.config.init_from.path is not None:
            initial_file(composition.config.init_from.path)
    return composition


def composed(overrides: Sequence[str]) -> Composition:
    """The composition of train.py's overrides; with `ckpt_path`, on that checkpoint's settings.

    Raises UserError.
    """
    from equipoise.config.recompose import recompose, with_folders_of_checkpoint

    overrides = with_folders_of_checkpoint(overrides)
    path = CommandLine.of(overrides).value("ckpt_path")
    if not isinstance(path, str | int):  # for a sweep's list, composing says what is wrong
        composition = compose(overrides)
        path = composition.config.ckpt_path
        if not path:
            return composition
    return recompose(read_stored(str(path)), overrides, "train")


def build(*overrides: str) -> nn.Module:
    """The network that `overrides` describe, with the initial weights of a run with their seed.

    With `ckpt_path` it is the checkpoint's network with its weights, and `overrides` on top. With
    `compile=cell`, its f runs as compiled code; `compile=graph` applies only to the training steps
    of a run (in your own loop use `equipoise.equilibrium.cuda_graph.graphed`). The program's own
    random state does not change. Raises UserError.
    """
    composition = composed(overrides)
    config = composition.config
    check_trust(composition)
    import torch

    from equipoise.config.signatures import check_signatures
    from equipoise.running.build import (
        build_model,
        complete_from_data,
        instantiate,
        restored_model,
    )
    from equipoise.running.compilation import arrange, compile_cells
    from equipoise.running.initial_weights import start_from

    if any(config.task.get(key) is None for key in about(config.task, "from_data", ())):
        complete_from_data(composition)
    parts = plain(config, resolve=True)
    layer = ("model", "solver", "gradient", "eval_solver", "regularizer", "equilibrium")
    check_signatures({part: parts[part] for part in layer if parts.get(part)})
    with torch.random.fork_rng():
        torch.manual_seed(parts["seed"])
        if composition.trusted is None:
            model = build_model(parts)
            start_from(parts, model, instantiate("task", parts["task"]), build_model)
        elif not about(parts["model"], "weights", True):
            return build_model(parts)
        else:
            path = Path(config.ckpt_path)
            model = restored_model(parts, read_checkpoint(path)["state_dict"], path)
    arrange(model, parts.get("memory_format"))
    if "cell" in (parts.get("compile") or ""):
        compile_cells(model)
    return model


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
    from equipoise.config.recompose import recompose, with_folders_of_checkpoint

    words = CommandLine.of(with_folders_of_checkpoint(overrides))
    path = words.value("ckpt_path")
    if not path:
        raise UserError("a checkpoint is needed: ckpt_path=runs/<...>/checkpoints/best.ckpt")
    composition = recompose(read_stored(str(path)), overrides, "evaluate")
    if not any(o.key_or_group.partition(".")[0] == "logger" for o in words.overrides):
        composition.config.logger = {}  # the training's loggers belong to the training
    checks.check_curve_on_model(composition.config, composition.choices)
    return composition


@wandb_run()
def execute_evaluation(composition: Composition, directory: Path) -> dict[str, Any]:
    """Test a checkpoint with one composition in `directory`."""
    path = composition.config.ckpt_path
    built = prepared(composition, directory, read_stored(path))
    curve = instantiate_curve(composition)
    checkpoint = read_checkpoint(path)
    from equipoise.running import run as training
    from equipoise.running.build import open_folder

    with opening(directory):
        open_folder(composition.config, built)
    if {o.key_or_group.split(".")[0] for o in parse(composition.overrides)} & {
        "solver",
        "gradient",
    }:
        checkpoint.pop("gradient_phase", None)  # the command line takes precedence
    training.restore(built, checkpoint)
    with at_work(built, "evaluate", composition):
        metrics = training.evaluate(built, checkpoint, curve)
    show_result(built, metrics)
    return metrics


def instantiate_curve(composition: Composition) -> AnytimeCurve | None:
    """The requested anytime curve."""
    node = composition.config.get("anytime")
    if not node:
        return None
    from equipoise.running.build import instantiate

    curve: AnytimeCurve = instantiate("anytime", plain(node, resolve=True))
    return curve


@wandb_run()
def execute(composition: Composition, directory: Path) -> dict[str, Any]:
    """Train and test one composition in `directory`, which receives all files of the run."""
    config = composition.config
    checks.check_curve_in_training(config, composition.choices)
    stored = resumed_from(composition)
    if stored is not None:
        check_resumable(stored, config.trainer)
    assign_wandb_run(config, composition.overrides, resumes_in_place(directory, config.ckpt_path))
    name_in_sweep(config, composition.overrides, directory)
    built = prepared(composition, directory, stored)
    from equipoise.running import processes
    from equipoise.running import run as training
    from equipoise.running.build import open_folder
    from equipoise.running.initial_weights import lines

    in_place = resumes_in_place(directory, config.ckpt_path)
    decides = machine.decides(config.trainer)
    with opening(directory):
        if decides and in_place:
            reopen(directory)
            if stored is not None:
                keep_earlier_curve(built.trainer.loggers, stored)
        open_folder(config, built)
        if decides:
            record(composition, directory)
    if built.trainer.is_global_zero:
        processes.say_global_batch(config, built.trainer)
        for line in lines(built.init_from):
            print(line)
        say_changes(stored, composition)
    resumed_at = None if stored is None else stored.steps
    begun_at = resumed_at or 0
    with failed_after_a_step(built, begun_at), at_work(built, "train", composition, begun_at):
        metrics = training.fit_and_test(built, config.ckpt_path, resumed_at)
    show_result(built, metrics)
    return metrics


def say_changes(stored: Stored | None, composition: Composition) -> None:
    """Print which settings a resumed run has changed, and their earlier values."""
    if stored is not None and (told := changes.described(stored, composition)):
        print(f"resumes at step {stored.steps} with {told}")


@contextmanager
def at_work(built: Run, purpose: str, composition: Composition, step: int = 0) -> Iterator[None]:
    """Around a run: its other processes, its refusals, and the record of its environment.

    step: the one that it resumes from.
    """
    from equipoise.running import processes
    from equipoise.running.environment import note_start
    from equipoise.running.origin import origin

    built.origin = origin(purpose, composition.typed)
    if machine.decides(composition.config.trainer):
        start = {"purpose": purpose, "words": composition.typed, "step": step,
                 "processes": built.trainer.world_size}  # fmt: skip
        note_start(built.directory, plain(composition.config, resolve=True), built.origin, start)
    with (
        refusals_of_run(built),
        processes.telling(built.trainer, purpose, composition.overrides, built.directory),
    ):
        yield


def take_part(job: Mapping[str, Any]) -> int:
    """The part of one process in a run that another process has decided on; returns status 0.

    job: purpose, overrides and directory, as `processes.telling` passes them on. All processes
    agree to end on an interruption, which only the first one reports.
    """
    directory = Path(job["directory"])
    try:
        if job["purpose"] == "evaluate":
            evaluate(*job["overrides"], directory=directory)
        else:
            execute(composed(job["overrides"]), directory)
    except RunInterrupted:
        return 0
    return 0


def rehearse(composition: Composition) -> None:
    """Make all checks of a run, down to building every part, without starting it.

    Values from the dataset's files are filled into the configuration; if the dataset is not on this
    machine, nothing can be built, and only the configuration is checked. Raises UserError.
    """
    if not data_is_there(composition.config.task):
        return
    run_dir = composition.config.run_dir
    prepared(composition, Path(run_dir or "runs"), resumed_from(composition))
    composition.config.run_dir = run_dir


def resumed_from(composition: Composition) -> Stored | None:
    """The run behind the checkpoint that a composition resumes; None for a new run."""
    return None if composition.trusted is None else read_stored(composition.config.ckpt_path)


def prepared(composition: Composition, directory: Path, stored: Stored | None) -> Run:
    """The parts of a run, after every check that a run makes before it writes anything.

    Raises UserError.
    """
    with errors_of_own_code(own_packages(plain(composition.config))):
        _prepare(composition, directory)
        from equipoise.running.build import build_run, check_weights

        built = build_run(composition, directory)
    if stored is not None:
        shapes: Mapping[str, tuple[int, ...]] = stored.shapes
        if about(composition.config.task, "of_checkpoint", False):  # it takes only the network
            shapes = {n: s for n, s in shapes.items() if n.startswith("model.")}
        check_weights(built.task, shapes, stored.path)
    return built


def _prepare(composition: Composition, directory: Path) -> None:
    """Fill in the folder and values from the dataset's files, then check types by signatures."""
    from equipoise.config.signatures import check_signatures

    quiet_lightning()
    composition.config.run_dir = str(directory)
    check_trust(composition)
    check_surroundings(composition.config)
    from equipoise.running.build import complete_from_data

    complete_from_data(composition)
    check_signatures(plain(composition.config, resolve=True))


def check_trust(composition: Composition) -> None:
    """Refuse a checkpoint's configuration that names untrusted code, or a place to write to
    outside the run's folder."""
    if composition.trusted is not None:
        from equipoise.config.signatures import check_targets

        config = plain(composition.config)
        check_targets(config, composition.trusted)
        if machine.decides(composition.config.trainer):  # others do not know what was typed
            changes.check_places(config, read_stored(config["ckpt_path"]), composition.typed)


def show_result(built: Run, metrics: dict[str, Any]) -> None:
    """Print the results of a run, in the process that prints to the user."""
    if built.trainer.is_global_zero:
        from equipoise.report.summary import print_result

        print_result(metrics, built.directory)

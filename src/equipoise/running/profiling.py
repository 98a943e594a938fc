"""Carry out the first steps of a run, and tell where their time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.config.compose import Composition
from equipoise.errors import UserError
from equipoise.running.api import prepared, resumed_from, wandb_run
from equipoise.running.messages import refusals_of_run

if TYPE_CHECKING:
    from equipoise.report.step_parts import StepTable


@wandb_run()
def profile(composition: Composition, directory: Path, steps: int, warm_up: int) -> StepTable:
    """The parts of `steps` training steps, after `warm_up` others, of what a composition trains.

    The run is the one that train.py would start, without its validations; it ends after twice as
    many steps, or where it would end earlier. The table and its picture are written into
    `directory`. Raises UserError where nothing can be measured.
    """
    built = prepared(composition, directory, resumed_from(composition))
    from equipoise.callbacks.step_profiler import StepProfiler
    from equipoise.report.step_parts import StepTable
    from equipoise.running.build import open_folder

    if built.trainer.world_size > 1:
        raise UserError(
            f"profile times one process, and this run has {built.trainer.world_size}: add "
            "trainer.devices=1"
        )
    profiler = StepProfiler(built.trainer, steps, warm_up)
    profiler.install()
    open_folder(composition.config, built)
    with refusals_of_run(built):
        built.trainer.fit(
            built.task, datamodule=built.data, ckpt_path=composition.config.ckpt_path,
            weights_only=True,
        )  # fmt: skip
    if not profiler.times.timed or not profiler.times.plain:
        raise UserError(
            f"the run ended after {built.trainer.global_step} steps, before any could be timed: "
            f"lower warm_up={warm_up}, or raise trainer.max_epochs"
        )
    table = StepTable.of(profiler.times)
    table.write(directory)
    return table

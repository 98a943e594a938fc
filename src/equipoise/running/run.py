"""Run the built parts: fit, test with the best weights, and collect the results.

Everything here works on objects that `api.py` has built.
"""

from __future__ import annotations

import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from equipoise.callbacks import StepProfiler
from equipoise.callbacks.progress import early_end
from equipoise.config.stored import finished_epochs, read_checkpoint
from equipoise.equilibrium import NotConvergedError
from equipoise.equilibrium.cuda_graph import CannotRecordError
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.report.step_parts import StepTimes
from equipoise.running.anytime import AnytimeCurve, trace_anytime
from equipoise.running.checkpoints import load_weights, saved
from equipoise.running.interrupts import Stopped, finishing, stoppable
from equipoise.running.parts import Restoring, Run, Saving
from equipoise.running.requeue import requeues
from equipoise.running.results import Results, write_results


def fit_and_test(
    run: Run, resume_from: str | None, resumed_at: int | None = None
) -> dict[str, Any]:
    """Train (from a checkpoint where one is given), test the best weights, write metrics.json.

    resumed_at: the step of that checkpoint, which a run in its own folder soon replaces. Raises
    what stopped the run.
    """
    results = Results()
    with recorded(run, results, lambda: interruption(run, results)) as metrics:
        try:
            run.trainer.fit(run.task, datamodule=run.data, ckpt_path=resume_from, weights_only=True)
            results.details["ended_by"] = ended_by(run.trainer)
        finally:
            results.note_training(run)
        if results.steps == resumed_at:
            warnings.warn(
                f"nothing was left to train after step {results.steps}: to train for longer, "
                "set a larger trainer.max_epochs or trainer.max_steps",
                stacklevel=2,
            )
            keep_as_last(run.trainer, Path(str(resume_from)))
        if (best := best_path(run.trainer)) is not None and (content := readable(best)) is not None:
            restore(run, content)
            results.details["tested_checkpoint"] = best.name
        test(run, results)
    return metrics


def evaluate(
    run: Run, checkpoint: dict[str, Any], curve: AnytimeCurve | None = None
) -> dict[str, Any]:
    """Test the weights of a checkpoint, then every budget of the curve, and write metrics.json.

    Raises RunInterrupted on Ctrl-C; what was measured before it is kept.
    """
    results = Results(epochs=finished_epochs(checkpoint), steps=int(checkpoint["global_step"]))
    sentence = f"Interrupted; what was measured is in {run.directory}"
    with recorded(run, results, lambda: sentence) as metrics:
        test(run, results)
        if curve is not None:
            trace_anytime(run, curve, results)
    return metrics


def time_steps(run: Run, steps: int, warm_up: int, resume_from: str | None) -> StepTimes:
    """The times of `steps` training steps after `warm_up` others, and of as many plain ones.

    The training is the run's own, without validations, and ends after those steps or at its own
    end, if that is earlier. Raises UserError where nothing could be timed.
    """
    if run.trainer.world_size > 1:
        raise UserError(
            f"profile times one process, and this run has {run.trainer.world_size}: add "
            "trainer.devices=1"
        )
    profiler = StepProfiler(run.trainer, steps, warm_up)
    profiler.install()
    run.trainer.fit(run.task, datamodule=run.data, ckpt_path=resume_from, weights_only=True)
    if not profiler.times.timed or not profiler.times.plain:
        raise UserError(
            f"the run ended after {run.trainer.global_step} steps, before any could be timed: "
            f"lower warm_up={warm_up}, or raise trainer.max_epochs"
        )
    return profiler.times


@contextmanager
def recorded(
    run: Run, results: Results, interruption: Callable[[], str]
) -> Iterator[dict[str, Any]]:
    """Write metrics.json however the block ends; yields the dictionary that it will contain.

    Its status is completed, interrupted or failed; a signal waits until it is written.
    interruption: the message for a block that a signal ended. Raises what stopped the block.
    """
    status, metrics = "failed", dict[str, Any]()
    try:
        with stoppable():
            yield metrics
        status = "completed"
    except RunInterrupted as stop:
        status = "interrupted"
        stop.requeue = requeues(run.trainer, stop.number)
        raise
    except (Stopped, SystemExit) as stop:  # the latter is Lightning's answer to KeyboardInterrupt
        status = "interrupted"
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        again = requeues(run.trainer, number)
        raise RunInterrupted(interruption(), number, again) from stop
    except NotConvergedError as error:
        raise RunFailed(f"{error}; equilibrium.on_failure=warn continues anyway") from error
    except CannotRecordError as error:
        raise RunFailed(f"{error}; leave compile=graph out") from error
    finally:
        try:
            with finishing():
                metrics |= results.as_metrics(run, status)
                if run.trainer.is_global_zero:
                    write_results(run, metrics)
        except Stopped as stop:
            file = run.directory / "metrics.json"
            raise RunInterrupted(f"Interrupted; the results are in {file}", stop.number) from stop


def ended_by(trainer: pl.Trainer) -> str:
    """What ended a training that was not stopped: max_time, early_stopping, steps or epochs."""
    if trainer.should_stop:
        return early_end(trainer) or "a callback"
    return "steps" if 0 <= trainer.max_steps <= trainer.global_step else "epochs"


def interruption(run: Run, results: Results) -> str:
    """The sentence for a run that was stopped at once; names a checkpoint if there is one."""
    saved = next((c.last_checkpoint for c in run.callbacks if isinstance(c, Saving)), None)
    if "ended_by" in results.details:
        where = f"Interrupted during the test, after all {results.steps} training steps"
        advice = "test it with evaluate.py ckpt_path="
    else:
        where = f"Interrupted immediately, after step {results.steps}"
        advice = "continue from the last saved checkpoint with ckpt_path="
    return (
        f"{where}; {advice}{saved}" if saved and saved.is_file() else f"{where}; nothing was saved"
    )


def test(run: Run, results: Results) -> None:
    """One pass over the test split."""
    run.trainer.test(run.task, datamodule=run.data, verbose=False)
    results.note_test(run)


def restore(run: Run, checkpoint: Mapping[str, Any]) -> None:
    """Load the weights of a checkpoint, and put the layers into the state they were trained in."""
    load_weights(run.task, checkpoint["state_dict"])
    for callback in run.callbacks:
        if isinstance(callback, Restoring):
            callback.restore(run.task, checkpoint, run.config)


def best_path(trainer: pl.Trainer) -> Path | None:
    """Where this run wrote best.ckpt; a resumed run that ends at once has written none."""
    paths = [Path(str(getattr(c, "best_model_path", ""))) for c in trainer.checkpoint_callbacks]
    return next((path for path in paths if path.name == "best.ckpt"), None)


def readable(best: Path) -> dict[str, Any] | None:
    """The content of the best checkpoint; None, with a warning, if others have damaged it."""
    fault = "is not there any more"
    if best.is_file():
        try:
            return read_checkpoint(best)
        except UserError:
            fault = "cannot be read"
    text = f"{best} {fault}: the weights after the last step are tested"
    warnings.warn(text, stacklevel=3)
    return None


def keep_as_last(trainer: pl.Trainer, resumed: Path) -> None:
    """Copy the checkpoint after the last step to last.ckpt, if that is damaged or missing.

    A run that ended between its best.ckpt and its last.ckpt resumes from the former, with
    nothing left to train after which it would save. Raises CheckpointNotSaved.
    """
    folders = [
        Path(str(getattr(callback, "dirpath", "")))
        for callback in trainer.checkpoint_callbacks
        if getattr(callback, "filename", "") == "last"
    ]
    if not trainer.is_global_zero or not folders or not resumed.is_file():
        return
    last = folders[0] / "last.ckpt"
    try:
        read_checkpoint(last)
    except UserError:
        with saved(last) as file, resumed.open("rb") as source:
            shutil.copyfileobj(source, file)

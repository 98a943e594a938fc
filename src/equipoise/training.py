"""Run the built parts: fit, test with the best weights, and collect what was reached.

Everything here works on objects; where they came from is `run.py`'s affair.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, Timer

from equipoise import anytime_report, results
from equipoise.anytime import AnytimeCurve, Point
from equipoise.callbacks import (
    ConvergenceMonitor,
    GracefulInterrupt,
    GradientFidelity,
    GradientSchedule,
    RunReport,
    TrainingCurve,
)
from equipoise.callbacks.observers import every_callback
from equipoise.callbacks.training_position import position
from equipoise.checkpoints import read_checkpoint
from equipoise.config.stored import finished_epochs
from equipoise.equilibrium import NotConvergedError
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.interrupts import Stopped, stoppable


@runtime_checkable
class Detailed(Protocol):
    """A task that has more to tell about its last test than its logged metrics."""

    def details(self) -> dict[str, Any]:
        """Per-class values and the like, for `details` in metrics.json."""
        ...


CallbackType = TypeVar("CallbackType", bound=pl.Callback)


@dataclass
class Run:
    """One run: its parts, its folder, and the names that metrics.json shall show."""

    data: pl.LightningDataModule
    task: pl.LightningModule
    trainer: pl.Trainer
    directory: Path
    choices: dict[str, str]
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def find(self, kind: type[CallbackType]) -> CallbackType | None:
        """The first callback of a kind."""
        return next((c for c in every_callback(self.trainer) if isinstance(c, kind)), None)


def fit_and_test(
    run: Run, resume_from: str | None, resumed_at: int | None = None
) -> dict[str, Any]:
    """Train (from a checkpoint where one is given), test the best weights, write metrics.json.

    resumed_at: the step of that checkpoint, which a run in its own folder soon replaces.
    Whatever ends the run, metrics.json says so: status completed, interrupted or failed. Raises
    what stopped it.
    """
    reached = Reached()
    status = "failed"
    try:
        with stoppable():
            fit(run, resume_from, reached)
            if reached.steps == resumed_at:
                warnings.warn(
                    f"nothing was left to train after step {reached.steps}: to go on for longer, "
                    "type a larger trainer.max_epochs or trainer.max_steps",
                    stacklevel=2,
                )
            test_best(run, reached)
        status = "completed"
    except RunInterrupted:
        status = "interrupted"
        raise
    except (Stopped, SystemExit) as stop:  # the latter is Lightning's answer to KeyboardInterrupt
        status = "interrupted"
        raise RunInterrupted(how_far(run, reached)) from stop
    except NotConvergedError as error:
        raise RunFailed(f"{error}; equilibrium.on_failure=warn goes on all the same") from error
    finally:
        metrics = reached.as_metrics(run, status)
        if run.trainer.is_global_zero:
            write_results(run, metrics)
    return metrics


def fit(run: Run, resume_from: str | None, reached: Reached) -> None:
    """Train, and note what was reached, however that ends."""
    try:
        run.trainer.fit(run.task, datamodule=run.data, ckpt_path=resume_from, weights_only=True)
        reached.details["ended_by"] = ended_by(run.trainer)
    finally:
        reached.note_training(run)


def test_best(run: Run, reached: Reached) -> None:
    """Test the best weights, or the present ones where none were kept."""
    tested = best_checkpoint(run)
    if tested is not None:
        restore(run, read_checkpoint(tested))
        reached.details["tested_checkpoint"] = tested.name
    test(run, reached)


def ended_by(trainer: pl.Trainer) -> str:
    """What ended a training that went to its end: max_time, early_stopping, steps or epochs."""
    callbacks = every_callback(trainer)
    if trainer.should_stop:
        timers = (c.time_remaining() for c in callbacks if isinstance(c, Timer))
        if any(left is not None and left <= 0 for left in timers):
            return "max_time"
        if any(isinstance(callback, EarlyStopping) for callback in callbacks):
            return "early_stopping"
        return "a callback"
    return "steps" if 0 <= trainer.max_steps <= trainer.global_step else "epochs"


def how_far(run: Run, reached: Reached) -> str:
    """The sentence of a run that was stopped at once, with a checkpoint only where there is one."""
    graceful = run.find(GracefulInterrupt)
    last = None if graceful is None else graceful.path
    if "ended_by" in reached.details:
        said = f"Interrupted in the test, after all {reached.steps} steps of the training"
        ending = "test it with evaluate.py ckpt_path="
    else:
        said = f"Interrupted at once, after step {reached.steps}"
        ending = "continue from the last one that was saved with ckpt_path="
    return f"{said}; {ending}{last}" if last and last.is_file() else f"{said}; none was saved"


def evaluate(
    run: Run, checkpoint: dict[str, Any], curve: AnytimeCurve | None = None
) -> dict[str, Any]:
    """Test the weights of a checkpoint, then every budget of the curve, and write metrics.json.

    Raises RunInterrupted on Ctrl-C; what was measured before it is kept.
    """
    reached = Reached(epochs=finished_epochs(checkpoint), steps=int(checkpoint["global_step"]))
    status = "failed"
    try:
        with stoppable():
            test(run, reached)
            if curve is not None:
                trace_anytime(run, curve, reached)
        status = "completed"
    except (Stopped, SystemExit) as stop:  # the latter is Lightning's answer to KeyboardInterrupt
        status = "interrupted"
        raise RunInterrupted(f"Interrupted; what was measured is in {run.directory}") from stop
    finally:
        metrics = reached.as_metrics(run, status)
        if run.trainer.is_global_zero:
            write_results(run, metrics)
    return metrics


def trace_anytime(run: Run, curve: AnytimeCurve, reached: Reached) -> None:
    """Measure the anytime curve; anytime.csv grows with every point, a line is printed for each."""
    metric = anytime_report.shown_metric(reached.test, monitored(run))
    points: list[Point] = []
    try:
        for point in curve.points(run.trainer, run.task, run.data):
            points.append(point)
            reached.details["anytime"] = [known.row() for known in points]
            if run.trainer.is_global_zero:
                print(anytime_report.line(point, metric, len(points), len(curve)), flush=True)
                anytime_report.write_table(points, run.directory / "anytime.csv")
    finally:
        if points and run.trainer.is_global_zero:
            show_anytime(run, points, metric)


def show_anytime(run: Run, points: Sequence[Point], metric: str) -> None:
    """Draw the curve, and have the report's page show it."""
    report = run.find(RunReport)
    folder = run.directory / "report" if report is None else report.dirpath
    layer = next(iter(equilibrium_layers(run.task).values()))
    picture = anytime_report.draw(points, metric, (layer.eval_solver or layer.solver).stop, folder)
    if report is not None:
        report.add(picture)


def monitored(run: Run) -> str | None:
    """What the run's checkpoints watch, such as val/accuracy."""
    names = [getattr(callback, "monitor", None) for callback in run.trainer.checkpoint_callbacks]
    return next((name for name in names if name), None)


def test(run: Run, reached: Reached) -> None:
    """One pass over the test split."""
    run.trainer.test(run.task, datamodule=run.data, verbose=False)
    reached.note_test(run)


def restore(run: Run, checkpoint: dict[str, Any]) -> None:
    """The weights of a checkpoint, and the phase of the gradient schedule they were saved in."""
    load_weights(run.task, checkpoint["state_dict"])
    schedule = run.find(GradientSchedule)
    if schedule is not None:
        schedule.restore(run.task, checkpoint | phase_by_step(run, schedule, checkpoint))


def phase_by_step(
    run: Run, schedule: GradientSchedule, checkpoint: dict[str, Any]
) -> dict[str, Any]:
    """The phase that a checkpoint's step lies in, where it was saved under other phases.

    So best.ckpt may be, of a run that was resumed with a schedule of its own.
    """
    if phases_of(run.config) == phases_of(checkpoint["config"]):
        return {}
    return {"gradient_phase": schedule.phase_at(checkpoint["global_step"], schedule.total)}


def phases_of(config: dict[str, Any]) -> Any:
    """The configured phases of the gradient schedule."""
    return (config["callbacks"].get("gradient_schedule") or {}).get("phases") or []


def load_weights(task: pl.LightningModule, state: dict[str, Any]) -> None:
    """Load all weights and buffers; what only training draws from may differ.

    Counters of random numbers (`_extra_state`) belong to the jitter and the regulariser, which an
    evaluation may have been given or spared. Raises UserError where the weights are those of
    another network.
    """
    own = task.state_dict()
    resized = [n for n, w in own.items() if n in state and _shape(w) != _shape(state[n])]
    if resized:
        raise UserError(
            f"the weights of the checkpoint do not fit this network, first at {resized[0]} "
            f"({_shape(state[resized[0]])} there, {_shape(own[resized[0]])} here): leave out the "
            "task, model and sizes that were typed, or give those of the run that wrote it"
        )
    found = task.load_state_dict(state, strict=False)
    unfit = [*found.missing_keys, *found.unexpected_keys]
    if wrong := [name for name in unfit if not name.endswith("_extra_state")]:
        raise UserError(
            f"the checkpoint is one of another network, which differs at {', '.join(wrong[:3])}: "
            "leave out the task and model that were typed, or give those of the run that wrote it"
        )


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if hasattr(value, "shape") else None


def best_checkpoint(run: Run) -> Path | None:
    """best.ckpt where this run wrote one; a resumed run that ended at once has not."""
    checkpoints = run.trainer.checkpoint_callbacks
    for callback in checkpoints:
        path = Path(str(getattr(callback, "best_model_path", "")))
        if path.name == "best.ckpt" and path.is_file():
            return path
    return None


@dataclass
class Reached:
    """What a run has reached so far; filled as it goes, so that an early end loses nothing."""

    epochs: int = 0
    steps: int = 0
    test: dict[str, float] = field(default_factory=dict)
    val: dict[str, float] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
    solver_stats: dict[str, Any] | None = None
    gradient_stats: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def note_training(self, run: Run) -> None:
        """Steps, the last validation, the last epoch's means and backward statistics."""
        self.epochs, self.steps = position(run.trainer).epoch, run.trainer.global_step
        self.val = results.by_stage(run.trainer.callback_metrics, "val")
        curve, monitor = run.find(TrainingCurve), run.find(ConvergenceMonitor)
        if curve is not None:
            self.train = dict(curve.latest)
        if monitor is not None:
            self.gradient_stats = monitor.gradient_stats()
            self.solver_stats = monitor.summary("val") or monitor.summary("train")
        fidelity = run.find(GradientFidelity)
        if fidelity is not None and (measured := fidelity.summary()):
            self.details["gradient_fidelity"] = measured

    def note_test(self, run: Run) -> None:
        """The test metrics and the solver's statistics over the test split."""
        self.test = results.by_stage(run.trainer.callback_metrics, "test")
        monitor = run.find(ConvergenceMonitor)
        if monitor is not None:
            self.solver_stats = monitor.summary("test")
        if isinstance(run.task, Detailed):
            self.details.update(run.task.details())

    def as_metrics(self, run: Run, status: str) -> dict[str, Any]:
        """The dictionary of metrics.json."""
        return {
            "task": run.choices["task"],
            "model": run.choices["model"],
            "solver": name_of(run.choices, "solver"),
            "gradient": name_of(run.choices, "gradient"),
            "seed": run.seed,
            "status": status,
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": round(time.monotonic() - run.started, 2),
            "peak_rss_mb": results.peak_rss_mb(),
            "peak_gpu_mb": results.peak_gpu_mb(),
            "parameters": sum(p.numel() for p in run.task.parameters() if p.requires_grad),
            "test": self.test,
            "val": self.val,
            "train": self.train,
            "solver_stats": self.solver_stats,
            "gradient_stats": self.gradient_stats,
            "details": self.details,
            "versions": results.versions(),
        }


def name_of(choices: dict[str, str], group: str) -> str | None:
    """The choice of a group, None where it is "none"."""
    choice = choices.get(group)
    return None if choice in (None, "none") else choice


def write_results(run: Run, metrics: dict[str, Any]) -> None:
    """metrics.json, and the report's page.

    Raises RunFailed where they cannot be written, unless something else has ended the run before:
    then that is the news.
    """
    try:
        results.write(metrics, run.directory / "metrics.json")
        report = run.find(RunReport)
        if report is not None:
            report.write(metrics)
    except OSError as error:
        said = f"the results could not be written into {run.directory}: {error.strerror or error}"
        if metrics["status"] == "completed":
            raise RunFailed(said) from error
        warnings.warn(said, stacklevel=2)

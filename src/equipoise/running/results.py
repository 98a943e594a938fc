"""metrics.json: the results of a run; docs/run_folder.md describes its entries."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from equipoise.callbacks.resumption import position
from equipoise.config.exchange import model_name
from equipoise.errors import RunFailed
from equipoise.report.whole import write_whole
from equipoise.running.origin import device_name
from equipoise.running.parts import Detailed, Losing, Reporting, Run, Summarizing

SECTIONS = ("train", "solver_stats", "gradient_stats")
"""The entries of metrics.json that callbacks fill; their other entries go to its details."""
PACKAGES = ("equipoise", "torch", "lightning", "hydra-core", "torchmetrics")


@dataclass
class Results:
    """The results of a run so far, filled step by step, so that an early end loses nothing."""

    epochs: int = 0
    steps: int = 0
    test: dict[str, float] = field(default_factory=dict)
    val: dict[str, float] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
    solver_stats: dict[str, Any] | None = None
    gradient_stats: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def note_training(self, run: Run) -> None:
        """Steps, the last validation, and the callbacks' summaries."""
        self.epochs, self.steps = position(run.trainer).epoch, run.trainer.global_step
        self.val = by_stage(run.trainer.callback_metrics, "val")
        self._note_summaries(run)
        self._note_details(run.data)

    def note_test(self, run: Run) -> None:
        """The test metrics, the callbacks' summaries, and the task's details."""
        self.test = by_stage(run.trainer.callback_metrics, "test")
        self._note_summaries(run)
        self._note_details(run.data, run.task)

    def _note_details(self, *parts: object) -> None:
        for part in parts:
            if isinstance(part, Detailed):
                self.details.update(part.details())

    def _note_summaries(self, run: Run) -> None:
        for callback in run.callbacks:
            summary = callback.summary() if isinstance(callback, Summarizing) else {}
            for key, value in summary.items():
                if key in SECTIONS:
                    setattr(self, key, value)
                else:
                    self.details[key] = value

    def as_metrics(self, run: Run, status: str) -> dict[str, Any]:
        """The dictionary of metrics.json."""
        return {
            "task": run.choices["task"],
            "model": model_name(run.config, run.choices),
            "solver": name_of(run.choices, "solver"),
            "gradient": name_of(run.choices, "gradient"),
            "seed": run.seed,
            "status": status,
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": round(time.monotonic() - run.started, 2),
            "peak_rss_mb": peak_rss_mb(),
            "peak_gpu_mb": peak_gpu_mb(),
            "parameters": sum(p.numel() for p in run.task.parameters() if p.requires_grad),
            "test": self.test,
            "val": self.val,
            "train": self.train,
            "solver_stats": self.solver_stats,
            "gradient_stats": self.gradient_stats,
            "details": {**self.details, **({"lost": lost} if (lost := lost_by(run)) else {})},
            "choices": run.choices,
            **run.origin,
            "device": device_name(run.trainer.strategy.root_device, run.trainer.world_size),
            "versions": versions(),
        }


def name_of(choices: dict[str, str], group: str) -> str | None:
    """The choice of a group, None where it is "none"."""
    choice = choices.get(group)
    return None if choice in (None, "none") else choice


def write_results(run: Run, metrics: dict[str, Any]) -> None:
    """Write metrics.json and the report's page.

    Raises RunFailed where they cannot be written, unless another error ended the run before:
    then that error is the one to report.
    """
    try:
        write(metrics, run.directory / "metrics.json")
        told = lost_by(run)
        for callback in run.callbacks:
            if isinstance(callback, Reporting):
                callback.write(metrics)
        if (lost := lost_by(run)) != told:
            metrics["details"] = {**metrics["details"], "lost": lost}
            write(metrics, run.directory / "metrics.json")
    except OSError as error:
        cause = error.strerror or error
        message = f"the results could not be written to {run.directory}: {cause}"
        if metrics["status"] == "completed":
            raise RunFailed(message) from error
        warnings.warn(message, stacklevel=2)


def lost_by(run: Run) -> list[str]:
    """A sentence for each thing that callbacks and loggers could not keep."""
    parts = [*run.callbacks, *run.trainer.loggers]
    told = [part.lost for part in parts if isinstance(part, Losing)]
    return [lost for lost in told if isinstance(lost, str) and lost]  # some have any attribute


def by_stage(metrics: dict[str, Any], stage: str) -> dict[str, float]:
    """The numbers of Lightning's callback metrics "<stage>/<name>", by name."""
    prefix = f"{stage}/"
    return {
        name.removeprefix(prefix): float(value)
        for name, value in sorted(metrics.items())
        if name.startswith(prefix)
    }


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def peak_gpu_mb() -> float | None:
    """The largest memory that torch held on the present GPU, in MB; None without one."""
    if not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def finite(value: Any) -> Any:
    """The same value with null for numbers that JSON cannot express (NaN, infinity)."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json whole or not at all."""
    write_whole(path, json.dumps(finite(metrics), indent=2) + "\n")

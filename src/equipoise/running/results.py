"""metrics.json: what a run has reached, in the form that DESIGN's contract fixes."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("equipoise", "torch", "lightning", "hydra-core", "torchmetrics")


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
    """The same value with what JSON cannot express (NaN, infinity) as null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(finite(metrics), indent=2) + "\n")
    partial.replace(path)

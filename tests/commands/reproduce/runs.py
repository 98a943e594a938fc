"""Folders as runs leave them, written by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

WORDS = ["task=digits", "seed=7"]
ROWS = [
    {"epoch": "0", "step": "2", "train/loss": "2.5", "gradient": "phantom", "train/seconds": "1.0"},
    {"epoch": "0", "step": "4", "train/loss": "2.25", "gradient": "phantom", "train/seconds": "2"},
    {"epoch": "0", "step": "4", "val/loss": "2.0"},
]
Row = Mapping[str, str]


def metrics(**changed: Any) -> dict[str, Any]:
    """The dictionary of metrics.json of a run of four steps."""
    whole: dict[str, Any] = {
        "status": "completed", "steps": 4, "epochs": 1, "parameters": 6, "seconds": 9.5,
        "peak_rss_mb": 100.0, "test": {"loss": 2.0}, "val": {"loss": 2.0}, "train": {},
        "solver_stats": None, "gradient_stats": None, "details": {"ended_by": "epochs"},
        "command": "python train.py task=digits seed=7", "versions": {"torch": "2"},
    }  # fmt: skip
    return {**whole, **changed}


def start(words: Sequence[str] = WORDS, step: int = 0, **changed: Any) -> dict[str, Any]:
    """One start of environment.json."""
    return {"purpose": "train", "words": list(words), "step": step, "processes": 1, **changed}


def write_run(
    folder: Path,
    reached: Mapping[str, Any] | None = None,
    starts: Sequence[Mapping[str, Any]] = (),
    rows: Sequence[Row] = ROWS,
    weight: float = 1.0,
    deterministic: bool = True,
) -> Path:
    """A run's folder; reached: its metrics.json, None for a run that was killed."""
    (folder / "checkpoints").mkdir(parents=True)
    config = {"run_dir": str(folder), "trainer": {"deterministic": deterministic}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "overrides.json").write_text(json.dumps(WORDS))
    if reached is not None:
        (folder / "metrics.json").write_text(json.dumps(reached))
    if starts:
        (folder / "environment.json").write_text(json.dumps({"starts": list(starts)}))
    names = sorted({name for row in rows for name in row})
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    content = {
        "global_step": 4, "config": config, "choices": {"task": "digits"},
        "state_dict": {"weight": torch.tensor([weight, 2.0]),
                       "_extra_state": {"history": {"seconds": 5 * weight}}},
    }  # fmt: skip
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder

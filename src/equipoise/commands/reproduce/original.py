"""The run that is to be made again: its words, and its number of steps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.config.hydra import SEARCH_PATH, parse
from equipoise.config.overrides import full_key, is_of_hydra
from equipoise.errors import UserError, read_json, read_yaml
from equipoise.report.curves import CurveFile
from equipoise.running import folders
from equipoise.running.environment import FILE, read_starts
from equipoise.running.resumption import RECORD

FILES = ("config.yaml", "metrics.json", "metrics.csv", FILE)
OF_THE_PLACE = ("run_dir", "resume")
OF_OTHERS = ("logger", "callbacks.trial")
"""Where a run reports to others, who would take the second run for a new one."""
OF_NO_ACCOUNT = (*OF_THE_PLACE, *OF_OTHERS, "ckpt_path", "task.num_workers", "trust",
                 "trainer.enable_progress_bar", "callbacks.progress")  # fmt: skip
"""Settings that may change when a run is resumed without changing the run."""
CUT_SHORT = ("max_time", "pruned")
"""The reasons for a training's end that depend on a clock or on other runs."""


@dataclass(frozen=True)
class Original:
    """A run that has ended: its folder, and what makes it again.

    words: of the command line, without a folder. steps: those after which to end; None for its own
    end. said: the limit in words. metrics: its metrics.json, empty for a run that was killed.
    """

    folder: Path
    purpose: str
    words: list[str]
    steps: int | None
    said: str
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    starts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def deterministic(self) -> bool:
        """Whether the run asked for bit-identical results."""
        return (self.config.get("trainer") or {}).get("deterministic") is True


def run_folder(place: Path) -> Path | None:
    """The run's folder at or around the place, which may be a file in it; None without a run."""
    near = [place] if place.is_dir() else [place.parent, place.parent.parent]
    return next((f for f in near if any((f / name).is_file() for name in FILES)), None)


def original(folder: Path, changes: Sequence[str], steps: int | None) -> Original:
    """How to make the run in a folder again, with settings on top, for `steps` steps at most.

    Raises UserError where it is still running, or has kept too little.
    """
    if folders.at_work(folder):
        raise UserError(f"a run is active in {folder}: wait for its end")
    metrics, config = read(folder / "metrics.json"), read(folder / "config.yaml")
    starts = read_starts(folder)
    purpose, words = _beginning(folder, metrics, starts)
    limit, said = (None, "") if purpose == "evaluate" else _limit(folder, metrics, starts)
    if steps is not None and purpose == "evaluate":
        raise UserError(f"{folder} is an evaluation, which has no optimiser steps: leave out steps")
    if steps is not None and steps < min(limit or steps + 1, metrics.get("steps") or steps + 1):
        limit, said = steps, f"its first {steps} steps"
    added = [] if purpose == "evaluate" else ["logger=csv"]
    again = [*_of_the_run(words), *added, *changes]
    if limit is not None:
        again += [
            f"+callbacks.stop_after={{_target_: equipoise.callbacks.StopAfter, steps: {limit}}}"
        ]
    if (metrics.get("details") or {}).get("ended_by") == "max_time":
        again += ["trainer.max_time=null"]
    whole = "the evaluation" if purpose == "evaluate" else "all of its steps"
    return Original(folder, purpose, again, limit, said or whole, metrics, config, starts)


def _beginning(
    folder: Path, metrics: Mapping[str, Any], starts: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """The run's command, train or evaluate, and the words that began it. Raises UserError."""
    command = shlex.split(str(metrics.get("command") or ""))
    first = starts[0] if starts else {}
    evaluated = any(word.partition(".")[0].endswith("evaluate") for word in command[:4])
    purpose = str(first.get("purpose") or ("evaluate" if evaluated else "train"))
    words = list(first.get("words") or [])
    goes_on = first.get("step") and not any(word.startswith("ckpt_path=") for word in words)
    if first and not goes_on:
        return purpose, words
    if purpose == "evaluate":
        return purpose, [word for word in command if "=" in word]
    try:
        return purpose, list(read_json(folder / RECORD))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} does not say which command began its run: it has neither {FILE} nor {RECORD}"
        ) from error


def _limit(
    folder: Path, metrics: Mapping[str, Any], starts: Sequence[Mapping[str, Any]]
) -> tuple[int | None, str]:
    """The step at which the run changed or ended by chance, and words that say so."""
    own = {full_key(parse([word])[0]): word for word in (starts[0]["words"] if starts else ())}
    for start in starts[1:]:
        changed = [word for word in start["words"] if _changes(word, own)]
        if changed and start["step"]:
            said = f"its first {start['step']} steps, after which it was resumed with "
            return int(start["step"]), said + " ".join(changed)
    ended_by = (metrics.get("details") or {}).get("ended_by")
    if metrics.get("status") in ("completed", "failed") and ended_by not in CUT_SHORT:
        return None, ""
    rows = CurveFile(folder / "metrics.csv").rows
    reached = metrics.get("steps") or max((int(row["step"]) for row in rows), default=0)
    if not reached:
        raise UserError(f"the run in {folder} ended before its first step: nothing can be compared")
    return int(reached), f"the {reached} steps after which it was ended"


def _changes(word: str, own: Mapping[str, str]) -> bool:
    key = full_key(parse([word])[0])
    return own.get(key) != word and not _is_of(key, OF_NO_ACCOUNT)


def _is_of(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _of_the_run(words: Sequence[str]) -> list[str]:
    """The words without those about the folder, Hydra's own work and loggers."""
    kept = []
    for word, override in zip(words, parse(words), strict=True):
        key = full_key(override)
        hydra = is_of_hydra(override) and key != SEARCH_PATH
        if not (hydra or _is_of(key, (*OF_THE_PLACE, *OF_OTHERS))):
            kept.append(word)
    return kept


def read(file: Path) -> dict[str, Any]:
    """The mapping in a file, empty without a file. Raises UserError where it has no mapping."""
    if not file.is_file():
        return {}
    try:
        content = read_json(file) if file.suffix == ".json" else read_yaml(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} was not written by a run")
    return content


def reached(folder: Path) -> int:
    """The optimiser steps of the run in a folder."""
    return int(read(folder / "metrics.json").get("steps") or 0)

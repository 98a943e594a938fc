"""The folder of a sweep: the words that began it, its jobs' states, and what is left to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.config.hydra import parse
from equipoise.config.overrides import full_key
from equipoise.errors import UserError, read_json
from equipoise.report.summary import ERROR_LOG, Job, read_jobs, sweep_row
from equipoise.report.whole import write_whole
from equipoise.running import folders

RECORD = "sweep.json"
"""The file with the words that began the sweep, and the number of its jobs."""
SWEEPS = Path("multirun")
OF_THE_PLACE = ("resume", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher")
"""Words that only say where and by which launcher the jobs run."""
OF_HYDRA = (".hydra", "train.log")
KILLED = "The process of this job was killed"
"""The beginning of the sentence for a job whose process ended without one of its own."""


@dataclass(frozen=True)
class Standing:
    """The states of a sweep's jobs: the statuses by folder, of `count` jobs."""

    folder: Path
    count: int | None
    statuses: dict[Path, str]

    def finished(self, results: Collection[str]) -> int:
        """How many jobs have ended in a result."""
        return sum(status in results for status in self.statuses.values())

    def is_finished(self, results: Collection[str]) -> bool:
        """Whether nothing is left to do."""
        return self.count is not None and self.finished(results) >= self.count


def standing(folder: Path) -> Standing:
    """The states of a sweep's jobs; the folder is only read."""
    count = _content(folder / RECORD).get("jobs")
    return Standing(folder, count, {job.folder: status(job, folder) for job in read_jobs(folder)})


def status(job: Job, sweep: Path) -> str:
    """The state of a job: completed, interrupted, failed, diverged, or killed while running."""
    told = sweep_row(job, sweep, ())
    silent = not told.get("error") and not (job.folder / "metrics.json").is_file()
    return "killed" if silent or str(told.get("error")).startswith(KILLED) else told["status"]


def record(folder: Path, words: Sequence[str], jobs: int | None) -> None:
    """Record the words that began a sweep, and its number of jobs, where known."""
    content = {"overrides": list(of_the_jobs(words).values()), "jobs": jobs}
    write_whole(folder / RECORD, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def of_the_jobs(words: Sequence[str]) -> dict[str, str]:
    """The words that say what the jobs are, the last one of each key."""
    keyed = [(full_key(override), override.input_line or "") for override in parse(words)]
    return {k: line for k, line in keyed if not _is_of_the_place(k)}


def _is_of_the_place(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in OF_THE_PLACE)


def check_words(folder: Path, words: Sequence[str]) -> None:
    """Raise UserError where a folder is not that of a sweep which the same words began."""
    entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if entries <= {folders.LOCK}:
        return
    began = _content(folder / RECORD).get("overrides")
    if began is None:
        raise UserError(
            f"resume=auto: {folder} is not the folder of a sweep that can go on (it holds no "
            f"{RECORD}): choose a new folder"
        )
    before, now = of_the_jobs(began), of_the_jobs(words)
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key):
            old, new = before.get(key) or f"no {key}", now.get(key) or f"no {key}"
            raise UserError(
                f"resume=auto: the sweep in {folder} was begun with {old}, not with {new}: give "
                "the same settings, or another hydra.sweep.dir"
            )


def newest_unfinished(words: Sequence[str], results: Collection[str]) -> Path | None:
    """The newest sweep below multirun/ that the same words began and that has jobs left to run.

    An active sweep is not resumed.
    """
    wanted = of_the_jobs(words)
    for file in sorted(SWEEPS.glob(f"*/{RECORD}"), key=_age, reverse=True):
        began = _content(file).get("overrides") or []
        if of_the_jobs(began) != wanted or folders.at_work(file.parent):
            continue
        if not standing(file.parent).is_finished(results):
            return file.parent
    return None


def make_ready(found: Standing, results: Collection[str]) -> None:
    """Remove what failed jobs have left, so that they run anew; killed jobs resume.

    Raises UserError where a job is still running, as on a cluster after its sweep was killed.
    """
    for folder, reached in found.statuses.items():
        if folders.at_work(folder):
            raise UserError(f"resume=auto: the job in {folder} is still at work: wait for its end")
        if reached in ("failed", "diverged") and reached not in results:
            shutil.rmtree(folder)
        elif reached == "killed":
            (folder / ERROR_LOG).unlink(missing_ok=True)


def lost(sweep: Path) -> list[Path]:
    """The folders of jobs that began, and whose process ended without a message."""
    killed = [folder for folder, reached in standing(sweep).statuses.items() if reached == "killed"]
    return [folder for folder in killed if not (folder / ERROR_LOG).is_file()]


def write_lost(folder: Path, log: Path | None = None) -> None:
    """Let a job whose process was killed count as failed, with a sentence on it."""
    where = f"; its output is in {log}" if log else ""
    (folder / ERROR_LOG).write_text(f"{KILLED}, perhaps for lack of memory or time{where}\n")


def withdraw(folder: Path) -> None:
    """Remove the folder of a job that has not begun, with the files that Hydra put there."""
    if {entry.name for entry in folder.iterdir()} <= set(OF_HYDRA):
        shutil.rmtree(folder)


def _age(file: Path) -> tuple[float, str]:
    return file.stat().st_mtime, str(file)


def _content(file: Path) -> Any:
    """The content of a JSON file; an empty mapping if it is missing or damaged."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}

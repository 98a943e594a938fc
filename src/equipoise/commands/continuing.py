"""`resume=auto` of a multirun: the folder that it resumes in, and where each job begins."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from equipoise.commands.jobs import draws_values, jobs
from equipoise.config.compose import composable
from equipoise.config.hydra import hydra_config, hydra_setting, parse, quoted
from equipoise.errors import UserError
from equipoise.running import folders, resumption, sweep_record
from equipoise.running.resumption import Beginning
from equipoise.running.side_by_side import remove_places
from equipoise.running.stop_notice import NOTICE

BY_HYDRA = frozenset({"multirun.yaml", sweep_record.RECORD})
"""The files in a sweep's folder before its first job."""


def without_resume(words: Sequence[str]) -> list[str]:
    """The words without `resume`, which is the whole sweep's. Raises UserError for other values."""
    overrides = parse(words)
    for override in overrides:
        if override.key_or_group == "resume" and override.value() not in ("auto", None):
            raise UserError(f"{override.input_line}: resume takes auto or null")
    pairs = zip(words, overrides, strict=True)
    return [word for word, override in pairs if override.key_or_group != "resume"]


def is_asked(words: Sequence[str]) -> bool:
    """Whether the last `resume` among the words is `auto`."""
    values = [o.value() for o in parse(words) if o.key_or_group == "resume"]
    return values[-1:] == ["auto"]


@contextmanager
def held(
    typed: Sequence[str], overrides: Sequence[str], results: Collection[str]
) -> Iterator[Path]:
    """The folder of a multirun while it runs: a new one, or that of the sweep to resume.

    results: the statuses of jobs that have nothing left to do. Raises UserError.
    """
    place = named_folder(overrides)
    again = sweep_to_resume(typed, place, results) if is_asked(typed) else None
    if again is not None:
        path = folders.claim(again, None, "hydra.sweep.dir", {e.name for e in again.iterdir()})
    elif place is not None:
        path = folders.claim(place, name="hydra.sweep.dir")
    else:
        path = folders.claim_new(Path("multirun"), datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    with folders.held(path, BY_HYDRA):
        if again is not None:
            (path / NOTICE).unlink(missing_ok=True)
            remove_places(path)
            sweep_record.make_ready(sweep_record.standing(path), results)
        yield path


def sweep_to_resume(
    typed: Sequence[str], place: Path | None, results: Collection[str]
) -> Path | None:
    """The folder of the sweep that the same words began, after saying so; None for a new sweep.

    place: the named folder. Raises UserError where it belongs to another sweep.
    """
    if draws_values(parse(typed)):
        raise UserError(
            "resume=auto continues a grid of jobs, but hydra/sweeper draws new values in every "
            "sweep: leave one of the two out"
        )
    found = place or sweep_record.newest_unfinished(typed, results)
    if found is None or not (found / sweep_record.RECORD).is_file():
        if found is not None:
            sweep_record.check_words(found, typed)
        print("resume=auto: no unfinished sweep has these settings; a new one begins")
        return None
    sweep_record.check_words(found, typed)
    reached = sweep_record.standing(found)
    print(
        f"resume=auto: continues the sweep in {found}; of its {reached.count} jobs, "
        f"{reached.finished(results)} are finished"
    )
    return found


def named_folder(overrides: Sequence[str]) -> Path | None:
    """The folder of `hydra.sweep.dir`; None where it is not named."""
    if not is_typed(overrides, "hydra.sweep.dir"):
        return None
    settings = hydra_config(composable(jobs(overrides)[0]))
    return folders.shortened(Path(str(hydra_setting(settings, "hydra.sweep.dir"))))


def is_typed(overrides: Sequence[str], key: str) -> bool:
    """Whether the command line sets this setting of Hydra."""
    return any(override.key_or_group == key for override in parse(overrides))


def beginning_of_job(words: Sequence[str], directory: Path) -> Beginning:
    """The start of a job: in a folder that holds an earlier part of it, the job resumes.

    Raises UserError where the folder holds files that no run writes.
    """
    found = resumption.standing(directory)
    if found.status == "anew":
        return Beginning(list(words), found)
    rest = [word for word in words if not word.startswith("ckpt_path=")]
    return resumption.beginning([*rest, "resume=auto", f"run_dir={quoted(str(directory))}"])


def say_unfinished(sweep: Path, results: Collection[str]) -> int:
    """Print how many jobs ended without a result, and how to resume; 1 if there are any."""
    reached = sweep_record.standing(sweep)
    if reached.count is None or reached.is_finished(results):
        return 0
    left = reached.count - reached.finished(results)
    print(
        f"{left} of {reached.count} jobs are not finished: the same command with "
        f"hydra.sweep.dir={quoted(str(sweep))} resume=auto continues them"
    )
    return 1

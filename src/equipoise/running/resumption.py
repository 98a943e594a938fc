"""`resume=auto`: the state of the run in a folder, and the words that resume it.

Finding out that a run is finished, or has no checkpoint yet, needs no heavy imports.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Override

from equipoise.config import machine
from equipoise.config.compose import Composition, compose
from equipoise.config.hydra import parse, quoted
from equipoise.config.overrides import CommandLine, full_key, is_of_hydra
from equipoise.config.stored import Stored, read_stored
from equipoise.errors import Unreadable, UserError, read_json, read_yaml
from equipoise.report.whole import PARTIAL, write_whole
from equipoise.running import folders

RECORD = "overrides.json"
"""The file in a run's folder with the words that began it."""
CHECKPOINTS = "checkpoints"
FILES = ("last.ckpt", "best.ckpt")
REPLACED = (RECORD, "config.yaml", "environment.json", "metrics.csv", "metrics.json")
"""The files that a run writes whole, again and again."""
OF_A_RUN = frozenset({
    RECORD, CHECKPOINTS, folders.LOCK, ".hydra", "changes", "config.yaml", "environment.json",
    "environment.json.partial", "error.log", "metrics.csv", "metrics.json", "metrics.partial",
    "mlflow", "mlflow.db", "report", "tensorboard", "train.log", "wandb",
})  # fmt: skip
"""The entries that a run may leave in its folder before its first checkpoint."""
OF_THE_PLACE = ("resume", "run_dir", "ckpt_path")
"""Words that only say where a run is resumed."""
LENGTHS = {"max_epochs": "epochs", "max_steps": "steps"}
RUNS = Path("runs")


@dataclass(frozen=True)
class Standing:
    """The state of the run in a folder.

    completed: `metrics` is its metrics.json, and nothing is left to do. resumable: `checkpoint` is
    the file to resume from. anew: it has none yet, and `leftovers` are the entries to clear away.
    """

    folder: Path
    status: Literal["completed", "resumable", "anew"]
    checkpoint: Path | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    leftovers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Beginning:
    """The start of a training.

    overrides: those that replace the typed words. standing: the state of the folder in which it
    resumes, None for a new one. said: a line about it, empty without `resume=auto`.
    """

    overrides: list[str]
    standing: Standing | None = None
    said: str = ""

    @property
    def completed(self) -> dict[str, Any] | None:
        """The results of a run that is already finished; None for one that has to run."""
        finished = self.standing is not None and self.standing.status == "completed"
        return self.standing.metrics if finished and self.standing else None

    @property
    def leftovers(self) -> frozenset[str]:
        """The entries in the folder that are to be cleared away."""
        return frozenset() if self.standing is None else self.standing.leftovers


def standing(folder: Path, words: Sequence[str] = ()) -> Standing:
    """The state of the run in a folder, which is only read and need not exist.

    words: overrides; a larger `trainer.max_epochs` or `trainer.max_steps`, or another
    `trainer.max_time`, extends a completed run. Raises UserError where the folder holds
    files that no run leaves, or a run cannot be extended.
    """
    content = _content(folder / "metrics.json")
    metrics = content if isinstance(content, dict) else {}
    checkpoint = next(iter(checkpoints_of(folder)), None)
    more = _asks_for_more(folder, metrics, words)
    if metrics.get("status") == "completed" and not more:
        return Standing(folder, "completed", checkpoint, metrics)
    if metrics.get("status") == "completed" and checkpoint is None:
        raise UserError(
            f"the run in {folder} is completed, and it has no checkpoint from which to train for "
            "longer: choose another run_dir"
        )
    if checkpoint is not None:
        return Standing(folder, "resumable", checkpoint)
    return Standing(folder, "anew", leftovers=_leftovers(folder))


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run: the last one, the best one, then others, the newest first.

    Raises UserError where a folder has the name of a file that the run writes.
    """
    named = [folder / CHECKPOINTS / name for name in FILES]
    for file in [*named, *(folder / name for name in REPLACED)]:
        if file.is_dir():
            raise UserError(
                f"{file} is a folder, and a run writes a file of that name: move it away, or "
                "choose another run_dir"
            )
    others = sorted((folder / CHECKPOINTS).glob("*.ckpt"), key=_age, reverse=True)
    return [file for file in dict.fromkeys([*named, *others]) if file.is_file()]


def first_readable(folder: Path) -> tuple[Stored, list[Path]]:
    """The first of a run's checkpoints that can be resumed, and those that cannot be read.

    Raises UserError, with the fault of the first one, where there is none.
    """
    refused: dict[Path, UserError] = {}
    weights: list[Stored] = []
    for file in checkpoints_of(folder):
        try:
            stored = read_stored(file)
        except UserError as error:
            refused[file] = error
            continue
        if stored.whole:
            return stored, list(refused)
        weights.append(stored)  # weights only: resuming it raises its own error
    if not weights:
        raise next(iter(refused.values()))
    return weights[0], list(refused)


def beginning(words: Sequence[str]) -> Beginning:
    """The start of a training, whose command line may say `resume=auto`.

    With `run_dir` it resumes there; without, in the newest folder below runs/ that the same words
    began, and whose run is neither finished nor active. Raises UserError.
    """
    overrides = parse(words)
    asked = [override for override in overrides if override.key_or_group == "resume"]
    rest = [w for w, o in zip(words, overrides, strict=True) if o.key_or_group != "resume"]
    if not asked or asked[-1].value() is None:
        return _at_the_end(rest) or Beginning(rest)
    _check_asked(asked[-1], overrides)
    place = _named_folder(rest)
    found = _newest(rest) if place is None else standing(place, rest)
    if found is None:
        return Beginning(rest, None, "resume=auto: these words have begun no run that could go on")
    return going_on(found, rest)


def going_on(found: Standing, words: Sequence[str]) -> Beginning:
    """The words that resume a run from its present state, made of the typed ones.

    If its last checkpoint cannot be read, the one before is used. Raises UserError where none
    can be read.
    """
    run_dir = f"run_dir={quoted(str(found.folder))}"
    rest = _of_the_run(words)
    if found.status == "completed":
        said = f"resume=auto: the run in {found.folder} is completed, nothing is left to do"
        return Beginning([*rest, run_dir], found, said)
    if found.checkpoint is None:
        said = f"resume=auto: {found.folder} holds no checkpoint yet, the run starts anew"
        return Beginning([*rest, run_dir], found, said)
    stored, damaged = first_readable(found.folder)
    said = f"resume=auto: continues in {found.folder} after step {stored.steps}"
    if stored.path.name != FILES[0]:
        said += f", from {stored.path.name}"
    if damaged:
        said += f": {' and '.join(file.name for file in damaged)} cannot be read"
    checkpoint = f"ckpt_path={quoted(str(stored.path))}"
    return Beginning([*_changing(rest, stored), checkpoint, run_dir], found, said)


def words_in_force(composition: Composition) -> list[str]:
    """The words behind a configuration: for a resumed run, those of its checkpoint that no word
    typed now replaces; then those typed now."""
    resumes = composition.trusted is not None
    before = read_stored(composition.config.ckpt_path).overrides if resumes else ()
    return list(_by_key([*before, *_of_the_run(composition.typed)]).values())


def record(composition: Composition, directory: Path) -> None:
    """Record in a run's folder which words began it; a resumed run keeps the first record."""
    file = directory / RECORD
    if not file.is_file():
        write_whole(file, json.dumps(_of_the_run(composition.typed), ensure_ascii=False) + "\n")


def clear(folder: Path, leftovers: Collection[str]) -> None:
    """Remove what a run left before its first checkpoint; the caller holds the folder."""
    for name in sorted(set(leftovers) - {folders.LOCK}):
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def reopen(folder: Path) -> None:
    """Remove the results of a run that resumes in its folder, and unfinished files of a killed one.

    However it ends now, it writes metrics.json again; a killed run must not seem completed.
    """
    (folder / "metrics.json").unlink(missing_ok=True)
    for partial in folder.rglob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _at_the_end(words: Sequence[str]) -> Beginning | None:
    """The start for words that resume a completed run without changing it.

    None for all other words: they may test its weights under other settings.
    """
    typed = [override for override in parse(words) if override.key_or_group == "ckpt_path"]
    path = typed[-1].value() if typed else None
    file = Path(path) if isinstance(path, str) else Path()
    folder = file.parent.parent
    if (file.parent.name, file.name) != (CHECKPOINTS, FILES[0]) or not file.is_file():
        return None
    found = standing(folder, words)
    if found.status != "completed":
        return None
    try:
        changing = _changing(_of_the_run(words), read_stored(file))
    except UserError:  # words of the user's own code, or wrong ones: composing reports them
        return None
    if changing:
        return None
    said = (
        f"the run in {folder} is completed, nothing is left to train: these are its results; to "
        "train for longer, set a larger trainer.max_epochs or trainer.max_steps"
    )
    return Beginning(list(words), found, said)


def _check_asked(asked: Override, overrides: Sequence[Override]) -> None:
    """Raise UserError where `resume` is not auto, or another word conflicts with it."""
    if asked.is_sweep_override() or asked.value() != "auto":
        raise UserError(f"{asked.input_line}: resume takes auto or null")
    for override in overrides:
        if override.key_or_group == "ckpt_path" and override.value() is not None:
            raise UserError(
                f"resume=auto finds the checkpoint itself, and {override.input_line} names one: "
                "leave one of the two out"
            )
        if override.key_or_group == "hydra.run.dir":
            raise UserError(
                f"resume=auto continues in the folder of run_dir: set it in place of "
                f"{override.input_line}"
            )


def _named_folder(words: Sequence[str]) -> Path | None:
    """The folder named by `run_dir`, which may be composed of other settings."""
    value = CommandLine.of(words).value("run_dir")
    if value is None:
        return None
    return Path(str(compose(words).config.run_dir if "${" in str(value) else value))


def _newest(words: Sequence[str]) -> Standing | None:
    """The newest resumable run below runs/ that the same words began; None without one."""
    _check_shared_by_all(words)
    wanted = _by_key(_of_the_run(words))
    named = sorted(RUNS.glob(f"*/*/*/{RECORD}"), key=lambda file: _age(file), reverse=True)
    for file in named:
        began = _content(file)
        if not isinstance(began, list) or _by_key(began) != wanted or folders.at_work(file.parent):
            continue
        with suppress(UserError):  # someone has put other files into it
            found = standing(file.parent, words)
            if found.status != "completed":
                return found
    return None


def _check_shared_by_all(words: Sequence[str]) -> None:
    """Raise UserError where each process that shares a run would look for its folder."""
    if machine.started_outside() and machine.several_processes(compose(words).config.trainer):
        raise UserError(
            "resume=auto needs run_dir=<folder> where torchrun or srun starts the processes of a "
            "run, so that all of them go on from the same checkpoint"
        )


def _age(file: Path) -> tuple[float, str]:
    """When a file was written, and its name; a link to nothing, or a file just removed, is old."""
    try:
        return file.stat().st_mtime, str(file)
    except OSError:
        return 0.0, str(file)


def _changing(words: Sequence[str], stored: Stored) -> list[str]:
    """The words without those the checkpoint was trained with, which are already in force.

    Some cannot be applied to it a second time, such as `~callbacks.report` or `init_from`. If any
    choice is new, all settings are set again, since it may have brought others.
    """
    in_force, typed = _by_key(stored.overrides), _by_key(words)
    new = {line for key, line in typed.items() if in_force.get(key) != line}
    choices = {o.input_line for o in CommandLine.of(words).groups if not is_of_hydra(o)}
    again = bool(new & choices)
    return [
        line
        for line, override in zip(words, parse(words), strict=True)
        if line in new
        or is_of_hydra(override)
        or override.key_or_group == "trust"
        or (again and not _only_at_the_beginning(line, override, choices))
    ]


def _only_at_the_beginning(line: str, override: Override, choices: Collection[str | None]) -> bool:
    return (
        line in choices
        or override.is_delete()
        or override.key_or_group.partition(".")[0] == "init_from"
    )


def _of_the_run(words: Sequence[str]) -> list[str]:
    """The words without those that only say where to run."""
    return [word for word in words if _key(word) not in OF_THE_PLACE]


def _by_key(words: Sequence[str]) -> dict[str, str]:
    """The last word of each key; a removed setting counts under its key."""
    return {_key(word): word for word in words}


def _key(word: str) -> str:
    return full_key(parse([word])[0])


def _content(file: Path) -> Any:
    """The content of a JSON file; an empty mapping if it is missing or damaged."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}


def _asks_for_more(folder: Path, metrics: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether the words give a completed run more epochs, steps or time than it had."""
    typed = {o.key_or_group: o.value() for o in parse(words) if not o.is_delete()}
    try:
        trainer = read_yaml(folder / "config.yaml")["trainer"]
    except (OSError, Unreadable, KeyError, TypeError):
        trainer = {}
    longer = typed.get("trainer.max_time", trainer.get("max_time")) != trainer.get("max_time")
    for name, unit in LENGTHS.items():
        limit: Any = typed.get(f"trainer.{name}")
        if isinstance(limit, int) and limit != trainer.get(name):
            longer |= limit < 0 or limit > metrics.get(unit, 0)
    return bool(longer)


def _leftovers(folder: Path) -> frozenset[str]:
    """The entries of a folder without a checkpoint. Raises UserError if it is not a run's."""
    if not folder.is_dir():
        return frozenset()
    names = {entry.name for entry in folder.iterdir()}
    kept = folder / CHECKPOINTS
    others = names - OF_A_RUN
    others |= {f"{CHECKPOINTS}/{e.name}" for e in kept.glob("*") if e.suffix != PARTIAL}
    begun = names & {RECORD, ".hydra", "config.yaml"} or names <= {folders.LOCK}
    if others or not begun:
        raise UserError(
            f"resume=auto: {folder} holds no checkpoint to go on from, but {min(others or names)}, "
            "which a run does not leave before its first one: remove it, or choose another run_dir"
        )
    return frozenset(names)

"""`resume=auto`: where the run of a folder stands, and the words that go on from there.

Nothing heavy is imported to find out that a run is finished, or has no checkpoint yet.
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
"""The file of a run's folder with the words that began it."""
CHECKPOINTS = "checkpoints"
FILES = ("last.ckpt", "best.ckpt")
OF_A_RUN = frozenset({
    RECORD, CHECKPOINTS, folders.LOCK, ".hydra", "changes", "config.yaml", "environment.json",
    "environment.json.partial", "error.log", "metrics.csv", "metrics.json", "metrics.partial",
    "mlflow", "mlflow.db", "report", "tensorboard", "train.log", "wandb",
})  # fmt: skip
"""What a run may have left in its folder before its first checkpoint."""
OF_THE_PLACE = ("resume", "run_dir", "ckpt_path")
"""Words that say where a run goes on, and nothing about it."""
LENGTHS = {"max_epochs": "epochs", "max_steps": "steps"}
RUNS = Path("runs")


@dataclass(frozen=True)
class Standing:
    """Where the run of a folder stands.

    completed: `metrics` is its metrics.json, and nothing is left to do. resumable: `checkpoint` is
    the file to go on from. anew: it has none yet, and `leftovers` are the entries to clear away.
    """

    folder: Path
    status: Literal["completed", "resumable", "anew"]
    checkpoint: Path | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    leftovers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    overrides: in place of the typed words. standing: of the folder that it goes on in, None for a
    new one. said: a line about it, empty where nothing was asked for.
    """

    overrides: list[str]
    standing: Standing | None = None
    said: str = ""

    @property
    def completed(self) -> dict[str, Any] | None:
        """The results of a run that is finished already; None for one that has to run."""
        finished = self.standing is not None and self.standing.status == "completed"
        return self.standing.metrics if finished and self.standing else None

    @property
    def leftovers(self) -> frozenset[str]:
        """The entries that the folder may hold and that are to be cleared away."""
        return frozenset() if self.standing is None else self.standing.leftovers


def standing(folder: Path, words: Sequence[str] = ()) -> Standing:
    """Where the run of a folder stands, which need not exist; it is only read.

    words: overrides, of which a larger `trainer.max_epochs`, `trainer.max_steps` or another
    `trainer.max_time` asks for more of a completed run. Raises UserError where the folder holds
    other things than a run leaves.
    """
    content = _content(folder / "metrics.json")
    metrics = content if isinstance(content, dict) else {}
    checkpoint = next(iter(checkpoints_of(folder)), None)
    more = checkpoint is not None and _asks_for_more(folder, metrics, words)
    if metrics.get("status") == "completed" and not more:
        return Standing(folder, "completed", checkpoint, metrics)
    if checkpoint is not None:
        return Standing(folder, "resumable", checkpoint)
    return Standing(folder, "anew", leftovers=_leftovers(folder))


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run: the last one, the best one, then others, the newest first."""
    named = [folder / CHECKPOINTS / name for name in FILES]
    others = sorted((folder / CHECKPOINTS).glob("*.ckpt"), key=_age, reverse=True)
    return [file for file in dict.fromkeys([*named, *others]) if file.is_file()]


def first_readable(folder: Path) -> tuple[Stored, list[Path]]:
    """The first of a run's checkpoints that can be gone on from, and those that cannot be read.

    Raises UserError, with what is wrong with the first, where there is none.
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
        weights.append(stored)  # of the weights alone: whoever resumes it says so
    if not weights:
        raise next(iter(refused.values()))
    return weights[0], list(refused)


def beginning(words: Sequence[str]) -> Beginning:
    """What a training begins with whose command line may say `resume=auto`.

    With `run_dir` it goes on there; without, in the newest folder below runs/ that the same words
    began, whose run is neither finished nor at work. Raises UserError.
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
    """The words that go on from where a run stands, made of those that were typed.

    Where its last checkpoint cannot be read, the one before is taken. Raises UserError where none
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
    said = f"resume=auto: goes on in {found.folder} after step {stored.steps}"
    if stored.path.name != FILES[0]:
        said += f", from {stored.path.name}"
    if damaged:
        said += f": {' and '.join(file.name for file in damaged)} cannot be read"
    checkpoint = f"ckpt_path={quoted(str(stored.path))}"
    return Beginning([*_changing(rest, stored), checkpoint, run_dir], found, said)


def words_in_force(composition: Composition) -> list[str]:
    """The words that have made a configuration: those typed now, and before them, of a resumed run,
    those that its checkpoint tells and that none of now replaces."""
    resumes = composition.trusted is not None
    before = read_stored(composition.config.ckpt_path).overrides if resumes else ()
    return list(_by_key([*before, *_of_the_run(composition.typed)]).values())


def record(composition: Composition, directory: Path) -> None:
    """Note in a run's folder which words began it; a run that goes on there keeps the first."""
    file = directory / RECORD
    if not file.is_file():
        write_whole(file, json.dumps(_of_the_run(composition.typed), ensure_ascii=False) + "\n")


def clear(folder: Path, leftovers: Collection[str]) -> None:
    """Remove what a run has left before its first checkpoint; whoever calls holds the folder."""
    for name in sorted(set(leftovers) - {folders.LOCK}):
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def reopen(folder: Path) -> None:
    """Remove the results of a run that goes on in its folder, and files it was killed in writing.

    Whatever ends it now writes metrics.json again; one that is killed must not seem completed.
    """
    (folder / "metrics.json").unlink(missing_ok=True)
    for partial in folder.rglob(f"*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _at_the_end(words: Sequence[str]) -> Beginning | None:
    """What words begin with that resume a completed run, and change nothing of it.

    None for all others: they may test its weights under other settings.
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
    except UserError:  # words of one's own code, or wrong ones: composing tells, with its folders
        return None
    if changing:
        return None
    said = (
        f"the run in {folder} is completed, nothing is left to train: these are its results; to "
        "train for longer, set a larger trainer.max_epochs or trainer.max_steps"
    )
    return Beginning(list(words), found, said)


def _check_asked(asked: Override, overrides: Sequence[Override]) -> None:
    """Raise UserError where `resume` is not auto, or stands beside what says the same otherwise."""
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
                f"resume=auto goes on in the folder of run_dir: set it in place of "
                f"{override.input_line}"
            )


def _named_folder(words: Sequence[str]) -> Path | None:
    """The folder that `run_dir` names, which may be put together from other settings."""
    value = CommandLine.of(words).value("run_dir")
    if value is None:
        return None
    return Path(str(compose(words).config.run_dir if "${" in str(value) else value))


def _newest(words: Sequence[str]) -> Standing | None:
    """The newest run below runs/ that the same words began and that can go on; None without one."""
    _check_shared_by_all(words)
    wanted = _by_key(_of_the_run(words))
    named = sorted(RUNS.glob(f"*/*/*/{RECORD}"), key=lambda file: _age(file), reverse=True)
    for file in named:
        began = _content(file)
        if not isinstance(began, list) or _by_key(began) != wanted or folders.at_work(file.parent):
            continue
        with suppress(UserError):  # somebody has put other things into it
            found = standing(file.parent, words)
            if found.status != "completed":
                return found
    return None


def _check_shared_by_all(words: Sequence[str]) -> None:
    """Raise UserError where processes that share a run would each look for its folder."""
    if machine.started_outside() and machine.several_processes(compose(words).config.trainer):
        raise UserError(
            "resume=auto needs run_dir=<folder> where torchrun or srun starts the processes of a "
            "run, so that all of them go on from the same checkpoint"
        )


def _age(file: Path) -> tuple[float, str]:
    return file.stat().st_mtime, str(file)


def _changing(words: Sequence[str], stored: Stored) -> list[str]:
    """The words without those that the checkpoint was trained with, which are in force already.

    Some could not be laid on it a second time, such as `~callbacks.report` or `init_from`. Where a
    choice is a new one, all settings are set again, since it may have brought others.
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
    """The words without those that only say where."""
    return [word for word in words if _key(word) not in OF_THE_PLACE]


def _by_key(words: Sequence[str]) -> dict[str, str]:
    """The last word of each key; a setting that is left out has the key of the setting."""
    return {_key(word): word for word in words}


def _key(word: str) -> str:
    return full_key(parse([word])[0])


def _content(file: Path) -> Any:
    """What a JSON file holds; an empty mapping without it, or of one that is damaged."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}


def _asks_for_more(folder: Path, metrics: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether the words give a completed run more epochs, steps or time than it was given."""
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
    """What lies in a folder whose run has no checkpoint. Raises UserError where it is no run's."""
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

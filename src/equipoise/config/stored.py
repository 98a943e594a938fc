"""Reads checkpoints and their description of the run, checked before anything relies on it."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from equipoise.config.about import wrong_about
from equipoise.config.annotations import parameters
from equipoise.config.exported import is_exported, modified, read_exported
from equipoise.config.own_code import NO_OWN_CODE, OwnCode, believed
from equipoise.errors import TooLarge, UserError
from equipoise.errors.sizes import archive_fault

UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    OverflowError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
    struct.error,
)  # fmt: skip
"""Exceptions that readers raise for a file that is not a checkpoint, or a damaged one."""


DEEPEST = 32
MOST_VALUES = 100_000
PLAIN = (bool, int, float, str, type(None))
RUN_DIRECTORY = "${run_dir}"
NODES = ("task", "model", "trainer")
MAPPINGS = ("callbacks", "logger", "solver", "gradient", "regularizer", "optimizer", "schedule",
            "equilibrium", "eval_solver", "anytime", "recipe")  # fmt: skip
BEFORE_ABOUT = {
    "task": {name: name for name in ("gives", "wants", "without_path", "from_hub")},
    "model": {name: name for name in ("takes", "gives", "equilibrium", "weights")}
    | {"least_attributes": "least", "most_attributes": "most"},
    "gradient": {"solvers": "solvers"},
    "regularizer": {"gradients": "gradients"},
}
"""Keys that revisions without `about:` kept among a class's arguments, with their new names."""
ENDS = {"least", "most"}
SETTINGS = ("classes", "mask_classes", "vocabulary", "epsilon", "repeats", "reports")
DATA = ("classes", "mask_classes", "image_channels", "image_size", "vocabulary", "domain", "users")
FROM_DATA = ("vocabulary", "domain", "users")
COUNTS = ("epoch", "global_step")
OVERRIDES = "overrides"
"""The key, in a checkpoint, of the words of the command line in force."""
RENAMED = {"equipoise.anytime.AnytimeCurve": "equipoise.running.anytime.AnytimeCurve"}
"""A `_target_` stored by an earlier revision, and the present place of that class."""


@dataclass(frozen=True)
class Stored:
    """The run behind a checkpoint: its configuration, its choices, and how far it had come.

    shapes: those of every tensor among the weights. rows: how many metrics.csv had by then, and
    last_row: the step of the last one, None where it does not say or an epoch ends with it.
    validated: whether it holds the validation at its step. marks: entries of loggers,
    by their classes. whole: whether it holds more than the weights. own_code: the user's own code,
    if one of this user's runs wrote the checkpoint. overrides: the words of the command
    line that are in force; none where it does not say.
    """

    path: Path
    config: dict[str, Any]
    choices: dict[str, str]
    epochs: int
    steps: int
    shapes: dict[str, tuple[int, ...]]
    rows: int | None = None
    last_row: int | None = None
    validated: bool = True
    marks: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
    own_code: OwnCode = NO_OWN_CODE
    overrides: tuple[str, ...] = ()


def existing_checkpoint(path: str | Path) -> Path:
    """The path, if it is a file or an exported folder; nothing heavy is imported for this.

    Raises UserError if it is neither.
    """
    file = Path(path)
    if not (file.is_file() or is_exported(file)):
        near = sorted(file.parent.glob("*.ckpt")) if file.parent.is_dir() else []
        hint = f"did you mean {near[0]}?" if near else "give runs/<...>/checkpoints/last.ckpt"
        raise UserError(f"there is no checkpoint at {file}; {hint}")
    return file


def read_content(file: Path) -> Any:
    """The content of a checkpoint file, on the CPU, after its checksums are verified.

    An exported folder has the same content except what only training reads. Raises UserError
    where it cannot be read.
    """
    if file.is_dir():
        return read_exported(file)
    import torch

    try:
        if (fault := archive_fault(file)) is not None:
            raise UserError(
                f"the checkpoint {file} is damaged: {fault}; use another one, such as last.ckpt or "
                "best.ckpt of the same run"
            )
        return torch.load(file, map_location="cpu", weights_only=True)
    except TooLarge:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {file} holds pickled objects, whose code would run when it is "
            "read: use one that Equipoise wrote"
        ) from error
    except UNREADABLE as error:
        raise UserError(
            f"the checkpoint {file} cannot be read (truncated, or not written by Equipoise): "
            f"use another one, such as last.ckpt or best.ckpt of the same run"
        ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, on the CPU.

    Raises UserError where there is no such file, it is truncated or holds something else.
    """
    file = existing_checkpoint(path)
    content = read_content(file)
    entries = set(content) if isinstance(content, dict) else set()
    missing = {"state_dict", "config", "choices"} - entries
    if missing:
        raise UserError(
            f"the checkpoint {file} was not written by Equipoise: it has no {min(missing)}"
        )
    return dict(content)


def read_stored(path: str | Path) -> Stored:
    """The run described by the checkpoint at a path. Raises UserError where it cannot be used.

    A command asks several times, but a large file is read once.
    """
    file = existing_checkpoint(path)
    return _read(file, *modified(file))


@lru_cache(maxsize=8)
def _read(file: Path, modified: int, size: int) -> Stored:
    return stored_run(read_checkpoint(file), file)


def stored_run(content: Mapping[str, Any], path: str | Path) -> Stored:
    """The same from a checkpoint's content. Raises UserError, naming what is wrong with it."""
    fault = _fault(content)
    if fault:
        raise UserError(
            f"the checkpoint {path} cannot be used, because {fault}: use one that Equipoise wrote"
        )
    shapes = {n: tuple(v.shape) for n, v in content["state_dict"].items() if hasattr(v, "shape")}
    closed = _count(_mapping(content, "training_position"), "batch") == 0
    return Stored(
        path=Path(path),
        config=in_present_form(content["config"]),
        choices=content["choices"],
        epochs=finished_epochs(content),
        steps=content.get("global_step", 0),
        shapes=shapes,
        rows=_count(_mapping(content, "curve"), "rows"),
        last_row=None if closed else _count(_mapping(content, "curve"), "last"),
        validated=closed or _mapping(content, "training_position").get("validated") is not False,
        marks=_mapping(_mapping(content, "curve"), "marks"),
        whole={"optimizer_states", "loops"} <= set(content),
        own_code=believed(content),
        overrides=_texts(content.get(OVERRIDES)),
    )


def finished_epochs(content: Mapping[str, Any]) -> int:
    """How many whole epochs a checkpoint's run had finished.

    If it has no position of ours, `epoch` is the number of the running epoch, which is finished
    too if its last batch has been trained on: best.ckpt is written by the validation at an epoch's
    end.
    """
    epoch = _count(_mapping(content, "training_position"), "epoch")
    if epoch is not None:
        return epoch
    current = int(content.get("epoch", 0))
    loop = _mapping(_mapping(content, "loops"), "fit_loop")
    ended = _mapping(loop, "epoch_loop.batch_progress").get("is_last_batch") is True
    return current + ended


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> tuple[str, ...]:
    """The entries of a list of texts; empty for anything else."""
    whole = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return tuple(value) if whole else ()


def _count(content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _fault(content: Mapping[str, Any]) -> str | None:
    """What is wrong with a checkpoint's content, None where nothing is."""
    config: Any = content.get("config")
    choices: Any = content.get("choices")
    if not _is_named(config):
        return "its config is not a mapping with text keys"
    if not _is_named(choices) or not all(isinstance(c, str) for c in choices.values()):
        return "its choices are not a mapping of texts to texts"
    if not {"task", "model"} <= set(choices):
        return "its choices name no task and model"
    if not _is_named(content.get("state_dict")):
        return "its state_dict is not a mapping of names"
    for key in COUNTS:
        count = content.get(key, 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return f"its {key} is not a whole number of at least 0"
    return _fault_of_values(config) or _fault_of_parts(in_present_form(config))


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _fault_of_values(config: dict[str, Any]) -> str | None:
    """Finds values that are not plain, too many or too deep; not recursive, to bear any depth."""
    waiting: list[tuple[Any, int]] = [(config, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            return f"its config is nested deeper than {DEEPEST} or has over {MOST_VALUES:,} values"
        if isinstance(value, dict):
            if not _is_named(value):
                return "its config has a key that is not a text"
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        elif not isinstance(value, PLAIN):
            return f"its config holds a {type(value).__name__}"
        elif isinstance(value, str) and "${" in value.replace(RUN_DIRECTORY, ""):
            return f"its config asks for {value[:60]!r}, which a stored configuration never does"
    return None


def _fault_of_parts(config: dict[str, Any]) -> str | None:
    for key in NODES:
        if not isinstance(config.get(key), dict) or not _target(config[key]):
            return f"its config has no {key} with a _target_"
    if not isinstance(config["task"].get("objective"), dict):
        return "its config has no task.objective"
    if not isinstance(config["task"].get("monitor"), str):
        return "its config has no task.monitor"
    for key in MAPPINGS:
        if not isinstance(config.get(key), dict | None):
            return f"its config.{key} is not a mapping"
    if wrong := wrong_about(config):
        return f"its config.{wrong}"
    seed = config.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int):
        return "its config.seed is not a whole number"
    return None


def _target(node: dict[str, Any]) -> bool:
    return isinstance(node.get("_target_"), str)


def in_present_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration in the present form of `conf/`: descriptions of a choice in `about`.

    The only place that knows earlier revisions' form; a present configuration is unchanged.
    """
    present: dict[str, Any] = with_present_targets(config)
    nodes = {group: _with_about(group, present.get(group)) for group in BEFORE_ABOUT}
    return present | {group: node for group, node in nodes.items() if group in present}


def with_present_targets(value: Any) -> Any:
    """The same configuration, with every renamed class under its present name."""
    if isinstance(value, list):
        return [with_present_targets(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    config = {key: with_present_targets(inner) for key, inner in value.items()}
    if isinstance(target := config.get("_target_"), str):
        config["_target_"] = RENAMED.get(target, target)
    return config


def _with_about(group: str, node: Any) -> Any:
    if not isinstance(node, dict) or "about" in node:
        return node
    accepted = parameters(str(node.get("_target_")))
    moved = {name: new for name, new in BEFORE_ABOUT[group].items() if name in node}
    entries = {new: node[name] for name, new in moved.items()}
    for end in sorted(ENDS & set(entries)):
        entries[end] = {"attribute": entries[end]}
    if group in ("task", "model"):
        entries["data"] = [key for key in DATA if key in node]
    if group == "task":
        entries["settings"] = [key for key in SETTINGS if key in node]
        entries["from_data"] = [key for key in FROM_DATA if key in node]
        surveyed = entries.get("wants") == "range_estimate"
        entries["counts"] = {"attribute": ["columns", "domain"]} if surveyed else {}
    kept = {name: value for name, value in node.items() if name not in moved or name in accepted}
    entries = {key: value for key, value in entries.items() if value not in ([], {})}
    return {**kept, "about": entries} if entries else node

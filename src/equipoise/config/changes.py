"""The settings that a resumed run changes: described, and refused where they have no effect.

A checkpoint cannot take up a setting that only decides how a run begins, or one that the phases of
a gradient schedule replace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from equipoise.config.about import about
from equipoise.config.hydra import as_text, parse, plain
from equipoise.config.overrides import CommandLine, full_key, is_of_hydra
from equipoise.config.phases import KEY as PHASES
from equipoise.config.stored import Stored
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.config.compose import Composition

OF_NO_ACCOUNT = ("ckpt_path", "resume", "run_dir", "trust", "init_from")
"""Settings of the resuming command rather than of the run."""
WRITERS = ("callbacks", "logger", "trainer")
"""Parts of a configuration that write files."""
MISSING = object()
STOOD_IN_FOR = {"gradient": "gradient", "solver.max_steps": "max_steps", "solver.tol": "tol"}
"""A setting, and the entry of a phase that replaces it."""


def described(stored: Stored, composition: Composition) -> str:
    """The settings of a checkpoint that its words have changed, with their earlier values."""
    told = dict[str, str]()
    for override in CommandLine.of(composition.overrides).overrides:
        key = full_key(override)
        if is_of_hydra(override) or key.partition(".")[0] in OF_NO_ACCOUNT:
            continue
        if key in composition.choices.keys() | stored.choices.keys():
            typed = None if override.is_delete() else override.get_value_element_as_str()
            chosen = stored.choices.get(key), composition.choices.get(key, typed)
            old, new = map(_choice, chosen)
        else:
            old, new = _value(stored.config, key), _value(plain(composition.config), key)
        if old != new:
            was = "" if old is MISSING else f" (was {_text(old)})"
            told[key] = f"no {key}" if new is MISSING else f"{key}={_text(new)}{was}"
    return ", ".join(told.values())


def _choice(name: str | None) -> str | None:
    """The choice of a group as typed: several are in brackets."""
    several = name is not None and "," in name and not name.startswith("[")
    return f"[{name}]" if several else name


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return MISSING
        config = config[name]
    return config


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else as_text(value)


def check_initial_setting(override: Override, stored: Stored) -> None:
    """Raise UserError for a setting that only decides with which weights a new run begins.

    A model, or its encoder, lists such settings as `initial`.
    """
    place, _, name = override.key_or_group.rpartition(".")
    node = OmegaConf.select(OmegaConf.create({"model": stored.config["model"]}), place or "none")
    if not isinstance(node, DictConfig) or name not in about(node, "initial", ()):
        return
    if override.is_delete() or override.value() != node.get(name):
        raise UserError(
            f"{override.input_line} sets the initial weights of a new run, but ckpt_path takes "
            "those of its checkpoint; leave it out"
        )


def check_places(config: Mapping[str, Any], stored: Stored, words: Sequence[str]) -> None:
    """Raise UserError where a checkpoint would make a run write outside its own folder.

    config: the checkpoint's with the words of the command line applied. Paths typed again are
    allowed, as the user wants them.
    """
    typed = {full_key(override) for override in parse(words)}
    for key, value in _texts({part: config.get(part) for part in WRITERS}):
        away = value.startswith(("/", "~", "\\")) or ".." in value.replace("\\", "/").split("/")
        if away and key not in typed and _value(stored.config, key) == value:
            raise UserError(
                f"{key}: the checkpoint {stored.path} would have the run write to {value}, outside "
                f"its folder; if you want that, say so with {key}={value}"
            )


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in nested mappings, each with its key."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, str):
        yield key, node


def check_in_force(config: DictConfig, stored: Stored, words: CommandLine) -> None:
    """Raise UserError for an estimator, budget or tolerance that every phase to come replaces."""
    phases = OmegaConf.select(config, PHASES) or []
    if not phases or PHASES in words.keys:
        return
    reached = _reached(config, stored)
    typed = [(o, key) for o in words.overrides for key in STOOD_IN_FOR if _sets(o, key)]
    for override, key in typed:
        entry = STOOD_IN_FOR[key]
        started = [phase.start for phase in phases if _fraction(phase, config) <= reached]
        ahead = list(phases)[max(len(started) - 1, 0) :]
        if started and all(phase.get(entry) is not None for phase in ahead):
            raise UserError(
                f"{override.input_line} would have no effect: each remaining phase of {PHASES} "
                f"sets its own {entry}; change those, or set {PHASES}=[]"
            )


def _sets(override: Override, key: str) -> bool:
    name = full_key(override)
    return name == key or (key == "gradient" and name.startswith("gradient."))


def _reached(config: DictConfig, stored: Stored) -> float:
    """The fraction of the run, by its present length, that the checkpoint has completed."""
    steps, epochs = config.trainer.get("max_steps") or -1, config.trainer.get("max_epochs") or -1
    parts = [stored.steps / steps if steps > 0 else 0, stored.epochs / epochs if epochs > 0 else 0]
    return max(parts)


def _fraction(phase: Any, config: DictConfig) -> float:
    """The start of a phase as a fraction of the run; 1 for a step in a run counted in epochs."""
    steps = config.trainer.get("max_steps") or -1
    if isinstance(phase.start, float):
        return phase.start
    return phase.start / steps if steps > 0 else float(phase.start > 0)

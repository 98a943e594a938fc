"""Every value of a composed configuration against its type and its limits, without torch.

Types come from the annotations of the class behind `_target_`, limits from the table of `limits` or
from `about:` in the file of a choice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equipoise.config import init_from
from equipoise.config.about import about, shared_data
from equipoise.config.annotations import accepts, described, literals, parameters
from equipoise.config.compilation import Compile
from equipoise.config.hydra import flatten
from equipoise.config.limits import SEED, Limit, limit_of
from equipoise.config.overrides import OPEN
from equipoise.config.refusals import first_line, shown
from equipoise.errors import UserError, nearest

SETTING = re.compile(r"\$\{[\w.\[\]]+\}")
"""A value taken whole from another setting; ${oc.env:HOME} is not one."""
TOP: dict[str, Any] = {"seed": int, "ckpt_path": str | None, "resume": Literal["auto"] | None,
                       "compile": Compile | None,
                       "memory_format": Literal["channels_last"] | None,
                       "run_dir": str | None, "trust": list[str], **init_from.TYPES}  # fmt: skip
WATCHED: dict[str, Any] = {"monitor": str, "monitor_mode": Literal["min", "max"]}


def check_values(config: DictConfig, typed_keys: Collection[str] = ()) -> None:
    """Raise UserError at the first value of a wrong type, beyond its limits or not finite.

    A value taken from another setting may still have to be read from the dataset: only its limits
    are checked, its type being that setting's. typed_keys: those of the command line.
    """
    interpolated = dict(_interpolated(OmegaConf.to_container(config)))
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"cannot resolve the settings: {first_line(error)}") from error
    top = {**resolved, **dict(flatten(resolved.get("init_from") or {}, "init_from."))}
    for name, hint in TOP.items():
        if name in top:  # a checkpoint of an earlier version lacks some
            check_type(name, top[name], hint)
    check_limit("seed", resolved["seed"], SEED)
    _check_entries(resolved)
    for key, node in target_nodes(resolved):
        target = str(node["_target_"])
        types = parameters(target)
        for name, value in node.items():
            place = _source(f"{key}.{name}", interpolated)
            borrowed = place != f"{key}.{name}"
            if name in types and not (borrowed and _is_judged_there(place, value, resolved)):
                check_type(place, value, types[name])
            limit = _told_limit(place, resolved) or _told_limit(f"{key}.{name}", resolved)
            check_limit(place, value, limit or limit_of(target, name))
    for name, hint in WATCHED.items():
        check_type(f"task.{name}", resolved["task"][name], hint)
    if not resolved["task"]["monitor"].startswith("val/"):
        raise UserError(
            f"task.monitor={resolved['task']['monitor']} is not a validation metric: "
            "give one such as val/loss"
        )
    _check_agreement(resolved, typed_keys)


def _check_entries(config: Mapping[str, Any]) -> None:
    """Raise where a user's entry has settings, but no class that takes them."""
    for group in OPEN:
        for name, entry in (config.get(group) or {}).items():
            if entry and not (isinstance(entry, Mapping) and entry.get("_target_")):
                raise UserError(
                    f"{group}.{name} has no class: add +{group}.{name}._target_=my_package.Mine"
                )


def target_nodes(config: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and content of every mapping that has a `_target_`."""
    if isinstance(config, Mapping):
        if config.get("_target_"):
            yield key, config
        for name, value in config.items():
            yield from target_nodes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from target_nodes(value, f"{key}[{index}]")


def _source(key: str, interpolated: Mapping[str, str]) -> str:
    """The setting from which a value is taken, through any chain of interpolations."""
    while SETTING.fullmatch(written := interpolated.get(key, "")):
        key = written.strip("${}")
    return key


def _is_judged_there(key: str, value: Any, config: Mapping[str, Any]) -> bool:
    """Whether the class of the setting from which a value is taken checks that value itself.

    The same holds for null, which stands for a value still to be read from the dataset.
    """
    group, _, name = key.partition(".")
    node = config.get(group)
    target = node.get("_target_") if isinstance(node, Mapping) and name else None
    arguments = parameters(str(target)) if target else {}
    return value is None or name in arguments


def _told_limit(key: str, config: Mapping[str, Any]) -> Limit | None:
    """The limits that the file of a setting's choice states for it, if any."""
    node = config.get(key.partition(".")[0])
    told = about(node, "limits", {}) if isinstance(node, Mapping) else {}
    ends = told.get(key.rpartition(".")[2])
    if ends is None:
        return None
    least, most = ends
    return Limit(-math.inf if least is None else least, math.inf if most is None else most)


def _interpolated(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys of all values taken from elsewhere, with their interpolations."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _interpolated(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from _interpolated(value, f"{key}[{index}]")
    elif isinstance(config, str) and "${" in config:
        yield key, config


def check_limit(key: str, value: Any, limit: Limit) -> None:
    """Raise where a number, or one in a list, is not finite or beyond the limit."""
    for number in _numbers(value):
        infinite = isinstance(number, float) and not math.isfinite(number)
        if infinite or not limit.holds(number):
            raise UserError(f"{key}={value} must be {limit.described()}")


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def check_type(key: str, value: Any, hint: Any) -> None:
    """Raise where the value is not of the annotated type, naming the nearest choice if it has any.

    A word or true is not a number, and a fraction is not an integer, though Python takes them.
    """
    if not accepts(value, hint):
        raise refused(key, value, hint)


def refused(key: str, value: Any, hint: Any) -> UserError:
    """What to say of a value that is not of the annotated type."""
    choices = [str(choice) for choice in literals(hint)]
    if choices:
        hint_text = nearest(str(value), choices)
        return UserError(f"{key}={value} is not one of {', '.join(choices)}{hint_text}")
    return UserError(f"{key}={shown(value)} is not of type {described(hint)}")


def _check_agreement(config: Mapping[str, Any], typed_keys: Collection[str]) -> None:
    """Raise where the network or the objective would be made for other data than the task's.

    Values that only the data files contain are not yet known, but must not be typed.
    """
    task = config["task"]
    for key, node in (("model", config["model"]), ("task.objective", task["objective"])):
        for name in shared_data(config["model"], task):
            made_for, of_task = node.get(name), task.get(name)
            decided = of_task is not None or f"{key}.{name}" in typed_keys
            if decided and made_for is not None and made_for != of_task:
                raise UserError(
                    f"{key}.{name}={made_for} would not fit the data, whose task.{name} is "
                    f"{of_task}: leave {key}.{name} out"
                )

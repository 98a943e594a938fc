"""Every value of a composed configuration against its type and its limits, without torch.

Types come from the annotations of the class behind `_target_`, limits from the table of `limits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equipoise.annotations import parameters
from equipoise.checks import nearest
from equipoise.errors import UserError
from equipoise.limits import SEED, Limit, limit_of

PLAIN_KEYS = {
    "takes", "gives", "wants", "equilibrium", "weights", "solvers", "gradients",
    "least_attributes", "most_attributes", "epsilon", "repeats", "reports",
    "classes", "mask_classes", "image_size", "image_channels", "vocabulary", "monitor",
    "monitor_mode", "objective", "without_path", "from_hub",
}  # fmt: skip
"""Keys that describe a choice to the checks and to the other groups, not to its class."""
GIVEN_BY_TASK = ("classes", "mask_classes", "image_size", "image_channels", "vocabulary")


def check_values(config: DictConfig) -> None:
    """Raise UserError at the first value that is of a wrong type, beyond its limits or not finite.

    What is taken from another setting may still have to be read from the dataset: only its limits
    are checked, its type is that setting's.
    """
    interpolated = set(_interpolated(OmegaConf.to_container(config)))
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"cannot resolve the settings: {_first_line(error)}") from error
    check_limit("seed", resolved["seed"], SEED)
    for key, node in target_nodes(resolved):
        target = str(node["_target_"])
        types = parameters(target)
        for name, value in node.items():
            place = f"{key}.{name}"
            if name in types and place not in interpolated:
                check_type(place, value, types[name])
            check_limit(place, value, limit_of(target, name))
    _check_given_by_task(resolved)


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


def _interpolated(config: Any, key: str = "") -> Iterator[str]:
    """The dotted keys of all values that are taken from elsewhere."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _interpolated(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from _interpolated(value, f"{key}[{index}]")
    elif isinstance(config, str) and "${" in config:
        yield key


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

    A word is no number, true is no number and a fraction is no integer, though Python takes them.
    """
    if not accepts(value, hint):
        raise refused(key, value, hint)


def refused(key: str, value: Any, hint: Any) -> UserError:
    """What to say of a value that is not of the annotated type."""
    choices = [str(choice) for choice in literals(hint)]
    if choices and not isinstance(value, list):
        hint_text = nearest(str(value), choices)
        return UserError(f"{key}={value} is not one of {', '.join(choices)}{hint_text}")
    return UserError(f"{key}={value} is not of type {described(hint)}")


def accepts(value: Any, hint: Any) -> bool:
    """Whether a value of a yaml file can be given for the annotated type.

    A mapping with a `_target_` fits anywhere: what it builds is judged by its class.
    """
    if hint is Any or (isinstance(value, Mapping) and value.get("_target_")):
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union:
        return any(accepts(value, alternative) for alternative in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is None:
        return _is_a(value, hint)
    if issubclass(origin, Mapping):
        inner = arguments[1]
        return isinstance(value, Mapping) and all(accepts(v, inner) for v in value.values())
    inner = arguments[:1] if origin is not tuple or ... in arguments else arguments
    if not isinstance(value, list) or (len(inner) > 1 and len(inner) != len(value)):
        return False
    return all(accepts(entry, inner[i % len(inner)]) for i, entry in enumerate(value))


def _is_a(value: Any, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:  # the folder of the run is named later
        return value is None or isinstance(value, str)
    return isinstance(value, hint)


def literals(hint: Any) -> list[Any]:
    """All values that a Literal inside the annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for argument in get_args(hint) for choice in literals(argument)]


def described(hint: Any) -> str:
    """The annotation as one would write it."""
    if get_origin(hint) is Union:
        return " | ".join(described(alternative) for alternative in get_args(hint))
    if hint is type(None):
        return "None"
    if get_args(hint):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    return str(getattr(hint, "__name__", hint))


def _check_given_by_task(config: Mapping[str, Any]) -> None:
    """Raise where the network is to be made for other data than the task has."""
    for name in GIVEN_BY_TASK:
        typed, given = config["model"].get(name), config["task"].get(name)
        if None not in (typed, given) and typed != given:
            raise UserError(
                f"model.{name}={typed} would not fit the data, of which task.{name} says {given}: "
                f"leave model.{name} out"
            )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")

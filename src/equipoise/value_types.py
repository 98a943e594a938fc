"""Whether a value of a yaml file can be given where a type is annotated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from equipoise.annotations import Built


def accepts(value: Any, hint: Any) -> bool:
    """Whether a value of a yaml file can be given for the annotated type.

    A mapping with a `_target_` fits anywhere: what it builds is judged by its class.
    """
    if hint is Any or (isinstance(value, Mapping) and value.get("_target_")):
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
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
    """The annotation as one would write it; objects of classes cannot be written in a yaml file."""
    if get_origin(hint) in (Union, UnionType):
        written = [inner for inner in get_args(hint) if inner is not Built]
        return " | ".join(described(inner) for inner in written)
    if hint is Built:
        return "a class, by a _target_"
    if hint in (None, type(None), ...):
        return "None" if hint is not ... else "..."
    if get_args(hint) and get_origin(hint) is not Literal:
        inner = ", ".join(described(argument) for argument in get_args(hint))
        return f"{get_origin(hint).__name__}[{inner}]"
    return str(getattr(hint, "__name__", hint)).replace("typing.", "")

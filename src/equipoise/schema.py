"""The signature behind `_target_` is the schema: keys and types of a configuration against it.

Importing the classes costs seconds, so this comes after the checks that need only the yaml files.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from equipoise.checks import nearest
from equipoise.config.about import keys_of_others
from equipoise.errors import UserError
from equipoise.values import refused, target_nodes


def check_signatures(config: Mapping[str, Any]) -> None:
    """Check every node with a `_target_`; raises UserError at the first wrong key or value."""
    for key, node in target_nodes(config):
        target = locate(key, str(node["_target_"]))
        parameters = inspect.signature(target).parameters
        hints = type_hints(target)
        extra = {"_target_", "_partial_"} | (keys_of_others(key, node) - set(parameters))
        for name, value in node.items():
            if name in extra:
                continue
            if name not in parameters:
                hint = nearest(name, parameters)
                raise UserError(f"{key}.{name}: {target.__name__} takes no '{name}'{hint}")
            if name in hints and not _is_node(value):
                _check_type(f"{key}.{name}", value, hints[name])


def locate(key: str, target: str) -> Callable[..., Any]:
    """The class that a dotted path names. Raises UserError, with the cause, if there is none."""
    module, _, name = target.rpartition(".")
    try:
        target_class: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}: cannot import {target}: {error}") from error
    return target_class


def constructor_arguments(key: str, node: Any) -> Any:
    """The node at a key, and all nodes in it, without what their classes do not take."""
    if isinstance(node, list):
        return [constructor_arguments(f"{key}[{i}]", value) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    extra: set[str] = set()
    if "_target_" in node:
        target = locate(key, str(node["_target_"]))
        extra = keys_of_others(key, node) - set(inspect.signature(target).parameters)
    kept = {name: value for name, value in node.items() if name not in extra}
    return {name: constructor_arguments(f"{key}.{name}", value) for name, value in kept.items()}


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Resolved annotations of a class's constructor; those that cannot be resolved are left out."""
    # a dataclass inherits fields whose annotations only the module of the base class can resolve
    by_fields = not inspect.isclass(target) or dataclasses.is_dataclass(target)
    try:
        return typing.get_type_hints(target if by_fields else target.__init__)
    except NameError:  # an annotation that exists for type checkers alone
        annotations = inspect.signature(target).parameters.items()
        return {n: p.annotation for n, p in annotations if inspect.isclass(p.annotation)}


def _is_node(value: Any) -> bool:
    """Whether the value is, or contains, an object that is still to be built."""
    return any(True for _ in target_nodes(value))


def _check_type(key: str, value: Any, hint: Any) -> None:
    adapter = _adapter(hint)
    if adapter is None:
        return
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        raise refused(key, value, hint) from error


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """A validator for the hint; None for types that no value in a yaml file has, say a protocol."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type brings its own configuration, as a dataclass of pydantic
        return TypeAdapter(hint)
    except SchemaError:
        return None

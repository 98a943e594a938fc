"""The classes behind `_target_`: their signatures are the schema, and not all of them are trusted.

Importing the classes takes seconds, so this comes after the checks that need only the yaml files.

A checkpoint may come from anywhere, and the objects in its configuration get built. So nothing it
names is imported, not even to read a signature, before the package is known to be trusted; and it
must be a class that fits its place: a function could do anything as soon as it is called.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from equipoise.config.about import FILLED, FORWARDED, PROVIDED, keys_of_others
from equipoise.config.own_code import KNOWN, check_package, origin, own_packages
from equipoise.config.values import refused, target_nodes
from equipoise.errors import UserError, nearest

PLACES = {
    r"task": ("lightning.pytorch.LightningDataModule",),
    r"task\.objective": ("lightning.pytorch.LightningModule",),
    r"optimizer": ("torch.optim.Optimizer",),
    r"trainer": ("lightning.pytorch.Trainer",),
    r"callbacks\.[^.\[]+": ("lightning.pytorch.Callback",),
    r"logger\.[^.\[]+": ("lightning.pytorch.loggers.Logger",),
}
"""The class required at a key. Parts of other places are ours, or one of INNER."""
INNER = (
    "torch.nn.Module",
    "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.Callback",
    "lightning.pytorch.profilers.Profiler",
    "lightning.pytorch.strategies.Strategy",
    "lightning.pytorch.plugins.Precision",
)
"""Classes of other packages that only compute, or serve Lightning's Trainer."""


def check_signatures(config: Mapping[str, Any]) -> None:
    """Check every node with a `_target_`; raises UserError at the first wrong key or value."""
    for key, node in target_nodes(config):
        target = locate(key, str(node["_target_"]))
        parameters = known_arguments(target)
        hints = type_hints(target)
        extra = {"_target_", "_partial_"} | (keys_of_others(key, node) - set(parameters))
        any_name = takes_any_name(target)
        for name, value in node.items():
            if name in extra:
                continue
            if name not in parameters and not any_name:
                hint = nearest(name, parameters)
                raise UserError(f"{key}.{name}: {target.__name__} takes no '{name}'{hint}")
            if name in hints and not _is_node(value):
                _check_type(f"{key}.{name}", value, hints[name])
        _check_complete(key, node, target)


def known_arguments(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a class, and of the function to which it passes others."""
    names = dict(inspect.signature(target).parameters)
    if forwarded := FORWARDED.get(target.__name__):
        names |= inspect.signature(locate("logger", forwarded)).parameters
    return names


def takes_any_name(target: Callable[..., Any]) -> bool:
    """Whether only the class itself can decide which arguments it takes."""
    kinds = [parameter.kind for parameter in inspect.signature(target).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds and target.__name__ not in FORWARDED


def _check_complete(key: str, node: Mapping[str, Any], target: Callable[..., Any]) -> None:
    """Raise where a class of another package lacks a required argument."""
    if str(node["_target_"]).partition(".")[0] == "equipoise":
        return
    given = {*node, *PROVIDED.get(key, ()), *FILLED.get(key, ())}
    for name, parameter in inspect.signature(target).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and name not in given:
            raise UserError(f"{key}: {target.__name__} needs '{name}': add +{key}.{name}=<value>")


def locate(key: str, target: str) -> Callable[..., Any]:
    """The class at a dotted path.

    Raises UserError if there is none, or its module cannot be imported, naming the line.
    """
    module, _, name = target.rpartition(".")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the user's module may raise anything
        raise UserError(f"{key}: cannot import {target}: {_cause(error, target)}") from error
    if not hasattr(found, name):
        hint = nearest(name, [n for n in vars(found) if not n.startswith("_")])
        raise UserError(f"{key}: cannot import {target}: {module} has no {name}{hint}")
    target_class: Callable[..., Any] = getattr(found, name)
    return target_class


def _cause(error: Exception, target: str) -> str:
    """Why a module cannot be imported, with the line at which it fails."""
    where = origin(error, own_packages({"_target_": target}))
    top = target.partition(".")[0]
    if not where and isinstance(error, ModuleNotFoundError) and error.name == top:
        return f"there is no package {top}: install it, or start in the folder that it lies in"
    kind = f"{type(error).__name__}: " if where else ""
    return f"{where}{kind}{' '.join(str(error).split())}"


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
    except PydanticUserError:  # the type has its own configuration, as a pydantic dataclass does
        return TypeAdapter(hint)
    except SchemaError:
        return None


def check_targets(config: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """Check every `_target_` of a stored configuration.

    trusted: the user's packages, and single classes by their dotted paths.

    Raises UserError at the first one that is not to be trusted.
    """
    for key, node in target_nodes(config):
        target = node["_target_"]
        if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", target):
            raise UserError(f"{key}: the checkpoint names {str(target)[:80]!r}, not a class")
        _check_target(key, target, trusted)


def _check_target(key: str, target: str, trusted: Sequence[str]) -> None:
    check_package(key, target, trusted)
    if target in trusted:
        return
    candidate = locate(key, target)
    home = str(getattr(candidate, "__module__", None) or "").partition(".")[0]
    if home in trusted and callable(candidate):
        return
    if not inspect.isclass(candidate) or home not in KNOWN or not _fits_place(key, candidate, home):
        raise UserError(f"{key}: the checkpoint names {target}, which does not belong there")


def _fits_place(key: str, candidate: type, home: str) -> bool:
    """Whether a class is of the kind that its place requires."""
    for place, bases in PLACES.items():
        if re.fullmatch(place, key):
            return _is_one_of(candidate, bases)
    return home == "equipoise" or _is_one_of(candidate, INNER)


def _is_one_of(candidate: type, bases: Sequence[str]) -> bool:
    return issubclass(candidate, tuple(_class(name) for name in bases))


def _class(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    named: type = getattr(importlib.import_module(module), attribute)
    return named

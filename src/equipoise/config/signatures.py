"""The classes behind `_target_`: their signatures are the schema, and not all of them are trusted.

Importing the classes costs seconds, so this comes after the checks that need only the yaml files.

A checkpoint comes from anywhere, and what its configuration names is built. So nothing of it is
imported, not even to read a signature, before its package is known to be trusted; and what it names
has to be a class that fits the place it stands in: a function could do anything at once.
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

from equipoise.config.about import keys_of_others
from equipoise.config.values import refused, target_nodes
from equipoise.errors import UserError, nearest

KNOWN = ("equipoise", "torch", "torchvision", "torchmetrics", "lightning")
PLACES = {
    r"task": ("lightning.pytorch.LightningDataModule",),
    r"task\.objective": ("lightning.pytorch.LightningModule",),
    r"optimizer": ("torch.optim.Optimizer",),
    r"trainer": ("lightning.pytorch.Trainer",),
    r"callbacks\.[^.\[]+": ("lightning.pytorch.Callback",),
    r"logger\.[^.\[]+": ("lightning.pytorch.loggers.Logger",),
}
"""What has to stand at a key. Parts of other places are ours, or one of INNER."""
INNER = (
    "torch.nn.Module",
    "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.Callback",
    "lightning.pytorch.profilers.Profiler",
    "lightning.pytorch.strategies.Strategy",
    "lightning.pytorch.plugins.Precision",
)
"""Classes of other packages that do nothing but compute, or serve Lightning's Trainer."""


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


def as_packages(value: Any) -> tuple[str, ...]:
    """The packages of `trust=[my_package]`. Raises UserError where they are no names."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise UserError(f"trust={value} must be a list of packages, such as trust=[my_package]")
    return tuple(names)


def check_targets(config: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """Check every `_target_` of a stored configuration; `trusted` names packages of the user's.

    Raises UserError at the first one that is not to be trusted.
    """
    for key, node in target_nodes(config):
        target = node["_target_"]
        if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", target):
            raise UserError(f"{key}: the checkpoint names {str(target)[:80]!r}, not a class")
        _check_target(key, target, trusted)


def _check_target(key: str, target: str, trusted: Sequence[str]) -> None:
    package = target.partition(".")[0]
    if package not in (*KNOWN, *trusted):
        raise UserError(
            f"{key}: the checkpoint names {target}, which is not our code; if you trust it, set "
            f"trust=[{package}]"
        )
    candidate = locate(key, target)
    home = str(getattr(candidate, "__module__", None) or "").partition(".")[0]
    if home in trusted and callable(candidate):
        return
    if not inspect.isclass(candidate) or home not in KNOWN or not _fits_place(key, candidate, home):
        raise UserError(f"{key}: the checkpoint names {target}, which does not belong there")


def _fits_place(key: str, candidate: type, home: str) -> bool:
    """Whether a class is of the kind that its place takes."""
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

"""Whose code a stored configuration may run: classes of known packages, and of those one names.

A checkpoint comes from anywhere, and what it names is built. So nothing of it is imported, not even
to read a signature, before its package is known to be trusted; and what it names has to be a class
that fits the place it stands in: a function could do anything at once.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.errors import UserError
from equipoise.schema import locate, target_nodes

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
            raise UserError(f"{key}: the checkpoint names {str(target)[:80]!r}, which is no class")
        _check(key, target, trusted)


def _check(key: str, target: str, trusted: Sequence[str]) -> None:
    package = target.partition(".")[0]
    if package not in (*KNOWN, *trusted):
        raise UserError(
            f"{key}: the checkpoint names {target}, code that is not ours; if you trust it, type "
            f"trust=[{package}]"
        )
    candidate = locate(key, target)
    home = str(getattr(candidate, "__module__", None) or "").partition(".")[0]
    if home in trusted and callable(candidate):
        return
    if not inspect.isclass(candidate) or home not in KNOWN or not _fits(key, candidate, home):
        raise UserError(f"{key}: the checkpoint names {target}, which does not belong there")


def _fits(key: str, candidate: type, home: str) -> bool:
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

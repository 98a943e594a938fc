"""`init_from`: the ways to write it, and what it cannot be combined with. Needs no torch.

It has a `path` and `parts`; a path alone may replace both, on the command line
and in a file of choices, so that `init_from=<file> init_from.parts=[stem]` sets both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

from equipoise.config.about import about
from equipoise.errors import UserError, nearest

KEY = "init_from"
ENTRIES: dict[str, Any] = {"path": None, "parts": None}
TYPES: dict[str, Any] = {f"{KEY}.path": str | None, f"{KEY}.parts": list[str] | None}
WORD = re.compile(rf"([+]{{0,2}}){KEY}=(?!\s*\{{)")


def spelled_out(lines: Sequence[str]) -> list[str]:
    """The overrides, with `init_from.path=` where a path is given to `init_from` itself."""
    return [WORD.sub(rf"\g<1>{KEY}.path=", line, count=1) if WORD.match(line) else line
            for line in lines]  # fmt: skip


def complete(config: DictConfig) -> None:
    """Give the node both of its entries, even if a file has a path in its place.

    A configuration of an earlier version has no such node. Raises UserError for an unknown entry.
    """
    node = config.get(KEY)
    written = dict(node) if isinstance(node, Mapping | DictConfig) else {"path": node}
    for name in written.keys() - ENTRIES.keys():
        hint = nearest(str(name), ENTRIES) or f"; it has {' and '.join(ENTRIES)}"
        raise UserError(f"no setting '{KEY}.{name}'{hint}")
    with open_dict(config):
        config[KEY] = {**ENTRIES, **written}


def check_init_from(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise UserError where parts are given without a file, or the model has no weights."""
    path, parts = config[KEY].path, config[KEY].parts
    if parts is not None and path is None:
        raise UserError(
            f"{KEY}.parts says what to take from a file: add {KEY}=<checkpoint, run folder or file>"
        )
    if path is not None and not about(config.model, "weights", True):
        raise UserError(
            f"model={choices['model']} trains no weights, so {KEY}={path} would do nothing; leave "
            "it out"
        )


def is_init_from(key: str) -> bool:
    """Whether a typed setting belongs to `init_from`."""
    return key.partition(".")[0] == KEY

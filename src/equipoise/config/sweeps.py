"""The lists of a named sweep under `sweep.grid` for several settings below one node.

    grid:
      model.attention:
        - { kernel: [linear, rbf], symmetric: [false, true] }
        - { kernel: exponential, positions: [none, product] }

Each entry stands for the product of its lists, and the jobs are those of all entries: here six,
where the product of all settings would make twelve.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from equipoise.config.hydra import as_text, quoted
from equipoise.config.refusals import in_quotes
from equipoise.errors import UserError

Entries = Sequence[Mapping[str, Any]]
WORD = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][\w.+/-]*", re.A | re.I)
"""A text that the command line reads as one without quotes."""
REFERENCES = re.compile(r"([\w./-]|\$\{[\w.]+\})+", re.A)
"""A text with interpolations that it reads as one without quotes."""


def as_override(value: Any) -> str:
    """A value of a yaml file as the command line writes it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or WORD.fullmatch(value):
        return str(value)
    if not _interpolates(value):
        return quoted(value)
    return value if REFERENCES.fullmatch(value) else in_quotes(value)


def _interpolates(text: str) -> bool:
    try:
        return OmegaConf.is_interpolation(OmegaConf.create({"key": text}), "key")
    except GrammarParseError:
        return False


def inner_keys(node: str, entries: Entries) -> set[str]:
    """The settings that the entries of a node list."""
    return {f"{node}.{name}" for entry in entries for name in entry}


def jobs_of_node(
    node: str, entries: Entries, typed: Sequence[Override], in_force: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The settings below a node in each job; a job in two entries occurs once, with the last.

    typed: overrides of these settings. Their values replace a list, and an entry that fixes the
    setting to another value is left out. in_force: the settings without the sweep, used for those
    that an entry does not list. Raises UserError where no job is left.
    """
    chosen = {o.key_or_group.removeprefix(f"{node}."): _values(o) for o in typed}
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    jobs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        lists = [_listed(entry, name, chosen.get(name), in_force) for name in names]
        for values in itertools.product(*lists):
            job = dict(zip(names, values, strict=True))
            jobs.pop(as_override(job), None)
            jobs[as_override(job)] = job
    if not jobs:
        said = " ".join(override.input_line or "" for override in typed)
        raise UserError(f"{said} leaves none of the jobs that the sweep lists for {node}")
    return list(jobs.values())


def _listed(
    entry: Mapping[str, Any], name: str, chosen: Sequence[Any] | None, in_force: Mapping[str, Any]
) -> list[Any]:
    """The values of a setting in the jobs of one entry; none where the typed ones exclude it."""
    listed = entry.get(name)
    if name not in entry:
        return list(chosen or [in_force.get(name)])
    if isinstance(listed, list):
        return list(chosen or listed)
    allowed = chosen is None or as_override(listed) in map(as_override, chosen)
    return [listed] if allowed else []


def _values(override: Override) -> list[Any]:
    """The typed values of a setting, one or several. Raises UserError for an interval."""
    if not override.is_sweep_override():
        return [_plain(override.value())]
    try:
        return [_plain(value) for value in override.sweep_iterator()]
    except HydraException as error:
        raise UserError(f"{override.input_line}: a sweep of listed jobs needs values") from error


def _plain(value: Any) -> Any:
    return as_text(value) if isinstance(value, QuotedString) else value

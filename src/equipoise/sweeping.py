"""The jobs of a multirun: what is swept, written out value by value."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from equipoise.compose import CONF, parse, search_path
from equipoise.config.overrides import Menu
from equipoise.errors import UserError

MOST_JOBS = 10_000
MOST_NAMED = 4  # swept keys in a folder's name, which a file system limits to 255 bytes


def written_out(typed: Sequence[str]) -> list[str]:
    """What was typed, with a list of values in place of every range, glob and shuffled choice.

    So the checks, the names of the folders and the jobs all see the same values in the same order.
    A sweeper that draws values itself gets what was typed. Raises UserError for what cannot be
    listed, and for too many jobs.
    """
    overrides = parse(typed)
    if draws_values(overrides):
        return list(typed)
    menu = Menu.of([CONF, *search_path(overrides)])
    swept = {number: values(o, menu) for number, o in enumerate(overrides) if o.is_sweep_override()}
    count = math.prod(len(listed) for listed in swept.values())
    if count > MOST_JOBS:
        raise UserError(
            f"these are {count} jobs, more than the {MOST_JOBS} that one sweep may have"
        )
    return [
        f"{override.get_key_element()}={','.join(swept[number])}" if number in swept else line
        for number, (override, line) in enumerate(zip(overrides, typed, strict=True))
    ]


def jobs(typed: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a grid sweep, as Hydra's basic sweeper makes them.

    Where the sweeper draws values itself: one job without them.
    """
    overrides = parse(typed)
    if draws_values(overrides):
        return [[o.input_line or "" for o in overrides if not o.is_sweep_override()]]
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line or ""]
        for o in overrides
    ]
    return [list(job) for job in itertools.product(*choices)]


def draws_values(overrides: Sequence[Override]) -> bool:
    """Whether another sweeper than Hydra's grid was chosen."""
    chosen = [o.value() for o in overrides if o.key_or_group == "hydra/sweeper"]
    return bool(chosen) and chosen[-1] != "basic"


def values(override: Override, menu: Menu) -> list[str]:
    """The values of a sweep as they are typed."""
    line = override.input_line
    if override.is_interval_sweep():
        raise UserError(
            f"{line}: a grid needs values, not an interval: type some, such as "
            f"{override.key_or_group}=1e-3,1e-2, or choose a sweeper that draws them "
            "(hydra/sweeper)"
        )
    if isinstance(override.value(), Glob):
        listed = _matching(override, menu)
    else:
        try:
            listed = list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        except (HydraException, ValueError) as error:
            raise UserError(f"{line}: {str(error).splitlines()[0]}") from error
    if not listed:
        raise UserError(f"{line} lists no values")
    return listed


def _matching(override: Override, menu: Menu) -> list[str]:
    if not menu.offers(override):
        raise UserError(
            f"{override.input_line}: glob lists the choices of a group, and "
            f"{override.key_or_group} is a setting"
        )
    glob: Any = override.value()
    return [str(name) for name in glob.filter(menu.groups[override.key_or_group])]


def subdirectory(typed: Sequence[str]) -> str:
    """<n>_<key-value of what is swept>, without = and comma, for Hydra to fill in."""
    named = [o for o in parse(typed) if o.is_sweep_override() and readable(o)]
    parts = [f"{o.key_or_group.rpartition('.')[2]}-{reference(o)}" for o in named]
    return "_".join(["${hydra.job.num}", *parts[:MOST_NAMED]])


def readable(override: Override) -> bool:
    """Whether all swept values are known, short, and can stand in a folder's name."""
    if not override.is_discrete_sweep():
        return False
    return all(re.fullmatch(r"[\w.+-]{1,30}", v) for v in override.sweep_string_iterator())


def reference(override: Override) -> str:
    """An interpolation of the job's value: of a group its choice, else the setting."""
    group = override.key_or_group
    if (CONF / group).is_dir():
        return "${hydra:runtime.choices." + group + "}"
    return "${" + group + "}"

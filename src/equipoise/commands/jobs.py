"""From the words of a multirun to its jobs: sweeps, written out value by value."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, Sweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from equipoise.config.compose import CONF, composable, parse, search_path
from equipoise.config.hydra import hydra_config
from equipoise.config.overrides import Menu, is_of_hydra
from equipoise.config.sweeps import as_override
from equipoise.errors import UserError

MOST_JOBS = 10_000
MOST_NAMED = 4  # swept keys in a folder's name, which a file system limits to 255 bytes
MOST_LISTED = 6
NONE = "none"
Choices = tuple[str, ...]


def written_out(lines: Sequence[str]) -> list[str]:
    """The overrides, with a list of values in place of every range, glob and shuffled choice.

    So the checks, the names of the folders and the jobs all see the same values in the same order.
    A sweeper that draws values itself gets everything but globs unchanged. Raises UserError for
    sweeps that cannot be listed, and for too many jobs.
    """
    overrides = parse(lines)
    check_swept(overrides)
    drawing = draws_values(overrides)
    if not drawing:
        lines, overrides = _last_of_each(overrides)
    menu = Menu.of([CONF, *search_path(overrides)])
    swept = {
        number: values(override, menu)
        for number, override in enumerate(overrides)
        if isinstance(override.value(), Glob if drawing else Glob | Sweep)
    }
    count = math.prod(len(entries) for entries in swept.values())
    if count > MOST_JOBS:
        raise UserError(
            f"these are {count} jobs, more than the {MOST_JOBS} that one sweep may have"
        )
    return [
        f"{override.get_key_element()}={','.join(swept[number])}" if number in swept else line
        for number, (override, line) in enumerate(zip(overrides, lines, strict=True))
    ]


def check_swept(overrides: Sequence[Override]) -> None:
    """Raise where several values are given for a setting that all jobs share."""
    for override in overrides:
        if override.is_sweep_override() and is_of_hydra(override):
            raise UserError(
                f"{override.input_line}: Hydra's own settings are those of the whole multirun; "
                "give one value"
            )


def _last_of_each(overrides: Sequence[Override]) -> tuple[list[str], list[Override]]:
    """The last of several words for one key, in the first one's place, as in Hydra's sweeper."""
    last = {override.get_key_element(): override for override in overrides}
    return [override.input_line or "" for override in last.values()], list(last.values())


def jobs(lines: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a grid sweep, as Hydra's basic sweeper makes them.

    If the sweeper draws values itself: one job, with the first value of each.
    """
    overrides = parse(lines)
    if draws_values(overrides):
        return [[_first(override) for override in overrides]]
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line or ""]
        for o in overrides
    ]
    return [list(job) for job in itertools.product(*choices)]


def _first(override: Override) -> str:
    """The word with the first value of a sweep, the lower end of an interval."""
    value = override.value()
    if not override.is_sweep_override():
        return override.input_line or ""
    lower = value.start if isinstance(value, IntervalSweep) else None
    first = next(override.sweep_string_iterator(), "") if lower is None else lower
    return f"{override.get_key_element()}={first}"


def draws_values(overrides: Sequence[Override]) -> bool:
    """Whether another sweeper than Hydra's grid was chosen."""
    sweepers = [o.value() for o in overrides if o.key_or_group == "hydra/sweeper"]
    return bool(sweepers) and sweepers[-1] != "basic"


def values(override: Override, menu: Menu) -> list[str]:
    """The values of a sweep, each as the command line writes it."""
    line = override.input_line
    if override.is_interval_sweep():
        raise UserError(
            f"{line}: a grid needs values, not an interval: give some, such as "
            f"{override.key_or_group}=1e-3,1e-2, or add a search that draws them, such as "
            "sweep=optuna"
        )
    value = override.value()
    if isinstance(value, ChoiceSweep) and any(isinstance(entry, Sweep) for entry in value.list):
        raise UserError(f"{line}: a sweep cannot contain another one: list all values")
    if isinstance(value, Glob):
        entries = _matching(override, menu)
    else:
        try:
            entries = list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        except (HydraException, ValueError) as error:
            raise UserError(f"{line}: {str(error).splitlines()[0]}") from error
    if not entries:
        raise UserError(f"{line} lists no values")
    return entries


def _matching(override: Override, menu: Menu) -> list[str]:
    if not menu.offers(override):
        raise UserError(
            f"{override.input_line}: glob lists the choices of a group, but "
            f"{override.key_or_group} is a setting"
        )
    glob: Any = override.value()
    return [str(name) for name in glob.filter(menu.groups[override.key_or_group])]


def subdirectory(lines: Sequence[str]) -> str:
    """<n>_<key-value of each sweep>, without = and comma, for Hydra to fill in."""
    named = [o for o in parse(lines) if o.is_sweep_override() and readable(o)]
    keys = [key for override in named for key in swept_keys(override)]
    groups = Menu.of([CONF, *search_path(parse(lines))]).groups
    parts = [f"{key.rpartition('.')[2]}-{reference(key, groups)}" for key in keys]
    return "_".join(["${hydra.job.num}", *parts[:MOST_NAMED]])


def swept_keys(override: Override) -> list[str]:
    """The key of a sweep, or those below it where its values are mappings of the same settings."""
    first: Any = next(override.sweep_iterator())
    if not isinstance(first, dict):
        return [override.key_or_group]
    return [f"{override.key_or_group}.{name}" for name in first]


def readable(override: Override) -> bool:
    """Whether all swept values are known, short, and can stand in a folder's name."""
    if not override.is_discrete_sweep():
        return False
    entries: list[Any] = list(override.sweep_iterator())
    keys = {tuple(entry) if isinstance(entry, dict) else () for entry in entries}
    words = [as_override(v) for e in entries for v in (e.values() if isinstance(e, dict) else [e])]
    return len(keys) == 1 and all(re.fullmatch(r"[\w.+-]{1,30}", word) for word in words)


def reference(key: str, groups: Collection[str]) -> str:
    """An interpolation of the job's value: of a group its choice, else the setting."""
    return "${hydra:runtime.choices." + key + "}" if key in groups else "${" + key + "}"


def choices_of(job: Sequence[str]) -> tuple[str, ...]:
    """The overrides of a job that choose from a group."""
    overrides = parse(job)
    menu = Menu.of([CONF, *search_path(overrides)])
    return tuple(o.input_line or "" for o in overrides if menu.offers(o))


def globs(lines: Sequence[str]) -> dict[str, Override]:
    """The words that match choices, by their keys."""
    return {o.get_key_element(): o for o in parse(lines) if isinstance(o.value(), Glob)}


def without_none(
    lines: Sequence[str],
    matched: Mapping[str, Override],
    accepted: Collection[Choices],
    refused: Mapping[Choices, UserError],
) -> list[str]:
    """The overrides, without a glob's choice `none` where it does not fit the rest.

    accepted, refused: the choices of jobs, the latter with the reason. Raises UserError where
    other choices of a glob, or typed choices, do not fit; it names the word that omits them.
    """
    if not refused:
        return list(lines)
    reason = next(iter(refused.values()))
    lost = {key: lost_names(key, accepted, refused) for key in matched}
    explained = all(any(f"{key}={n}" in c for key in lost for n in lost[key]) for c in refused)
    if not accepted or not explained:
        raise reason
    for key, names in lost.items():
        if others := [name for name in names if name != NONE]:
            more = f" and {len(others) - MOST_LISTED} more" if len(others) > MOST_LISTED else ""
            raise UserError(
                f"{matched[key].input_line}: {', '.join(others[:MOST_LISTED])}{more} cannot be "
                f"combined with the rest ({_first_reason(key, others[0], refused)}); type "
                f"'{_instead(matched[key], others, accepted)}'"
            )
    return [_without(NONE, line) if line.partition("=")[0] in lost else line for line in lines]


def _without(name: str, line: str) -> str:
    key, _, names = line.partition("=")
    return f"{key}={','.join(other for other in names.split(',') if other != name)}"


def lost_names(key: str, accepted: Collection[Choices], refused: Collection[Choices]) -> list[str]:
    """The choices of a group with which no job can run, in their order."""
    words = f"{key}="
    named = [[c.removeprefix(words) for c in job if c.startswith(words)] for job in refused]
    works = {choice for job in accepted for choice in job}
    names = [name for job in named for name in job if f"{words}{name}" not in works]
    return list(dict.fromkeys(names))


def _first_reason(key: str, name: str, refused: Mapping[Choices, UserError]) -> UserError:
    return next(error for choices, error in refused.items() if f"{key}={name}" in choices)


def _instead(override: Override, lost: Sequence[str], accepted: Collection[Choices]) -> str:
    """The word that excludes the lost choices from a glob too, or that lists the others."""
    glob: Any = override.value()
    include, exclude = (
        entries[0] if len(entries) == 1 else f"[{','.join(entries)}]"
        for entries in (glob.include, [*glob.exclude, *lost])
    )
    key = f"{override.get_key_element()}="
    kept = [c.removeprefix(key) for job in accepted for c in job if c.startswith(key)]
    words = (f"glob({include},exclude={exclude})", ",".join(dict.fromkeys(kept)))
    return key + min(words, key=len)


def of_sweeper(lines: Sequence[str]) -> list[str]:
    """The sweeps of `hydra.sweeper.params`, which an experiment's file may set."""
    overrides = parse(lines)
    if draws_values(overrides):
        return []
    sweeper = hydra_config(composable(jobs(lines)[0])).hydra.sweeper
    typed = {override.get_key_element() for override in overrides}
    swept = OmegaConf.to_container(sweeper.get("params") or OmegaConf.create(), resolve=True)
    assert isinstance(swept, dict)
    return [f"{key!s}={value}" for key, value in swept.items() if key not in typed]

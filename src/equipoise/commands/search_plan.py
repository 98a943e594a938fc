"""The plan of a search, checked before its first job: its space, and one job that can run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from functools import lru_cache

from omegaconf import DictConfig

from equipoise.commands.jobs import jobs, subdirectory
from equipoise.config.compose import CONF, SEARCH_PATH, keys, parse, search_path
from equipoise.config.overrides import Menu, is_of_hydra
from equipoise.config.search import check_optuna, is_search, search_of
from equipoise.config.search_space import Case, Parameter, Space, as_space, parameter_of
from equipoise.errors import UserError
from equipoise.running.api import checked

MOST_CASES = 256


known: dict[tuple[str, ...], Space] = {}
"""The spaces of this process, kept because every stage of a search asks for its space."""


def space_of(lines: Sequence[str]) -> Space:
    """The space of a search, by its overrides. Raises UserError where none of it can run."""
    words = [o.input_line or "" for o in parse(lines)
             if not is_of_hydra(o) or o.key_or_group == SEARCH_PATH]  # fmt: skip
    key = tuple(word.lstrip("+") for word in words)  # ++ for keys that Hydra cannot know
    if key not in known:
        known[key] = _space(words)
    return known[key]


def _space(lines: Sequence[str]) -> Space:
    overrides = parse(lines)
    menu = Menu.of([CONF, *search_path(overrides)])
    swept = [override for override in overrides if override.is_sweep_override()]
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    groups = [parameter_of(override) for override in swept if menu.offers(override)]
    settings = [parameter_of(override) for override in swept if not menu.offers(override)]
    cases, refused = _cases(fixed, groups, settings)
    search = search_of(lines)
    _check_settings(fixed, cases, settings, () if search is None else search.space)
    return as_space(fixed, groups, cases, refused)


def _cases(
    fixed: Sequence[str], groups: Sequence[Parameter], settings: Sequence[Parameter]
) -> tuple[list[Case], bool]:
    """The choices of groups with which a job can run, and whether any others were refused."""
    combinations = list(itertools.product(*(group.values for group in groups)))
    if len(combinations) > MOST_CASES:
        raise UserError(
            f"the search combines {len(combinations)} choices of groups, more than {MOST_CASES}: "
            "list fewer"
        )
    cases: list[Case] = []
    reason: UserError | None = None
    for values in combinations:
        chosen = [line for group, v in zip(groups, values, strict=True) for line in group.lines(v)]
        try:
            settings_here = set(keys(_config([*fixed, *chosen])))
        except UserError as error:
            reason = reason or error
            continue
        have = [p for p in settings if p.name in settings_here or p.word.startswith("+")]
        cases.append(Case(tuple(chosen), tuple(have)))
    if not cases and reason is not None:
        raise reason
    return cases, reason is not None


def _check_settings(
    fixed: Sequence[str],
    cases: Sequence[Case],
    settings: Sequence[Parameter],
    of_file: Collection[str],
) -> None:
    """Raise UserError where a job with the end of a range cannot run, or no case has the setting.

    of_file: settings that the search's file lists for choices that may be absent.
    """
    seen: set[str] = set()
    for case in cases:
        new = [p for p in case.parameters if p.name not in seen]
        seen |= {parameter.name for parameter in new}
        for place in range(2 if new else 0):
            _config([*fixed, *case.lines, *(parameter.ends[place] for parameter in new)])
    for parameter in settings:
        if parameter.name not in seen and parameter.name not in of_file:
            _config([*fixed, *cases[0].lines, parameter.ends[0]])
    if not seen and not any(case.lines for case in cases):
        _config([*fixed, *(parameter.ends[0] for parameter in settings)])


def _config(lines: Sequence[str]) -> DictConfig:
    return _checked(tuple(lines))


@lru_cache(maxsize=MOST_CASES)
def _checked(lines: tuple[str, ...]) -> DictConfig:
    """The configuration of a job, cached as several steps before the first job need it."""
    return checked(lines).config


def planned(lines: Sequence[str]) -> DictConfig:
    """The configuration of one job of a search, after every check. Raises UserError."""
    check_optuna()
    from equipoise.running.sampling import pruner_for, sampler_for

    config = _config(space_of(lines).job())
    if config.trainer.limit_val_batches == 0:
        raise UserError(
            f"a search compares trials by {config.task.monitor}, but trainer.limit_val_batches=0 "
            "leaves out validation"
        )
    search = search_of(lines)
    if search is not None:
        sampler_for(search, 0, 1)
        pruner_for(search)
    return config


def first_job(lines: Sequence[str]) -> list[str]:
    """The overrides of the first job of a multirun, with those for Hydra itself."""
    if not is_search(lines):
        return jobs(lines)[0]
    of_hydra = [o.input_line or "" for o in parse(lines) if is_of_hydra(o)]
    job = space_of(lines).job()
    return [*(line for line in of_hydra if line not in job), *job]


def subdirectory_of_trial(lines: Sequence[str]) -> str:
    """<n>_<key-value of each setting that all jobs draw>, for Hydra to fill in."""
    shared = set(space_of(lines).shared)
    named = [o.input_line or "" for o in parse(lines)
             if not o.is_sweep_override() or o.get_key_element() in shared]  # fmt: skip
    return subdirectory(named)

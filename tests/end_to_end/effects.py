"""Whether an accepted line has the effect that was asked for, and no other one.

The configuration that `--cfg job` prints is compared with what `typed_words` reads in the words,
and with the configuration of the line before it was changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from equipoise.config.compose import CONF
from tests.end_to_end.typed_words import Asked, NotRead, asked

GROUPS = {folder.relative_to(CONF).as_posix() for folder in CONF.rglob("*") if folder.is_dir()}
WHOLE_RUN = {"task", "model", "experiment", "debug", "recipe", "sweep", "ckpt_path", "objective",
             "encoder"}  # fmt: skip
"""Words that decide on parts of any group: docs/configuration.md, "Order of precedence"."""
FOLLOWERS = {
    "model.size": ("model", "optimizer", "schedule", "trainer", "task", "solver", "gradient"),
    "model.equilibrium": ("model", "solver", "gradient", "equilibrium", "regularizer"),
    "gradient": ("solver",),
    "trainer.max_steps": ("trainer.max_epochs",),
    "optimizer": ("schedule",),
    "strategy": ("trainer",),
}
"""What docs/configuration.md says follows from a word, beside what is taken from it by ${...}."""
NOT_SHOWN = ("hydra", "ckpt_path", "trust", "run_dir")


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf; lists, empty mappings and null are leaves."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def read_word(word: str) -> Asked:
    """A word by the reader of our own; one with a function by Hydra's."""
    try:
        return asked(word)
    except NotRead:
        (override,) = OverridesParser.create().parse_overrides([word])
        sign = re.match(r"[+~]*", word)
        value = override.value()
        return Asked(sign[0] if sign else "", override.key_or_group, override.package, value, True)


def last_words(words: Iterable[str]) -> list[Asked]:
    """What is asked for, of several words for one key the last.

    A later null for a whole entry leaves out what earlier words set in it, as in Hydra.
    """
    latest: dict[tuple[str, str | None], Asked] = {}
    for one in map(read_word, words):
        if one.value is None:
            within = [name for name in latest if name[0].startswith(f"{one.key}.")]
            latest = {name: other for name, other in latest.items() if name not in within}
        latest.pop((one.key, one.package), None)
        latest[one.key, one.package] = one
    return list(latest.values())


def faults_of_effect(
    words: Iterable[str], changed: Iterable[str], shown: str, before: str
) -> list[str]:
    """Differences between what the words ask for and what is shown.

    shown, before: what `--cfg job` prints for the line, and for the line that it was made from.
    changed: the words in which the two lines differ.
    """
    config, earlier = read_config(shown), read_config(before)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    found = [fault for one in last_words(words) for fault in _unfulfilled(one, resolved, config)]
    return found + list(_others(changed, config, earlier))


@cache
def read_config(shown: str) -> Any:
    """A printed configuration."""
    return OmegaConf.create(yaml.load(shown, Loader=yaml.CSafeLoader))


def _unfulfilled(one: Asked, resolved: Any, config: Any) -> Iterator[str]:
    """Where the configuration does not show what a word asks for."""
    if one.key.partition(".")[0].partition("/")[0] in NOT_SHOWN:
        return
    if one.key in GROUPS:
        yield from _other_choice(one, resolved)
        return
    there, value = _at(resolved, one.key)
    if one.sign == "~":
        if there and value is not None:
            yield f"~{one.key}: still {value!r}"
        return
    if not there:
        yield f"{one.key}: not there"
        return
    wanted = _interpolated(one.value, config)
    for name, part in leaves(wanted, one.key) if isinstance(wanted, dict) else [(one.key, wanted)]:
        has = _at(resolved, name)[1]
        if not same(part, has):
            yield f"{name}: asked for {part!r}, is {has!r}"


def _other_choice(one: Asked, resolved: Any) -> Iterator[str]:
    """Where another class stands in the place of a group than the chosen file says."""
    names = one.value if isinstance(one.value, list) else [one.value]
    place = one.package or {"encoder": "model.encoder", "objective": "task.objective.loss"}.get(
        one.key, one.key
    )
    for name in names:
        file = CONF / one.key / f"{name}.yaml"
        if one.sign == "~" or not file.is_file():
            if one.sign != "~":
                yield f"{one.key}: there is no choice {name}"
            continue
        content = yaml.safe_load(file.read_text()) or {}
        node = content.get(one.key, content)
        wanted = node.get("_target_") if isinstance(node, dict) else None
        has = (_at(resolved, place)[1] or {}) if wanted else {}
        if wanted and has.get("_target_") != wanted:
            yield f"{one.key}={name}: the run has {has.get('_target_')}"


def _at(node: Any, key: str) -> tuple[bool, Any]:
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in {str(n): None for n in node}:
            return False, None
        node = {str(n): value for n, value in node.items()}[name]
    return True, node


def _interpolated(value: Any, config: Any) -> Any:
    """The value with its ${...} filled in from the configuration."""
    if "${" not in str(value):
        return value
    probe = OmegaConf.create({"asked_for": value, **config})
    return OmegaConf.to_container(probe, resolve=True)["asked_for"]  # type: ignore[index, call-overload]


def same(wanted: Any, has: Any) -> bool:
    """Whether two values are the same; a setting of text shows a number as text."""
    if isinstance(wanted, dict) and isinstance(has, dict):
        return all(name in has and same(value, has[name]) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(has, list):
        return len(wanted) == len(has) and all(map(same, wanted, has))
    if isinstance(wanted, str) and isinstance(has, dict):
        return "_target_" in has  # the name of a choice, expanded to what it stands for
    if isinstance(wanted, bool) or isinstance(has, bool):
        return wanted is has
    if isinstance(wanted, float) and wanted != wanted:
        return isinstance(has, float) and has != has
    return bool(wanted == has) or (isinstance(has, str) and str(wanted) == has)


def _others(changed: Iterable[str], config: Any, earlier: Any) -> Iterator[str]:
    """Settings that are not what they were, though no changed word asks for it."""
    causes = {name for word in changed for name in _causes(read_word(word))}
    if causes & WHOLE_RUN:
        return
    if not earlier.get("logger") and any(cause.startswith("logger.") for cause in causes):
        causes.add("logger")  # an evaluation has none unless the command line names one
    raw = dict(leaves(OmegaConf.to_container(config)))
    now, then = (
        dict(leaves(OmegaConf.to_container(part, resolve=True))) for part in (config, earlier)
    )
    for key in sorted({*now, *then}):
        alike = key in now and key in then and same(then[key], now[key])
        if not alike and not _follows(key, causes, raw):
            yield f"{key}: was {then.get(key, 'absent')!r}, is {now.get(key, 'absent')!r}, unasked"


def _causes(one: Asked) -> set[str]:
    if one.key not in GROUPS:
        return {one.key, *FOLLOWERS.get(one.key, ())}
    return {one.package or one.key, *FOLLOWERS.get(one.key, ())}


def _follows(key: str, causes: set[str], raw: Mapping[str, Any]) -> bool:
    """Whether a key is one of the causes, lies in or around one, or is taken from one by ${...}."""
    for cause in causes:
        if key == cause or key.startswith(f"{cause}.") or cause.startswith(f"{key}."):
            return True
    sources = re.findall(r"\$\{(?:oc\.select:)?([\w.]+)", str(raw.get(key, "")))
    return any(_follows(source, causes, raw) for source in sources if source != key)


def faults_of_jobs(words: Iterable[str], shown: str) -> list[str]:
    """Where the jobs of a multirun are not those that Hydra's own sweeper makes of the words.

    shown: the jobs as JSON, then the configurations of the first ones.
    """
    listed, *configs = shown.split("---\n")
    jobs = json.loads(listed.strip().splitlines()[-1])
    found = []
    if not any(re.match(r"\+*(sweep|hydra)\b|.*(glob|shuffle)\(", word) for word in words):
        ours, hydras = ([_read(job) for job in every] for every in (jobs, _jobs_of_hydra(words)))
        if ours != hydras:
            found.append(f"jobs {ours[:4]} in place of {hydras[:4]}")
    for job, config in zip(jobs, configs, strict=False):
        node = read_config(config)
        resolved = OmegaConf.to_container(node, resolve=True)
        found += [fault for one in last_words(job) for fault in _unfulfilled(one, resolved, node)]
    return found


def _jobs_of_hydra(words: Iterable[str]) -> list[list[str]]:
    parser = OverridesParser.create()
    (batch,) = BasicSweeper.split_arguments(parser.parse_overrides(list(words)), None)
    return batch


def _read(job: Iterable[str]) -> dict[str, str]:
    overrides = OverridesParser.create().parse_overrides(list(job))
    return {o.get_key_element(): str(o.value()) for o in overrides}


def faults_of_request(words: Iterable[str], file: Path) -> list[str]:
    """Where a command of its own settings has read another value than the words give."""
    if not file.is_file():
        return []
    read = json.loads(file.read_text())
    found = []
    pairs = dict(word.partition("=")[::2] for word in words if not word.startswith("-"))
    for key, written in pairs.items():
        if key in read and key != "trust" and not _reads_as(read[key], written):
            found.append(f"{key}={written} was read as {read[key]!r}")
    return found


def _reads_as(value: Any, written: str) -> bool:
    if isinstance(value, bool):
        return value is (written.lower() != "false")
    if isinstance(value, int | float):
        return float(written) == value or value != value
    return bool(value == written)

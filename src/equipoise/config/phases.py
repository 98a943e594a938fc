"""The phases of a gradient schedule: from the typed form to the configurations of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from equipoise.config.hydra import CONF, composed_by_hydra, flatten, parse, plain, search_path
from equipoise.config.overrides import Menu, check_key, check_name
from equipoise.config.refusals import shown
from equipoise.errors import UserError, nearest

PHASE = "equipoise.callbacks.Phase"
KEY = "callbacks.gradient_schedule.phases"
FIELDS = ("start", "gradient", "settings", "max_steps", "tol")


def expand_phases(
    config: DictConfig, choices: dict[str, str], menu: Menu, searched: list[str]
) -> None:
    """Replace the estimator's name in each phase of the gradient schedule by its configuration.

    Phases from a checkpoint are already expanded, and stay. searched: the overrides that
    tell Hydra where to find files.
    """
    schedule = (config.get("callbacks") or {}).get("gradient_schedule") or {}
    typed = schedule.get("phases")
    if typed is not None and not isinstance(typed, ListConfig):
        raise UserError(
            f"{KEY}={shown(typed)} must be a list, such as [{{start: 0.0, gradient: jfb}}]"
        )
    phases = OmegaConf.to_container(typed or OmegaConf.create([]))
    if not phases or all(_is_expanded(phase) for phase in phases):
        return
    short = as_phases(phases, choices)
    expanded = [_phase(phase, config, choices, menu, searched) for phase in short]
    OmegaConf.update(config, KEY, expanded)


def _is_expanded(phase: Any) -> bool:
    return isinstance(phase, dict) and phase.get("_target_") == PHASE


def _phase(
    phase: dict[str, Any],
    config: DictConfig,
    choices: dict[str, str],
    menu: Menu,
    searched: list[str],
) -> dict[str, Any]:
    name = phase.get("gradient")
    node: dict[str, Any] | None = None
    if name is not None:
        check_name("gradient", name, menu)
        in_force = name == choices["gradient"]
        node = plain(config.gradient) if in_force else _estimator(name, searched)
        node.pop("about", None)
        for key, value in flatten(phase.get("settings") or {}):
            check_key(key, node, f"the phase with gradient={name}")
            node = plain(OmegaConf.merge(node, _nested(key, value)))
    expanded = {
        "_target_": PHASE,
        "start": phase["start"],
        "gradient": node,
        "max_steps": phase.get("max_steps"),
    }
    # Left out where it is not given, so that phases of earlier checkpoints compare as equal.
    return expanded if phase.get("tol") is None else {**expanded, "tol": phase["tol"]}


def _estimator(name: str, searched: list[str]) -> dict[str, Any]:
    """The configuration of an estimator, composed by Hydra only if its file builds on others.

    Composing takes as long as all of Hydra's imports.
    """
    files = [root / "gradient" / f"{name}.yaml" for root in [CONF, *search_path(parse(searched))]]
    text = next(file.read_text() for file in files if file.is_file())
    if any(word in text for word in ("defaults:", "@package")):
        return plain(composed_by_hydra([*searched, f"gradient={name}"])[0].gradient)
    return plain(OmegaConf.create(text))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 -> {"a": {"b": 1}}."""
    *parents, last = key.split(".")
    nested: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    return nested


def as_phases(phases: Any, choices: Mapping[str, str]) -> list[dict[str, Any]]:
    """The typed phases of a gradient schedule, checked for form."""
    if phases and choices.get("gradient") == "none":
        raise UserError(
            f"model={choices['model']} has no equilibrium layer, so a gradient schedule would do "
            "nothing; leave callbacks.gradient_schedule.phases out"
        )
    form = "{start: 0.5, gradient: phantom, settings: {steps: 3}, max_steps: 12, tol: 1.0e-2}"
    for phase in phases:
        if not isinstance(phase, dict) or "start" not in phase:
            raise UserError(f"a phase of the gradient schedule looks like {form}, not {phase}")
        if not isinstance(phase.get("settings") or {}, dict):
            raise UserError(f"the settings of a phase are a mapping, as in {form}, not {phase}")
        for key in phase:
            if key not in FIELDS:
                raise UserError(
                    f"a phase has no '{key}'{nearest(key, FIELDS)} it looks like {form}"
                )
    return list(phases)

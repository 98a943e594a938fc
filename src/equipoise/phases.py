"""The phases of a gradient schedule: from what a user types to the configurations of objects."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from equipoise import checks
from equipoise.checks import Menu
from equipoise.hydra_composition import (
    CONF,
    composed_by_hydra,
    flatten,
    parse,
    plain,
    search_path,
)

PHASE = "equipoise.callbacks.Phase"
KEY = "callbacks.gradient_schedule.phases"


def expand_phases(
    config: DictConfig, choices: dict[str, str], menu: Menu, searched: list[str]
) -> None:
    """Replace the estimator's name in each phase of the gradient schedule by its configuration.

    Phases that a checkpoint carries have been expanded already, and stay. searched: the lines that
    tell Hydra where to find files.
    """
    schedule = (config.get("callbacks") or {}).get("gradient_schedule") or {}
    phases = OmegaConf.to_container(schedule.get("phases") or OmegaConf.create([]))
    if not phases or all(_is_expanded(phase) for phase in phases):
        return
    typed = checks.as_phases(phases, choices)
    expanded = [_phase(phase, config, choices, menu, searched) for phase in typed]
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
        checks.check_name("gradient", name, menu)
        in_force = name == choices["gradient"]
        node = plain(config.gradient) if in_force else _estimator(name, searched)
        node.pop("about", None)
        for key, value in flatten(phase.get("settings") or {}):
            checks.check_key(key, node, f"the phase with gradient={name}")
            node = plain(OmegaConf.merge(node, _nested(key, value)))
    return {
        "_target_": PHASE,
        "start": phase["start"],
        "gradient": node,
        "max_steps": phase.get("max_steps"),
    }


def _estimator(name: str, searched: list[str]) -> dict[str, Any]:
    """The configuration of an estimator; composing all of it only where its file builds on others.

    Composing takes as long as all of Hydra's imports.
    """
    files = [root / "gradient" / f"{name}.yaml" for root in [CONF, *search_path(parse(searched))]]
    written = next(file.read_text() for file in files if file.is_file())
    if any(word in written for word in ("defaults:", "@package")):
        return plain(composed_by_hydra([*searched, f"gradient={name}"])[0].gradient)
    return plain(OmegaConf.create(written))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 -> {"a": {"b": 1}}."""
    *parents, last = key.split(".")
    nested: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    return nested

"""From what was typed to one complete, checked configuration. Needs Hydra, but not torch.

Hydra composes `conf/`; on top of that stand the rules that its defaults list cannot say: a recipe
may choose solvers and optimisers, an estimator may need a solver, and values of a recipe hold only
for the choice that they belong to. What was typed wins over all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from equipoise import checks, machine
from equipoise.checks import Menu, full_key
from equipoise.errors import UserError
from equipoise.quoting import how_to_quote

CONF = next(
    folder
    for folder in (Path(__file__).parents[2] / "conf", Path(__file__).parent / "conf")
    if folder.is_dir()
)


RUN_DIRECTORY = "<folder of the run>"


@dataclass
class Composition:
    """A checked configuration, and which choice of each group it is made of."""

    config: DictConfig
    choices: dict[str, str]
    typed: list[str]


def compose(typed: Sequence[str]) -> Composition:
    """Compose the configuration that `typed` (such as "model=mdeq", "solver.tol=1e-4") asks for.

    Raises UserError with one sentence where something is unknown, ill-typed or cannot go together.
    """
    overrides = parse(typed)
    roots = [CONF, *search_path(overrides)]
    menu = Menu.of(roots)
    for override in overrides:
        checks.check_choice(override, menu)
    groups = [o for o in overrides if menu.offers(o) or checks.is_of_hydra(o)]
    values = [override for override in overrides if override not in groups]
    size = next((o.value() for o in values if o.key_or_group == "model.size"), None)
    skeleton, choices, added = _with_implied_choices(groups, size)
    checks.check_model_and_task(skeleton, choices, roots)
    checks.check_equilibrium(skeleton, choices, groups)
    checks.check_weights(skeleton, choices)
    checks.check_solver_and_gradient(skeleton, choices)
    checks.check_regularizer(skeleton, choices)
    _apply_recipe(skeleton, choices)
    for override in values:
        checks.check_value(override, skeleton, choices)
    config, choices = _hydra([*(o.input_line or "" for o in overrides), *added])
    _fit_recipe_to_size(config, size)
    _apply_recipe(config, choices, typed={o.key_or_group for o in values})
    checks.check_outer_updates(config)
    _expand_phases(config, choices, menu)
    _let_typed_steps_rule(config, {o.key_or_group for o in values})
    checks.check_attributes(config, choices, roots)
    machine.check_processes(config, {o.key_or_group for o in values})
    return Composition(config, choices, list(typed))


def override_stored(
    stored: Mapping[str, Any], choices: Mapping[str, str], typed: Sequence[str]
) -> Composition:
    """A configuration from a checkpoint with what was typed on top: whole groups, then settings.

    Raises UserError as `compose` does.
    """
    overrides = parse(typed)
    menu = Menu.of([CONF, *search_path(overrides)])
    groups = [o for o in overrides if menu.offers(o) or checks.is_of_hydra(o)]
    kept = [f"{group}={choices[group]}" for group in ("task", "model") if group in choices]
    named = {full_key(override) for override in groups}
    kept = [line for line in kept if line.split("=")[0] not in named]
    fresh = compose([*kept, *(o.input_line or "" for o in groups)])
    config = OmegaConf.create(dict(stored))
    merged = dict(choices)
    # an estimator may have brought the solver that it needs
    implied = {"solver"} if "gradient" in named and fresh.config.gradient.get("solvers") else set()
    for name in sorted((named | implied) & set(fresh.choices)):
        group, _, package = name.partition("@")
        place = package or group
        node = OmegaConf.select(fresh.config, place)
        OmegaConf.update(config, place, node, merge=False, force_add=True)
        merged[name] = fresh.choices.get(name, "none")
    for override in (override for override in overrides if override not in groups):
        checks.check_value(override, config, merged)
        OmegaConf.update(config, override.key_or_group, override.value())
    _let_typed_steps_rule(config, {o.key_or_group for o in overrides})
    machine.check_processes(config, {o.key_or_group for o in overrides})
    return Composition(config, merged, list(typed))


def _let_typed_steps_rule(config: DictConfig, typed: Collection[str]) -> None:
    """A typed number of steps is the length of the run, whatever number of epochs a recipe has."""
    steps_typed = "trainer.max_steps" in typed and config.trainer.max_steps > 0
    if steps_typed and "trainer.max_epochs" not in typed:
        config.trainer.max_epochs = -1


def parse(typed: Sequence[str]) -> list[Override]:
    """The overrides by Hydra's grammar. Raises UserError where one is not of the form key=value."""
    parser = OverridesParser.create()
    overrides: list[Override] = []
    for line in typed:
        try:
            overrides += parser.parse_overrides([line])
        except HydraException as error:
            hint = how_to_quote(line)
            cause = hint or f": {_reason(error)}"
            raise UserError(f"cannot read the command line at '{line}'{cause}") from error
    return overrides


def with_grid(typed: Sequence[str]) -> list[str]:
    """What was typed, after the lists of the sweep that was chosen; of a key what was typed wins.

    Raises UserError where there is no such sweep.
    """
    overrides = parse(typed)
    menu = Menu.of([CONF, *search_path(overrides)])
    chosen = [o for o in overrides if o.key_or_group == "sweep" and o.value()]
    for override in chosen:
        checks.check_choice(override, menu)
    if not chosen:
        return list(typed)
    lines = [o.input_line or "" for o in overrides if _finds_files(o)]
    grid = (_hydra(lines)[0].sweep or {}).get("grid") or {}
    keys = {override.key_or_group for override in overrides}
    listed = [f"{k}={','.join(str(v) for v in vs)}" for k, vs in grid.items() if k not in keys]
    return [*listed, *typed]


def _finds_files(override: Override) -> bool:
    return override.key_or_group in ("sweep", "hydra.searchpath")


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """Folders that `hydra.searchpath=[file://...]` adds to `conf/`."""
    listed = [o.value() for o in overrides if o.key_or_group == "hydra.searchpath"]
    paths = [path for value in listed if isinstance(value, list) for path in value]
    return [Path(checks.as_text(path).removeprefix("file://")) for path in paths]


@contextmanager
def hydra_of_our_own() -> Iterator[None]:
    """Hydra's compose API on `conf/`, also inside a Hydra job, which has initialised it already."""
    of_the_job = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = of_the_job


def _hydra(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Hydra's own composition, and the choice of every group in it."""
    try:
        with hydra_of_our_own():
            config = hydra_compose("train", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"cannot compose the configuration: {first_line(error)}") from error
    choices = {
        group: str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if not group.startswith("hydra/") and choice is not None
    }
    with open_dict(config):
        del config["hydra"]
        config.setdefault("recipe", {})
        config.setdefault("sweep", None)
    return config, choices


def _with_implied_choices(
    groups: list[Override], size: Any
) -> tuple[DictConfig, dict[str, str], list[str]]:
    """Compose with the choices that a recipe makes and the solver that an estimator needs.

    Each is added only where none was typed. Adding one may reveal the next (an estimator with a
    solver of its own), so this goes on until nothing is new.
    """
    lines = [override.input_line or "" for override in groups]
    typed = {full_key(override) for override in groups}
    added: dict[str, str] = {}
    while True:
        extra = [f"{group}={choice}" for group, choice in added.items()]
        config, choices = _hydra([*lines, *extra])
        _fit_recipe_to_size(config, size)
        new = {g: c for g, c in _wanted(config, choices).items() if g not in typed}
        if all(added.get(group) == choice for group, choice in new.items()):
            return config, choices, extra
        added.update(new)


def _fit_recipe_to_size(config: DictConfig, typed: Any) -> None:
    """Lay `recipe.sizes.<size>` over the recipe: what a model of that size needs otherwise."""
    with open_dict(config):
        sizes = config.recipe.pop("sizes", None) or {}
        fragment = sizes.get(str(typed or config.model.get("size")))
        if fragment:
            config.recipe = OmegaConf.merge(config.recipe, fragment)


def _wanted(config: DictConfig, choices: dict[str, str]) -> dict[str, str]:
    """Choices asked for by the recipe (of groups that are in play) and by the estimator."""
    uses = config.recipe.get("use") or {}
    wanted = {str(group): str(choice) for group, choice in uses.items() if group in choices}
    solvers = (config.get("gradient") or {}).get("solvers")
    if solvers and wanted.get("solver", choices["solver"]) not in solvers:
        wanted["solver"] = solvers[0]
    return wanted


def _apply_recipe(config: DictConfig, choices: dict[str, str], typed: Collection[str] = ()) -> None:
    """Merge `recipe.<group>.<choice>` for the choices in force; what was typed stays.

    `recipe.values` holds settings of the other groups, for a recipe's sizes.
    """
    for group, by_choice in config.recipe.items():
        if group in ("use", "published"):
            continue
        free = group == "values"
        values = by_choice if free else by_choice.get(choices.get(group))
        for key, value in flatten(values or {}, prefix="" if free else f"{group}."):
            if not any(key == name or key.startswith(f"{name}.") for name in typed):
                checks.check_recipe_key(key, config)
                OmegaConf.update(config, key, value, force_add=False)


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf below a mapping; lists are leaves."""
    for key, value in node.items():
        if isinstance(value, Mapping | DictConfig) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _expand_phases(config: DictConfig, choices: dict[str, str], menu: Menu) -> None:
    """Replace the estimator's name in each phase of the gradient schedule by its configuration."""
    schedule = (config.get("callbacks") or {}).get("gradient_schedule") or {}
    phases = OmegaConf.to_container(schedule.get("phases") or OmegaConf.create([]))
    expanded = [_phase(phase, config, choices, menu) for phase in checks.as_phases(phases, choices)]
    if expanded:
        OmegaConf.update(config, "callbacks.gradient_schedule.phases", expanded)


def _phase(
    phase: dict[str, Any], config: DictConfig, choices: dict[str, str], menu: Menu
) -> dict[str, Any]:
    name = phase.get("gradient")
    node: dict[str, Any] | None = None
    if name is not None:
        checks.check_name("gradient", name, menu)
        source = config if name == choices["gradient"] else _hydra([f"gradient={name}"])[0]
        node = plain(source.gradient)
        node.pop("solvers", None)
        for key, value in flatten(phase.get("settings") or {}):
            checks.check_key(key, node, f"the phase with gradient={name}")
            node = plain(OmegaConf.merge(node, _nested(key, value)))
    return {
        "_target_": "equipoise.callbacks.Phase",
        "start": phase["start"],
        "gradient": node,
        "max_steps": phase.get("max_steps"),
    }


def _nested(key: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 -> {"a": {"b": 1}}."""
    *parents, last = key.split(".")
    nested: dict[str, Any] = {last: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    return nested


def plain(config: Any, resolve: bool = False) -> dict[str, Any]:
    """A configuration as plain dicts and lists, which a weights-only checkpoint may hold."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def storable(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration for a checkpoint, in which paths still follow `run_dir`.

    Whoever evaluates or resumes it in another folder must not write into the first one.
    """
    moved = copy.deepcopy(config)
    moved.run_dir = RUN_DIRECTORY
    stored: dict[str, Any] = _replaced(plain(moved, resolve=True))
    if stored["model"].get("backbone_ckpt"):
        stored["model"]["backbone_ckpt"] = None  # its weights are in the checkpoint itself
    return {**stored, "run_dir": None}


def _replaced(value: Any) -> Any:
    """The same containers with the interpolation of the run's folder in place of its stand-in."""
    if isinstance(value, dict):
        return {key: _replaced(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner) for inner in value]
    return value.replace(RUN_DIRECTORY, "${run_dir}") if isinstance(value, str) else value


def _reason(error: BaseException) -> str:
    """What Hydra says of a function that it cannot call."""
    said = str(error).strip().splitlines()
    return (said[1] if said[0].startswith("Error parsing") and said[1:] else said[0]).rstrip(".")


def first_line(error: BaseException) -> str:
    """The first line of another library's message, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".")

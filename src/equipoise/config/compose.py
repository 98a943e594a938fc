"""From the overrides to one complete, checked configuration. Needs Hydra, but not torch.

Hydra composes `conf/`; on top of that come rules that its defaults list cannot express: a recipe
may choose solvers and optimisers, an estimator may need a solver, and values of a recipe hold only
for the choice that they belong to. The command line takes precedence over all of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override
from omegaconf import DictConfig, OmegaConf, open_dict

from equipoise.config import checks, init_from, machine
from equipoise.config.about import about, check_about
from equipoise.config.compilation import check_compile
from equipoise.config.exchange import exchange_classes, make_room
from equipoise.config.hydra import (
    CONF,
    SEARCH_PATH,
    composed_by_hydra,
    flatten,
    parse,
    plain,
    search_path,
)
from equipoise.config.overrides import (
    OPEN,
    CommandLine,
    Menu,
    check_choice,
    check_recipe_key,
    check_value,
    full_key,
    keys,
    set_value,
)
from equipoise.config.phases import expand_phases
from equipoise.config.sweeps import as_override, inner_keys, jobs_of_node
from equipoise.config.values import check_values
from equipoise.errors import UserError

STAND_IN = "<folder of the run>"
OF_A_WHOLE_RUN = ("experiment", "recipe")
OF_SHAPE = ("size", "equilibrium")
"""Settings of a model that other choices and values depend on."""
WITHIN_OTHERS = {"encoder": "model.encoder", "objective": "task.objective.loss"}
"""The place of the settings of a group that is a part of another one."""
LASTING = (*OF_A_WHOLE_RUN, "debug")


@dataclass
class Composition:
    """A checked configuration, and the choice of each group that it is made of.

    trusted: for a configuration from a checkpoint, the packages beside our own whose classes it
    may name, and single classes; None for one that the user composed. command: the typed
    words, where `resume=auto` made the overrides from them.
    """

    config: DictConfig
    choices: dict[str, str]
    overrides: list[str]
    trusted: tuple[str, ...] | None = None
    command: list[str] | None = None

    @property
    def typed(self) -> list[str]:
        """The words of the command line."""
        return self.overrides if self.command is None else self.command

    def hydra_overrides(self) -> list[str]:
        """The overrides as Hydra can compose them on `conf/`.

        Overrides on a checkpoint may set keys that only the checkpoint's choices have, such
        as task.path, so those choices come first.
        """
        stored = self.trusted is not None
        lines = on_choices(self.overrides, self.choices) if stored else self.overrides
        return composable(lines)


def composable(lines: Sequence[str]) -> list[str]:
    """The overrides as Hydra takes them: `++` before keys that the files of the choices lack.

    Our rules have accepted these keys: another class or a choice unknown to Hydra takes them.
    """
    words = CommandLine.of(lines)
    known = set(keys(composed_by_hydra([o.input_line or "" for o in words.groups])[0]))
    plain_values = {
        o.input_line for o in words.values if not (o.is_add() or o.is_force_add() or o.is_delete())
    }
    return [
        f"++{line}" if line in plain_values and line.partition("=")[0] not in known else line
        for line in lines
    ]


def on_choices(overrides: Sequence[str], choices: Mapping[str, str]) -> list[str]:
    """The overrides after a checkpoint's choices, those that `conf/` has and none replaces."""
    words = CommandLine.of(overrides)
    typed = {full_key(override) for override in words.groups}
    base = [
        f"{group}={choice}"
        for group, choice in choices.items()
        if group not in (*typed, *OPEN, *LASTING)
        and choice in words.menu.groups.get(group.partition("@")[0], [])
    ]
    return [*base, *overrides]


def compose(overrides: Sequence[str]) -> Composition:
    """Compose the configuration for `overrides` (such as "model=mdeq", "solver.tol=1e-4").

    Raises UserError with one sentence where something is unknown, ill-typed or incompatible.
    """
    words = CommandLine.of(overrides)
    shape = {name: words.value(f"model.{name}") for name in OF_SHAPE}
    config, choices = with_implied_choices(words.groups, shape)
    checks.check_trainable(config, choices)
    check_choices(config, choices, words)
    defaults = copy.deepcopy(config)
    apply_recipe(defaults, choices)
    apply_recipe(config, choices, typed_keys=words.keys)
    for part in (defaults, config):
        exchange_classes(part, words.values)
    set_values(config, defaults, words, choices)
    init_from.complete(config)
    init_from.check_init_from(config, choices)
    finish(config, choices, words)
    return Composition(config, choices, list(overrides))


def set_values(
    config: DictConfig,
    reference: DictConfig,
    words: CommandLine,
    choices: Mapping[str, str],
    followers: Callable[[DictConfig, Override], list[str]] = lambda *_: [],
) -> None:
    """Check the typed values and set them; `reference` shows which keys exist, and their types.

    followers: the keys of a configuration that follow an override. Raises UserError.
    """
    for override in words.values:
        for part in (reference, config):
            make_room(part, override, words.keys)
        check_value(override, reference, choices)
        following = followers(config, override)
        set_value(config, override)
        for key in following:
            OmegaConf.update(config, key, override.value())
        if override.is_add() or override.is_force_add():  # a later one may change it
            OmegaConf.update(reference, override.key_or_group, override.value(), force_add=True)


def check_choices(config: DictConfig, choices: dict[str, str], words: CommandLine) -> None:
    """Raise UserError where two choices do not fit together."""
    check_about(config)
    checks.check_model_and_task(config, choices, words.roots)
    checks.check_equilibrium(config, choices, words.roots)
    checks.check_objective(config, choices)
    checks.check_weights(config, choices)
    checks.check_solver_and_gradient(config, choices, words.roots)
    checks.check_roles(config, choices)
    checks.check_regularizer(config, choices, words.roots)


def finish(config: DictConfig, choices: dict[str, str], words: CommandLine) -> None:
    """The rules that hold once every value is known, wherever the values come from."""
    checks.check_outer_updates(config)
    expand_phases(config, choices, words.menu, words.searched)
    _let_typed_steps_rule(config, words.keys)
    checks.check_steps(config, choices)
    checks.check_counts(config, choices, words.roots)
    machine.check_processes(config, words.keys)
    check_values(config, words.keys)
    check_compile(config, choices)


def _let_typed_steps_rule(config: DictConfig, typed_keys: Collection[str]) -> None:
    """A typed number of steps sets the length of the run, overriding a recipe's epochs."""
    steps_typed = "trainer.max_steps" in typed_keys and (config.trainer.get("max_steps") or -1) > 0
    if steps_typed and "trainer.max_epochs" not in typed_keys:
        config.trainer.max_epochs = -1


def with_grid(lines: Sequence[str]) -> list[str]:
    """The overrides, after the lists of the chosen sweep.

    Values on the command line replace a list; of the values of a node (see `sweeps`), those that
    fix the setting to another value are left out. Raises UserError where there is no such sweep.
    """
    overrides = parse(lines)
    menu = Menu.of([CONF, *search_path(overrides)])
    sweeps = [o for o in overrides if o.key_or_group == "sweep" and o.value()]
    for override in sweeps:
        check_choice(override, menu)
    if not sweeps:
        return list(lines)
    choice = [o.input_line or "" for o in overrides if o.key_or_group in ("sweep", SEARCH_PATH)]
    grid = plain(composed_by_hydra(choice)[0].sweep or OmegaConf.create()).get("grid") or {}
    keys = {override.key_or_group for override in overrides}
    swept, settled = [], set[str]()
    for key, values in grid.items():
        if key in keys:
            continue
        if isinstance(values[0], Mapping):
            typed = [o for o in overrides if o.key_or_group in inner_keys(key, values)]
            values = jobs_of_node(key, values, typed, _in_force(key, overrides, menu))
            settled |= {override.input_line or "" for override in typed}
        swept.append(f"{key}={','.join(as_override(value) for value in values)}")
    return [*swept, *(line for line in lines if line not in settled)]


def _in_force(node: str, overrides: Sequence[Override], menu: Menu) -> dict[str, Any]:
    """The settings below a node without the sweep, with the first of any swept choices.

    Raises UserError where the configuration has no such node.
    """
    first = [
        f"{o.get_key_element()}={next(o.sweep_string_iterator())}"
        for o in overrides
        if isinstance(o.value(), ChoiceSweep) and menu.offers(o)
    ]
    single = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    composition = compose([*single, *first])
    settings = OmegaConf.select(composition.config, node)
    if not isinstance(settings, DictConfig):
        choices = composition.choices
        raise UserError(
            f"the sweep lists values of {node}, which model={choices['model']} on "
            f"task={choices['task']} does not have: choose another model"
        )
    return plain(settings, resolve=True)


def with_implied_choices(
    groups: Sequence[Override], shape: Mapping[str, Any], preferred: Mapping[str, str] | None = None
) -> tuple[DictConfig, dict[str, str]]:
    """Compose with the choices that a recipe makes, and those that a layer or an estimator needs.

    Each is added only if none was given. Adding one may reveal the next (an estimator with a
    solver of its own), so this repeats until nothing is new. shape: the typed keys of `OF_SHAPE`.
    preferred: choices, such as those of a checkpoint, that take precedence over the recipe's.
    """
    lines = [override.input_line or "" for override in groups]
    typed_groups = {full_key(override) for override in groups}
    added: dict[str, str] = {}
    while True:
        extra = [f"{group}={choice}" for group, choice in added.items()]
        config, choices = composed_by_hydra([*lines, *extra])
        _switch_layer(config, shape.get("equilibrium"))
        _fit_recipe_to_size(config, shape.get("size"))
        implied = _implied(config, choices, preferred or {})
        new = {g: c for g, c in implied.items() if g not in typed_groups}
        new = {g: c for g, c in new.items() if not _is_part_of_a_change(g, new, choices)}
        if all(added.get(group) == choice for group, choice in new.items()):
            return config, choices
        added.update(new)


def _is_part_of_a_change(group: str, new: Mapping[str, str], choices: Mapping[str, str]) -> bool:
    """Whether a group is part of another whose next choice may lack it, as gradient.solver."""
    owner = group.partition("@")[2].partition(".")[0]
    return owner in new and new[owner] != choices[owner]


def _switch_layer(config: DictConfig, typed: Any) -> None:
    """Set `model.equilibrium` for a model with an optional layer, so that `about` can say it."""
    if "equilibrium" in config.model and isinstance(typed, bool):
        config.model.equilibrium = typed


def _fit_recipe_to_size(config: DictConfig, size: Any) -> None:
    """Merge `recipe.sizes.<size>` into the recipe: the values specific to a model's size."""
    with open_dict(config):
        sizes = config.recipe.pop("sizes", None) or {}
        fragment = sizes.get(str(size or config.model.get("size")))
        if fragment:
            config.recipe = OmegaConf.merge(config.recipe, fragment)


def _implied(
    config: DictConfig, choices: dict[str, str], preferred: Mapping[str, str]
) -> dict[str, str]:
    """Choices that the recipe (for groups in use), the layer and the estimator ask for."""
    layer = about(config.model, "layer") if about(config.model, "equilibrium", True) else None
    uses = {**(layer or {}), **(config.recipe.get("use") or {}), **preferred}
    implied = {str(group): str(choice) for group, choice in uses.items() if group in choices}
    solvers = about(config.get("gradient"), "solvers")
    if solvers and implied.get("solver", choices["solver"]) not in solvers:
        implied["solver"] = solvers[0]
    return implied


def choice_that_sets(key: str, composition: Composition) -> str | None:
    """The recipe or experiment whose file sets a key, as in "recipe=x"; None where none does."""
    words = CommandLine.of(composition.overrides)
    if key in words.keys:
        return None
    for group in OF_A_WHOLE_RUN:
        choice = composition.choices.get(group)
        files = [root / group / f"{choice}.yaml" for root in words.roots]
        for file in [file for file in files if file.is_file()]:
            if OmegaConf.select(OmegaConf.load(file), key) is not None:
                return f"{group}={choice}"
    return None


def apply_recipe(
    config: DictConfig, choices: dict[str, str], typed_keys: Collection[str] = ()
) -> None:
    """Merge `recipe.<group>.<choice>` for the choices in force; overrides stay.

    `recipe.values` has settings of other groups, for a recipe's sizes.
    """
    for group, by_choice in config.recipe.items():
        if group in ("use", "published"):
            continue
        free = group == "values"
        place = WITHIN_OTHERS.get(group, group)
        values = by_choice if free else by_choice.get(choices.get(group))
        for key, value in flatten(values or {}, prefix="" if free else f"{place}."):
            if not any(key == name or key.startswith(f"{name}.") for name in typed_keys):
                check_recipe_key(key, config)
                OmegaConf.update(config, key, value, force_add=False)


def storable(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration for a checkpoint, in which paths still follow `run_dir`.

    An evaluation or resumption in another folder must not write into the first one, and must
    name again whose code may run.
    """
    moved = copy.deepcopy(config)
    moved.run_dir = STAND_IN
    stored: dict[str, Any] = _replaced(plain(moved, resolve=True))
    for node in (stored["model"], stored["model"].get("encoder")):
        if isinstance(node, dict) and node.get("backbone_ckpt"):
            node["backbone_ckpt"] = None  # its weights are in the checkpoint itself
    return {**stored, "resume": None, "run_dir": None, "trust": []}


def _replaced(value: Any) -> Any:
    """The same containers with the run's folder as an interpolation in place of its stand-in."""
    if isinstance(value, dict):
        return {key: _replaced(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner) for inner in value]
    return value.replace(STAND_IN, "${run_dir}") if isinstance(value, str) else value

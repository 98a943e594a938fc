"""Checks of what was typed: each raises UserError with one sentence that names the nearest choice.

They read the yaml files alone; what only a class's signature can tell is checked in `schema.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from equipoise.annotations import parameters
from equipoise.config.about import OBLIGATORY, OPTIONAL, about, choice_files, written_choices
from equipoise.errors import UserError
from equipoise.quoting import how_to_quote
from equipoise.value_types import accepts, described

MAY_BE_NULL = {"experiment", "sweep", "debug", "recipe", "solver@eval_solver"}
TAKE_SEVERAL = {"logger", "callbacks", "experiment", "debug"}
"""Groups of which several choices go together, as in logger=[csv,wandb]."""


@dataclass(frozen=True)
class Menu:
    """The groups of `conf/` and the choices of each, read from the folders."""

    groups: dict[str, list[str]]

    @classmethod
    def of(cls, roots: Sequence[Path]) -> Menu:
        """The menu of all yaml files below `roots`."""
        groups: dict[str, set[str]] = {}
        for root in roots:
            for folder in (path for path in sorted(root.rglob("*")) if path.is_dir()):
                stems = {file.stem for file in choice_files(folder)}
                groups.setdefault(folder.relative_to(root).as_posix(), set()).update(stems)
        return cls({group: sorted(names) for group, names in groups.items()})

    def offers(self, override: Override) -> bool:
        """Whether the override chooses from a group (and does not set a value)."""
        return override.key_or_group in self.groups


def full_key(override: Override) -> str:
    """The key as typed, with its package (`solver@eval_solver`) and without + or ~."""
    return override.get_key_element().lstrip("+~")


def is_of_hydra(override: Override) -> bool:
    """Whether the override is Hydra's own business: hydra.run.dir, hydra/launcher."""
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def nearest(word: str, words: Iterable[str]) -> str:
    """A clause that names the nearest of `words`, or nothing where none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def check_name(group: str, name: Any, menu: Menu) -> None:
    """Raise where `group` has no choice `name`."""
    choices = menu.groups[group]
    if str(name) not in choices:
        hint = nearest(str(name), choices)
        offered = ", ".join(choices) or "none yet"
        raise UserError(f"{group} has no choice '{name}'{hint or ';'} choices: {offered}")


def as_text(value: Any) -> str:
    """A typed value as the user sees it, without quotes."""
    return value.text if isinstance(value, QuotedString) else str(value)


def check_choice(override: Override, menu: Menu) -> None:
    """Raise where a group or one of its choices is misspelt."""
    key = override.key_or_group
    if is_of_hydra(override) or override.is_delete():
        return
    if not menu.offers(override):
        return
    if override.is_sweep_override():
        raise UserError(f"{override.input_line}: several values at once need a multirun, add -m")
    value = override.value()
    if value is None:
        none = "none" in menu.groups[key] and full_key(override) not in MAY_BE_NULL
        instead = f"type {key}=none" if none else "leave it out"
        raise UserError(f"{key} has no choice null: {instead}")
    if isinstance(value, dict) or (isinstance(value, list) and key not in TAKE_SEVERAL):
        runs = ",".join(map(as_text, value)) if value and isinstance(value, list) else ""
        hint = f"; several runs, each with one: -m {key}={runs}" if "," in runs else ""
        raise UserError(f"{override.input_line}: {key} takes one choice{hint}")
    for name in value if isinstance(value, list) else [value]:
        check_name(key, as_text(name), menu)


def check_value(override: Override, config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a key does not exist, or its value is not of the kind of the yaml's default."""
    key = override.key_or_group
    if override.is_sweep_override():
        raise UserError(
            f"{override.input_line}: several values at once need a multirun, add -m"
            f"{how_to_quote(override.input_line or '')}"
        )
    of_layer = ("solver", "gradient", "equilibrium")
    if key.partition(".")[0] in of_layer and choices.get("solver") == "none":
        raise UserError(f"{key}: model={choices['model']} has no equilibrium layer; leave it out")
    if key.partition(".")[0] in ("optimizer", "schedule") and choices.get("optimizer") == "none":
        raise UserError(f"{key}: model={choices['model']} trains no weights; leave it out")
    check_key(key, config, _place(key, choices))
    if not override.is_delete() and not _fits_class(key, override.value(), config):
        check_type(key, override.value(), OmegaConf.select(config, key, throw_on_missing=False))


def _fits_class(key: str, value: Any, config: DictConfig) -> bool:
    """Whether the class behind the setting says itself that it takes the value."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else None
    types = parameters(str(node.get("_target_"))) if isinstance(node, DictConfig) else {}
    return name in types and accepts(value, types[name])


def _place(key: str, choices: Mapping[str, str]) -> str:
    group = key.split(".")[0]
    return f"{group}={choices[group]}" if group in choices else "the configuration"


def check_key(key: str, config: Any, place: str) -> None:
    """Raise where the dotted `key` is not in `config`, naming the nearest one that is."""
    known = list(keys(config))
    if key in known:
        return
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    hint = nearest(key, siblings) or nearest(key, known)
    if parent and parent in known and not siblings:
        hint = hint or f"; {place} has no settings"
    raise UserError(f"no setting '{key}' in {place}{hint or '; see --cfg job for all settings'}")


def check_recipe_key(key: str, config: DictConfig) -> None:
    """Raise where a recipe sets what the choice does not have."""
    if key not in set(keys(config)):
        raise UserError(f"the recipe sets '{key}', which is not a setting of that choice")


def keys(config: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted key of nested mappings, inner nodes included."""
    items = config.items_ex(resolve=False) if isinstance(config, DictConfig) else config.items()
    for name, value in items:
        key = str(name)
        yield f"{prefix}{key}"
        if isinstance(value, Mapping) or (isinstance(value, DictConfig) and not value._is_none()):
            yield from keys(value, f"{prefix}{key}.")


KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    ListConfig: ((list,), "a list, such as [16,32]"),
    DictConfig: ((dict,), "a mapping, such as {start: 0}"),
}


def check_type(key: str, value: Any, default: Any) -> None:
    """Raise where `value` is not of the kind that the default in the yaml shows.

    null, interpolations and settings whose default is null or a word are left to the signature.
    """
    kind = KINDS.get(type(default))
    if kind is None or value is None or (isinstance(value, str) and "${" in value):
        return
    accepted, described = kind
    wrong_bool = isinstance(value, bool) and bool not in accepted
    if wrong_bool or not isinstance(value, accepted):
        raise UserError(f"{key}={as_text(value)} must be {described}; its default is {default}")


def check_about(config: DictConfig) -> None:
    """Raise where the file of a choice tells too little, or something wrong, under `about:`."""
    wrong = wrong_about({group: config.get(group) for group in OPTIONAL})
    if wrong:
        raise UserError(f"{wrong}: mend the file of the choice")


def wrong_about(config: Mapping[str, Any]) -> str | None:
    """What is wrong with what the choices tell about themselves, None where nothing is."""
    for group in OPTIONAL:
        wrong = _wrong_entries(group, (config.get(group) or {}).get("about"))
        if wrong:
            return f"{group}.about{wrong}"
    return None


def _wrong_entries(group: str, node: Any) -> str | None:
    entries = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node or {}
    if not isinstance(entries, Mapping):
        return " is no mapping"
    needed = OBLIGATORY.get(group, {})
    kinds = {**needed, **OPTIONAL[group]}
    missing = [key for key in needed if key not in entries]
    if missing:
        return f".{missing[0]} is missing"
    for key, value in entries.items():
        if key not in kinds:
            return f".{key} is not known{nearest(str(key), kinds)}"
        if not accepts(value, kinds[key]):
            return f".{key} is not of type {described(kinds[key])}"
    return None


def check_model_and_task(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where the model does not take what the task gives, or not give what it wants."""
    model, task = config.model, config.task
    if _fits(model, task):
        return
    models = [name for name, node in written_choices("model", roots) if _fits(node, task)]
    tasks = [name for name, node in written_choices("task", roots) if _fits(model, node)]
    raise UserError(
        f"model={choices['model']} takes {about(model, 'takes')} and gives "
        f"{', '.join(about(model, 'gives'))}, but task={choices['task']} gives "
        f"{about(task, 'gives')} and wants {about(task, 'wants')}; models for this task: "
        f"{', '.join(models) or 'none'}; tasks for this model: {', '.join(tasks) or 'none'}"
    )


def _fits(model: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    samples = about(model, "takes") == about(task, "gives")
    return samples and about(task, "wants") in about(model, "gives", ())


def check_counts(config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]) -> None:
    """Raise where the model takes more or fewer of something, say attributes, than the task has."""
    model, task = config.model, config.task
    for noun, settings in about(task, "counts", {}).items():
        lists = [task[name] for name in settings if isinstance(task.get(name), list | ListConfig)]
        count = next((len(listed) for listed in lists if listed), 1)
        if _takes_count(model, noun, count):
            continue
        fitting = [
            name
            for name, node in written_choices("model", roots)
            if _fits(node, task) and _takes_count(node, noun, count)
        ]
        raise UserError(
            f"model={choices['model']} takes {_counts(model, noun)}, but task={choices['task']} "
            f"has {count} here ({' or '.join(f'task.{name}' for name in settings)}); models for "
            f"{count}: {', '.join(fitting)}"
        )


def _takes_count(model: Mapping[str, Any], noun: str, count: int) -> bool:
    least, most = (about(model, end, {}).get(noun, count) for end in ("least", "most"))
    return bool(least <= count <= most)


def _counts(model: Mapping[str, Any], noun: str) -> str:
    """How many of something a model takes, in words."""
    least, most = (about(model, end, {}).get(noun) for end in ("least", "most"))
    if most is None:
        return f"{least} or more {noun}s"
    return f"one {noun}" if most == 1 else f"{least or 1} to {most} {noun}s"


def check_equilibrium(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where a model without an equilibrium layer is given a solver, or one with it none."""
    has_layer = about(config.model, "equilibrium", True)
    for group in ("solver", "gradient"):
        choice = choices[group]
        if not has_layer and choice != "none":
            raise UserError(
                f"model={choices['model']} has no equilibrium layer, so {group}={choice} would do "
                f"nothing; leave it out{_alternative(config, roots)}"
            )
        if has_layer and choice == "none":
            raise UserError(
                f"model={choices['model']} has an equilibrium layer and needs a {group}; "
                f"leave {group}=none out"
            )


def _alternative(config: DictConfig, roots: Sequence[Path]) -> str:
    """A clause that names a model with an equilibrium layer, where one fits the task."""
    for name, node in written_choices("model", roots):
        if about(node, "equilibrium", True) and _fits(node, config.task):
            return f", or choose a model that has one, such as model={name}"
    return ""


def check_weights(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a model without weights is given an optimiser, or one with weights none."""
    has_weights = about(config.model, "weights", True)
    for group in ("optimizer", "schedule"):
        choice = choices.get(group, "none")
        if not has_weights and choice != "none":
            raise UserError(
                f"model={choices['model']} trains no weights, so {group}={choice} would do "
                "nothing; leave it out"
            )
        if has_weights and choice == "none":
            raise UserError(
                f"model={choices['model']} has weights to train and needs the group {group}; leave "
                f"{group}=none out"
            )


def check_steps_without_weights(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where gradients are to be summed or clipped of a model that has none."""
    if about(config.model, "weights", True):
        return
    for name, idle in (("accumulate_grad_batches", 1), ("gradient_clip_val", None)):
        if config.trainer.get(name) not in (None, idle):
            raise UserError(
                f"model={choices['model']} trains no weights, so "
                f"trainer.{name}={config.trainer[name]} would do nothing; leave it out"
            )


def check_solver_and_gradient(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where the estimator cannot work with the solver."""
    solvers = about(config.gradient, "solvers")
    if solvers and choices["solver"] not in solvers:
        raise UserError(
            f"gradient={choices['gradient']} cannot work with solver={choices['solver']}; "
            f"choose solver={' or solver='.join(solvers)}"
        )


def check_outer_updates(config: DictConfig) -> None:
    """Raise where a solver is to aim at the loss, whose gradient the command line cannot give."""
    for group in ("solver", "eval_solver"):
        node = config.get(group) or {}
        if node.get("opa_every") and not node.get("direction"):
            raise UserError(
                f"{group}.opa_every needs {group}.direction, the gradient of the loss as a "
                f"function, which only Python can give: leave {group}.opa_every out here"
            )


def check_regularizer(
    config: DictConfig, choices: Mapping[str, str], roots: Sequence[Path]
) -> None:
    """Raise where the regulariser has nothing to act on, or cannot work with the estimator."""
    choice = choices.get("regularizer", "none")
    if choice != "none" and not about(config.model, "equilibrium", True):
        raise UserError(
            f"model={choices['model']} has no equilibrium layer, so regularizer={choice} would do "
            f"nothing; leave it out{_alternative(config, roots)}"
        )
    gradients = about(config.regularizer, "gradients")
    if gradients and choices["gradient"] not in gradients:
        raise UserError(
            f"regularizer={choice} cannot work with gradient={choices['gradient']}; "
            f"choose gradient={' or gradient='.join(gradients)}"
        )


def check_curve_on_model(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where an anytime curve is asked for of a model whose solves have no budget."""
    if config.get("anytime") and not about(config.model, "equilibrium", True):
        raise UserError(
            f"model={choices['model']} has no equilibrium layer whose budget could be varied; "
            "leave anytime out"
        )


def check_single_run(typed: Sequence[Override]) -> None:
    """Raise where a sweep was chosen without -m."""
    for override in typed:
        if override.key_or_group == "sweep" and override.value():
            raise UserError(f"{override.input_line} makes several runs: add -m")


def check_curve_in_training(config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where train.py is given what is a setting of evaluate.py."""
    if config.get("anytime"):
        raise UserError(
            f"anytime={choices['anytime']} belongs to an evaluation: "
            "python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt anytime=curve"
        )


def as_phases(phases: Any, choices: Mapping[str, str]) -> list[dict[str, Any]]:
    """The typed phases of a gradient schedule, checked for form."""
    if phases and choices.get("gradient") == "none":
        raise UserError(
            f"model={choices['model']} has no equilibrium layer, so a gradient schedule would do "
            "nothing; leave callbacks.gradient_schedule.phases out"
        )
    form = "{start: 0.5, gradient: phantom, settings: {steps: 3}, max_steps: 12}"
    for phase in phases:
        if not isinstance(phase, dict) or "start" not in phase:
            raise UserError(f"a phase of the gradient schedule looks like {form}, not {phase}")
        if not isinstance(phase.get("settings") or {}, dict):
            raise UserError(f"the settings of a phase are a mapping, as in {form}, not {phase}")
        for key in phase:
            known = ("start", "gradient", "settings", "max_steps")
            if key not in known:
                raise UserError(f"a phase has no '{key}'{nearest(key, known)} it looks like {form}")
    return list(phases)

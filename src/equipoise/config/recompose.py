"""The configuration of a checkpoint with overrides on top: how a run is resumed or evaluated.

The stored configuration replaces `conf/` and its recipes; the rest is as in a fresh
composition. An override is either used or refused with a sentence.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from equipoise.config import compilation, init_from
from equipoise.config.about import about, shared_data, written_choices
from equipoise.config.changes import check_in_force, check_initial_setting
from equipoise.config.compose import (
    LASTING,
    OF_A_WHOLE_RUN,
    OF_SHAPE,
    Composition,
    apply_recipe,
    check_choices,
    finish,
    set_values,
    with_implied_choices,
)
from equipoise.config.exchange import TARGET, check_trusted_settings, exchange_classes
from equipoise.config.hydra import as_text, flatten, parse, plain, with_search_entries
from equipoise.config.overrides import OPEN, CommandLine, check_key, full_key, is_of_hydra
from equipoise.config.own_code import KNOWN, as_packages, make_importable, targets
from equipoise.config.phases import KEY as PHASES
from equipoise.config.stored import MAPPINGS, Stored, read_stored
from equipoise.errors import UserError

Purpose = Literal["train", "evaluate"]
NOTHING = "None"  # how an override of null is written
OF_TRAINING = frozenset(
    f"trainer.{name}"
    for name in (
        "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches",
        "limit_val_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
        "num_sanity_val_steps", "accumulate_grad_batches", "gradient_clip_val",
        "gradient_clip_algorithm",
    )
) | {"resume"}  # fmt: skip
SPLIT = ("seed", "val_fraction", "test_fraction", "objective.seed")
"""Settings of a task that select the training samples, beside those in its `split`."""


def recompose(stored: Stored, overrides: Sequence[str], purpose: Purpose) -> Composition:
    """Compose the configuration of a checkpoint with `overrides` on top.

    Whole groups first, then single values. A choice that is already in force changes nothing, so
    its stored settings stay. Raises UserError as `compose` does, and where a setting can no
    longer be changed.
    """
    overrides = with_search_entries(overrides, stored.own_code.config_folders)
    words = CommandLine.of(overrides)
    _check_changes(stored, words, purpose)
    config = OmegaConf.create(copy.deepcopy(stored.config))
    with open_dict(config):
        config.setdefault("trust", [])
        compilation.settle(config, words, purpose)
        init_from.complete(config)
        for part in sorted(set(MAPPINGS) - {"eval_solver"}):  # earlier versions lacked some
            config.setdefault(part, {})
    choices = {"solver": "none", "gradient": "none", **stored.choices}
    fresh, fresh_choices = _fresh(stored, words)
    for group in _changed(words, fresh_choices, choices):
        _lay(group, fresh, fresh_choices, config, choices, words)
    _check_kind_of_task(stored, config, choices)
    check_choices(config, choices, words)
    exchange_classes(config, words.values)
    trusted = trusted_packages(stored, as_packages(words.value("trust") or []))
    trusted = (*trusted, *_written_by_user(fresh, words))
    check_trusted_settings(config, words.values, trusted)
    reference = _reference(config, fresh)
    set_values(config, reference, words, choices, _followers)
    config.ckpt_path = str(stored.path)
    finish(config, choices, words)
    if purpose == "train":
        check_in_force(config, stored, words)
    return Composition(config, choices, list(overrides), trusted)


def trusted_packages(stored: Stored, named: Sequence[str]) -> tuple[str, ...]:
    """The user's packages whose classes a checkpoint may name, made importable.

    Those `named` now, and those in the checkpoint's record if this user's run wrote it.
    """
    make_importable(stored.own_code.import_folders)
    return (*named, *stored.own_code.packages)


def _written_by_user(fresh: DictConfig | None, words: CommandLine) -> list[str]:
    """The classes that the command line and the files of `conf/` and the user's folders name."""
    typed = [{o.key_or_group.rpartition(".")[2]: o.value()} for o in words.values]
    named = [*targets([] if fresh is None else plain(fresh)), *targets(typed)]
    return [target for target in named if target.partition(".")[0] not in KNOWN]


def with_folders_of_checkpoint(overrides: Sequence[str]) -> list[str]:
    """The overrides, with the config folders of the checkpoint that they name."""
    path = [o.value() for o in parse(overrides) if o.key_or_group == "ckpt_path"]
    if not path or not isinstance(path[-1], str | QuotedString) or not as_text(path[-1]):
        return list(overrides)
    stored = read_stored(as_text(path[-1]))
    return with_search_entries(overrides, stored.own_code.config_folders)


def _check_changes(stored: Stored, words: CommandLine, purpose: Purpose) -> None:
    """Raise UserError where an override changes what a checkpoint has fixed."""
    for override in words.groups:
        group = full_key(override)
        choice = NOTHING if override.is_delete() else as_text(override.value())
        if choice == stored.choices.get(group, NOTHING):
            continue
        if group == "model" or (group == "task" and purpose == "train"):
            raise UserError(
                f"{group}={choice}: the checkpoint {stored.path} is of "
                f"{group}={stored.choices[group]}, and its weights fit only that; leave "
                f"{group}={choice} out"
            )
        if group in LASTING and choice == NOTHING:
            raise UserError(
                f"{override.input_line}: {group}={stored.choices[group]} is already part of the "
                "checkpoint's settings; set those that should change, one by one"
            )
        if group in OF_A_WHOLE_RUN:
            raise UserError(
                f"{group}={choice} describes a run from its beginning; on top of a checkpoint set "
                "the settings that should change, one by one"
            )
    for override in words.values:
        if init_from.is_init_from(override.key_or_group) and override.value() is not None:
            raise UserError(
                f"{override.input_line} starts a new run from weights, but ckpt_path continues "
                "from a whole checkpoint: leave one of the two out"
            )
        _check_value_can_change(override, stored, words, purpose)
    if purpose == "evaluate":
        _check_belongs_to_evaluation(words)


def _check_value_can_change(
    override: Override, stored: Stored, words: CommandLine, purpose: Purpose
) -> None:
    key, value = override.key_or_group, override.value()
    if key == "seed" and value != stored.config["seed"]:
        raise UserError(
            f"seed={value}: the checkpoint {stored.path} has seed={stored.config['seed']}, on "
            f"which its data and weights depend; leave seed={value} out"
        )
    setting = key.removeprefix("task.")
    of_task = OmegaConf.select(OmegaConf.create(stored.config["task"]), setting)
    _check_model_has_not_read(override, stored)
    _check_network_stays(override, stored)
    check_initial_setting(override, stored)
    other_task = any(o.key_or_group == "task" and not _keeps_data(o, words) for o in words.groups)
    other_path = words.value("task.path") not in (None, stored.config["task"].get("path"))
    other_data = other_task or other_path
    split = (*SPLIT, *about(stored.config["task"], "split", ()))
    if key == setting or setting not in split or other_data or of_task is None:
        return
    if override.is_delete() or value != of_task:
        consequence = "tested" if purpose == "evaluate" else "tested in the end"
        raise UserError(
            f"{override.input_line} draws another split of the data than the checkpoint was "
            f"trained with ({setting}={of_task}), so that samples it has seen would be "
            f"{consequence}; leave it out"
        )


def _keeps_data(override: Override, words: CommandLine) -> bool:
    """Whether a typed task tests the checkpoint on the data of the checkpoint's own task."""
    tasks = dict(written_choices("task", words.roots))
    return bool(about(tasks.get(as_text(override.value())), "of_checkpoint", False))


def _check_model_has_not_read(override: Override, stored: Stored) -> None:
    """Raise UserError for a setting of the task on which the stored model was built."""
    name = override.key_or_group.removeprefix("task.")
    task, model = stored.config["task"], stored.config["model"]
    counted = about(task, "from_data", ())
    read = {*about(task, "settings", ()), *counted}
    if override.key_or_group != f"task.{name}" or name not in read or name not in model:
        return
    if name in counted and not override.is_delete() and override.value() is None:
        return  # counted again, to be compared with the checkpoint
    if override.is_delete() or override.value() not in (task.get(name), model[name]):
        raise UserError(
            f"{override.input_line}: the model of the checkpoint {stored.path} was made with "
            f"{name}={model[name]}, and its weights fit only that; leave it out, or start a new "
            f"run from those that fit with init_from={stored.path}"
        )


def _check_network_stays(override: Override, stored: Stored) -> None:
    """Raise UserError for a setting that turns the same weights into another network.

    The model lists such settings as `fixed`; the shapes of weights do not reveal them.
    """
    name = override.key_or_group.removeprefix("model.")
    fixed = about(stored.config["model"], "fixed", ())
    if override.key_or_group != f"model.{name}" or name.partition(".")[0] not in fixed:
        return
    trained = OmegaConf.select(OmegaConf.create(stored.config["model"]), name)
    if override.is_delete() or override.value() != trained:
        raise UserError(
            f"{override.input_line}: the network of the checkpoint {stored.path} was trained with "
            f"{name}={trained}; leave it out"
        )


def _check_kind_of_task(stored: Stored, config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise UserError where a new task has other samples or answers than the checkpoint's."""
    if choices["task"] == stored.choices["task"]:
        return
    before, model = stored.config["task"], stored.config["model"]
    pairs = {key: (about(before, key), about(config.task, key)) for key in ("gives", "wants")}
    made_for = [key for key in shared_data(model, before) if key in model]
    pairs |= {key: (before.get(key), config.task.get(key)) for key in made_for}
    for key, (old, new) in pairs.items():
        if None not in (old, new) and old != new:
            raise UserError(
                f"task={choices['task']}: the checkpoint {stored.path} is of "
                f"task={stored.choices['task']} with {key}={old}, not {key}={new}; leave "
                f"task={choices['task']} out"
            )


def _check_belongs_to_evaluation(words: CommandLine) -> None:
    for override in words.overrides:
        key = override.key_or_group
        part = key.partition(".")[0]
        if part in ("optimizer", "schedule") or key in OF_TRAINING:
            raise UserError(
                f"{override.input_line} is only for training, not for an evaluation; leave it out"
            )
        if key == PHASES:
            raise UserError(
                f"{PHASES} is only for training; for an evaluation set gradient=<estimator> and "
                "solver.max_steps=<budget>"
            )


def _fresh(stored: Stored, words: CommandLine) -> tuple[DictConfig | None, dict[str, str]]:
    """The composition by `conf/` of the stored choices and those of the command line.

    None where `conf/` lacks the task or the model: they came from one of the user's folders.
    """
    available = {
        group: choice
        for group, choice in stored.choices.items()
        if choice in words.menu.groups.get(group.partition("@")[0], [])
    }
    if not {"task", "model"} <= set(available):
        return None, {}
    whole = [g for g in ("task", "model", "experiment") if g in available]
    base = [f"{group}={available.pop(group)}" for group in whole]
    preferred = {g: c for g, c in available.items() if g not in ("recipe", "sweep", "debug")}
    kept = CommandLine.of([*words.searched, *base]).groups
    typed_groups = {full_key(override) for override in words.groups}
    groups = [o for o in kept if full_key(o) not in typed_groups] + words.groups
    typed = {name: words.value(f"model.{name}") for name in OF_SHAPE}
    shape = {n: stored.config["model"].get(n) if v is None else v for n, v in typed.items()}
    fresh, choices = with_implied_choices(_unique(groups), shape, preferred)
    apply_recipe(fresh, choices)
    return fresh, choices


def _unique(groups: list[Override]) -> list[Override]:
    """Each override once: Hydra refuses a search path that is given twice."""
    return list({override.input_line: override for override in groups}.values())


def _changed(words: CommandLine, fresh: Mapping[str, str], choices: Mapping[str, str]) -> list[str]:
    """The groups whose choice has changed, groups that contain others first.

    An estimator may have brought the solver that it needs.
    """
    by_group = {full_key(o): o for o in words.groups if not is_of_hydra(o)}
    if fresh and "gradient" in by_group and fresh.get("solver") != choices.get("solver"):
        by_group.setdefault("solver", by_group["gradient"])
    several = [g for g in by_group if g in OPEN]
    single = [g for g in by_group if g not in (*OPEN, *OF_A_WHOLE_RUN)]
    # without a fresh composition, which the user's missing folder prevents, only the words tell
    wanted = fresh or {g: as_text(o.value() or "none") for g, o in by_group.items()}
    other = [g for g in single if wanted.get(g, "none") != choices.get(g, "none")]
    return sorted([*several, *other], key=lambda group: group.count("@"))


def _lay(
    group: str,
    fresh: DictConfig | None,
    fresh_choices: Mapping[str, str],
    config: DictConfig,
    choices: dict[str, str],
    words: CommandLine,
) -> None:
    """Replace the stored node by that of a new choice."""
    if fresh is None:
        raise UserError(
            f"{group}: task={choices['task']} or model={choices['model']} of the checkpoint is not "
            "in conf/; add the hydra.searchpath=[file://<folder>] that it was trained with"
        )
    name, _, package = group.partition("@")
    choice = fresh_choices.get(group, "")
    elsewhere = None if package else _package(name, choice, words)
    place = package or name
    if elsewhere:
        for key, value in _settings(name, choice, elsewhere, words):
            check_key(key, config, f"{group}={choice}")
            OmegaConf.update(config, key, value)
    else:
        node = OmegaConf.select(fresh, place)
        content = plain(node) if isinstance(node, DictConfig) else {}
        if place == "task" and about(content, "of_checkpoint", False):
            content = _on_data_of(content, plain(config.task))
            choices.pop("objective", None)
        if place in OPEN:
            content = _with_kept_entries(content, config.get(place) or {})
        OmegaConf.update(config, place, content, merge=False, force_add=True)
    for within in [name for name in choices if name.endswith(f"@{place}") or f"@{place}." in name]:
        del choices[within]
    inner = {g: c for g, c in fresh_choices.items() if g == group or f"@{place}." in g}
    choices.pop(group, None)
    choices.update(inner)


def _followers(config: DictConfig, override: Override) -> list[str]:
    """The same setting in parts of the task, where its value was equal to the task's.

    In `conf/` the parts refer to the task, as the pictures of two views do to `task.path`; a
    checkpoint keeps only values.
    """
    part, _, name = override.key_or_group.partition(".")
    if part != "task" or name not in config.task or override.is_delete():
        return []
    inner = {key: node for key, node in config.task.items() if isinstance(node, DictConfig)}
    data = [key for key, node in inner.items() if key != "objective" and name in node]
    return [f"task.{key}.{name}" for key in data if inner[key][name] == config.task[name]]


def _on_data_of(content: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A task that tests a checkpoint, on the data of the checkpoint's own task."""
    data = {name: value for name, value in stored.items() if name != "objective"}
    told = {**stored.get("about", {}), **content["about"]}
    return {**data, **content, "about": {n: v for n, v in told.items() if n != "objectives"}}


def _with_kept_entries(content: dict[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the new choice; those that the checkpoint has too keep their settings."""
    return {name: plain(stored[name]) if name in stored else content[name] for name in content}


def _package(group: str, choice: str, words: CommandLine) -> str | None:
    """The place where the file of a choice puts its settings, if not the group's own."""
    lines = _text(group, choice, words).splitlines()
    named = [line.removeprefix("# @package ").strip() for line in lines if "# @package " in line]
    # a choice that also overrides other groups stands in the global package, its node nested
    return None if not named or (named[0] == "_global_" and group != "debug") else named[0]


def _settings(group: str, choice: str, place: str, words: CommandLine) -> list[tuple[str, Any]]:
    """The settings of a choice in another place: of a strategy in `trainer`, of debug= anywhere."""
    content: dict[str, Any] = yaml.safe_load(_text(group, choice, words)) or {}
    if content.pop("defaults", None):
        raise UserError(
            f"{group}={choice} chooses from other groups; on top of a checkpoint set those choices"
        )
    return list(flatten(content, "" if place == "_global_" else f"{place}."))


def _text(group: str, choice: str, words: CommandLine) -> str:
    files = [root / group / f"{choice}.yaml" for root in words.roots]
    return next((file.read_text() for file in files if file.is_file()), "")


def _reference(config: DictConfig, fresh: DictConfig | None) -> DictConfig:
    """The keys and classes of the configuration with the defaults of `conf/`, for their types.

    A stored value shows no type: a tolerance of 0 is a whole number. Where `conf/` has no default,
    the type is left to the signature of the class.
    """
    defaults = dict(flatten(plain(fresh))) if fresh is not None else {}
    reference = OmegaConf.create({})
    for key, value in flatten(plain(config)):
        shows_itself = isinstance(value, dict) or key.rpartition(".")[2] == TARGET
        default = value if shows_itself else defaults.get(key)
        OmegaConf.update(reference, key, default, force_add=True)
    return reference

"""The overrides of a command line, word by word: its choices of groups and its single values.

Each check raises UserError with one sentence that names the nearest choice. The checks
read only the yaml files, which is fast; `signatures.py` checks what needs a class's signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import GrammarParseError

from equipoise.config.about import choice_files, is_description, no_layer
from equipoise.config.annotations import accepts, parameters
from equipoise.config.brought_names import called_here, choice_here
from equipoise.config.hydra import (
    CONF,
    SEARCH_PATH,
    TAKE_SEVERAL,
    as_text,
    flatten,
    parse,
    search_path,
)
from equipoise.config.refusals import how_to_quote, shown
from equipoise.errors import UserError, nearest

ESSENTIAL = ("_target_", "_partial_", "about", "objective", "monitor")
"""Keys of a node that every run needs."""
MAY_BE_NULL = {"experiment", "sweep", "debug", "recipe", "solver@eval_solver"}
OPEN = ("callbacks", "logger")
"""Mappings that accept the user's entries: +callbacks.mine={_target_: my_package.Mine}."""


KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    ListConfig: ((list,), "a list"),
    DictConfig: ((dict,), "a mapping, such as {start: 0}"),
}


@dataclass(frozen=True)
class Menu:
    """The groups of `conf/` and the choices of each, read from the folders."""

    groups: dict[str, list[str]]

    @classmethod
    def of(cls, roots: Sequence[Path]) -> Menu:
        """The menu from all yaml files below `roots`."""
        groups: dict[str, set[str]] = {}
        for root in roots:
            for folder in (path for path in sorted(root.rglob("*")) if path.is_dir()):
                stems = {file.stem for file in choice_files(folder)}
                groups.setdefault(folder.relative_to(root).as_posix(), set()).update(stems)
        return cls({group: sorted(names) for group, names in groups.items()})

    def offers(self, override: Override) -> bool:
        """Whether the override chooses from a group rather than setting a value."""
        return override.key_or_group in self.groups


@dataclass(frozen=True)
class CommandLine:
    """The overrides of a command: choices of groups (and Hydra's own settings), single values."""

    overrides: list[Override]
    roots: list[Path]
    menu: Menu

    @classmethod
    def of(cls, lines: Sequence[str]) -> CommandLine:
        """Parse and check the overrides. Raises UserError where a choice is misspelt."""
        overrides = parse(lines)
        roots = [CONF, *search_path(overrides)]
        words = cls(overrides, roots, Menu.of(roots))
        for override in overrides:
            check_choice(override, words.menu)
            check_place(override, words.menu)
            _check_deletion(override, words.menu)
        return words

    @property
    def groups(self) -> list[Override]:
        """Choices of groups, and overrides of Hydra's own settings."""
        return [o for o in self.overrides if self.menu.offers(o) or is_of_hydra(o)]

    @property
    def values(self) -> list[Override]:
        """Settings."""
        groups = self.groups
        return [override for override in self.overrides if override not in groups]

    @property
    def keys(self) -> set[str]:
        """The keys of all settings."""
        return {override.key_or_group for override in self.values}

    @property
    def searched(self) -> list[str]:
        """The overrides that tell Hydra where to find files."""
        return [o.input_line or "" for o in self.overrides if o.key_or_group == SEARCH_PATH]

    def value(self, key: str) -> Any:
        """The last value given for a key; None if none was."""
        values = [o.value() for o in self.values if o.key_or_group == key and not o.is_delete()]
        return values[-1] if values else None


def check_place(override: Override, menu: Menu) -> None:
    """Raise where `@` moves a key that is not a group, which Hydra would ignore."""
    if override.package is not None and not menu.offers(override) and not is_of_hydra(override):
        raise UserError(
            f"{override.input_line}: {override.key_or_group} is not a group; only a group can be "
            "put under another key, such as solver@eval_solver=broyden"
        )


def _check_deletion(override: Override, menu: Menu) -> None:
    """Raise UserError where something is left out that every run needs."""
    if not override.is_delete() or is_of_hydra(override):
        return
    key = full_key(override)
    needed = menu.offers(override) and key not in MAY_BE_NULL and "@" not in key
    if needed or key.rpartition(".")[2] in ESSENTIAL:
        raise _needed(key)


def _needed(key: str) -> UserError:
    return UserError(
        f"~{key} removes what every run needs: only a setting or an entry, such as "
        "~callbacks.report, can be removed"
    )


def full_key(override: Override) -> str:
    """The key as typed, with its package (`solver@eval_solver`) and without + or ~."""
    return override.get_key_element().lstrip("+~")


def is_of_hydra(override: Override) -> bool:
    """Whether the override is Hydra's own business: hydra.run.dir, hydra/launcher."""
    return override.key_or_group.partition(".")[0].partition("/")[0] == "hydra"


def check_name(group: str, name: Any, menu: Menu) -> None:
    """Raise where `group` has no choice `name`."""
    choices = menu.groups[group]
    if "${" in str(name):
        raise UserError(
            f"{group}={name}: a choice must be typed and cannot refer to another setting"
        )
    if str(name) not in choices:
        hint = choice_here(group, str(name)) or nearest(str(name), choices)
        offered = ", ".join(choices) or "none yet"
        raise UserError(f"{group} has no choice '{name}'{hint or ';'} choices: {offered}")


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
        instead = f"set {key}=none" if none else "leave it out"
        raise UserError(f"{key} has no choice null: {instead}")
    if isinstance(value, dict) or (isinstance(value, list) and key not in TAKE_SEVERAL):
        runs = ",".join(map(as_text, value)) if value and isinstance(value, list) else ""
        hint = f"; several runs, each with one: -m {key}={runs}" if "," in runs else ""
        raise UserError(f"{override.input_line}: {key} takes one choice{hint}")
    for name in value if isinstance(value, list) else [value]:
        check_name(key, as_text(name), menu)


def check_value(override: Override, config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise UserError where there is no such setting, or the value has the wrong type.

    Entries added to a mapping that accepts the user's own are left to their class.
    """
    if override.key_or_group.startswith("recipe."):
        raise UserError(
            f"{override.input_line}: a recipe holds values for several choices; set the value "
            "itself, such as optimizer.lr or solver.tol"
        )
    adds = (override.is_add() or override.is_force_add()) and not override.is_sweep_override()
    if adds and override.key_or_group.partition(".")[0] in OPEN:
        return
    _check_setting(override, config, choices)


def _check_setting(override: Override, config: DictConfig, choices: Mapping[str, str]) -> None:
    """Raise where a key does not exist, or its value differs in type from the yaml's default."""
    key = override.key_or_group
    check_description(key, config)
    if override.is_sweep_override():
        raise UserError(
            f"{override.input_line}: several values at once need a multirun, add -m"
            f"{how_to_quote(override.input_line or '')}"
        )
    of_layer = ("solver", "gradient", "equilibrium")
    if key.partition(".")[0] in of_layer and choices.get("solver") == "none":
        raise UserError(f"{key}: {no_layer(config.model, choices['model'])}; leave it out")
    if key.partition(".")[0] in ("optimizer", "schedule") and choices.get("optimizer") == "none":
        raise UserError(f"{key}: model={choices['model']} trains no weights; leave it out")
    check_key(key, config, _place(key, choices))
    present = OmegaConf.select(config, key)
    if isinstance(value := override.value(), dict) and isinstance(present, DictConfig):
        for inner, _ in flatten(value, f"{key}."):  # they are merged into the existing mapping
            check_key(inner, config, _place(key, choices))
    if override.is_delete() and "." not in key:
        raise _needed(key)
    if not override.is_delete() and not _fits_class(key, override.value(), config):
        check_kind(key, override.value(), OmegaConf.select(config, key, throw_on_missing=False))


def _fits_class(key: str, value: Any, config: DictConfig) -> bool:
    """Whether the class behind the setting declares that it takes the value."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else None
    types = parameters(str(node.get("_target_"))) if isinstance(node, DictConfig) else {}
    return name in types and accepts(value, types[name])


def _place(key: str, choices: Mapping[str, str]) -> str:
    group = key.split(".")[0]
    return f"{group}={choices[group]}" if group in choices else "the configuration"


def check_description(key: str, config: DictConfig) -> None:
    """Raise where a key only describes its choice, which no override can change."""
    group, _, name = key.partition(".")
    node = config.get(group)
    if not isinstance(node, DictConfig) or not is_description(name, node):
        return
    if name.partition(".")[0] not in parameters(str(node.get("_target_"))):
        raise UserError(f"{key} describes the {group} and cannot be set: leave it out")


def check_key(key: str, config: Any, place: str) -> None:
    """Raise where the dotted `key` is not in `config`, naming the nearest one that is."""
    existing = list(keys(config))
    if key in existing:
        return
    parent = key.rpartition(".")[0]
    settings = [name for name in existing if "about" not in name.split(".")]
    siblings = [name for name in settings if name.rpartition(".")[0] == parent]
    same_name = [name for name in settings if name.rpartition(".")[2] == key]
    hint = called_here(key, siblings) or (f"; did you mean {same_name[0]}?" if same_name else "")
    hint = hint or nearest(key, siblings) or nearest(key, settings)
    group, _, rest = key.partition(".")
    choice = rest.partition(".")[0]
    there = f"{group}.{choice}" in existing
    if group in OPEN and rest and not there and (CONF / group / f"{choice}.yaml").is_file():
        first = "default" if group == "callbacks" else "csv"
        hint = f"; add {group}=[{first},{choice}]"
    if parent and parent in existing and not siblings:
        hint = hint or f"; {place} has no settings"
    raise UserError(f"no setting '{key}' in {place}{hint or '; see --cfg job for all settings'}")


def check_recipe_key(key: str, config: DictConfig) -> None:
    """Raise where a recipe sets a key that the choice does not have."""
    if key not in set(keys(config)):
        raise UserError(f"the recipe sets '{key}', which that choice does not have")


def keys(config: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted key of nested mappings, inner nodes included."""
    items = config.items_ex(resolve=False) if isinstance(config, DictConfig) else config.items()
    for name, value in items:
        key = str(name)
        yield f"{prefix}{key}"
        if isinstance(value, Mapping) or (isinstance(value, DictConfig) and not value._is_none()):
            yield from keys(value, f"{prefix}{key}.")


def check_kind(key: str, value: Any, default: Any) -> None:
    """Raise where `value` is not of the type of the default in the yaml.

    null, interpolations and settings whose default is null or a word are left to the signature.
    """
    kind = KINDS.get(type(default))
    if kind is None or value is None or (isinstance(value, str) and "${" in value):
        return
    accepted, described = kind
    wrong_bool = isinstance(value, bool) and bool not in accepted
    if wrong_bool or not isinstance(value, accepted):
        raise UserError(f"{key}={shown(value)} must be {described}; its default is {default}")


def set_value(config: DictConfig, override: Override) -> None:
    """Change, add or leave out one setting, as Hydra does. Raises UserError."""
    key, value = override.key_or_group, override.value()
    parent, _, name = key.rpartition(".")
    adds = override.is_add() or override.is_force_add()
    if not adds:
        _check_still_there(override, config)
    if override.is_delete():
        _check_deleted(override, config)
        with open_dict(config):
            del (OmegaConf.select(config, parent) if parent else config)[name]
    elif override.is_add() and not isinstance(value, dict | list) and _is_there(config, key):
        raise UserError(f"{override.input_line}: {key} exists already; leave out the +")
    else:
        try:
            OmegaConf.update(config, key, value, merge=True, force_add=adds)
        except GrammarParseError as error:
            raise UserError(
                f"{override.input_line}: ${{ begins a reference to another setting, such as "
                "${seed}; complete it, or leave it out"
            ) from error


def _check_still_there(override: Override, config: DictConfig) -> None:
    """Raise UserError where an override before this one has removed the setting."""
    parent, _, name = override.key_or_group.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or name not in list(node.keys()):
        raise UserError(
            f"{override.input_line}: an earlier override removes {override.key_or_group}; leave "
            "one of the two out"
        )


def _check_deleted(override: Override, config: DictConfig) -> None:
    """Raise UserError where ~key=value names another value than the present one."""
    there = OmegaConf.select(config, override.key_or_group, throw_on_missing=False)
    if override.value() is not None and override.value() != there:
        raise UserError(
            f"{override.input_line}: {override.key_or_group} is {there}; to remove it, use "
            f"~{override.key_or_group} alone"
        )


def _is_there(config: DictConfig, key: str) -> bool:
    return OmegaConf.select(config, key, throw_on_missing=False) is not None

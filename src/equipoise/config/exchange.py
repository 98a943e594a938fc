"""Another class in place of a choice's own, by `optimizer._target_=torch.optim.RMSprop`.

The file of a choice names the arguments of its class. If another class replaces it, that class's
arguments are the schema: settings that it lacks are left out, and its additional ones can be typed.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from equipoise.config.about import FORWARDED, PROVIDED, about, keys_of_others
from equipoise.config.annotations import parameters, takes_others
from equipoise.config.brought_names import called_here
from equipoise.config.hydra import CONF
from equipoise.config.overrides import OPEN
from equipoise.config.own_code import check_package
from equipoise.errors import UserError, nearest

TARGET = "_target_"
OURS = "equipoise"
MAY_BE_EMPTY = ("eval_solver", "regularizer")
"""Groups that a run may leave without a choice."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a class by name, and whether it takes others that only it can check."""

    names: frozenset[str]
    others: bool = False

    def settings(self, key: str) -> frozenset[str]:
        """The arguments of a class at this key, without other parts of the run."""
        return self.names - set(PROVIDED.get(key, ()))


def exchange_classes(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Put the classes that `<key>._target_=<class>` names into the nodes of a configuration.

    Settings that the new class does not take are left out. Raises UserError where there is no such
    class, or it does not fit its place.
    """
    for override in overrides:
        key, _, name = override.key_or_group.rpartition(".")
        if name == TARGET and key and _is_plain(override) and isinstance(override.value(), str):
            _exchange(config, key, override)


def model_name(config: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """The name of a run's model: the choice, or the user's class that replaces its class."""
    target = str((config.get("model") or {}).get(TARGET) or OURS)
    is_ours = target.partition(".")[0] == OURS
    is_our_choice = (CONF / "model" / f"{choices['model']}.yaml").is_file()
    return choices["model"] if is_ours or not is_our_choice else target.rpartition(".")[2]


def _is_plain(override: Override) -> bool:
    return not override.is_delete() and not override.is_sweep_override()


def _exchange(config: DictConfig, key: str, override: Override) -> None:
    target = str(override.value())
    node = OmegaConf.select(config, key, throw_on_missing=False)
    if key.partition(".")[0] in OPEN and node is None:
        if not override.is_add() and not override.is_force_add():
            raise UserError(f"{key} does not exist: to add it, type +{override.input_line}")
        return
    if not isinstance(node, DictConfig):
        node = _new_node(config, key)
    if node is None or node.get(TARGET) == target:
        return
    arguments = arguments_of(target, key)
    _check_layer(key, target, node, arguments)
    kept = {"_partial_", "about"} | keys_of_others(key, node) | arguments.settings(key)
    with open_dict(node):
        for name in [str(name) for name in node if str(name) not in kept]:
            del node[name]
        node[TARGET] = target


def _new_node(config: DictConfig, key: str) -> DictConfig | None:
    """An empty node where there is none yet, as with regularizer=none; None for an unknown key."""
    parent, _, name = key.rpartition(".")
    around = OmegaConf.select(config, parent) if parent else config
    if key not in MAY_BE_EMPTY and not (isinstance(around, DictConfig) and name in around):
        return None
    OmegaConf.update(config, key, {}, merge=False, force_add=True)
    node: DictConfig = OmegaConf.select(config, key)
    return node


def _check_layer(key: str, target: str, node: DictConfig, arguments: Arguments) -> None:
    """Raise where only one of a network and its replacement takes an equilibrium layer."""
    if key != "model" or (arguments.others and "equilibrium" not in arguments.names):
        return
    takes, has = "equilibrium" in arguments.names, about(node, "equilibrium", True)
    if has and not takes:
        raise UserError(
            f"model._target_={target} takes no argument 'equilibrium', the layer: use it to "
            "replace a model without one, such as model=resnet"
        )
    if takes and not has:
        raise UserError(
            f"model._target_={target} takes an equilibrium layer: use it to replace a model "
            "that has one, such as model=mdeq"
        )


def check_trusted_settings(
    config: DictConfig, overrides: Sequence[Override], trusted: Collection[str]
) -> None:
    """Raise UserError where `make_room` would import what a checkpoint names and nobody trusts."""
    for override in overrides:
        key = override.key_or_group.rpartition(".")[0]
        node = OmegaConf.select(config, key, throw_on_missing=False) if key else None
        if isinstance(node, DictConfig) and (target := node.get(TARGET)):
            check_package(key, str(target), trusted)


def make_room(config: DictConfig, override: Override, exchanged: Collection[str]) -> None:
    """Allow typed settings that a class takes and the file of its choice does not name.

    The files of our own classes name all settings except those passed on; `exchanged`: the typed
    keys, in case one of our classes is in another's place. Raises UserError, with the nearest name,
    for a setting that the class does not take.
    """
    key, _, name = override.key_or_group.rpartition(".")
    node = OmegaConf.select(config, key, throw_on_missing=False) if key else None
    if not isinstance(node, DictConfig) or name in node or name.startswith("_"):
        return
    target = str(node.get(TARGET) or "")
    ours = target.partition(".")[0] == OURS and target.rpartition(".")[2] not in FORWARDED
    named_in_file = ours and f"{key}.{TARGET}" not in exchanged
    if not target or named_in_file or not _is_plain(override):
        return
    arguments = arguments_of(target, key)
    names = arguments.settings(key)
    if not arguments.others and name not in names:
        full = [f"{key}.{taken}" for taken in sorted(names)]
        hint = called_here(f"{key}.{name}", full) or nearest(f"{key}.{name}", full)
        hint = hint or f"; it takes {', '.join(sorted(names)) or 'none'}"
        shown = target.rpartition(".")[2]
        raise UserError(f"{override.input_line}: {shown} takes no '{name}'{hint}")
    if not override.is_add():
        OmegaConf.update(config, f"{key}.{name}", None, force_add=True)


def arguments_of(target: str, key: str) -> Arguments:
    """The arguments of the class behind a dotted path.

    Read from its source if that suffices, else by importing it. Raises UserError, beginning with
    the key, where there is no such class.
    """
    known = parameters(target)
    if forwarded := FORWARDED.get(target.rpartition(".")[2]):
        return Arguments(frozenset({*known, *parameters(forwarded)}))
    if known and not takes_others(target):
        return Arguments(frozenset(known))
    from equipoise.config.signatures import locate

    found = locate(key, target)
    described = list(inspect.signature(found).parameters.values())
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in described):
        return Arguments(frozenset(parameter.name for parameter in described))
    # its bases take what it passes on
    for base in inspect.getmro(found)[1:-1] if inspect.isclass(found) else ():
        if "__init__" in vars(base):
            described += inspect.signature(base).parameters.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return Arguments(frozenset(p.name for p in described if p.kind not in variadic), others=True)

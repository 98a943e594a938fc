"""Another class in the place of a choice's own, by `optimizer._target_=torch.optim.RMSprop`.

The file of a choice names the arguments of its class. Where another class stands there, what it
takes is the schema: settings that it lacks are left out, and those that it has beside can be typed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from equipoise.config.about import about, keys_of_others
from equipoise.config.annotations import parameters, takes_others
from equipoise.config.overrides import OPEN
from equipoise.errors import UserError, nearest

TARGET = "_target_"
PROVIDED = {
    "model": ("equilibrium",),
    "equilibrium": ("solver", "gradient", "eval_solver", "regularizer"),
    "task.objective": ("model", "make_optimizer", "schedule"),
    "optimizer": ("params",),
    "schedule": ("optimizer",),
    "trainer": ("callbacks", "logger"),
}
"""Arguments of the class at a key that are other parts of the run, and no settings."""
FILLED = {"schedule": ("total_steps", "T_max")}
"""Arguments that are computed where they are not given."""
FORWARDED = {"WandbLogger": "wandb.sdk.wandb_init.init"}
"""Loggers that hand arguments on, and the function that takes them."""
OURS = "equipoise"


def exchange_classes(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Make the nodes of `config` ready for the overrides: those of another class, and beside them.

    Where `<key>._target_` names another class, the settings that it does not take are left out.
    Where it, or a class of another package, takes one that the file of the choice does not name,
    there is room for it. Raises UserError where the class does not take what is typed, or not what
    stands at its place.
    """
    typed = [o for o in overrides if not o.is_delete() and not o.is_sweep_override()]
    for override in typed:
        key, _, name = override.key_or_group.rpartition(".")
        if name == TARGET and isinstance(override.value(), str):
            _exchange(config, key, override)
    for override in typed:
        _make_room(config, override)


def _exchange(config: DictConfig, key: str, override: Override) -> None:
    target = str(override.value())
    node = OmegaConf.select(config, key, throw_on_missing=False) if key else None
    if key.partition(".")[0] in OPEN and node is None:
        if not override.is_add() and not override.is_force_add():
            raise UserError(f"{key} does not exist: to add it, type +{override.input_line}")
        return
    if not isinstance(node, DictConfig):
        node = _new_node(config, key)
    if node is None or node.get(TARGET) == target:
        return
    arguments = arguments_of(key, target)
    if arguments is not None:
        _check_layer(key, target, node, arguments)
        written: dict[str, Any] = {str(name): node._get_node(name) for name in node}
        kept = {"_partial_", "about"} | keys_of_others(key, node) | set(arguments)
        with open_dict(node):
            for name in set(written) - kept - {TARGET}:
                del node[name]
    OmegaConf.update(config, f"{key}.{TARGET}", target, force_add=True)


def _new_node(config: DictConfig, key: str) -> DictConfig | None:
    """An empty node at a key where a choice such as regularizer=none has left none."""
    if "." in key or key not in config:
        return None
    OmegaConf.update(config, key, {}, merge=False, force_add=True)
    return OmegaConf.select(config, key)


def _check_layer(key: str, target: str, node: DictConfig, arguments: dict[str, Any]) -> None:
    """Raise where a network takes no equilibrium layer in the place of one that does, or so."""
    if key != "model" or not arguments:
        return
    takes, has = "equilibrium" in arguments, about(node, "equilibrium", True)
    if has and not takes:
        raise UserError(
            f"model._target_={target} takes no argument 'equilibrium', the layer: put it in the "
            "place of a model without one, such as model=resnet"
        )
    if takes and not has:
        raise UserError(
            f"model._target_={target} takes an equilibrium layer: put it in the place of a model "
            "that has one, such as model=mdeq"
        )


def _make_room(config: DictConfig, override: Override) -> None:
    """Let a setting be typed that the class takes and the file of the choice does not name."""
    key, _, name = override.key_or_group.rpartition(".")
    node = OmegaConf.select(config, key, throw_on_missing=False) if key else None
    if not isinstance(node, DictConfig) or name in node or name.startswith("_"):
        return
    target = str(node.get(TARGET) or "")
    if not target or target.partition(".")[0] == OURS:
        return
    arguments = arguments_of(key, target)
    if arguments is None or name in arguments:
        OmegaConf.update(config, f"{key}.{name}", None, force_add=True)
        return
    shown = target.rpartition(".")[2]
    hint = nearest(name, arguments) or f"; it takes {', '.join(arguments) or 'none'}"
    raise UserError(f"{override.input_line}: {shown} takes no '{name}'{hint}")


def arguments_of(key: str, target: str) -> dict[str, Any] | None:
    """The settings that the class behind a dotted path takes, and their types; None: any.

    Read from its source where that tells, else by importing it. Raises UserError where there is no
    such class.
    """
    known = parameters(target)
    if known and not takes_others(target):
        arguments: dict[str, Any] | None = known
    elif forwarded := FORWARDED.get(target.rpartition(".")[2]):
        arguments = {**known, **parameters(forwarded)}
    else:
        arguments = _by_signature(key, target)
    if arguments is None:
        return None
    return {name: kind for name, kind in arguments.items() if name not in PROVIDED.get(key, ())}


def _by_signature(key: str, target: str) -> dict[str, Any] | None:
    from equipoise.config.signatures import locate

    described = inspect.signature(locate(key, target)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in described):
        return None
    return {parameter.name: Any for parameter in described}

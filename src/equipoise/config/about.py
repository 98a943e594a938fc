"""The description of a choice in its yaml file under `about:`, not passed to its class.

    about:
      gives: image                     # of a task: the samples, which a model takes
      wants: logits                    # and the output that it needs, one that a model gives
      settings: [classes]              # keys of the task that only other groups read
      data: [classes, image_channels]  # keys on which model, objective and task have to agree
      limits: { radius: [1, null] }    # of numbers that the table of `limits` does not know

A model says what it `takes` and `gives`, an estimator which `solvers` suit it, and so on: the
checks ask here, and know no kind of task or model themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from equipoise.config.annotations import accepts, described
from equipoise.errors import UserError, nearest

PROVIDED = {
    "model": ("equilibrium",),
    "equilibrium": ("solver", "gradient", "eval_solver", "regularizer"),
    "task.objective": ("model", "make_optimizer", "schedule"),
    "optimizer": ("params",),
    "schedule": ("optimizer",),
    "trainer": ("callbacks", "logger"),
}
"""Arguments of the class at a key that are other parts of the run rather than settings."""
FILLED = {"schedule": ("total_steps", "T_max")}
"""Arguments that are computed where they are not given."""
FORWARDED = dict.fromkeys(("WandbLogger", "CurveWandbLogger"), "wandb.sdk.wandb_init.init")
"""Loggers that pass arguments on, and the function that takes them."""
OF_EVERY_TASK = ("objective", "monitor", "monitor_mode")
LIMITS = dict[str, tuple[float | None, float | None]]
OBLIGATORY: dict[str, dict[str, Any]] = {
    "task": {"gives": str, "wants": str},
    "model": {"takes": str | list[str], "gives": list[str]},
}
OPTIONAL: dict[str, dict[str, Any]] = {
    "task": {
        "settings": list[str], "data": list[str], "from_data": list[str], "split": list[str],
        "counts": dict[str, list[str]], "from_hub": bool, "without_path": str, "limits": LIMITS,
        "objectives": list[str], "of_checkpoint": bool, "own_steps": bool,
        "race": dict[str, str | list[str]], "licence": str,
    },
    "model": {
        "data": list[str], "fixed": list[str], "initial": list[str], "equilibrium": bool,
        "weights": bool, "layer": dict[str, str], "encoder": bool, "minimizes": bool,
        "least": dict[str, int], "most": dict[str, int], "limits": LIMITS,
    },
    "solver": {"finds": str, "limits": LIMITS},
    "gradient": {"solvers": list[str], "limits": LIMITS},
    "regularizer": {"gradients": list[str], "limits": LIMITS},
}  # fmt: skip


def about(node: Any, key: str, default: Any = None) -> Any:
    """An entry of a node's `about`; the default where it has none."""
    entries = (node or {}).get("about") or {}
    value = entries.get(key)
    return default if value is None else value


def no_layer(model: Any, name: str) -> str:
    """A clause: the model has no equilibrium layer, or which setting would give it one."""
    switch = (about(model, "layer") or {}).get("switch")
    return f"model={name} has no equilibrium layer" + (f", unless {switch}" if switch else "")


def keys_of_others(place: str, node: Mapping[str, Any]) -> set[str]:
    """The keys of a node that its class need not take: other groups and the checks read them."""
    shared = {"about", *about(node, "settings", ()), *about(node, "data", ())}
    return shared.union(OF_EVERY_TASK) if place == "task" else shared


def shared_data(model: Any, task: Any) -> list[str]:
    """The keys on which model, objective and task must agree."""
    return list(dict.fromkeys([*about(task, "data", ()), *about(model, "data", ())]))


def is_description(name: str, node: Any) -> bool:
    """Whether a key describes the choice rather than setting anything."""
    entries = (node or {}).get("about") or {}
    facts = {"about", *entries, *about(node, "data", ())}
    return name.partition(".")[0] in facts - set(about(node, "settings", ()))


def choice_files(folder: Path) -> list[Path]:
    """The files of a group's choices; `_common.yaml` holds what several share, a dot hides."""
    return [file for file in sorted(folder.glob("*.yaml")) if file.stem[0] not in "_."]


def written_choices(group: str, roots: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """Name and node of every choice of a group, from its file and those it builds on."""
    files = [file for root in roots for file in choice_files(root / group)]
    return [(file.stem, written(file, roots)) for file in files]


def written(file: Path, roots: Sequence[Path] = ()) -> dict[str, Any]:
    """The node of a file's group, merged over those of files such as `_common` in any root."""
    content: dict[str, Any] = yaml.safe_load(file.read_text()) or {}
    parts = [f"{entry}.yaml" for entry in content.pop("defaults", []) if str(entry).startswith("_")]
    folders = [root / file.parent.name for root in roots] or [file.parent]
    shared = [folder / part for part in parts for folder in folders if (folder / part).is_file()]
    # a file that also overrides other groups stands in the global package, its node nested
    nested = content.get(file.parent.name)
    node = nested if isinstance(nested, dict) else content
    below = [written(part, roots) for part in shared]
    merged = OmegaConf.to_container(OmegaConf.merge(*below, node))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def check_about(config: DictConfig) -> None:
    """Raise where the file of a choice says too little, or something wrong, under `about:`."""
    wrong = wrong_about({group: config.get(group) for group in OPTIONAL})
    if wrong:
        raise UserError(f"{wrong}: correct the file of the choice")


def wrong_about(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the `about:` of the choices, None where nothing is."""
    for group in OPTIONAL:
        wrong = _wrong_entries(group, (config.get(group) or {}).get("about"))
        if wrong:
            return f"{group}.about{wrong}"
    return None


def _wrong_entries(group: str, node: Any) -> str | None:
    is_node = isinstance(node, DictConfig)
    entries: Any = OmegaConf.to_container(node, resolve=True) if is_node else node or {}
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

"""A recipe, an experiment, a sweep or a debug file names only keys of choices that are in force.

What a recipe keeps for several choices stands under the one that it belongs to; everything else it
names, and all that an experiment names, has to be a setting of what the file itself leads to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from equipoise.config.compose import compose, flatten
from equipoise.config.hydra import CONF
from equipoise.config.overrides import Menu, keys

MENU = Menu.of([CONF])
OWN = {"defaults", "recipe", "sweep", "hydra"}
"""Top keys that are no settings of a run: what belongs to a choice, the grid of a sweep."""
RECIPES = sorted((CONF / "recipe").glob("[!_]*.yaml"))
WHOLE = sorted([*(CONF / "experiment").glob("[!_]*.yaml"), *(CONF / "debug").glob("*.yaml")])
PLACES = {"encoder": "model.encoder", "objective": "task.objective.loss", "values": ""}


def pair(recipe: Path) -> list[str]:
    """The words of the task and the model that a recipe is named after."""
    tasks = [task for task in MENU.groups["task"] if recipe.stem.startswith(f"{task}_")]
    task = max(tasks, key=len)
    return [f"task={task}", f"model={recipe.stem.removeprefix(f'{task}_')}"]


def named(file: Path) -> dict[str, Any]:
    """The settings that a file names at its top, by dotted key."""
    content = OmegaConf.to_container(OmegaConf.load(file)) or {}
    assert isinstance(content, dict)
    return dict(flatten({key: value for key, value in content.items() if key not in OWN}))


def strangers(file: Path, words: list[str]) -> list[str]:
    """What the file names, and the configuration that it leads to does not have."""
    config = compose(words).config
    there = set(keys(config))
    return [key for key in named(file) if key not in there]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_names_no_key_of_a_choice_that_is_not_in_force(recipe: Path) -> None:
    words = pair(recipe)
    assert not strangers(recipe, words)
    for group, choice, key in kept(recipe):
        config = compose([*words, f"{group}={choice}"]).config
        assert key in set(keys(config)), f"recipe.{group}.{choice}: {key}"


def kept(recipe: Path) -> set[tuple[str, str, str]]:
    """Group, choice and key of what a recipe keeps for the choices of its own `use`."""
    content: Any = OmegaConf.to_container(OmegaConf.load(recipe)) or {}
    node = content.get("recipe") or {}
    parts = [node, *(node.get("sizes") or {}).values()]
    found = set()
    for part in parts:
        use = {**(node.get("use") or {}), **(part.get("use") or {})}
        for group, choice in use.items():
            values = (part.get(group) or {}).get(choice) or {}
            place = PLACES.get(group, group)
            found |= {(group, choice, f"{place}.{key}") for key, _ in flatten(values)}
    return found


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_an_experiment_names_no_key_of_a_choice_that_is_not_in_force(file: Path) -> None:
    assert not strangers(file, [f"{file.parent.name}={file.stem}"])


def test_every_choice_that_a_recipe_keeps_values_for_exists() -> None:
    for recipe in RECIPES:
        content: Any = OmegaConf.to_container(OmegaConf.load(recipe)) or {}
        node = content.get("recipe") or {}
        for part in (node, *(node.get("sizes") or {}).values()):
            for group in set(part) - {"use", "published", "sizes", "values"}:
                unknown = set(part[group]) - set(MENU.groups[group])
                assert not unknown, f"{recipe.stem}: recipe.{group} has no {unknown}"

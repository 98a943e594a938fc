"""The entries of each list: a name, and the lines that say what it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from equipoise.commands.list.datasets import hub_cache, place_of
from equipoise.config.about import about, choice_files, written, written_choices
from equipoise.config.checks import fits
from equipoise.config.help_page import default_choices, description

Node = Mapping[str, Any]
BEST = {"max": "highest", "min": "lowest"}


@dataclass(frozen=True)
class Entry:
    """One line of a list: a name, and sentences about it."""

    name: str
    said: list[str]


@dataclass(frozen=True)
class Section:
    """A list: the line above it, and its entries."""

    title: str
    entries: list[Entry]


class Shelf:
    """The choices of `conf/` and of the user's own folders, as described in their files."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self.defaults = default_choices()

    @cached_property
    def tasks(self) -> dict[str, Node]:
        """The node of each task."""
        return self._nodes("task")

    @cached_property
    def models(self) -> dict[str, Node]:
        """The node of each model."""
        return self._nodes("model")

    @cached_property
    def groups(self) -> list[str]:
        """Every group that has at least one choice."""
        folders = {
            path.relative_to(root).as_posix()
            for root in self.roots
            for path in root.rglob("*")
            if path.is_dir() and choice_files(path)
        }
        return sorted(folders)

    def files(self, group: str) -> dict[str, Path]:
        """The file of each choice of a group; of two with the same name, the one Hydra takes."""
        found: dict[str, Path] = {}
        for root in self.roots:
            for file in choice_files(root / group):
                found.setdefault(file.stem, file)
        return dict(sorted(found.items()))

    def _nodes(self, group: str) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for name, node in written_choices(group, self.roots):
            nodes.setdefault(name, node)
        return dict(sorted(nodes.items()))


def tasks(shelf: Shelf, full: bool) -> Section:
    """Each task: its kind, its metric, its data; full: a sentence that describes it."""
    files = shelf.files("task")
    entries = [
        Entry(name, [_about_task(node), *([description(files[name])] if full else [])])
        for name, node in shelf.tasks.items()
    ]
    return Section(
        "tasks, by task=<name>: what is learnt, the metric that picks the best weights, the data",
        entries,
    )


def _about_task(node: Node) -> str:
    monitor = str(node.get("monitor", "")).rpartition("/")[2].replace("_", " ")
    best = BEST.get(str(node.get("monitor_mode", "min")), "")
    return f"{_kind(node)}, {best} {monitor}; {place_of(node).said}"


def _kind(node: Node) -> str:
    """The name of a task's objective class in words; without one, its samples and its output."""
    target = str((node.get("objective") or {}).get("_target_", "")).rpartition(".")[2]
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*", target)
    plain = " ".join(word.lower() for word in words)
    return plain or f"{about(node, 'gives')} to {about(node, 'wants')}"


def models(shelf: Shelf, full: bool) -> Section:
    """Each model: its description, and whether it has an equilibrium layer; full: its tasks."""
    files, entries = shelf.files("model"), []
    for name, node in shelf.models.items():
        said = [f"{description(files[name])}; {_layer(node)}"]
        if full:
            fitting = [task for task, other in shelf.tasks.items() if fits(node, other)]
            said.append(f"tasks: {', '.join(fitting) or 'none'}")
        entries.append(Entry(name, said))
    return Section("models, by model=<name>", entries)


def _layer(node: Node) -> str:
    if about(node, "equilibrium", True) is True:
        return "equilibrium layer"
    layer = (about(node, "layer") or {}).get("switch")
    return f"equilibrium layer with {layer}" if layer else "no equilibrium layer"


def pairs(shelf: Shelf, full: bool) -> Section:
    """For each task the models that fit; * where a recipe suits the pair."""
    recipes = shelf.files("recipe")
    entries = []
    for task, node in shelf.tasks.items():
        names = [name for name, model in shelf.models.items() if fits(model, node)]
        marked = [f"{name}*" if f"{task}_{name}" in recipes else name for name in names]
        entries.append(Entry(task, [", ".join(marked) or "none"]))
    return Section(
        "pairs: the models that fit each task; those marked * have a recipe for it", entries
    )


def recipes(shelf: Shelf, full: bool) -> Section:
    """Each recipe: its description; full: the choices that it makes."""
    entries = []
    for name, file in shelf.files("recipe").items():
        said = [description(file)]
        used = written(file, shelf.roots).get("use") or {}
        if full and used:
            said.append(", ".join(f"{group}={choice}" for group, choice in used.items()))
        entries.append(Entry(name, said))
    return Section(
        "recipes, selected by themselves where task and model have one: <task>_<model>", entries
    )


def datasets(shelf: Shelf, full: bool) -> Section:
    """Where each task looks for its data, whether they are there, and what to do if not."""
    places = {name: place_of(node) for name, node in shelf.tasks.items()}
    entries = [
        Entry(name, [place.said, *([place.advice] if place.advice else [])])
        for name, place in places.items()
    ]
    return Section(f"datasets of the tasks; those of the hub are kept in {hub_cache()}", entries)


def weights(shelf: Shelf, full: bool) -> Section:
    """The published files that `import-weights` takes."""
    from equipoise.interop.published_files import FILES, UNPUBLISHED

    entries = []
    for file in FILES:
        size = f"{file.parameters / 1e6:.1f} M parameters" if file.parameters else "size not stated"
        said = [
            f"{file.family}; {size}; {file.figure or 'figure not stated'}",
            f"with {file.configuration}",
            *([file.note] if file.note else []),
            file.address,
        ]
        entries.append(Entry(file.name, said))
    entries += [Entry(f"{family}, not published", [words]) for family, words in UNPUBLISHED.items()]
    title = (
        "weights: python -m equipoise import-weights <family> <weights> <configuration> out.ckpt; "
        "how large the files are, which may hold copies of weights, is stated nowhere"
    )
    return Section(title, entries)


def choices(group: str, shelf: Shelf) -> Section:
    """The choices of any group; * marks the default."""
    entries = [
        Entry(f"{name}*" if shelf.defaults.get(group) == name else name, [description(file)])
        for name, file in shelf.files(group).items()
    ]
    marked = any(entry.name.endswith("*") for entry in entries)
    default = "; * is the default" if marked else ""
    return Section(f"{plural(group)}, by {group}=<name>{default}", entries)


LISTS: dict[str, Callable[[Shelf, bool], Section]] = {
    "tasks": tasks, "models": models, "pairs": pairs, "recipes": recipes, "datasets": datasets,
    "weights": weights,
}  # fmt: skip
"""The lists that show more than the choices of one group."""


def plural(group: str) -> str:
    """The name of the list of a group: solver -> solvers, strategy -> strategies."""
    if group.endswith("y") and not group.endswith("ay"):
        return f"{group[:-1]}ies"
    return group if group.endswith("s") or group in ("anytime", "debug") else f"{group}s"


def overview(shelf: Shelf) -> Iterator[Section]:
    """The lists shown by default: all but weights, which is long."""
    yield from (LISTS[name](shelf, False) for name in ("tasks", "models", "pairs", "recipes"))
    for group in shelf.groups:
        if plural(group) not in LISTS:
            yield choices(group, shelf)

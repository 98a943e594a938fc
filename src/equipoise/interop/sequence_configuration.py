"""The published configurations of the sequence models: their keys, their solvers, their tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from equipoise.interop.errors import DoesNotFit
from equipoise.interop.mdeq.training import (
    ANDERSON_MEMORY,
    STOPS,
    THEIR_NAMES,
    TOLERANCE,
    SolverChoice,
)

DATASETS = {"wt103": "wikitext103", "wt2": "wikitext2", "ptb": "ptb", "char-ptb": "ptb_char"}
VOCABULARIES = {267735: "wikitext103", 33278: "wikitext2", 10000: "ptb"}


class PublishedArguments:
    """The arguments of a published training script, by their names, however deep they lie."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read `config`; raises DoesNotFit where it is no mapping."""
        if not isinstance(config, Mapping):
            raise DoesNotFit("a published configuration is a mapping of keys such as d_model")
        self.values = dict(_leaves(config))

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any) -> Any:
        """Return the value of `key`, or `default` where it is missing or null."""
        return self.values[key] if key in self else default

    def need(self, key: str, model: str) -> Any:
        """Return the value of `key`; raises DoesNotFit where there is none."""
        if key not in self:
            raise DoesNotFit(f"the configuration of a published {model} needs {key}, and has none")
        return self.values[key]


def solver_choice(
    config: PublishedArguments, direction: Literal["f", "b"], solver: str, threshold: int
) -> SolverChoice:
    """Return a solver: f_solver or b_solver with its threshold, stopped by stop_mode at eps.

    `solver` and `threshold` are the published defaults. Raises DoesNotFit for unknown words.
    """
    theirs = config.get(f"{direction}_solver", solver)
    mode = config.get("stop_mode", "rel")
    if theirs not in THEIR_NAMES:
        raise DoesNotFit(f"{direction}_solver is {theirs}; known are {', '.join(THEIR_NAMES)}")
    if mode not in STOPS:
        raise DoesNotFit(f"stop_mode is {mode}; known are {', '.join(STOPS)}")
    steps = config.get(f"{direction}_thres", threshold)
    name = THEIR_NAMES[theirs]
    memory = {"broyden": steps, "anderson": ANDERSON_MEMORY}.get(name)
    tolerance = config.get(f"{direction}_eps", config.get("eps", TOLERANCE))
    settings = {"max_steps": steps, "tol": tolerance, "stop": STOPS[mode]}
    return SolverChoice(name, settings | ({"memory": memory} if memory else {}))


def solvers_of_2020(
    config: PublishedArguments, threshold: int
) -> tuple[SolverChoice, SolverChoice]:
    """Return the forward and the backward solver of the code of 2020: Broyden within f_thres.

    That code never reads b_thres. `threshold` is its default.
    """
    steps = config.get("f_thres", threshold)
    both = PublishedArguments({**config.values, "b_thres": steps})
    return solver_choice(both, "f", "broyden", steps), solver_choice(both, "b", "broyden", steps)


def task_of(config: PublishedArguments, vocabulary: int) -> str:
    """Return the task of the configuration's dataset, else that of the vocabulary's size."""
    dataset = str(config.get("dataset", "")).lower()
    return DATASETS.get(dataset, VOCABULARIES.get(vocabulary, "text_folder"))


def lines(task: str, model: str, vocabulary: int, arguments: Mapping[str, Any]) -> list[str]:
    """Return what one would type for a task, a model and its settings."""
    settings = [f"model.{name}={typed(value)}" for name, value in arguments.items()]
    return [f"task={task}", f"model={model}", f"task.vocabulary={vocabulary}", *settings]


def solver_lines(group: str, place: str, choice: SolverChoice) -> list[str]:
    """Return what one would type for a solver at `place`."""
    settings = [f"{place}.{name}={typed(value)}" for name, value in choice.settings.items()]
    return [f"{group}={choice.name}", *settings]


def typed(value: Any) -> str:
    """Return a value as one types it."""
    if value is None:
        return "null"
    if isinstance(value, bool | list):
        return str(value).lower().replace(" ", "")
    return str(value)


def _leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(key).removeprefix("--"), value

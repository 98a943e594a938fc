"""A search: a sweep whose file has a `space`, from which Optuna draws the jobs.

    sweep:
      trials: 20
      space:
        optimizer.lr: { times: [0.1, 10] }  # of the value in force, on a logarithmic scale
        gradient: [phantom, neumann]
        gradient.damping: interval(0.2, 1.0)

An entry is a list of choices, a sweep as on the command line, or factors of the value in force.
A setting on the command line replaces the file's entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig, OmegaConf

from equipoise.config.compose import CONF, SEARCH_PATH, compose, composed_by_hydra, parse, plain
from equipoise.config.hydra import search_path
from equipoise.config.overrides import Menu, check_choice
from equipoise.config.search_space import DIGITS, parameter_of
from equipoise.config.sweeps import as_override
from equipoise.errors import UserError, nearest

SWEEPER = "hydra/sweeper=equipoise"
"""The override that makes Hydra use our own sweeper."""
COMPLETED, PRUNED, DIVERGED, FAILED = "completed", "pruned", "diverged", "failed"
"""The summary's statuses of a job that ended by itself."""
JOURNAL, DATABASE = "search.journal", "search.db"
IN_FOLDER = "search"
FACTORS = "times"
COUNTS = ("trials", "at_once")
MOST = 1_000_000


@dataclass(frozen=True)
class Search:
    """The settings of a search; conf/sweep/_search.yaml says what each means.

    sampler, pruner: a name, or a `_target_` with its arguments.
    """

    trials: int
    at_once: int | None
    sampler: str | Mapping[str, Any]
    pruner: str | Mapping[str, Any]
    storage: str
    study: str | None
    seed: int
    space: Mapping[str, Any]

    @classmethod
    def of(cls, node: Mapping[str, Any] | None) -> Search | None:
        """Read and check the node of a sweep; None where it is not a search. Raises UserError."""
        if not node or "space" not in node:
            return None
        known = [field.name for field in fields(cls)]
        for key in node:
            if key not in known:
                raise UserError(f"sweep.{key} is no setting of a search{nearest(str(key), known)}")
        for key in COUNTS:
            _check_count(key, node[key])
        if not _is_whole(node["seed"]) or not 0 <= node["seed"] < 2**32:
            raise UserError(f"sweep.seed={node['seed']} must be a whole number from 0 to 2**32 - 1")
        return cls(**{str(key): value for key, value in node.items()})


def _check_count(key: str, value: Any) -> None:
    if value is None and key == "at_once":
        return
    if not _is_whole(value) or not 1 <= value <= MOST:
        raise UserError(f"sweep.{key}={value} must be a whole number from 1 to {MOST:,}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def search_of(lines: Sequence[str]) -> Search | None:
    """The search that the overrides choose and set; None without one. Raises UserError.

    Swept values are left out.
    """
    node = _node_of(lines)
    if node is None or "space" not in node:
        return None
    settings = plain(node, resolve=False)
    for override in parse(lines):
        group, _, key = override.key_or_group.partition(".")
        if group != "sweep" or not key or key.startswith("space"):
            continue
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line}: a search takes one value for each of its own settings"
            )
        settings[key] = _plain(override.value())
    return Search.of(settings)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _node_of(lines: Sequence[str]) -> DictConfig | None:
    """The node of the chosen sweep as its file writes it."""
    overrides = parse(lines)
    sweeps = [o for o in overrides if o.key_or_group == "sweep" and o.value()]
    if not sweeps:
        return None
    menu = Menu.of([CONF, *search_path(overrides)])
    for override in sweeps:
        check_choice(override, menu)
    choice = [o.input_line or "" for o in overrides if o.key_or_group in ("sweep", SEARCH_PATH)]
    node = composed_by_hydra(choice)[0].sweep
    return node if isinstance(node, DictConfig) else None


def is_search(lines: Sequence[str]) -> bool:
    """Whether our own sweeper draws the jobs."""
    return SWEEPER in lines


def with_search(lines: Sequence[str]) -> list[str]:
    """The overrides with our sweeper, and with the file's space before the typed words.

    Unchanged where no search is chosen. Raises UserError.
    """
    search = search_of(lines)
    if search is None:
        return list(lines)
    overrides = parse(lines)
    typed = {override.key_or_group for override in overrides}
    if "hydra/sweeper" in typed:
        raise UserError(
            "hydra/sweeper: the chosen sweep is a search, which has its own sweeper: leave it out"
        )
    space = {key: entry for key, entry in search.space.items() if key not in typed}
    drawn = [_line(str(key), entry, lines) for key, entry in space.items()]
    if not drawn and not any(override.is_sweep_override() for override in overrides):
        raise UserError("the search has no space: give a setting several values or an interval")
    return [SWEEPER, *drawn, *lines]


def _line(key: str, entry: Any, lines: Sequence[str]) -> str:
    """The override of an entry of the space."""
    if isinstance(entry, Mapping):
        return f"{key}={_around(key, entry, lines)}"
    if isinstance(entry, list):
        return f"{key}={','.join(map(as_override, entry))}"
    return f"{key}={entry}"


def _around(key: str, entry: Mapping[str, Any], lines: Sequence[str]) -> str:
    """A logarithmic interval around the value in force; of swept choices, around the first's."""
    factors = entry.get(FACTORS)
    if list(entry) != [FACTORS] or not isinstance(factors, list) or len(factors) != 2:
        raise UserError(f"sweep.space: {key} must be a text, a list, or {{{FACTORS}: [0.1, 10]}}")
    present = OmegaConf.select(_in_force(lines), key)
    if isinstance(present, bool) or not isinstance(present, int | float) or present <= 0:
        raise UserError(
            f"the search looks for {key} around its current value, but that is {present}: "
            f"give an interval, such as '{key}=tag(log,interval(1e-4,1e-2))', or a value"
        )
    low, high = (f"{present * factor:.{DIGITS}g}" for factor in factors)
    return f"tag(log,interval({low},{high}))"


def _in_force(lines: Sequence[str]) -> DictConfig:
    menu = Menu.of([CONF, *search_path(parse(lines))])
    first = []
    for override in parse(lines):
        if not override.is_sweep_override():
            first.append(override.input_line or "")
        elif menu.offers(override):
            first.append(parameter_of(override).ends[0])
    return compose(first).config


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: its status as in the summary, and its best validation."""

    status: str
    value: float | None

    @property
    def ended(self) -> bool:
        """Whether the job ended by itself rather than with its process."""
        return self.status in (COMPLETED, PRUNED, DIVERGED, FAILED)

    @property
    def interrupted(self) -> bool:
        """Whether a signal has stopped the job."""
        return self.status == "interrupted"


@dataclass(frozen=True)
class Asked:
    """A trial to run: its number, which is also the job's, and the job's overrides."""

    number: int
    lines: list[str]


def storage_place(search: Search, directory: Path) -> str:
    """The file of the study in the sweep's folder, or its URL."""
    if search.storage == "journal":
        return str(directory / JOURNAL)
    if search.storage == "sqlite":
        return f"sqlite:///{directory / DATABASE}"
    if "://" not in search.storage:
        raise UserError(
            f"sweep.storage={search.storage} is neither journal nor sqlite nor a URL, such as "
            "sqlite:///search.db"
        )
    return search.storage


def study_name(search: Search, directory: Path) -> str:
    """The name of the study in its storage."""
    return search.study or (directory.name if "://" in search.storage else IN_FOLDER)


def check_optuna() -> None:
    """Raise UserError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError("a search needs Optuna: pip install 'equipoise[sweep]'")

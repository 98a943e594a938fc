"""Optuna's samplers and pruners by name, and how Optuna draws one parameter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from equipoise.callbacks.trial_pruning import pruner_of
from equipoise.config.annotations import parameters
from equipoise.config.search import Search
from equipoise.config.search_space import Parameter
from equipoise.errors import UserError, nearest
from equipoise.running.build import instantiate

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 5},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "grid": {"_target_": "optuna.samplers.RandomSampler"},  # it is given every point
    "qmc": {"_target_": "optuna.samplers.QMCSampler"},
    "gp": {"_target_": "optuna.samplers.GPSampler", "n_startup_trials": 5},
}
OF_A_LOOP = ("GridSampler", "BruteForceSampler")
"""Samplers that stop Optuna's own loop at their end, and so cannot be asked for trials."""
STRIDE = 1_000_003


@contextmanager
def usable(place: str) -> Iterator[None]:
    """Raise UserError where the storage at a place cannot be opened."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    reasons = (ImportError, OSError, ValueError, SQLAlchemyError, optuna.exceptions.OptunaError)
    try:
        yield
    except reasons as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the study in {place} cannot be opened: {lines[0]}") from error


def sampler_for(search: Search, number: int, together: int) -> BaseSampler:
    """The sampler of one trial, with a seed of its own.

    So a study that is resumed after an interruption draws the same values as without it. number:
    that of the trials before it. together: the trials that run at once, whose values are not known
    yet. Raises UserError.
    """
    node = _node_of_sampler(search.sampler)
    takes = parameters(str(node["_target_"]))
    if "seed" in takes:
        base = node.get("seed")
        node["seed"] = ((search.seed if base is None else int(base)) * STRIDE + number) % 2**32
    if "constant_liar" in takes and together > 1:
        node.setdefault("constant_liar", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user chose an experimental one
        sampler: BaseSampler = instantiate("sweep.sampler", node)
    return sampler


def _node_of_sampler(sampler: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(sampler, Mapping):
        target = str(sampler.get("_target_", ""))
        if not target:
            raise UserError("sweep.sampler has no class: give {_target_: optuna.samplers.<name>}")
        if target.rpartition(".")[2] in OF_A_LOOP:
            raise UserError(f"sweep.sampler={target} cannot be asked for trials: choose grid")
        return dict(sampler)
    if sampler not in SAMPLERS:
        hint = nearest(str(sampler), SAMPLERS) or f"; choose {', '.join(SAMPLERS)}"
        raise UserError(f"there is no sweep.sampler={sampler}{hint}")
    return dict(SAMPLERS[sampler])


def pruner_for(search: Search) -> BasePruner:
    """The pruner of a search. Raises UserError."""
    pruner = search.pruner
    if isinstance(pruner, Mapping):
        if not pruner.get("_target_"):
            raise UserError("sweep.pruner has no class: give {_target_: optuna.pruners.<name>}")
        return pruner_of(instantiate("sweep.pruner", dict(pruner)))
    return pruner_of(pruner)


def suggested(trial: Trial, parameter: Parameter) -> Any:
    """What Optuna suggests for a parameter."""
    name, low, high = parameter.name, parameter.low, parameter.high
    if parameter.kind == "choice":
        return trial.suggest_categorical(name, parameter.values)
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(low), int(high), step=step, log=parameter.log)
    return trial.suggest_float(name, low, high, step=parameter.step, log=parameter.log)


def distribution(parameter: Parameter) -> BaseDistribution:
    """The parameter's values as Optuna represents them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution(parameter.values)
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.kind == "int":
        return IntDistribution(int(low), int(high), parameter.log, int(step or 1))
    return FloatDistribution(low, high, parameter.log, step)

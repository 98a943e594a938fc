"""A run that starts from another run's weights: what it takes, and its report of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.config.about import about
from equipoise.config.annotations import literals, parameters
from equipoise.errors import UserError, nearest
from equipoise.models.transfer import (
    Misfit,
    Transfer,
    Weight,
    heads,
    submodules,
    transfer,
    vocabulary,
    weights_of,
    within,
)
from equipoise.running.surroundings import initial_file
from equipoise.running.weight_files import WeightFile, read_weight_file

KEY = "init_from"
MOST_NAMED = 6
LITTLE = 0.01
"""A smaller fraction of the parameters may fit by chance, as biases of another size do."""
MOST = 0.5
OTHER = "another one there, whose rows mean other symbols"
Build = Callable[[dict[str, Any]], nn.Module]
SPLIT = ("seed", "val_fraction", "test_fraction")


def start_from(
    config: Mapping[str, Any], network: nn.Module, data: Any, build: Build | None = None
) -> dict[str, Any]:
    """Load the weights of `init_from` into the network; returns the report, {} where it is not set.

    config: the whole configuration. data: the run's data module, whose vocabulary, where it has
    one, decides whether rows of symbols mean the same here. build: makes the network of another
    configuration, to name a size that fits. Raises UserError where the file cannot be read, a part
    does not belong to the network, or nothing fits.
    """
    path, parts = (config.get(KEY) or {}).get("path"), (config.get(KEY) or {}).get("parts")
    if path is None:
        return {}
    check_parts(network, parts)
    ours = {name: w.tensor for w in weights_of(network) for name in w.names}
    file = read_weight_file(initial_file(path), ours)
    same = not _differ(file.state, data)
    done = transfer(network, file.weights, parts, same_vocabulary=same)
    if not any(weight.parameters for weight in done.taken):
        raise UserError(_nothing(path, file, done, _size_that_fits(file, config, build)))
    share = _share(done)
    if parts is None and share < LITTLE and (size := _size_that_fits(file, config, build)):
        raise UserError(
            f"init_from={path}: {share:.2%} of the parameters fit this network; {size}, or name "
            "the parts to take, such as init_from.parts=[stem]"
        )
    _warn_of_split(file, config)
    spared = () if same or parts is not None else vocabulary(network)
    report = _report(file, done, parts or (), (*heads(network), *spared))
    return report | ({"vocabulary": OTHER} if spared else {})


def check_parts(network: nn.Module, parts: Sequence[str] | None) -> None:
    """Raise UserError where one of the parts does not belong to the network."""
    known = submodules(network) if parts is not None else []
    for part in parts or ():
        if not any(within(name, [part]) for name in known):
            hint = nearest(part, known) or f"; it has {', '.join(_first_steps(known))}"
            raise UserError(f"init_from.parts: the network has no {part}{hint}")
    if parts is not None and not parts:
        raise UserError("init_from.parts=[] takes nothing: leave it out, or leave init_from out")


def _first_steps(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _differ(state: Mapping[str, Any], data: Any) -> bool:
    """Whether the vocabularies of a file and of the data are both known and differ."""
    tell = getattr(data, "vocabulary_state", None)
    theirs = [_symbols(value) for value in state.values() if value]
    return tell is not None and bool(theirs) and _symbols(tell()) not in theirs


def _symbols(state: Any) -> Any:
    """A vocabulary without numbers, such as the mean value seen with a symbol."""
    if isinstance(state, Mapping):
        inner = {name: _symbols(value) for name, value in state.items()}
        return {name: value for name, value in inner.items() if value not in ({}, [])}
    if isinstance(state, list | tuple):
        return [_symbols(value) for value in state if not isinstance(value, float)]
    return state


def _share(done: Transfer) -> float:
    """The taken fraction of the network's requested parameters."""
    taken = sum(weight.parameters for weight in done.taken)
    return taken / max(1, taken + sum(misfit.weight.parameters for misfit in done.unfit))


def _size_that_fits(file: WeightFile, config: Mapping[str, Any], build: Build | None) -> str:
    """A clause that names the model.size to which most of the file fits; "" where there is none."""
    node = config.get("model") or {}
    hint = parameters(str(node.get("_target_"))).get("size")
    for size in (name for name in literals(hint) if name not in ("auto", node.get("size"))):
        try:
            with torch.random.fork_rng():
                network = build({**config, "model": {**node, "size": size}}) if build else None
        except UserError:  # too large for this machine, or without this size for these data
            continue
        if network is not None and _share(transfer(network, file.weights)) > MOST:
            return f"set model.size={size}, to which the file fits"
    return ""


def _nothing(path: str, file: WeightFile, done: Transfer, size: str) -> str:
    if not file.weights:
        return f"init_from={path}: the file holds no weights of a network"
    found = [m for m in done.unfit if m.there is not None]
    named = ["{name} is {there} there and {here} here".format(**_row(misfit)) for misfit in found]
    why = "; ".join(named[:2]) or f"its weights are called {', '.join(list(file.weights)[:3])}, …"
    size = size or "give the model and the sizes of the run that wrote it"
    return (
        f"init_from={path}: nothing of it fits this network ({why}); {size}, or leave init_from out"
    )


def _warn_of_split(file: WeightFile, config: Mapping[str, Any]) -> None:
    """Warn where samples that the weights were trained on are held out here."""
    if file.run is None:
        return
    there, here = file.run.config["task"], config["task"]
    same_data = [there.get(key) for key in ("_target_", "path")] == [
        here.get(key) for key in ("_target_", "path")
    ]
    names = (*SPLIT, *about(here, "split", ()))
    other = [n for n in names if n in there and n in here and there[n] != here[n]]
    if same_data and other:
        named = ", ".join(f"{name}={there[name]}" for name in other)
        warnings.warn(
            f"init_from: {file.path} was trained on another split of the same data ({named}): "
            "samples that it has seen may be tested here",
            stacklevel=2,
        )


def _report(
    file: WeightFile, done: Transfer, asked: Sequence[str], closed: Sequence[str]
) -> dict[str, Any]:
    """The report for metrics.json and the page; requested or closed parts have their own rows."""
    taken = sum(weight.parameters for weight in done.taken)
    return {
        "file": str(file.path),
        "parameters": taken,
        "parameters_wanted": taken + sum(misfit.weight.parameters for misfit in done.unfit),
        "taken": _by_part(done.taken, asked, closed),
        "left": _by_part(done.left, asked, closed),
        "unfit": [_row(misfit) for misfit in done.unfit],
        "only_there": _counted(done.unused),
    }


def _by_part(
    weights: Sequence[Weight], asked: Sequence[str], closed: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each part, with the numbers of its tensors and of their parameters.

    A weight belongs to a part requested by any of its names, else to that of its first name.
    """
    rows: dict[str, dict[str, Any]] = {}
    for weight in weights:
        first = weight.names[0]
        holding = [part for part in asked if any(within(name, [part]) for name in weight.names)]
        holding = holding or [part for part in closed if within(first, [part])]
        part = max(holding, key=len, default=first.partition(".")[0]).rstrip(".")
        row = rows.setdefault(part, {"part": part, "tensors": 0, "parameters": 0})
        row["tensors"] += 1
        row["parameters"] += weight.parameters
    return list(rows.values())


def _row(misfit: Misfit) -> dict[str, str]:
    there = "missing" if misfit.there is None else str(list(misfit.there))
    here = str(list(misfit.weight.tensor.shape))
    return {"name": misfit.weight.names[0], "there": there, "here": here}


def _counted(names: Sequence[str]) -> list[dict[str, Any]]:
    parts = [name.partition(".")[0] for name in names]
    return [{"part": part, "tensors": parts.count(part)} for part in dict.fromkeys(parts)]


def lines(report: Mapping[str, Any]) -> list[str]:
    """The lines of the report that a run prints when it starts."""
    if not report:
        return []
    wanted = f"{report['parameters']:,} of the {report['parameters_wanted']:,} parameters"
    told = [f"starts from {report['file']}: it gives {wanted} asked of it"]
    told += [f"  taken       {row['part']}: {_amount(row)}" for row in report["taken"]]
    told += [f"  left as new {row['part']}: {_amount(row)}" for row in report["left"]]
    if "vocabulary" in report:
        told.append(f"  vocabulary  {report['vocabulary']}")
    unfit = report["unfit"]
    told += [
        f"  not fitting {row['name']}: {row['there']} there, {row['here']} here"
        for row in unfit[:MOST_NAMED]
    ]
    if len(unfit) > MOST_NAMED:
        told.append(f"  not fitting {len(unfit) - MOST_NAMED} more, listed in metrics.json")
    unused = [f"{row['part']} ({row['tensors']})" for row in report["only_there"]]
    return told + ([f"  only there  {', '.join(unused)}"] if unused else [])


def _amount(row: Mapping[str, Any]) -> str:
    count = row["tensors"]
    return f"{count} tensor{'' if count == 1 else 's'}, {row['parameters']:,} parameters"


class StartingReport(Observer):
    """Keeps the report of `start_from` for metrics.json, and in checkpoints for a resumed run."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the report, if there is one."""
        if self.report:
            checkpoint[KEY] = self.report

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over the report of the run that is resumed."""
        self.report = dict(checkpoint.get(KEY) or {})

    def summary(self) -> dict[str, Any]:
        """The report, for the details of metrics.json."""
        return {KEY: self.report} if self.report else {}

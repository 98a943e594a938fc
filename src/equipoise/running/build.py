"""Build what a composed configuration describes, every part by its `_target_`.

It imports torch, which checks of a configuration alone do not need.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.config import machine
from equipoise.config.about import about
from equipoise.config.compose import choice_that_sets, plain, storable
from equipoise.config.hydra import parse, search_entries
from equipoise.config.machine import GIB, free_memory
from equipoise.config.own_code import RECORD, OwnCode, own_code, own_packages, sealed
from equipoise.config.signatures import check_signatures, constructor_arguments, locate
from equipoise.config.stored import OVERRIDES
from equipoise.errors import DataDiffer, UserError, nearest
from equipoise.report.whole import write_whole
from equipoise.running.interrupts import leave_signals_to_us
from equipoise.running.messages import refusals

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from equipoise.config.compose import Composition
    from equipoise.running.parts import Run


OURS = ("equipoise", "lightning")
BEST = "equipoise.callbacks.BestCheckpoint"
STOPPING = "equipoise.callbacks.EarlyStopping"
COPIES = 3  # weights, their gradients, and at least as much for the optimiser
FACTORIES = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
    torch.ops.aten.full.default,
    torch.ops.aten.rand.default,
    torch.ops.aten.randn.default,
}


def complete_from_data(composition: Composition) -> None:
    """Fill in the settings known only from the dataset's files, such as the number of classes.

    A data module that has a method `inspect` looks at its files, and returns such settings of the
    task. Raises UserError, before anything is written, where they cannot be used.
    """
    config = composition.config
    task = plain(config, resolve=True)["task"]
    node = {key: value for key, value in task.items() if key != "objective"}
    if not hasattr(locate("task", str(node["_target_"])), "inspect"):
        return
    check_signatures({"task": node})
    try:
        settled = instantiate("task", node).inspect()
    except DataDiffer as error:
        raise _with_origin(error, composition) from error
    for key, value in settled.items():
        OmegaConf.update(config, f"task.{key}", value)


def _with_origin(error: DataDiffer, composition: Composition) -> UserError:
    """The same error, with the remedy where the setting is a checkpoint's or a recipe's."""
    if checkpoint := composition.config.get("ckpt_path"):
        return UserError(
            f"{error.found}, but {error.setting} in the checkpoint {checkpoint}: to train on these "
            f"data from its weights, start a new run with init_from={checkpoint} in place of "
            "ckpt_path"
        )
    choice = choice_that_sets(error.key, composition)
    return error if choice is None else UserError(f"{error}; {choice} sets {error.key}")


def open_folder(config: DictConfig, built: Run) -> None:
    """Put config.yaml into the run's folder, once everything could be built."""
    from lightning.pytorch.loggers import CSVLogger

    if machine.decides(config.trainer):
        built.directory.mkdir(parents=True, exist_ok=True)
        shown = plain(config, resolve=True)
        if built.own_code:
            shown[RECORD] = built.own_code.as_record()
        write_whole(built.directory / "config.yaml", OmegaConf.to_yaml(shown))
        print(f"run folder: {built.directory}")
    for logger in built.trainer.loggers:
        if not isinstance(logger, CSVLogger):  # config.yaml lies beside metrics.csv
            with refusals("logger"):
                logger.log_hyperparams({"choices": built.choices, **plain(config, resolve=True)})


def build_run(composition: Composition, directory: Path) -> Run:
    """Build data, network, task, callbacks, loggers and trainer, all by `_target_`.

    Nothing is written, and no data is read.
    """
    import lightning.pytorch as pl

    from equipoise.callbacks.checkpointing import EstimatorState, RandomState
    from equipoise.callbacks.curve_rows import CurveState
    from equipoise.callbacks.lightning_overhead import (
        Unprofiled,
        grouped,
        note_hooks_directly,
    )
    from equipoise.callbacks.resumption import ResumedOptimizer, TrainingPosition
    from equipoise.callbacks.weight_averaging import SavedWeights
    from equipoise.running.compilation import arrange, check_one_gpu, compiling
    from equipoise.running.initial_weights import StartingReport, start_from
    from equipoise.running.parts import Run, TrainingBegun
    from equipoise.running.processes import strategy_for
    from equipoise.running.resumption import words_in_force
    from equipoise.running.synchronised_norms import SynchronisedNorms

    config = plain(composition.config, resolve=True)
    machine.check_devices(config["trainer"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = instantiate("task", config["task"])
    task = build_task(config)
    if hasattr(data, "check_model"):
        data.check_model(task.model)
    resumes = composition.trusted is not None  # with all weights, so nothing is new
    taken = {} if resumes else start_from(config, task.model, data, build_model)  # type: ignore[arg-type]
    check_monitored(task, config)
    note_hooks_directly(task)
    callbacks = [instantiate(f"callbacks.{k}", c) for k, c in config["callbacks"].items() if c]
    loggers = [instantiate(f"logger.{k}", c) for k, c in config["logger"].items() if c]
    stored = storable(composition.config)
    code = own_code_of(composition, stored)
    callbacks += [RandomState(), TrainingBegun(), StartingReport(taken)]
    callbacks += [ResumedOptimizer(stored.get("optimizer") or {}, stored.get("schedule") or {})]
    callbacks += [EstimatorState()]  # after the schedule, whose estimators' states it sets
    callbacks += [SavedWeights()]  # after the average, whose model it asks for
    arrange(task, config.get("memory_format"))
    callbacks += compiling(config.get("compile"), task)
    callbacks = [TrainingPosition(), CurveState(), *callbacks]  # before those that they watch
    around: dict[str, Any] = {"callbacks": grouped(callbacks), "logger": loggers or False}
    if config["trainer"]["profiler"] is None:
        around["profiler"] = Unprofiled()
    around |= strategy_for(task, config["trainer"])
    around["plugins"] = checkpoint_plugins(
        config["trainer"]["plugins"],
        {"config": stored, "choices": composition.choices}
        | {OVERRIDES: words_in_force(composition)}
        | sealed(stored, composition.choices, code),
        lambda: class_names(data),
    )
    if config["trainer"]["sync_batchnorm"]:
        fused = torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu"
        around["plugins"].append(SynchronisedNorms(fused))
    trainer = instantiate("trainer", config["trainer"], **around)
    if "graph" in (config.get("compile") or ""):
        check_one_gpu(trainer)
    leave_signals_to_us(trainer)
    seed, choices = config["seed"], composition.choices
    return Run(data, task, trainer, directory, choices, seed, stored, code, init_from=taken)


def own_code_of(composition: Composition, config: dict[str, Any]) -> OwnCode:
    """The user's own packages and config folders in a run."""
    return own_code(config, search_entries(parse(composition.overrides)))


def class_names(data: Any) -> dict[str, list[str]]:
    """The data's description for a checkpoint, so that predictions have names without the data."""
    return {"class_names": list(data.class_names)} if isinstance(data, Named) else {}


def checkpoint_plugins(
    configured: Any, always: dict[str, Any], also: Callable[[], Mapping[str, Any]] = dict[str, Any]
) -> list[Any]:
    """The trainer's plugins, with ours for checkpoint files unless one was configured.

    always, also: what every checkpoint carries: evaluate.py needs nothing else to rebuild the
    model.
    """
    from lightning.fabric.plugins import CheckpointIO

    from equipoise.running.checkpoints import CheckpointFile

    entries = configured if isinstance(configured, list) else [configured]
    given = [entry for entry in entries if entry is not None]
    plugins = [instantiate("trainer.plugins", e) if isinstance(e, dict) else e for e in given]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(CheckpointFile(always, also))
    return plugins


def check_weights(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise UserError where the network has other weights than the checkpoint at `path`.

    Counters of random numbers (`_extra_state`) do not count as weights.
    """
    here = {n: tuple(v.shape) for n, v in network.state_dict().items() if hasattr(v, "shape")}
    there = {name: shape for name, shape in shapes.items() if not name.endswith("_extra_state")}
    for name in sorted({*here, *there} - {n for n in here if n.endswith("_extra_state")}):
        if here.get(name) != there.get(name):
            raise UserError(
                f"the checkpoint {path} does not fit the network: {name} is "
                f"{_described(there.get(name))} there and {_described(here.get(name))} here; leave "
                "out what changes the network, such as model.size=large"
            )


def _described(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"


def restored_model(config: dict[str, Any], state: Mapping[str, Any], path: Path) -> nn.Module:
    """The network of a stored configuration with the weights of its checkpoint.

    Raises UserError where they do not fit.
    """
    model = build_model(config)
    weights = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
    check_weights(model, _shapes(weights), path)
    model.load_state_dict(weights, strict=False)
    return model


def restored_task(config: dict[str, Any], state: Mapping[str, Any], path: Path) -> LightningModule:
    """The task of a stored configuration with the weights and other state of its checkpoint.

    Raises UserError where the weights do not fit.
    """
    task = build_task(config)
    check_weights(task, _shapes(state), path)
    task.load_state_dict(state, strict=False)
    return task


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if hasattr(value, "shape")}


def build_task(config: dict[str, Any]) -> LightningModule:
    """The objective around the model; around a network also its optimiser and its schedule."""
    parts: dict[str, Any] = {"model": build_model(config)}
    if about(config["model"], "weights", True):
        parts["make_optimizer"] = instantiate("optimizer", config["optimizer"])
        parts["schedule"] = build_schedule(config["schedule"])
        check_optimizer(parts["make_optimizer"], parts["schedule"])
    task: LightningModule = instantiate("task.objective", config["task"]["objective"], **parts)
    return task


def build_schedule(node: dict[str, Any]) -> Any:
    """A schedule of ours or of the user's, or one around a scheduler of torch's."""
    target = locate("schedule", str(node["_target_"]))
    if not (inspect.isclass(target) and issubclass(target, torch.optim.lr_scheduler.LRScheduler)):
        return instantiate("schedule", node)
    from equipoise.tasks.schedules import OfTorch

    return OfTorch(instantiate("schedule", {**node, "_partial_": True}))


def check_optimizer(make_optimizer: Any, schedule: Any) -> None:
    """Raise UserError where they refuse their values, which shows only when given parameters."""
    with refusals("optimizer"):
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    with refusals("schedule"):
        schedule(optimizer, 1)


class MemoryLimit(TorchDispatchMode):
    """A context in which all created tensors together must fit three times into the free memory.

    The system would grant far more than there is, and kill the process once it is used. Raises
    UserError that names `part`.
    """

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part
        self.free = free_memory()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the memory that a factory is about to request; everything else passes."""
        if func in FACTORIES:
            dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
            self.bytes += COPIES * dtype.itemsize * math.prod(args[0])
            if self.bytes > self.free:
                raise UserError(
                    f"{self.part} would need {self.bytes / GIB:,.0f} GiB of memory to train, and "
                    f"{self.free / GIB:,.0f} are free: choose smaller sizes"
                )
        return func(*args, **(kwargs or {}))


def build_model(config: dict[str, Any]) -> nn.Module:
    """The network, with an equilibrium layer of the chosen solver and estimator if it has one."""
    parts: dict[str, Any] = {}
    if about(config["model"], "equilibrium", True):
        groups = ("solver", "gradient", "eval_solver", "regularizer")
        layer = {key: instantiate(key, config[key]) for key in groups if config.get(key)}
        parts["equilibrium"] = instantiate("equilibrium", config["equilibrium"], **layer)
    with MemoryLimit("model"):
        model: nn.Module = instantiate("model", config["model"], **parts)
    return model


def instantiate(key: str, node: dict[str, Any], **parts: Any) -> Any:
    """Build the object of a node; the only place that does.

    Raises UserError with the cause where its class refuses the values.
    """
    node = constructor_arguments(key, node)
    with refusals(key, own_packages(node)):
        if not parts:
            return hydra_instantiate(node, _convert_="all")
        # as call-site arguments Hydra would turn solvers, which are dataclasses, into mappings
        return hydra_instantiate(node, _convert_="all", _partial_=True)(**parts)


@runtime_checkable
class Measuring(Protocol):
    """A task that lists the names under which it logs its metrics."""

    def logged(self, stage: str) -> set[str]:
        """The names of "val" or "test", such as val/loss."""
        ...


@runtime_checkable
class Named(Protocol):
    """A data module whose classes have names, once it has read a split."""

    @property
    def class_names(self) -> list[str]:
        """The names of the classes."""
        ...


def check_monitored(task: Any, config: Mapping[str, Any]) -> None:
    """Raise UserError where a setting monitors what the task does not log in its validation.

    A task without such a list, and callbacks of other packages, may log anything; a task that only
    tests a checkpoint has no validation.
    """
    if about(config["task"], "of_checkpoint", False):
        return
    check_validated(config)
    nodes = {key: node for key, node in config["callbacks"].items() if node}
    foreign = [n for n in nodes.values() if str(n["_target_"]).partition(".")[0] not in OURS]
    if foreign or not isinstance(task, Measuring):
        return
    metrics = sorted(task.logged("val"))
    for key, monitor in _settings(config, nodes):
        if monitor not in metrics:
            hint = nearest(str(monitor), metrics)
            raise UserError(
                f"{key}={'null' if monitor is None else monitor} is not measured in the "
                f"validation{hint or ';'} this task measures {', '.join(metrics)}"
            )


def check_validated(config: Mapping[str, Any]) -> None:
    """Raise UserError where a setting depends on validations and there are none."""
    if config["trainer"]["limit_val_batches"] != 0:
        return
    monitor = (config.get("schedule") or {}).get("monitor")
    if monitor is not None:
        raise UserError(
            f"the schedule follows {monitor}, and trainer.limit_val_batches=0 leaves out the "
            "validation: choose schedule=constant, or keep the validation"
        )
    for key, node in config["callbacks"].items():
        if node and node["_target_"] == STOPPING and node["monitor"].startswith("val/"):
            raise UserError(
                f"callbacks={key} follows {node['monitor']}, and trainer.limit_val_batches=0 "
                f"leaves out the validation: leave callbacks={key} out, or keep the validation"
            )


def _settings(
    config: Mapping[str, Any], nodes: Mapping[str, Any]
) -> Iterator[tuple[str, str | None]]:
    """Every setting that names a metric; only the one for the best weights must have one."""
    yield "task.monitor", config["task"]["monitor"]
    if (config.get("schedule") or {}).get("monitor") is not None:
        yield "schedule.monitor", config["schedule"]["monitor"]
    for key, node in nodes.items():
        if node.get("monitor") is not None or node["_target_"] == BEST:
            yield f"callbacks.{key}.monitor", node.get("monitor")

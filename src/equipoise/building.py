"""Build what a composed configuration describes, every part by its `_target_`.

Nothing heavy is imported before it is needed, so that a misspelt word is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import machine
from equipoise.config.about import about
from equipoise.errors import UserError
from equipoise.monitored import check_monitored
from equipoise.refusals import refusals

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from omegaconf import DictConfig
    from torch import nn

    from equipoise.callbacks.enough_classes import EnoughClasses
    from equipoise.compose import Composition
    from equipoise.training import Run


def settle_data(config: DictConfig) -> None:
    """Fill in what only the files of the dataset tell, such as its number of classes.

    A data module that has a method `inspect` looks at its files, and returns such settings of the
    task. Raises UserError, before anything is written, where they cannot be used.
    """
    from omegaconf import OmegaConf

    from equipoise.compose import plain
    from equipoise.config.signatures import check_signatures, locate

    task = plain(config, resolve=True)["task"]
    node = {key: value for key, value in task.items() if key != "objective"}
    if not hasattr(locate("task", str(node["_target_"])), "inspect"):
        return
    check_signatures({"task": node})
    for key, value in instantiate("task", node).inspect().items():
        OmegaConf.update(config, f"task.{key}", value)


def open_folder(config: DictConfig, built: Run) -> None:
    """Put config.yaml into the run's folder, once everything could be built."""
    from lightning.pytorch.loggers import CSVLogger
    from omegaconf import OmegaConf

    from equipoise.compose import plain

    if machine.decides(config.trainer):
        built.directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, built.directory / "config.yaml", resolve=True)
        print(f"run folder: {built.directory}")
    for logger in built.trainer.loggers:
        if not isinstance(logger, CSVLogger):  # config.yaml lies beside metrics.csv
            logger.log_hyperparams(plain(config, resolve=True))


def build_run(composition: Composition, directory: Path) -> Run:
    """Build data, network, task, callbacks, loggers and trainer, all by `_target_`.

    Nothing is written, and no data is read.
    """
    import lightning.pytorch as pl

    from equipoise.callbacks.curve_state import CurveState
    from equipoise.callbacks.estimator_state import EstimatorState
    from equipoise.callbacks.observers import behind_one
    from equipoise.callbacks.resumed_optimizer import ResumedOptimizer
    from equipoise.callbacks.run_state import RandomState
    from equipoise.callbacks.training_begun import TrainingBegun
    from equipoise.callbacks.training_position import TrainingPosition
    from equipoise.callbacks.unprofiled import Unprofiled
    from equipoise.compose import plain, storable
    from equipoise.processes_without_gradients import strategy_for
    from equipoise.training import Run

    config = plain(composition.config, resolve=True)
    machine.check_devices(config["trainer"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = instantiate("task", config["task"])
    task = build_task(config)
    check_padding(data, task.model)
    check_monitored(task, config)
    callbacks = [instantiate(f"callbacks.{k}", c) for k, c in config["callbacks"].items() if c]
    loggers = [instantiate(f"logger.{k}", c) for k, c in config["logger"].items() if c]
    stored = storable(composition.config)
    callbacks += [RandomState(), TrainingBegun(), *_enough_classes(config["task"])]
    callbacks += [ResumedOptimizer(stored.get("optimizer") or {}, stored.get("schedule") or {})]
    callbacks += [EstimatorState()]  # after the schedule, whose estimators it hands their states
    callbacks = [TrainingPosition(), CurveState(), *callbacks]  # before what they watch
    around: dict[str, Any] = {"callbacks": behind_one(callbacks), "logger": loggers or False}
    if config["trainer"]["profiler"] is None:
        around["profiler"] = Unprofiled()
    around |= strategy_for(task, config["trainer"])
    around["plugins"] = checkpoint_plugins(
        config["trainer"]["plugins"], {"config": stored, "choices": composition.choices}
    )
    trainer = instantiate("trainer", config["trainer"], **around)
    return Run(data, task, trainer, directory, composition.choices, config["seed"], stored)


def checkpoint_plugins(configured: Any, always: dict[str, Any]) -> list[Any]:
    """The trainer's plugins, with ours for checkpoint files unless one was configured.

    always: what every checkpoint carries: evaluate.py needs nothing else to rebuild the model.
    """
    from lightning.fabric.plugins import CheckpointIO

    from equipoise.checkpoint_file import CheckpointFile

    listed = configured if isinstance(configured, list) else [configured]
    plugins = [plugin for plugin in listed if plugin is not None]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(CheckpointFile(always))
    return plugins


def check_weights(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise UserError where the network has other weights than the checkpoint at `path`.

    Counters of random numbers (`_extra_state`) are no weights.
    """
    own = {n: tuple(v.shape) for n, v in network.state_dict().items() if hasattr(v, "shape")}
    told = {name: shape for name, shape in shapes.items() if not name.endswith("_extra_state")}
    for name in sorted({*own, *told} - {n for n in own if n.endswith("_extra_state")}):
        if own.get(name) != told.get(name):
            raise UserError(
                f"the checkpoint {path} does not fit the network: {name} is "
                f"{_described(told.get(name))} there and {_described(own.get(name))} here; leave "
                "out what changes the network, such as model.size=large"
            )


def _described(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"


def restored_model(config: dict[str, Any], state: Mapping[str, Any], path: Path) -> nn.Module:
    """The network of a stored configuration with the weights of its checkpoint.

    Raises UserError where they do not fit.
    """
    model = build_model(config)
    mine = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
    check_weights(model, {n: tuple(v.shape) for n, v in mine.items() if hasattr(v, "shape")}, path)
    model.load_state_dict(mine, strict=False)
    return model


def _enough_classes(task: dict[str, Any]) -> list[EnoughClasses]:
    """The check of the outputs against the classes, where the task has any.

    A task with labels and masks names the classes of its masks.
    """
    from equipoise.callbacks.enough_classes import EnoughClasses

    told = [name for name in ("classes", "mask_classes") if task.get(name)]
    return [EnoughClasses(f"task.{name}", task[name]) for name in told[-1:]]


def check_padding(data: Any, model: Any) -> None:
    """Raise UserError where whole images are padded to sizes that the network cannot divide.

    `data.pad_multiple` is what their sides are padded to multiples of, `model.image_multiple` what
    the network asks for; either may be absent, and then everything fits.
    """
    needed = getattr(model, "image_multiple", 1)
    padded = getattr(data, "pad_multiple", needed)
    if padded % needed:
        raise UserError(
            f"task.pad_multiple={padded} leaves whole images with sides that the model's branches "
            f"cannot divide: set it to a multiple of {needed}"
        )


def build_task(config: dict[str, Any]) -> LightningModule:
    """The objective around the model; around a network also its optimiser and its schedule."""
    parts: dict[str, Any] = {"model": build_model(config)}
    if about(config["model"], "weights", True):
        parts["make_optimizer"] = instantiate("optimizer", config["optimizer"])
        parts["schedule"] = instantiate("schedule", config["schedule"])
        check_optimizer(parts["make_optimizer"], parts["schedule"])
    task: LightningModule = instantiate("task.objective", config["task"]["objective"], **parts)
    return task


def check_optimizer(make_optimizer: Any, schedule: Any) -> None:
    """Raise UserError where they refuse their values, which they tell only about parameters."""
    import torch

    with refusals("optimizer"):
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    with refusals("schedule"):
        schedule(optimizer, 1)


def build_model(config: dict[str, Any]) -> nn.Module:
    """The network, with an equilibrium layer of the chosen solver and estimator if it has one."""
    parts: dict[str, Any] = {}
    if about(config["model"], "equilibrium", True):
        chosen = ("solver", "gradient", "eval_solver", "regularizer")
        layer = {key: instantiate(key, config[key]) for key in chosen if config.get(key)}
        parts["equilibrium"] = instantiate("equilibrium", config["equilibrium"], **layer)
    from equipoise.memory_limit import MemoryLimit

    with MemoryLimit("model"):
        model: nn.Module = instantiate("model", config["model"], **parts)
    return model


def instantiate(key: str, node: dict[str, Any], **parts: Any) -> Any:
    """Build the object of a node. The one place that does.

    Raises UserError with the cause where its class refuses the values.
    """
    from hydra.utils import instantiate as hydra_instantiate

    from equipoise.config.signatures import constructor_arguments

    node = constructor_arguments(key, node)
    with refusals(key):
        if not parts:
            return hydra_instantiate(node, _convert_="all")
        # as call-site arguments Hydra would turn solvers, which are dataclasses, into mappings
        return hydra_instantiate(node, _convert_="all", _partial_=True)(**parts)

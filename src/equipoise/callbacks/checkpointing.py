"""The checkpoint files of a run, and what they hold besides weights and optimiser.

Files: the last one and the best. Contents: the random state and what a gradient estimator has
learnt.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, distributed

from equipoise.callbacks.gradient_schedule import GradientSchedule
from equipoise.callbacks.lightning_overhead import Observer, every_callback
from equipoise.callbacks.weight_averaging import WeightAveraging
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.processes import from_all_processes

KEY = "gradient_estimators"


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but it keeps the best score if the folder was renamed.

    Lightning forgets the score in that case. Here it is kept with its file: the one in the new
    folder if the old folder was moved there, otherwise a copy of the one beside the resumed
    checkpoint. Without such a file, the score is dropped with a warning. A checkpoint of the
    weights alone (`save_weights_only`) also holds the phase of the gradient schedule, which its
    evaluation needs, and the average of the weights if the run keeps one.
    """

    resumed_beside: Path | None = None
    first_process: bool = True

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember where the checkpoint lies."""
        if trainer.ckpt_path is not None:
            self.resumed_beside = Path(trainer.ckpt_path).parent
        self.first_process = trainer.is_global_zero

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scores, with the paths of their files in the present folder."""
        moved = {**state_dict, "dirpath": self.dirpath}
        scores = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        for path in state_dict["best_k_models"]:
            self._bring(path)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # all must find the files that the first process has copied
        moved["best_k_models"] = scores
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[name] = self._here(state_dict[name])
        if self.monitor is not None and not all(Path(path).is_file() for path in scores):
            warnings.warn(
                f"the best checkpoint of the resumed run is no longer in {self.dirpath}: the best "
                "checkpoint from now on is kept",
                stacklevel=2,
            )
            return
        super().load_state_dict(moved)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if not self.save_weights_only:
            super()._save_checkpoint(trainer, filepath)
            return
        module = trainer.lightning_module
        kinds = (GradientSchedule, WeightAveraging)
        added = [c for c in every_callback(trainer) if isinstance(c, kinds)]
        saved_by_module = module.on_save_checkpoint

        def with_added(checkpoint: dict[str, Any]) -> None:
            saved_by_module(checkpoint)
            for callback in added:
                callback.on_save_checkpoint(trainer, module, checkpoint)

        # Lightning calls no callback's hook for a file without optimiser states.
        module.on_save_checkpoint = with_added  # type: ignore[method-assign]
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            del module.on_save_checkpoint

    def _here(self, path: str) -> str:
        """The path of the same file name in the present folder."""
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

    def _bring(self, path: str) -> None:
        """Copy a file that only the earlier folder has; the first process does so for all."""
        target = Path(self._here(path))
        beside = (self.resumed_beside or target.parent) / target.name
        source = next((file for file in (Path(path), beside) if file.is_file()), None)
        if target.is_file() or source is None or not self.first_process:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(source, partial)
        os.replace(partial, target)


class BestCheckpoint(RunCheckpoint):
    """A RunCheckpoint with save_top_k=1 whose file is replaced by an equally good later epoch too.

    A small validation split gives many epochs the same accuracy, and the first of them, which
    Lightning would keep, has been trained least. If an epoch was cut short before its validation,
    the previous metric does not describe the present weights and is ignored.
    """

    validated_step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the step that the metric describes, then proceed as Lightning does."""
        if not trainer.sanity_checking:
            self.validated_step = trainer.global_step
        super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the monitored value is the best so far, or equals it."""
        if super().check_monitor_top_k(trainer, current):
            return True
        return current is not None and bool(current == self.best_model_score)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
        of_validation = str(self.monitor).startswith("val/") and trainer.enable_validation
        if not of_validation or self.validated_step == trainer.global_step:
            super()._save_topk_checkpoint(trainer, monitor_candidates)


class RandomState(Observer):
    """Saves the random state of every process, and restores it when training resumes.

    Data order and augmentation are functions of (seed, epoch, sample), in workers too. Only the
    model and the user's own code draw from the global generators of torch, NumPy and Python, so
    restoring these makes a resumed run repeat the same bits. Each process of a run has its own
    stream; with a shared one, dropout would drop the same features in all processes. A run resumed
    with another number of processes derives their streams from the saved one of the first process.
    """

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The generators of each process, as plain values and tensors."""
        return {"processes": from_all_processes(_generators())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts; building the loops may still draw numbers."""
        self.loaded = state_dict.get("processes") or [state_dict]  # one, in earlier revisions

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the generators of this process, or start a stream of its own."""
        loaded, self.loaded = self.loaded, []
        rank = trainer.global_rank
        if len(loaded) == trainer.world_size:
            _restore_generators(loaded[rank])
            return
        if loaded:
            _restore_generators(loaded[0])
        if rank > 0:
            key = np.random.SeedSequence((torch.initial_seed(), rank))  # seed + rank may collide
            seed = int(key.generate_state(1)[0])
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)


def _generators() -> dict[str, Any]:
    """The states of this process's global generators, in types that weights-only loading takes."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    kind, keys, *rest = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": [version, torch.tensor(numbers), following],
    }


def _restore_generators(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([of_device.cpu() for of_device in state["cuda"]])
    if "numpy" in state:
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        version, numbers, following = state["python"]
        random.setstate((version, tuple(numbers.tolist()), following))


@runtime_checkable
class Remembering(Protocol):
    """An estimator with a state, such as `Auto`."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


class EstimatorState(Observer):
    """Saves the states of the estimators in force, and restores them when training resumes.

    Estimators are not modules, so that they can be replaced on a live layer, and so the module's
    state dict does not hold them. An estimator of another phase of a gradient schedule, which is
    not in force when the checkpoint is saved, starts afresh.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, dict[str, Any]] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of every layer's estimator that has one."""
        states = {name: e.state_dict() for name, e in _remembering(pl_module).items()}
        if states:
            checkpoint[KEY] = states

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states until the schedule has put its estimators in force."""
        self.loaded = checkpoint.get(KEY, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand each estimator its state."""
        for name, estimator in _remembering(pl_module).items():
            if name in self.loaded:
                estimator.load_state_dict(self.loaded[name])
        self.loaded = {}


def _remembering(module: LightningModule) -> dict[str, Remembering]:
    """The estimators that have a state, by the names of their layers."""
    named = {name: layer.gradient for name, layer in equilibrium_layers(module).items()}
    return {name: e for name, e in named.items() if isinstance(e, Remembering)}

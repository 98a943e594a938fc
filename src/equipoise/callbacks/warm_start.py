"""Start each solve where the same sample's solve ended in the previous epoch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from equipoise.callbacks.curve_rows import MeanColumns
from equipoise.callbacks.layer_start import LayerStart
from equipoise.callbacks.statistics import FiniteMean, SolveStatistics
from equipoise.equilibrium import Equilibrium, StateMemory
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.processes import from_all_processes, own_part
from equipoise.equilibrium.solution import Status
from equipoise.equilibrium.state import Layout, State, parts
from equipoise.equilibrium.state_memory import Start, Storage
from equipoise.errors import UserError

MEGABYTE = 2**20
INSTEAD = "leave callbacks=warm_start out"


class WarmStart(MeanColumns):
    """Keep the equilibrium of every training sample, by its index, and start the next solve there.

    If weights move little in an epoch, and a sample looks the same in each, its next solve needs
    few evaluations. The common movement of all equilibria since then is added (`StateMemory`). The
    n-th solve of a layer in a step has its own states. Solves of estimators with their own
    iteration start as usual, and so do samples that are not known yet, whose last solve diverged,
    or whose states have another shape than in the first batch.

    memory_mb: MiB of states kept per process; samples whose index does not fit start as usual, with
    one warning. storage_dtype: precision of the kept states, None for the solve's own. evaluation:
    warm starts also from one validation to the next, within the same limit. in_checkpoint:
    checkpoints hold the states of all processes, so that a resumed run gives the same bits;
    otherwise the first epoch after resuming starts as usual.

    Every process knows only the samples that it has processed itself, and a distributed run
    redistributes them in each epoch, so fewer of its solves start warm.

    Column `warm_start/hit_rate`: the fraction of warm-started samples. metrics.json lists under
    `details.warm_start` for each epoch this fraction and the evaluations of the training solves.

    Raises UserError for batches without the samples' index, and with `equilibrium.random_start`.
    """

    prefix = "warm_start"

    def __init__(
        self,
        memory_mb: float = 512.0,
        storage_dtype: Storage | None = None,
        evaluation: bool = False,
        in_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not memory_mb > 0:
            raise UserError(f"callbacks.warm_start.memory_mb is {memory_mb}: set it above 0")
        self.memory_mb = memory_mb
        self.storage_dtype = storage_dtype
        self.evaluation = evaluation
        self.in_checkpoint = in_checkpoint
        self.memories: dict[str, StateMemory] = {}
        self.saved: dict[str, Any] = {}
        self.solves: list[_Solves] = []
        self.statistics = SolveStatistics()
        self.epochs: list[dict[str, float | None]] = []
        self.warned: set[str] = set()
        self.checked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, and refuse layers whose solves start from noise."""
        self.forget()
        self.memories, self.epochs, self.statistics = {}, [], SolveStatistics()
        self.warned, self.checked = set(), False
        super().on_train_start(trainer, pl_module)  # takes what a checkpoint has kept
        layers = equilibrium_layers(pl_module).values()
        if any(layer.random_start is not None for layer in layers):
            raise UserError(
                "equilibrium.random_start starts samples from noise and callbacks=warm_start from "
                "their latest equilibrium: leave one of them out"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Give every layer a start for the samples of the batch."""
        self._begin("train", pl_module, batch, _samples(trainer.train_dataloader))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Restore the layers' own starts, and record how many samples were known."""
        self._end()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Do the same for a validation during training, if `evaluation` is set."""
        if self.evaluation and _within_fit(trainer):
            loaders = trainer.val_dataloaders
            loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
            self._begin(f"val{dataloader_idx}", pl_module, batch, _samples(loader))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own starts."""
        self._end(counted=False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the layers' own starts after a step that was cut short."""
        self._end(counted=False)
        super().on_exception(trainer, pl_module, exception)

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Do nothing: `on_train_batch_end` has recorded the batch already."""

    def close_epoch(self) -> None:
        """Record the epoch's hit rate and evaluations."""
        hits = self.epoch.get("hit_rate")
        if hits is not None and self.statistics.solves:
            summary = self.statistics.forward_summary()
            figures = {name: summary[name] for name in ("nfe_mean", "nfe_per_sample")}
            self.epochs.append({"hit_rate": hits.mean().item(), **figures})
        self.statistics = SolveStatistics()
        super().close_epoch()

    def summary(self) -> dict[str, Any]:
        """For metrics.json: each epoch's hit rate and evaluations, and how much is kept."""
        if not self.epochs:
            return {}
        kept = {name: memory for name, memory in self.memories.items() if name.startswith("train")}
        taken = sum(memory.rows.nbytes for memory in self.memories.values())
        samples = max((int(memory.known.sum()) for memory in kept.values()), default=0)
        return {
            "warm_start": {
                "epochs": list(self.epochs),
                "samples": samples,
                "memory_mb": round(taken / MEGABYTE, 2),
            }
        }

    def summed_up(self) -> dict[str, Any]:
        """The sums since the last row and of the epoch, and the figures of earlier epochs."""
        return {
            **super().summed_up(),
            "statistics": self.statistics.state_dict(),
            "epochs": [dict(epoch) for epoch in self.epochs],
        }

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue from those sums and figures."""
        super().resume_from(state)
        self.statistics.load_state_dict(state["statistics"])
        self.epochs = [dict(epoch) for epoch in state["epochs"]]

    def state_dict(self) -> dict[str, Any]:
        """The kept states of every process."""
        if not self.in_checkpoint:
            return {}
        own = {name: memory.state_dict() for name, memory in self.memories.items()}
        return {"processes": from_all_processes({**self.saved, **own})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states of this process until its layers ask for them.

        If the number of processes has changed, each starts without any.
        """
        self.saved = dict(own_part(state_dict["processes"]) or {})

    def memory(self, name: str, z0: State, samples: int | None) -> StateMemory | None:
        """The memory of a solve; None if the states in it have another shape."""
        if name not in self.memories:
            self.memories[name] = self._new_memory(name, z0, samples)
        memory = self.memories[name]
        if memory.takes(z0):
            return memory
        self._say(
            "shape",
            "the states of some samples have another shape than those of the first batch, as when "
            "batches are padded to their longest sample: callbacks=warm_start starts them as usual",
        )
        return None

    def _new_memory(self, name: str, z0: State, samples: int | None) -> StateMemory:
        """A memory for all samples, or for as many as fit; a checkpoint's keeps its capacity."""
        size = max(StateMemory.bytes_of_a_sample(z0, self.storage_dtype), 1)
        state = self.saved.pop(name, None)
        room = int(self.memory_mb * MEGABYTE)
        if state is not None and state["rows"].shape[1:] == _row_of(z0):
            capacity = min(state["capacity"], max(room // size - 1, 0))
            memory = StateMemory(z0, capacity, self.storage_dtype)
            memory.load_state_dict(state)
            return memory
        taken = sum(memory.rows.nbytes for memory in self.memories.values())
        taken += sum((kept["capacity"] + 1) * size for kept in self.saved.values())
        fitting = max((room - taken) // size - 1, 0)
        wanted = fitting // 2 if samples is None else samples
        if fitting < wanted:
            self._say(
                name,
                f"{self.memory_mb:g} MB hold the equilibria of {fitting:,} of {wanted:,} samples "
                f"({name}); the others start as usual: raise callbacks.warm_start.memory_mb to "
                f"{(taken + (wanted + 1) * size) / MEGABYTE:,.0f} or more, or set "
                "callbacks.warm_start.storage_dtype=float16",
            )
        return StateMemory(z0, min(fitting, wanted), self.storage_dtype)

    def _say(self, about: str, message: str) -> None:
        if about not in self.warned:
            self.warned.add(about)
            warnings.warn(message, stacklevel=2)

    def _begin(self, stage: str, module: LightningModule, batch: Any, samples: int | None) -> None:
        layers = equilibrium_layers(module)
        if not layers:
            return
        index = batch.get("index") if isinstance(batch, Mapping) else None
        if not isinstance(index, Tensor) or index.ndim != 1:
            raise UserError(
                "callbacks=warm_start tells samples apart by their index, but the batches of this "
                f"task have no tensor index (B,): {INSTEAD}, or add it to them"
            )
        self.solves = [
            _Solves(self, f"{stage}/{name}", layer, index, samples)
            for name, layer in layers.items()
            if not layer.gradient.own_iteration
        ]

    def _end(self, counted: bool = True) -> None:
        solves, self.solves = self.solves, []
        for solve in solves:
            solve.leave()
        if not counted or not solves:
            return
        hits = [hit for solve in solves for hit in solve.hits]
        used = [solve for solve in solves if solve.handed]
        if not self.checked and used and not any(solve.rows_fit for solve in used):
            raise UserError(
                "callbacks=warm_start needs solves with one row for each sample of the batch, but "
                f"those of this task have another number of rows: {INSTEAD}"
            )
        self.checked = self.checked or bool(used)
        if hits:
            rate = torch.cat(hits).float().mean()
            self.since_row.setdefault("hit_rate", FiniteMean()).add(rate)
        for solve in used:
            for report in solve.reports:
                self.statistics.add(report)


class _Solves(LayerStart):
    """The solves of one layer during one batch: where each starts and where it ends."""

    told_by = "warm_start"

    def __init__(
        self,
        callback: WarmStart,
        name: str,
        layer: Equilibrium,
        index: Tensor,
        samples: int | None,
    ) -> None:
        super().__init__(layer)
        self.callback = callback
        self.name = name
        self.index = index
        self.samples = samples
        self.hits: list[Tensor] = []
        self.reports: list[Any] = []
        self.rows_fit = False
        self.open: tuple[StateMemory, Start] | None = None

    def start(self, z0: State) -> State:
        """The expected states of samples that are known, the usual start for the others."""
        state = z0 if self.before is None else self.before(z0)
        self.open = None
        if len(parts(state)[0]) != len(self.index):
            return state
        self.rows_fit = True
        memory = self.callback.memory(f"{self.name}/{len(self.handed)}", state, self.samples)
        if memory is None:
            return state
        start = memory.start(state, self._index(state))
        self.open = memory, start
        self.hits.append(start.known)
        return start.state

    def note(self, z: State) -> None:
        """Keep z for the samples whose solve has not diverged."""
        if self.layer.report is None:
            return
        opened, self.open = self.open, None
        self.reports.append(self.layer.report)
        if opened is None:
            return
        memory, start = opened
        status = self.layer.report.status
        assert status is not None
        usable = (status != Status.DIVERGED) & (status != Status.NON_FINITE)
        memory.keep(z, self._index(z), usable, start)

    def _index(self, state: State) -> Tensor:
        return self.index.to(parts(state)[0].device)


def _samples(loader: Any) -> int | None:
    """The number of samples in a loader's data; None if it is not known."""
    told = getattr(loader, "samples", None)
    try:
        return len(loader.dataset) if told is None else int(told)
    except (AttributeError, TypeError):
        return None


def _row_of(state: State) -> tuple[int, ...]:
    """The shape of one sample's row in a memory."""
    flat = Layout.of(state).flatten(state)
    return tuple(flat.shape[1:])


def _within_fit(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

"""Start each solve of a text segment where the solve of the preceding segment has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.layer_start import LayerStart
from equipoise.callbacks.lightning_overhead import Observer, find_callback
from equipoise.callbacks.warm_start import WarmStart
from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.processes import from_all_processes, own_part
from equipoise.equilibrium.state import State, constant, parts
from equipoise.errors import UserError


class SegmentStart(Observer):
    """Start the solves of a batch at the equilibria of the batch that it continues.

    For tasks whose batches continue each other, as segments of running text do. The entry `start`
    of a batch, a bool on the host, is True if the batch does not continue the one before. Training,
    validation and test each have their own equilibria. Such a batch, one of another shape, and
    estimators with their own iteration start as usual. A checkpoint holds the training equilibria
    of all processes, so that a resumed run gives the same bits.

    Raises UserError for batches without `start`, and together with `WarmStart` or
    `equilibrium.random_start`, which set another start.
    """

    def __init__(self) -> None:
        self.latest: dict[str, State] = {}
        self.saved: dict[str, Any] = {}
        self.following: list[_Following] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a second kind of start, and begin with the equilibria of a checkpoint."""
        layers = equilibrium_layers(pl_module).values()
        noisy = any(layer.random_start is not None for layer in layers)
        if noisy or find_callback(trainer, WarmStart) is not None:
            other = "equilibrium.random_start" if noisy else "callbacks=warm_start"
            raise UserError(
                f"{other} and callbacks=segment_start both set where solves start: leave one out"
            )
        self.latest = {
            name: tuple(part.to(pl_module.device) for part in state["parts"])
            if state["is_tuple"]
            else state["parts"][0].to(pl_module.device)
            for name, state in self.saved.items()
        }
        self.saved = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the starts of every layer's solves."""
        self._begin("train", pl_module, batch)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own starts."""
        self._end()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the starts for a batch of a validation."""
        self._begin("val", pl_module, batch)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own starts."""
        self._end()

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the starts for a batch of a test."""
        self._begin("test", pl_module, batch)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own starts."""
        self._end()

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Restore the layers' own starts after a step that was cut short."""
        self._end()

    def state_dict(self) -> dict[str, Any]:
        """The training equilibria of every process."""
        own = {
            name: {
                "parts": [part.cpu() for part in parts(state)],
                "is_tuple": isinstance(state, tuple),
            }
            for name, state in self.latest.items()
            if name.startswith("train/")
        }
        return {"processes": from_all_processes(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep this process's equilibria until training starts; none for other process counts."""
        self.saved = dict(own_part(state_dict["processes"]) or {})

    def _begin(self, stage: str, module: LightningModule, batch: Any) -> None:
        layers = equilibrium_layers(module)
        if not layers:
            return
        if not isinstance(batch, Mapping) or "start" not in batch:
            raise UserError(
                "callbacks=segment_start is for batches that continue each other, such as those of "
                "language modelling, and this task has none: leave it out"
            )
        if bool(batch["start"]):
            for name in [name for name in self.latest if name.startswith(f"{stage}/")]:
                del self.latest[name]
        self.following = [
            _Following(self.latest, f"{stage}/{name}", layer)
            for name, layer in layers.items()
            if not layer.gradient.own_iteration
        ]

    def _end(self) -> None:
        for following in self.following:
            following.leave()
        self.following = []


class _Following(LayerStart):
    """The n-th solve of a batch starts at the latest equilibrium of an n-th solve."""

    told_by = "segment_start"

    def __init__(self, latest: dict[str, State], name: str, layer: Equilibrium) -> None:
        super().__init__(layer)
        self.latest = latest
        self.name = name

    def start(self, z0: State) -> State:
        """The latest equilibrium if it has z0's shapes and dtypes, else z0."""
        known = self.latest.get(f"{self.name}/{len(self.handed)}")
        return z0 if known is None or not _alike(known, z0) else known

    def note(self, z: State) -> None:
        """Keep z as the latest equilibrium."""
        self.latest[f"{self.name}/{len(self.handed) - 1}"] = constant(z)


def _alike(one: State, other: State) -> bool:
    """Whether two states have the same shapes and dtypes."""
    found = [[(part.shape, part.dtype) for part in parts(state)] for state in (one, other)]
    return found[0] == found[1]

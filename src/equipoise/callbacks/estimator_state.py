"""What a gradient estimator has learnt, kept in the checkpoint."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.observers import Observer
from equipoise.equilibrium.layer import equilibrium_layers

KEY = "gradient_estimators"


@runtime_checkable
class Remembering(Protocol):
    """An estimator with a state, such as `Auto`."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        ...


class EstimatorState(Observer):
    """Saves the states of the estimators in force, and restores them when training resumes.

    Estimators are no modules, so that they can be replaced on a live layer, and the weights'
    state dict does not hold them. One that is not in force when the checkpoint is saved, in another
    phase of a gradient schedule, starts afresh.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, dict[str, Any]] = {}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of every layer's estimator that has one."""
        states = {name: found.state_dict() for name, found in _remembering(pl_module).items()}
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
    """The estimators with a state by the names of their layers."""
    named = {name: layer.gradient for name, layer in equilibrium_layers(module).items()}
    return {name: found for name, found in named.items() if isinstance(found, Remembering)}

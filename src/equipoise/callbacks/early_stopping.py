"""Ending a run whose validations no longer improve."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Lightning's EarlyStopping, but it judges each validation exactly once, even across
    resumptions.

    Lightning also judges at the end of an epoch that `max_steps` cut short before its validation,
    using the previous metric, so a resumed run would lose part of its patience. It also restores
    the patience from a checkpoint; here the configured one applies.
    """

    validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that there is a validation to judge, then proceed as Lightning does."""
        if not self._should_skip_check(trainer):
            self.validated = True
        super().on_validation_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and whether the last validation is still to be judged."""
        return super().state_dict() | {"validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting, with the configured patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.validated = state_dict.get("validated", False)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        if self.validated or not self.monitor.startswith("val/"):
            super()._run_early_stopping_check(trainer)
        self.validated = False

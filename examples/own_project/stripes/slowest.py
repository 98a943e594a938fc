"""A callback that keeps the pictures whose equilibrium took longest to find."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from equipoise.equilibrium.layer import equilibrium_layers


class SlowestPictures(Callback):
    """Note, for metrics.json, the `count` test pictures that needed most evaluations of f."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.steps: dict[int, int] = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the evaluations of every picture of the batch."""
        for layer in equilibrium_layers(pl_module).values():
            steps = layer.report.steps.tolist()
            self.steps |= dict(zip(batch["index"].tolist(), steps, strict=True))

    def summary(self) -> dict[str, Any]:
        """What is added to `details` in metrics.json."""
        slowest = sorted(self.steps, key=self.steps.__getitem__, reverse=True)[: self.count]
        return {"slowest_pictures": {str(row): self.steps[row] for row in slowest}}

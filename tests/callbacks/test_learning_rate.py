"""The learning rate in the curve."""

import csv

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from equipoise.callbacks import LearningRate, TrainingCurve


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        return {"loss": self.layer(batch).square().mean()}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        halved = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halved, "interval": "step"}}


def test_a_row_shows_the_rate_that_its_step_used(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    Trainer(
        max_epochs=1, logger=logger, log_every_n_steps=1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        callbacks=[TrainingCurve(), LearningRate()],
    ).fit(Line(), DataLoader(torch.ones(3, 1)))  # fmt: skip
    with (tmp_path / "metrics.csv").open() as file:
        rates = [float(row["lr-SGD"]) for row in csv.DictReader(file)]
    assert rates == [0.1, 0.05, 0.025]

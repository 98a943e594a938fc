"""Couplings of pairs of atoms in Hz: two losses, and the competition's score by type."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.data.molecules.tables import TYPES
from equipoise.equilibrium.processes import from_all_processes
from equipoise.errors import UserError
from equipoise.nn.over_processes import per_process, sum_over_processes
from equipoise.report.couplings import YARDSTICKS, draw_couplings, mean_log_mae, type_scores
from equipoise.report.page import Picture
from equipoise.report.whole import whole
from equipoise.tasks.objective import MakeOptimizer, Objective, refuse_rounding
from equipoise.tasks.schedules import Schedule

Loss = Literal["absolute", "log_mae"]
FLOOR = 1e-9
"""Added to a mean error in Hz before its logarithm is taken; published."""
CONTRIBUTIONS = ("fc", "sd", "pso", "dso")


class Described(Protocol):
    """The data module."""

    def facts(self, split: str) -> dict[str, Any]:
        """Facts about a split that belong beside its results."""
        ...

    def vocabulary_state(self) -> dict[str, Any]:
        """The labels of the training molecules, with the mean and deviation of each type."""
        ...

    def type_means(self) -> list[float]:
        """The mean coupling of each of TYPES in training, nan where there is none."""
        ...


class Predicted(NamedTuple):
    """Couplings of a split, each once: its row in the csv file, type 1 to 8, and Hz (N, K)."""

    row: NDArray[np.int64]
    kind: NDArray[np.int64]
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]


class ScalarCoupling(Objective):
    """Trains any model whose output has `standardized` (B, P, K) couplings of pairs of atoms.

    Batches come from the data modules of molecules. A prediction in Hz is deviation * standardized
    + mean, with those of the pair's labelled type. Losses, over the couplings to be predicted:

        absolute  the mean of |error| in Hz; published for training
        log_mae   the mean over the types present of ln(MAE + 1e-9); published for fine-tuning

    If K = 5, the mean of the same loss over the four contributions is added, times
    `contribution_weight`. Metrics: loss, mae in Hz, and mean_log_mae, the mean of ln MAE over the
    types; all over the whole split, each coupling once, whatever the number of processes.

    Source: 2008.05994 and the code published with it.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        loss: Loss = "absolute",
        contribution_weight: float = 1.0,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.loss = loss
        self.contribution_weight = contribution_weight
        self.seen: dict[str, list[tuple[Tensor, ...]]] = {"val": [], "test": []}
        self.tested: Predicted | None = None
        self.facts: dict[str, Any] = {}
        self.vocabulary_state: dict[str, Any] = {}
        self.loaded_vocabulary: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Take the labels from the data module, if it has some.

        Raises UserError for a precision that rounds couplings, whose errors are below one Hz.
        """
        refuse_rounding(self.trainer, "places of atoms and couplings")
        tell = getattr(getattr(self.trainer, "datamodule", None), "vocabulary_state", None)
        self.vocabulary_state = {} if tell is None else tell()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """The loss, with what contributions and regularisers add."""
        predicted, true, kind = self.in_hertz(batch)
        loss = coupling_loss(predicted[:, 0], true[:, 0], kind, self.loss)
        terms = {"coupling_loss": loss.detach()}
        if predicted.shape[1] > 1:
            parts = zip(predicted[:, 1:].unbind(1), true[:, 1:].unbind(1), strict=True)
            losses = [coupling_loss(p, t, kind, self.loss) for p, t in parts]
            auxiliary = torch.stack(losses).mean()
            loss = loss + self.contribution_weight * auxiliary
            terms["contribution_loss"] = auxiliary.detach()
        loss, more = self.with_regularization(loss, self.readout)  # raises if called: there is none
        return {"loss": loss, **terms, **more}

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Keep the predictions."""
        self._predict("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Keep the predictions."""
        self._predict("test", batch)

    def in_hertz(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and true couplings (N, K) and types (N,) of the pairs to be predicted.

        At least in float32, whatever the precision of the network.
        """
        standardized: Tensor = self.model(batch).standardized
        asked = batch["type"] > 0
        deviation, mean = batch["deviation"][asked], batch["mean"][asked]
        predicted = standardized[asked].to(deviation.dtype) * deviation + mean
        return predicted, batch["coupling"][asked], batch["type"][asked]

    def logged(self, stage: str) -> set[str]:
        """The names under which the metrics of "val" or "test" are logged."""
        return {f"{stage}/{name}" for name in ("loss", "mae", "mean_log_mae")}

    def details(self) -> dict[str, Any]:
        """The score of each type in the last test, and the score of predicting its mean."""
        return self.facts

    def pictures(self, folder: Path) -> list[Picture]:
        """Draw predicted against true couplings, and write csv files; nothing without a test."""
        if self.tested is None:
            return []
        write_predictions(folder, self.tested)
        tested = self.tested
        return draw_couplings(folder, tested.predicted[:, 0], tested.true[:, 0], tested.kind, TYPES)

    def on_train_start(self) -> None:
        """Refuse a checkpoint with other labels."""
        self._refuse_other_labels()

    def on_validation_start(self) -> None:
        """Refuse a checkpoint with other labels."""
        self._refuse_other_labels()

    def on_test_start(self) -> None:
        """Refuse a checkpoint with other labels."""
        self._refuse_other_labels()

    def get_extra_state(self) -> dict[str, Any]:
        """The labels, without which no molecule can be read, and no prediction scaled."""
        return {"labels": self.vocabulary_state}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keep the labels of the checkpoint, to be compared with those of the data."""
        self.loaded_vocabulary = state["labels"]

    def _refuse_other_labels(self) -> None:
        loaded, present = self.loaded_vocabulary, self.vocabulary_state
        if loaded and present and loaded != present:
            raise UserError(
                "the checkpoint was trained on other molecules, so the labels of atoms and pairs "
                "are not those of this data: give the data and split that it was trained on, or "
                "use python -m equipoise predict for other molecules"
            )

    def _predict(self, stage: str, batch: dict[str, Tensor]) -> None:
        predicted, true, kind = self.in_hertz(batch)
        self.seen[stage].append((batch["row"][batch["type"] > 0], kind, predicted, true))

    def _close(self, stage: str) -> None:
        """Log the scores of the predictions of all processes, each coupling once."""
        split = of_all_processes(self.seen[stage])
        self.seen[stage] = []
        scores = type_scores(split.predicted[:, 0], split.true[:, 0], split.kind, TYPES)
        errors = np.abs(split.predicted[:, 0] - split.true[:, 0])
        parts = [torch.from_numpy(part) for part in (split.predicted, split.true, split.kind)]
        loss = coupling_loss(parts[0][:, 0], parts[1][:, 0], parts[2], self.loss)
        self.log(f"{stage}/loss", float(loss))
        self.log(f"{stage}/mae", float(errors.mean()))
        self.log(f"{stage}/mean_log_mae", mean_log_mae(scores))
        if stage == "test":
            self.tested = split
            data: Described = self.trainer.datamodule  # type: ignore[attr-defined]
            self.facts = described(split, data)


def coupling_loss(predicted: Tensor, true: Tensor, kind: Tensor, loss: Loss) -> Tensor:
    """The loss of couplings (N,) in Hz, whose types (N,) are from 1 to 8; 0 without any.

    In training, N counts the couplings of all processes, since gradients are averaged over these.
    """
    errors = (predicted - true).abs()
    if loss == "absolute":
        count = per_process(torch.tensor(len(errors), device=errors.device))
        return errors.sum() / torch.where(count > 0, count, 1)
    counts = kind.bincount(minlength=len(TYPES) + 1)
    totals = errors.new_zeros(len(TYPES) + 1).index_add(0, kind, errors)
    if torch.is_grad_enabled():
        counts, totals = sum_over_processes(counts), sum_over_processes(totals)
    present = counts > 0
    logarithms = (totals / counts.clamp(min=1) + FLOOR).log()
    return torch.where(present, logarithms, 0).sum() / present.sum().clamp(min=1)


def of_all_processes(seen: list[tuple[Tensor, ...]]) -> Predicted:
    """The predictions of all processes, in the order of the rows, each row once."""
    batches = [[part.detach().cpu().numpy() for part in batch] for batch in seen]
    mine: Any = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    row, kind, predicted, true = (
        np.concatenate(parts) for parts in zip(*from_all_processes(mine), strict=True)
    )
    row, first = np.unique(row, return_index=True)
    return Predicted(row, kind[first], predicted[first].astype(float), true[first].astype(float))


def described(split: Predicted, data: Described) -> dict[str, Any]:
    """The score of each type, the score of predicting its training mean, and yardsticks."""
    means = np.array([np.nan, *data.type_means()])[split.kind]
    scores = type_scores(split.predicted[:, 0], split.true[:, 0], split.kind, TYPES)
    baseline = type_scores(means, split.true[:, 0], split.kind, TYPES)
    facts = data.facts("test")
    table = {
        name: {**asdict(score), "mae_of_the_mean": baseline[name].mae}
        for name, score in scores.items()
    }
    found = {"types": table, "mean_log_mae_of_the_means": mean_log_mae(baseline)}
    if split.predicted.shape[1] > 1:
        errors = np.abs(split.predicted - split.true)[:, 1:].mean(axis=0)
        found["mae_of_contributions"] = dict(zip(CONTRIBUTIONS, errors.tolist(), strict=True))
    if facts.get("competition", False):
        found["yardsticks"] = YARDSTICKS
    return {**facts, **found}


def write_predictions(folder: Path, split: Predicted) -> None:
    """Write couplings.csv, predicted beside true, and predictions.csv in the format to submit."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, types = split.row.tolist(), [TYPES[kind - 1] for kind in split.kind.tolist()]
    predicted, true = split.predicted[:, 0].tolist(), split.true[:, 0].tolist()
    target = "scalar_coupling_constant"
    with whole(folder / "couplings.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "type", target, "predicted"])
        writer.writerows(zip(rows, types, true, predicted, strict=True))
    with whole(folder / "predictions.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["id", target])
        writer.writerows(zip(rows, predicted, strict=True))

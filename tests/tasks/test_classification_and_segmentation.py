"""One network for labels and masks, in real runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from two_heads import CLASSES, MASK_CLASSES, loader, trainer

from equipoise.equilibrium.regularizers import FixedPointCorrection
from equipoise.errors import UserError
from equipoise.tasks import ClassificationAndSegmentation
from equipoise.tasks.mask_loss import IGNORED
from equipoise.tasks.segmentation import upsample


def task_of(parts: Any, **settings: Any) -> ClassificationAndSegmentation:
    fixed = {"classes": CLASSES, "mask_classes": MASK_CLASSES, "class_weights": None}
    return ClassificationAndSegmentation(**parts("logits", "mask_logits"), **fixed, **settings)


def test_it_learns_both(parts: Any, batches: Any, tmp_path: Any) -> None:
    task = task_of(parts)
    runner = trainer(tmp_path, max_epochs=25)
    runner.fit(task, loader(batches), loader(batches))
    validated = float(runner.callback_metrics["val/score"])
    (tested,) = runner.test(task, loader(batches), verbose=False)
    assert tested["test/accuracy"] > 0.9
    assert tested["test/miou"] > 0.6
    score = (tested["test/accuracy"] + tested["test/miou"]) / 2
    assert tested["test/score"] == pytest.approx(score, rel=1e-5)
    assert validated == pytest.approx(score, rel=1e-5)
    assert list(task.details()["iou_per_class"]) == ["0", "1", "2", "3"]
    assert torch.equal(task.pictured["mask"], batches[0]["mask"])


def test_the_loss_is_the_weighted_sum(parts: Any, batches: Any) -> None:
    task, batch = task_of(parts, label_weight=0.3, mask_weight=2.0), batches[0]
    label_loss = functional.cross_entropy(task.model(batch["image"], "logits"), batch["label"])
    logits = upsample(task.model(batch["scene"], "mask_logits"), batch["mask"])
    mask_loss = functional.cross_entropy(logits, batch["mask"], ignore_index=IGNORED)
    loss = task.training_step(batch, 0)["loss"]
    torch.testing.assert_close(loss, 0.3 * label_loss + 2 * mask_loss, rtol=1e-4, atol=1e-5)


def test_both_kinds_pass_through_one_solve(parts: Any, batches: Any) -> None:
    task = task_of(parts)
    task.training_step(batches[0], 0)
    assert len(task.model.equilibrium.report.status) == 8


@pytest.mark.parametrize(
    ("weights", "untrained"),
    [({"label_weight": 0.0}, "logits"), ({"mask_weight": 0.0}, "mask_logits")],
)
def test_a_weight_of_zero_trains_the_other_half_alone(
    parts: Any, batches: Any, weights: dict[str, float], untrained: str
) -> None:
    task = task_of(parts, **weights)
    task.training_step(batches[0], 0)["loss"].backward()
    for name, head in task.model.heads.items():
        moved = any(bool(parameter.grad.any()) for parameter in head.parameters())
        assert moved == (name != untrained)


def test_a_correction_reads_both_heads(parts: Any, batches: Any) -> None:
    made = parts("logits", "mask_logits")
    made["model"].equilibrium.regularizer = FixedPointCorrection()
    task = ClassificationAndSegmentation(
        **made, classes=CLASSES, mask_classes=MASK_CLASSES, class_weights=None
    )
    result = task.training_step(batches[0], 0)
    assert result["corrected_loss"] > 0


@pytest.mark.parametrize(("label", "mask"), [(0.0, 0.0), (-1.0, 1.0)])
def test_weights_that_cannot_work(parts: Any, label: float, mask: float) -> None:
    with pytest.raises(UserError, match=r"task\.objective\.label_weight"):
        task_of(parts, label_weight=label, mask_weight=mask)

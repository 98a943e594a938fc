"""Mean IoU against torchmetrics' own and against counting."""

from __future__ import annotations

import torch
from torchmetrics.classification import MulticlassJaccardIndex

from equipoise.tasks.mask_loss import IGNORED
from equipoise.tasks.mean_iou import MeanIoU


def test_it_is_torchmetrics_where_every_class_occurs() -> None:
    torch.manual_seed(0)
    ours, theirs = MeanIoU(5), MulticlassJaccardIndex(5, ignore_index=IGNORED)
    for _ in range(3):
        mask = torch.randint(0, 5, (2, 8, 8)).masked_fill(torch.rand(2, 8, 8) < 0.2, IGNORED)
        prediction = torch.randint(0, 5, (2, 8, 8))
        ours.update(prediction, mask)
        theirs.update(prediction, mask)
    torch.testing.assert_close(ours.compute(), theirs.compute())


def test_a_class_that_does_not_occur_has_no_value() -> None:
    metric = MeanIoU(4)
    metric.update(torch.tensor([[0, 0, 1, 3]]), torch.tensor([[0, 0, 0, 1]]))
    metric.update(torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 1, IGNORED, IGNORED]]))
    value = metric.compute()
    # class 0: 2 of 3; class 1: 2 of 4; class 2 nowhere; class 3 is only wrongly predicted
    torch.testing.assert_close(metric.per_class[:2], torch.tensor([2 / 3, 0.5]).double())
    assert metric.per_class[2:].isnan().all()
    torch.testing.assert_close(value, torch.tensor((2 / 3 + 0.5) / 2))


def test_without_masks_it_is_not_a_number() -> None:
    metric = MeanIoU(3)
    metric.update(torch.zeros(1, 2, dtype=torch.int64), torch.full((1, 2), IGNORED))
    assert metric.compute().isnan()


def test_the_values_of_classes_outlive_a_reset() -> None:
    metric = MeanIoU(2)
    metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
    metric.compute()
    metric.reset()
    assert metric.per_class.tolist() == [1, 1]

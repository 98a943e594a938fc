"""Losses, upsampling and mean IoU of a segmentation against values of the published code."""

from __future__ import annotations

import pytest
import torch
from mdeq_recordings import HERE, read, whole
from torch import Tensor

from equipoise.tasks.mask_loss import HardPixelCrossEntropy, MaskCrossEntropy, MeanIoU
from equipoise.tasks.segmentation import upsample

pytestmark = pytest.mark.usefixtures("compiles_f")

RECORDED = read(HERE / "segmentation_D.npz")
MASK = RECORDED["labels"].long()
WEIGHTS = [float(weight) for weight in RECORDED["class_weights"]]


def upsampled(align_corners: bool = True) -> Tensor:
    return upsample(RECORDED["logits_tight"], MASK, align_corners)


def assert_recorded(loss: Tensor, name: str) -> None:
    torch.testing.assert_close(float(loss), float(RECORDED[name]), rtol=1e-12, atol=0)


def test_upsampling_with_and_without_aligned_corners() -> None:
    for align_corners in (True, False):
        ours = upsampled(align_corners)[:, :, ::8, ::8]
        recorded = RECORDED[f"logits_up_align{align_corners}_stride8"]
        torch.testing.assert_close(ours, recorded, rtol=0, atol=1e-12)


def test_cross_entropy() -> None:
    assert_recorded(MaskCrossEntropy()(upsampled(), MASK), "ce_unweighted")
    assert_recorded(MaskCrossEntropy(WEIGHTS).double()(upsampled(), MASK), "ce_weighted")


def test_hard_pixels() -> None:
    lenient = HardPixelCrossEntropy(WEIGHTS, threshold=0.9, kept=500).double()
    strict = HardPixelCrossEntropy(WEIGHTS, threshold=0.05, kept=2000).double()
    assert_recorded(lenient(upsampled(), MASK), "ohem_thres0p9_keep500")
    assert_recorded(strict(upsampled(), MASK), "ohem_thres0p05_keep2000")


def test_the_whole_recording() -> None:
    """The trimmed file beside this one is the recording's own."""
    recording = whole("D")
    for name in ("logits_tight", "labels", "confusion", "logits_up_alignTrue_stride8"):
        assert torch.equal(recording[name].double(), RECORDED[name].double())


def test_confusion_and_mean_iou() -> None:
    metric = MeanIoU(19)
    prediction = upsampled().argmax(dim=1)
    for row in range(len(MASK)):
        metric.update(prediction[row : row + 1], MASK[row : row + 1])
    assert torch.equal(metric.confmat, RECORDED["confusion"].long())
    # The published mean is over all classes, and here all of them occur.
    assert float(metric.compute()) == pytest.approx(float(RECORDED["mIoU"]), rel=1e-6)
    assert float(metric.per_class.mean()) == pytest.approx(float(RECORDED["mIoU"]), rel=1e-12)

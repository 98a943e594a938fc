"""Both losses against a computation of their own, pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from equipoise.tasks.mask_loss import IGNORED, HardPixelCrossEntropy, MaskCrossEntropy, MeanIoU

CLASSES = 4
WEIGHTS = [0.5, 1.0, 2.0, 1.5]


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, CLASSES, 6, 5, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def mask() -> Tensor:
    torch.manual_seed(1)
    mask = torch.randint(0, CLASSES, (3, 6, 5))
    return mask.masked_fill(torch.rand(3, 6, 5) < 0.3, IGNORED)


def pixels(logits: Tensor, mask: Tensor) -> list[tuple[float, float, float]]:
    """Probability of the true class, loss and weight of every pixel that counts."""
    probabilities = logits.detach().softmax(dim=1).movedim(1, -1)
    found = []
    for probability, k in zip(probabilities.reshape(-1, CLASSES), mask.flatten(), strict=True):
        if k != IGNORED:
            p = float(probability[k])
            found.append((p, -float(probability[k].log()), WEIGHTS[int(k)]))
    return found


def test_weighted_mean_over_the_pixels_that_count(logits: Tensor, mask: Tensor) -> None:
    found = pixels(logits, mask)
    expected = sum(loss * weight for _, loss, weight in found) / sum(w for *_, w in found)
    assert float(MaskCrossEntropy(WEIGHTS).double()(logits, mask).detach()) == pytest.approx(
        expected
    )
    plain = functional.cross_entropy(logits, mask, ignore_index=IGNORED)
    torch.testing.assert_close(MaskCrossEntropy()(logits, mask), plain)


@pytest.mark.parametrize("kept", [1, 10, 40, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
def test_hard_pixels_are_those_of_sorted_probabilities(
    logits: Tensor, mask: Tensor, threshold: float, kept: int
) -> None:
    found = sorted(pixels(logits, mask))
    limit = max(found[min(kept, len(found) - 1)][0], threshold)
    hard = [loss * weight for p, loss, weight in found if p < limit]
    loss = HardPixelCrossEntropy(WEIGHTS, threshold, kept).double()(logits, mask)
    assert float(loss.detach()) == pytest.approx(sum(hard) / len(hard))


def test_ignored_pixels_change_nothing(logits: Tensor, mask: Tensor) -> None:
    changed = torch.where((mask == IGNORED).unsqueeze(1), 100 * logits, logits)
    for loss in (MaskCrossEntropy(), HardPixelCrossEntropy(None, 0.5, 10)):
        torch.testing.assert_close(loss(changed, mask), loss(logits, mask))


def test_without_a_pixel_that_counts_the_loss_is_zero(logits: Tensor) -> None:
    nothing = torch.full((3, 6, 5), IGNORED)
    for loss in (
        MaskCrossEntropy(WEIGHTS).double(),
        HardPixelCrossEntropy(WEIGHTS, 0.5, 10).double(),
    ):
        value = loss(logits, nothing)
        (gradient,) = torch.autograd.grad(value, logits)
        assert float(value.detach()) == 0
        assert not gradient.any()


@pytest.mark.parametrize(
    "make", [lambda: MaskCrossEntropy(WEIGHTS), lambda: HardPixelCrossEntropy(WEIGHTS, 0.6, 20)]
)
def test_gradients_are_those_of_finite_differences(
    make: object, logits: Tensor, mask: Tensor
) -> None:
    assert callable(make)
    loss = make().double()
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), (logits,), eps=1e-7)


def test_weights_follow_the_module_and_stay_out_of_checkpoints() -> None:
    loss = MaskCrossEntropy(WEIGHTS)
    assert not loss.state_dict()
    assert loss.double().class_weights.dtype == torch.float64


@pytest.mark.parametrize(("threshold", "kept"), [(1.5, 10), (0.5, 0)])
def test_settings_that_cannot_work(threshold: float, kept: int) -> None:
    with pytest.raises(ValueError, match="ohem_threshold"):
        HardPixelCrossEntropy(None, threshold, kept)


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

"""What a classification's test keeps: the accuracy of each class, and the most wrong samples."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchmetrics.functional.classification import multiclass_accuracy
from two_heads import CLASSES, loader, trainer

from equipoise.tasks import Classification, ClassificationAndSegmentation
from equipoise.tasks.class_predictions import MOST_MISTAKES, ClassPredictions, names_of_all

CLASS_NAMES = ["cat", "dog", "cat"]


def predicted(count: int, batch: int) -> tuple[ClassPredictions, Tensor, Tensor]:
    """Predictions of random logits (N, 5), whose samples are images that show their number."""
    torch.manual_seed(count)
    logits, labels = 3 * torch.randn(count, 5), torch.randint(0, 4, (count,))
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).float()
    predictions = ClassPredictions()
    for part in torch.arange(count).split(batch):
        predictions.update(images[part], logits[part], labels[part])
    predictions.gather()
    return predictions, logits, labels


@pytest.mark.parametrize(("count", "batch"), [(3, 2), (40, 7), (40, 40)])
def test_the_most_wrong_are_those_that_were_surest_of_another_class(count: int, batch: int) -> None:
    predictions, logits, labels = predicted(count, batch)
    surest, said = logits.softmax(dim=1).max(dim=1)
    surest[said == labels] = 0
    order = surest.argsort(descending=True)[:MOST_MISTAKES]
    order = order[surest[order] > 0]
    mistakes = predictions.mistakes
    assert mistakes["image"][:, 0, 0, 0].tolist() == order.tolist()
    assert torch.equal(mistakes["true"], labels[order])
    assert torch.equal(mistakes["predicted"], said[order])
    torch.testing.assert_close(mistakes["of_predicted"], surest[order])
    own = logits.softmax(dim=1)[order, labels[order]]
    torch.testing.assert_close(mistakes["of_true"], own)


def test_a_batch_is_added_without_waiting_for_the_device() -> None:
    predictions = ClassPredictions()
    with FakeTensorMode():  # which has no values, so that asking for one raises an error
        for _ in range(2):
            logits, labels = torch.randn(20, 5), torch.zeros(20, dtype=torch.int64)
            with pytest.raises(DataDependentOutputException):
                bool(labels.any())
            predictions.update(torch.randn(20, 1, 4, 4), logits, labels)
    assert len(predictions.mistakes["image"]) == MOST_MISTAKES


def test_the_accuracy_of_each_class_is_that_of_torchmetrics() -> None:
    predictions, logits, labels = predicted(60, 16)
    details = predictions.details(5, ["a", "b"])
    expected = multiclass_accuracy(logits, labels, num_classes=5, average="none").tolist()
    assert details["accuracy_per_class"] == expected
    assert details["accuracy_by_class"] == dict(
        zip(["a", "b", "2", "3", "4"], expected, strict=True)
    )
    assert expected[4] == 0  # of which there is no sample


def test_names_are_told_apart_and_filled_up() -> None:
    assert names_of_all(4, CLASS_NAMES) == ["cat (0)", "dog", "cat (2)", "3"]
    assert names_of_all(2, ["a", "b", "c"]) == ["a", "b"]


def test_a_network_that_diverged_has_predictions_all_the_same(tmp_path: Path) -> None:
    predictions = ClassPredictions()
    logits = torch.tensor([[torch.nan, 0.0], [5.0, 0.0]])
    predictions.update(torch.ones(2, 1, 3, 3), logits, torch.tensor([1, 1]))
    predictions.update(torch.ones(1, 1, 9, 9), logits[1:], torch.tensor([1]))
    predictions.gather()
    assert predictions.mistakes["predicted"].tolist() == [0]
    assert len(predictions.pictures(tmp_path, 2, [])) == 2


def test_before_a_test_there_is_nothing(tmp_path: Path) -> None:
    predictions = ClassPredictions()
    predictions.gather()
    assert predictions.details(3, []) == {}
    assert predictions.pictures(tmp_path, 3, []) == []


@pytest.mark.parametrize("kind", [Classification, ClassificationAndSegmentation])
def test_a_task_offers_them_after_its_test(
    parts: Any, batches: Any, tmp_path: Path, kind: Any
) -> None:
    both = kind is ClassificationAndSegmentation
    settings = {"mask_classes": 4, "class_weights": None} if both else {}
    outputs = ("logits", "mask_logits") if both else ("logits",)
    task = kind(**parts(*outputs), classes=CLASSES, **settings)
    runner = trainer(tmp_path, max_epochs=1)
    for _ in range(2):  # of which the second forgets the first
        (tested,) = runner.test(task, loader(batches), verbose=False)
    labels = torch.cat([batch["label"] for batch in batches])
    counts = torch.bincount(labels, minlength=CLASSES)
    accuracies = torch.tensor(task.details()["accuracy_per_class"])
    mean = float((accuracies * counts).sum() / counts.sum())
    assert mean == pytest.approx(tested["test/accuracy"], abs=1e-6)
    assert len(task.predictions.true[0]) == len(labels)
    runner.datamodule = SimpleNamespace(class_names=CLASS_NAMES)
    names = ["0", "1", "2"] if both else ["cat (0)", "dog", "cat (2)"]
    assert list(task.details()["accuracy_by_class"]) == names
    files = [picture.file for picture in task.pictures(tmp_path)]
    assert files[-2:] == ["confusion.png", "mistakes.png"]

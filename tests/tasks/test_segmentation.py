"""Segmentation in real runs of a small network."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from two_heads import MASK_CLASSES, loader, trainer

from equipoise.config.compose import compose, plain
from equipoise.equilibrium.regularizers import FixedPointCorrection, JacobianRegularizer
from equipoise.errors import UserError
from equipoise.running.build import instantiate
from equipoise.tasks import Segmentation
from equipoise.tasks.mask_loss import IGNORED, HardPixelCrossEntropy, MaskCrossEntropy
from equipoise.tasks.segmentation import MaskObjective, pixel_accuracy, upsample


def as_scenes(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{"image": b["scene"], "mask": b["mask"], "index": b["index"]} for b in batches]


def task_of(parts: Any, **settings: Any) -> Segmentation:
    return Segmentation(
        **parts("mask_logits"), **{"mask_classes": MASK_CLASSES, "class_weights": None, **settings}
    )


def test_it_learns_to_tell_brightness(parts: Any, batches: Any, tmp_path: Any) -> None:
    task, scenes = task_of(parts), as_scenes(batches)
    runner = trainer(tmp_path, max_epochs=25)
    runner.fit(task, loader(scenes), loader(scenes))
    validated = {name: float(value) for name, value in runner.callback_metrics.items()}
    assert validated["val/miou"] > 0.7
    (tested,) = runner.test(task, loader(scenes), verbose=False)
    for name in ("loss", "miou", "accuracy"):
        assert tested[f"test/{name}"] == pytest.approx(validated[f"val/{name}"])
    per_class = task.details()["iou_per_class"]
    assert list(per_class) == ["0", "1", "2", "3"]
    assert sum(per_class.values()) / 4 == pytest.approx(tested["test/miou"], rel=1e-5)


def test_metrics_are_those_of_the_whole_split(parts: Any, batches: Any, tmp_path: Any) -> None:
    """Summed over batches of several sizes, and without the ignored pixels."""
    task, scenes = task_of(parts), as_scenes(batches)
    uneven = [scenes[0], {name: values[:1] for name, values in scenes[1].items()}]
    (tested,) = trainer(tmp_path).test(task, loader(uneven), verbose=False)
    images = torch.cat([batch["image"] for batch in uneven])
    mask = torch.cat([batch["mask"] for batch in uneven])
    logits = upsample(task(images), mask).detach()
    expected = functional.cross_entropy(logits, mask, ignore_index=IGNORED)
    assert tested["test/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert tested["test/accuracy"] == pytest.approx(float(pixel_accuracy(logits, mask)), rel=1e-5)


def test_the_loss_is_chosen_by_name(parts: Any, batches: Any) -> None:
    plain, hard = task_of(parts), task_of(parts, loss="ohem", ohem_kept=50, ohem_threshold=0.3)
    assert isinstance(plain.loss, MaskCrossEntropy)
    assert isinstance(hard.loss, HardPixelCrossEntropy)
    hard.load_state_dict(plain.state_dict())
    batch = as_scenes(batches)[0]
    assert hard.training_step(batch, 0)["loss"] > plain.training_step(batch, 0)["loss"]


def test_class_weights_shift_the_loss(parts: Any, batches: Any) -> None:
    weighted = task_of(parts, class_weights=[1.0, 0.0, 0.0, 0.0])
    batch = as_scenes(batches)[0]
    logits = upsample(weighted(batch["image"]), batch["mask"])
    only = functional.cross_entropy(
        logits, batch["mask"].masked_fill(batch["mask"] != 0, IGNORED), ignore_index=IGNORED
    )
    torch.testing.assert_close(weighted.training_step(batch, 0)["loss"], only)


def test_as_many_class_weights_as_classes(parts: Any) -> None:
    with pytest.raises(UserError, match="has 2 entries for 4 classes"):
        task_of(parts, class_weights=[1.0, 2.0])


def test_corners_at_test_alone(parts: Any, batches: Any, tmp_path: Any) -> None:
    aligned, free = task_of(parts), task_of(parts, align_corners_at_test=False)
    free.load_state_dict(aligned.state_dict())
    scenes = as_scenes(batches)
    losses = {}
    for name, task in (("aligned", aligned), ("free", free)):
        runner = trainer(tmp_path)
        (validated,) = runner.validate(task, loader(scenes), verbose=False)
        (tested,) = runner.test(task, loader(scenes), verbose=False)
        losses[name] = (validated["val/loss"], tested["test/loss"])
    assert losses["aligned"][0] == losses["aligned"][1] == losses["free"][0]
    assert losses["free"][1] != losses["free"][0]


def test_upsampling_leaves_logits_of_the_right_size_alone() -> None:
    logits = torch.randn(1, 2, 5, 5)
    assert upsample(logits, torch.zeros(1, 5, 5)) is logits


def test_pixel_accuracy_leaves_ignored_pixels_out() -> None:
    logits = torch.tensor([[[0.0, 1, 1, 1]], [[1.0, 0, 0, 0]]])[None]
    mask = torch.tensor([[[1, 0, 1, IGNORED]]])
    assert float(pixel_accuracy(logits, mask)) == pytest.approx(2 / 3)


def test_a_few_predictions_are_kept(parts: Any, batches: Any, tmp_path: Any) -> None:
    task, scenes = task_of(parts), as_scenes(batches)
    singles = [{n: v[:1] for n, v in scenes[0].items()}, *scenes[1:]]
    trainer(tmp_path).test(task, loader(singles), verbose=False)
    samples = task.pictured
    assert {name: tuple(values.shape) for name, values in samples.items()} == {
        "image": (4, 1, 12, 16), "mask": (4, 12, 16), "prediction": (4, 12, 16),
    }  # fmt: skip
    assert torch.equal(samples["mask"][1:], scenes[1]["mask"][:3])
    trainer(tmp_path).test(task, loader(scenes), verbose=False)
    assert torch.equal(task.pictured["mask"], scenes[0]["mask"])


def test_a_class_that_does_not_occur_is_none(parts: Any, batches: Any, tmp_path: Any) -> None:
    task, scenes = task_of(parts), as_scenes(batches)[:1]
    scenes[0]["mask"] = scenes[0]["mask"].masked_fill(scenes[0]["mask"] == 2, 1)
    trainer(tmp_path).test(task, loader(scenes), verbose=False)
    values = task.details()["iou_per_class"]
    assert values["2"] is None
    assert all(math.isfinite(values[name]) for name in ("0", "1", "3"))


@pytest.mark.parametrize(
    ("regularizer", "term"),
    [(JacobianRegularizer(probability=1.0), "penalty"), (FixedPointCorrection(), "corrected_loss")],
)
def test_regularisers_join_the_loss(parts: Any, batches: Any, regularizer: Any, term: str) -> None:
    made = parts("mask_logits")
    made["model"].equilibrium.regularizer = regularizer
    task = Segmentation(**made, mask_classes=MASK_CLASSES, class_weights=None)
    result = task.training_step(as_scenes(batches)[0], 0)
    assert term in result
    result["loss"].backward()
    assert all(p.grad is not None for p in task.model.recur.parameters())


def test_classes_have_the_names_that_the_data_tells() -> None:
    config = plain(compose(["task=digit_scenes", "task.train_scenes=8"]).config, resolve=True)
    data = instantiate("task", config["task"])
    data.setup("test")
    names = MaskObjective.class_names(SimpleNamespace(trainer=SimpleNamespace(datamodule=data)))
    assert names[:2] == ["background", "digit 0"]

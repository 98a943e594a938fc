"""Learning from two views: what the labels may and may not do, and what a run tells."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import equipoise
from equipoise.models import BarlowTwins, ResNet
from equipoise.nn import RedundancyReduction
from equipoise.tasks import SelfSupervised
from equipoise.tasks.schedules import Constant
from equipoise.tasks.self_supervised import UNLABELLED

CLASSES = 3
PROTOCOLS = {"knn_accuracy", "online_probe_accuracy", "linear_probe_accuracy"}
OF_LOSS = {"loss", "loss_per_feature", "diagonal", "off_diagonal", "off_diagonal_size"}
JUDGED = {"knn_accuracy", "online_probe_accuracy", "online_probe_loss", "effective_rank", "spread"}
RUN = (
    "model=barlow", "task=ssl_digits", "model.encoder.size=tiny", "model.projector=[16,8]",
    "task.batch_size=400", "task.bank_size=100", "task.objective.probe_epochs=2",
    "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.progress",
)  # fmt: skip


def objective(classes: int = CLASSES, **settings: Any) -> SelfSupervised:
    torch.manual_seed(0)
    encoder = partial(ResNet, classes=None, size="tiny", image_size=8, image_channels=1)
    model = BarlowTwins(encoder=encoder, projector=(12, 6))
    optimizer = partial(torch.optim.Adam, lr=0.01)
    return SelfSupervised(
        model, optimizer, Constant(), RedundancyReduction(), classes=classes, **settings
    )


def batch(rows: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, rows, 1, 8, 8, generator=generator)
    index = torch.arange(rows)
    return {"first": first, "second": second, "label": index % CLASSES, "index": index}


def step(
    task: SelfSupervised, samples: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """What a training step gives, and the gradients of all parameters."""
    task.zero_grad()
    found = task.training_step(samples, 0)
    found["loss"].backward()
    return found, {name: parameter.grad for name, parameter in task.named_parameters()}


def test_the_probe_changes_neither_the_loss_shown_nor_the_gradients_of_the_network() -> None:
    found, gradients = step(objective(), batch())
    alone, without = step(objective(classes=0), batch())
    assert torch.equal(found["loss"], alone["loss"])
    assert set(gradients) - set(without) == {"probe.weight", "probe.bias"}
    assert gradients["probe.weight"].any()  # type: ignore[union-attr]
    for name, gradient in without.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=0)
    assert "online_probe_accuracy" not in alone


def test_the_probe_is_trained() -> None:
    task, samples = objective(), batch(15)
    optimizer = torch.optim.Adam(task.probe.parameters(), lr=0.05)  # type: ignore[union-attr]
    for _ in range(40):
        found, _ = step(task, samples)
        optimizer.step()
    assert found["online_probe_accuracy"] > 0.8  # chance is a third


def test_rows_without_a_label_do_not_train_the_probe() -> None:
    samples = batch()
    few = {**samples, "label": samples["label"].where(torch.arange(8) < 5, UNLABELLED)}
    found, gradients = step(objective(), few)
    task = objective()
    with torch.no_grad():
        features = task.model(samples["first"], samples["second"]).first_features[:5]
    logits = task.probe(features)  # type: ignore[misc]
    torch.nn.functional.cross_entropy(logits, samples["label"][:5]).backward()
    torch.testing.assert_close(gradients["probe.weight"], task.probe.weight.grad)  # type: ignore[union-attr]
    hits = (logits.argmax(dim=1) == samples["label"][:5]).float().mean()
    torch.testing.assert_close(found["online_probe_accuracy"], hits)


def test_a_batch_without_any_label_has_a_finite_loss_and_leaves_the_probe() -> None:
    samples = batch()
    samples["label"] = torch.full_like(samples["label"], UNLABELLED)
    found, gradients = step(objective(), samples)
    assert found["loss"].isfinite()
    assert not gradients["probe.weight"].any()  # type: ignore[union-attr]
    assert all(g is None or g.isfinite().all() for g in gradients.values())


def test_rows_without_a_label_are_not_judged() -> None:
    task = objective().eval()
    samples = {**batch(), "image": batch()["second"]}

    class Bank:
        def scores(self, queries: Tensor) -> Tensor:
            return torch.eye(CLASSES)[torch.zeros(len(queries), dtype=torch.int64)]

    task.memory = Bank()  # type: ignore[assignment]
    with torch.no_grad():
        task._evaluate("val", samples)
        everything = task.stage_metrics("val")["knn_accuracy"].compute()
        task.stage_metrics("val")["knn_accuracy"].reset()
        zeros = {**samples, "label": samples["label"].where(samples["label"] == 0, UNLABELLED)}
        task._evaluate("val", zeros)
    assert everything == pytest.approx(3 / 8)
    assert task.stage_metrics("val")["knn_accuracy"].compute() == 1
    assert sum(len(labels) for _, labels in task.seen) == 16  # they count for the statistics


def test_details_name_every_protocol_with_its_numbers() -> None:
    details = objective(neighbours=7, temperature=0.25, probe_epochs=11).details()
    assert set(details) == {"protocols"}
    assert set(details["protocols"]) == PROTOCOLS
    assert "k = 7, weighted by exp(cosine / 0.25)" in details["protocols"]["knn_accuracy"]
    assert "11 epochs" in details["protocols"]["linear_probe_accuracy"]
    assert objective(classes=0).details() == {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    equipoise.run(*RUN, f"run_dir={folder}")
    return folder


@pytest.mark.end_to_end
def test_a_run_names_its_metrics_and_their_protocols(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["train"]) == OF_LOSS | {"online_probe_accuracy"}
    assert set(metrics["val"]) == OF_LOSS | JUDGED
    assert set(metrics["test"]) == OF_LOSS | JUDGED | {"linear_probe_accuracy"}
    assert set(metrics["details"]["protocols"]) == PROTOCOLS
    assert set(metrics["details"]["untrained_encoder"]) == PROTOCOLS - {"online_probe_accuracy"}
    for split in ("val", "test"):
        found = metrics[split]
        assert found["loss_per_feature"] == pytest.approx(found["loss"] / 8)
        assert 0.2 < found["knn_accuracy"] <= 1  # chance is 0.1
        assert -1 <= found["off_diagonal"] <= found["off_diagonal_size"] <= 1


@pytest.mark.end_to_end
def test_a_run_shows_its_correlation_and_its_features(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text()
    for name in ("correlation.png", "projection.png"):
        assert (finished / "report" / name).read_bytes().startswith(b"\x89PNG")
        assert name in page


@pytest.mark.end_to_end
def test_a_collapsed_network_is_said(finished: Path, tmp_path: Path) -> None:
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    last = [n for n in content["state_dict"] if ".stages.1.1.bn2." in n and "running" not in n]
    first = "model.encoder.stages.1.0."
    named = [first + "bn2.weight", first + "downsample.1.weight", *last]
    for name in named:  # every image gets the features that the biases leave
        content["state_dict"][name].zero_()
    content["state_dict"][first + "bn2.bias"].fill_(1.0)
    torch.save(content, tmp_path / "collapsed.ckpt")
    with pytest.warns(UserWarning, match="the embeddings are collapsing: they hardly differ"):
        metrics = equipoise.evaluate(f"ckpt_path={tmp_path / 'collapsed.ckpt'}",
                                     f"run_dir={tmp_path / 'again'}")  # fmt: skip
    assert metrics["test"]["spread"] < 1e-3

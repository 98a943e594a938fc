"""A linear classifier on frozen features, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from encoded_images import CLASSES, Data, Images, Model
from lightning.pytorch import Trainer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, distributed, multiprocessing, nn

from equipoise.errors import UserError
from equipoise.tasks.linear_probe import LinearProbe, fit_probe
from equipoise.tasks.schedules import Constant


def probe(model: nn.Module | None = None, **settings: Any) -> LinearProbe:
    optimizer = partial(torch.optim.Adam, lr=0.1)
    chosen = {"epochs": 40, "batch_size": 20, "lr": 0.05, "augment": False, **settings}
    return LinearProbe(model or Model(), optimizer, Constant(), CLASSES, **chosen)


def metrics_of(task: LinearProbe, data: Data) -> dict[str, float]:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (metrics,) = trainer.test(task, datamodule=data, verbose=False)
    return dict(metrics)


@pytest.fixture
def separable() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % CLASSES
    noise = torch.randn(90, CLASSES, generator=generator)
    return 3 * torch.eye(CLASSES)[labels] + noise / 4, labels


def test_separable_features_are_separated(separable: tuple[Tensor, Tensor]) -> None:
    features, labels = separable
    classifier = fit_probe(features, labels, CLASSES, lr=0.01)
    assert (classifier(features).argmax(dim=1) == labels).all()
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_digits_are_recognised_as_by_scikit_learn() -> None:
    digits = load_digits()
    features = torch.as_tensor(digits.data / 16).float()
    labels = torch.as_tensor(digits.target)
    train, test = slice(0, 1200), slice(1200, None)
    classifier = fit_probe(features[train], labels[train], 10, batch_size=128, lr=0.01)
    ours = float((classifier(features[test]).argmax(dim=1) == labels[test]).double().mean())
    peer = LogisticRegression(max_iter=1000).fit(features[train], labels[train])
    assert abs(ours - peer.score(features[test], labels[test])) < 0.01


def test_the_seed_alone_decides(separable: tuple[Tensor, Tensor]) -> None:
    before = torch.get_rng_state()
    fitted = [fit_probe(*separable, CLASSES, epochs=2, batch_size=7, seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(fitted[0].weight, fitted[1].weight)
    assert not torch.equal(fitted[0].weight, fitted[2].weight)


def test_features_of_half_precision_will_do(separable: tuple[Tensor, Tensor]) -> None:
    features, labels = separable
    classifier = fit_probe(features.half(), labels, CLASSES, lr=0.01)
    assert classifier.weight.dtype == torch.float32
    assert (classifier(features).argmax(dim=1) == labels).all()


def test_missing_classes_and_constant_features_are_no_obstacle(
    separable: tuple[Tensor, Tensor],
) -> None:
    features, labels = separable
    classifier = fit_probe(features, labels, CLASSES + 2, lr=0.01)
    assert (classifier(features).argmax(dim=1) == labels).all()
    alone = fit_probe(features, torch.ones(90, dtype=torch.int64), CLASSES, lr=0.01)
    assert (alone(features).argmax(dim=1) == 1).all()
    constant = fit_probe(torch.ones(90, 4), torch.cat([labels[:60], labels[:30] * 0]), CLASSES)
    assert constant(torch.ones(1, 4)).argmax() == 0


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "there are none"),
        (torch.ones(2, 2), torch.tensor([0, 3]), "cannot use the labels 0 to 3"),
        (torch.ones(2, 2), torch.tensor([-1, 0]), "cannot use the labels -1 to 0"),
        (torch.tensor([[1.0], [float("nan")]]), torch.tensor([0, 1]), "features are not finite"),
        (torch.tensor([[1.0], [float("inf")]]), torch.tensor([0, 1]), "features are not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_probe(features, labels, CLASSES)


@pytest.mark.parametrize("batch_norm", ["frozen", "published"])
@pytest.mark.parametrize("augment", [False, True])
def test_the_model_is_left_as_it_was(batch_norm: Any, augment: bool) -> None:
    task = probe(batch_norm=batch_norm, augment=augment)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    assert metrics_of(task, Data())["test/accuracy"] > 0.9
    after = task.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.requires_grad for parameter in task.model.parameters())
    assert task.fitted is None


def test_features_are_computed_once_unless_something_changes_them() -> None:
    for settings, once in (
        ({}, True),
        ({"augment": True}, False),
        ({"batch_norm": "published"}, False),
    ):
        data = Data()
        metrics_of(probe(epochs=3, **settings), data)
        assert data.train.epochs == ([0] * 3 if once else [0] * 3 + [1] * 3 + [2] * 3), settings


def test_published_batch_norms_take_the_statistics_of_the_batches() -> None:
    kept: dict[str, Any] = {}

    class Kept(LinearProbe):
        def on_test_end(self) -> None:
            assert self.fitted is not None
            kept[self.batch_norm] = self.fitted[0]

    for batch_norm in ("frozen", "published"):
        task = probe(batch_norm=batch_norm, epochs=30)
        task.__class__ = Kept
        metrics_of(task, Data())
    assert kept["frozen"].modes == {False}
    assert kept["published"].modes == {True, False}  # those of the training, of the test
    assert not kept["frozen"].layers[2].running_mean.any()
    inputs = kept["published"].layers[:2](Images(60).images)
    found = kept["published"].layers[2].running_mean
    torch.testing.assert_close(found, inputs.mean(dim=0), rtol=0.1, atol=0.1)


def test_a_checkpoint_with_more_than_the_model_is_loaded() -> None:
    task = probe()
    state = {name: tensor + 1 for name, tensor in task.state_dict().items()}
    task.load_state_dict({**state, "online_probe.weight": torch.ones(2)})
    assert all(torch.equal(tensor, state[name]) for name, tensor in task.state_dict().items())
    state.pop("model.encoder.layers.1.weight")
    with pytest.raises(UserError, match="does not fit"):
        task.load_state_dict(state)


def test_the_protocol_is_told() -> None:
    assert probe(augment=True, batch_norm="published").details()["protocol"] == (
        "offline linear probe on the frozen encoder, its batch norms with the statistics of each "
        "batch while the classifier is trained, and with the resulting running statistics in the "
        "test; Adam with a rate of 0.05 and a weight decay of 1e-06, 40 epochs in batches of 20, "
        "training images augmented anew in each epoch"
    )


def test_an_interruption_passes_through() -> None:
    class Interrupting(Data):
        def labelled_dataloader(self, *, augment: bool, batch_size: int) -> Any:
            def stop() -> Iterator[dict[str, Tensor]]:
                raise KeyboardInterrupt
                yield

            class Loader:
                go_to: Callable[[int, int], None] = staticmethod(lambda epoch, batch: None)
                __len__ = staticmethod(lambda: 1)
                __iter__ = staticmethod(stop)

            return Loader()

    task = probe()
    task.trainer = SimpleNamespace(datamodule=Interrupting(), world_size=1)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        task.on_test_start()


def test_other_data_and_models_are_refused() -> None:
    unlabelled = Data()
    unlabelled.labelled = False
    with pytest.raises(UserError, match="these data have none"):
        metrics_of(probe(), unlabelled)
    with pytest.raises(UserError, match="a model with an encoder, which Linear does not have"):
        metrics_of(probe(nn.Linear(2, 2)), Data())
    with pytest.raises(UserError, match=r"python evaluate\.py"):
        probe().training_step({}, 0)


def work(rank: int, folder: str) -> None:
    """One of two processes, each with half of the training samples."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(fitted_weights(world_size=2), f"{folder}/{rank}.pt")
    distributed.barrier()  # a process that leaves first would cut the other's connection
    distributed.destroy_process_group()


def fitted_weights(world_size: int) -> dict[str, Tensor]:
    """The classifier after steps on all samples, and the statistics of the published encoder."""
    found = {}
    for batch_norm, augment in (("frozen", False), ("frozen", True), ("published", True)):
        task = probe(batch_norm=batch_norm, augment=augment, batch_size=60)
        precision = Trainer(accelerator="cpu", logger=False, barebones=True).precision_plugin
        task.trainer = SimpleNamespace(  # type: ignore[assignment]
            datamodule=Data(), world_size=world_size, precision_plugin=precision
        )
        task.on_test_start()
        assert task.fitted is not None
        encoder, classifier = task.fitted
        found[f"{batch_norm} {augment}"] = classifier.weight
        found[f"{batch_norm} {augment} mean"] = encoder.layers[2].running_mean
    return found


@pytest.mark.slow
def test_two_processes_fit_what_one_fits(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = fitted_weights(world_size=1)
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        if name != "published True":  # whose batch norms take the statistics of half a batch
            torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-4)

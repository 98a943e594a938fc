"""How well a linear classifier does on the features of a frozen encoder.

Source: the protocol of the code of Tsai et al. 2021 (arXiv 2104.13712): Adam with a constant rate,
on features that are not normalised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from tqdm import tqdm

from equipoise.errors import UserError
from equipoise.tasks.classification import stage_metrics
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

progress = partial(tqdm, delay=2.0, leave=False, disable=None)
"""A progress bar, on a terminal, for work that takes more than two seconds."""
NORMS = {
    "frozen": "its batch norms as they were trained",
    "published": "its batch norms with the statistics of each batch while the classifier is "
    "trained, and with the resulting running statistics in the test",
}

Samples = tuple[Tensor, Tensor]
"""Features (B, h) and labels (B,) of a batch."""
Epochs = Callable[[int], Iterable[Samples]]
"""The batches of an epoch."""


def fit_probe(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    epochs: int = 200,
    batch_size: int = 512,
    lr: float = 1e-3,
    weight_decay: float = 1e-6,
    seed: int = 0,
) -> nn.Linear:
    """Train a linear classifier on features (M, h) with labels (M,), by Adam, on their device.

    The order of the samples and the first weights are drawn from `seed` alone; the last batch of an
    epoch may be smaller. Raises UserError if there are no samples, a label is not a class, or
    features are not finite.
    """
    _check_labels(labels, classes)
    generator = torch.Generator().manual_seed(seed)
    classifier = _new_classifier(features.shape[1], classes, generator).to(features.device)
    batches = partial(_shuffled, features.detach().float(), labels, batch_size, generator)
    steps = epochs * -(-len(labels) // batch_size)
    return _descend(classifier, batches, epochs, steps, (lr, weight_decay))


def _check_labels(labels: Tensor, classes: int) -> None:
    if not len(labels):
        raise UserError("a linear probe needs labelled training samples, and there are none")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(
            f"a linear probe of {classes} classes cannot use the labels {int(labels.min())} to "
            f"{int(labels.max())}: they have to be 0 to {classes - 1}"
        )


def _new_classifier(features: int, classes: int, generator: torch.Generator) -> nn.Linear:
    """A classifier initialised as by torch, but from `generator` instead of the global one."""
    classifier = nn.utils.skip_init(nn.Linear, features, classes)
    for parameter in classifier.parameters():
        nn.init.uniform_(parameter, -(features**-0.5), features**-0.5, generator=generator)
    return classifier


def _shuffled(
    features: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator, epoch: int
) -> Iterator[Samples]:
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for rows in order.split(batch_size):
        yield features[rows], labels[rows]


def _descend(
    classifier: nn.Linear, batches: Epochs, epochs: int, steps: int,
    adam: tuple[float, float], ranks: int = 1,
) -> nn.Linear:  # fmt: skip
    """Train the classifier, with the mean gradient of all `ranks`; shows its progress.

    adam: the rate and the weight decay.
    """
    optimizer = torch.optim.Adam(classifier.parameters(), lr=adam[0], weight_decay=adam[1])
    samples = (batch for epoch in range(epochs) for batch in batches(epoch))
    for features, labels in progress(samples, desc="Linear probe", total=steps):
        optimizer.zero_grad()
        functional.cross_entropy(classifier(features), labels).backward()
        gradients = [p.grad for p in classifier.parameters() if p.grad is not None]
        _average(gradients, ranks)
        _refuse_infinite(gradients)
        optimizer.step()
    return classifier.requires_grad_(False)


def _refuse_infinite(gradients: Sequence[Tensor]) -> None:
    """Raise UserError on all ranks if the features of any rank were not finite."""
    if not all(gradient.isfinite().all() for gradient in gradients):
        raise UserError(
            "a linear probe cannot be trained, because the encoder's features are not finite: use "
            "an earlier checkpoint, from before the training diverged"
        )


def _average(tensors: Iterable[Tensor], ranks: int) -> None:
    """Replace tensors by their means over the ranks."""
    for tensor in tensors if ranks > 1 else ():
        distributed.all_reduce(tensor)
        tensor.div_(ranks)


class LinearProbe(Objective):
    """Trains a linear classifier on the frozen encoder of a checkpoint's model, and tests it.

    `model.encoder` maps images (B, C, H, W) to features (B, h). The data module's
    `labelled_dataloader` yields the training samples. Metrics: loss, and accuracy from 0 to 1.

    batch_size: samples per step, over all processes. lr, weight_decay: of Adam. batch_norm:
    "frozen", or "published": in the published code the encoder's batch norms remain in training
    mode. augment: augment the training images anew in each epoch; without it, and with frozen
    batch norms, the features are computed once and held in memory. The model itself does not
    change: the classifier is fitted on a copy. `make_optimizer` and `schedule` belong to the
    training of the encoder and are not used.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        classes: int,
        epochs: int = 200,
        batch_size: int = 512,
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        batch_norm: Literal["frozen", "published"] = "frozen",
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        self.classes = classes
        self.epochs = epochs
        self.batch_size = batch_size
        self.adam = lr, weight_decay
        self.batch_norm = batch_norm
        self.augment = augment
        self.seed = seed
        self.fitted: tuple[Any, nn.Linear] | None = None  # the frozen encoder, its classifier
        self.metrics.update({stage: stage_metrics(classes) for stage in ("val", "test")})

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the model's weights, and ignore what else its training objective has stored."""
        ours = {k: v for k, v in state_dict.items() if k.startswith("model.")}
        return super().load_state_dict(ours, strict=strict, assign=assign)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> dict[str, Tensor]:
        """Raises UserError: the encoder is not trained."""
        raise UserError(
            "a linear probe evaluates a trained encoder: python evaluate.py "
            "ckpt_path=<run>/checkpoints/best.ckpt task=linear_probe"
        )

    def on_test_start(self) -> None:
        """Train the classifier; raises UserError where it cannot be trained."""
        original = getattr(self.model, "encoder", None)
        if original is None:
            raise UserError(
                f"a linear probe needs a model with an encoder, which {type(self.model).__name__} "
                "does not have: use the checkpoint of a self-supervised run"
            )
        with torch.inference_mode(False), torch.enable_grad():
            encoder = copy.deepcopy(original).requires_grad_(False)
            generator = torch.Generator().manual_seed(self.seed)
            classifier = _new_classifier(encoder.features, self.classes, generator)
            self.fitted = encoder, classifier.to(self.device)
            self._fit(*self.fitted, generator)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Update the test metrics."""
        assert self.fitted is not None
        encoder, classifier = self.fitted
        features = encoder(batch["image"]).float()
        with torch.autocast(self.device.type, enabled=False):
            logits = classifier(features)
        metrics = self.stage_metrics("test")
        metrics["accuracy"].update(logits, batch["label"])
        metrics["loss"].update(functional.cross_entropy(logits, batch["label"], reduction="none"))

    def on_test_end(self) -> None:
        """Release the copy of the encoder."""
        self.fitted = None

    def details(self) -> dict[str, Any]:
        """How the accuracy was measured, in words."""
        pictures = "augmented anew in each epoch" if self.augment else "not augmented"
        return {
            "protocol": f"offline linear probe on the frozen encoder, {NORMS[self.batch_norm]}; "
            "Adam with a rate of {:g} and a weight decay of {:g}, ".format(*self.adam)
            + f"{self.epochs} epochs in batches of {self.batch_size}, training images {pictures}"
        }

    def _fit(self, encoder: Any, classifier: nn.Linear, generator: torch.Generator) -> None:
        """Train the classifier; features that never change are computed only once."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not getattr(data, "labelled", True):
            raise UserError("a linear probe needs labels, and these data have none")
        ranks = self.trainer.world_size
        per_rank = max(1, self.batch_size // ranks)
        loader = data.labelled_dataloader(augment=self.augment, batch_size=per_rank)
        batches: Epochs = partial(self._epoch, loader, encoder)
        encoder.train(self.batch_norm == "published")
        if not self.augment and self.batch_norm == "frozen":
            read = progress(batches(0), desc="Features", total=len(loader))
            features, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
            batches = partial(_shuffled, features, labels, per_rank, generator)
        steps = self.epochs * len(loader)
        _descend(classifier, batches, self.epochs, steps, self.adam, ranks)
        loader.shut_down()
        encoder.eval()
        _average((b for b in encoder.buffers() if b.is_floating_point()), ranks)

    def _epoch(self, loader: Any, encoder: nn.Module, epoch: int) -> Iterator[Samples]:
        """The features of every batch."""
        loader.go_to(epoch, 0)
        for batch in loader:
            labels = batch["label"].to(self.device)
            _check_labels(labels, self.classes)
            plugin = self.trainer.precision_plugin
            images = plugin.convert_input(batch["image"].to(self.device, non_blocking=True))
            with torch.no_grad(), plugin.forward_context():
                features = encoder(images)
            yield features.float(), labels

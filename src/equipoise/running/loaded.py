"""A trained model for use in any program: network, preprocessing, configuration and names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.config.about import about
from equipoise.config.signatures import locate
from equipoise.data.images.picture_sources import GivenPictures, PictureBatches, of_one_shape
from equipoise.data.images.pictures import Picture, as_list, as_pixels
from equipoise.data.sampling import BatchIndex, OrderedIndices, Shard
from equipoise.errors import UserError
from equipoise.running.build import instantiate, restored_task
from equipoise.running.parts import Restoring
from equipoise.running.prediction import Batch, SampleConvergence, outputs
from equipoise.running.run_checkpoint import StoredRun, read_run, restored
from equipoise.running.surroundings import data_is_there

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N pictures; None for anything that the network does not predict.

    labels: int64 (N,), and `names` of these classes. probabilities: (N, classes). masks: for each
    picture the class of every pixel, uint8 (H, W). features: (N, h). residual, converged: (N,), how
    close each sample came to its equilibrium.
    """

    labels: Tensor | None = None
    names: list[str] | None = None
    probabilities: Tensor | None = None
    masks: list[Tensor] | None = None
    features: Tensor | None = None
    residual: Tensor | None = None
    converged: Tensor | None = None


class Loaded(nn.Module):
    """The network of a checkpoint in evaluation mode, with everything needed to use it.

    task: the objective around the network, with all weights. Calling it calls the network.
    """

    def __init__(self, task: nn.Module, checkpoint: StoredRun, device: torch.device) -> None:
        super().__init__()
        self.task: Any = task
        self.config: dict[str, Any] = checkpoint.run.config
        self.choices: dict[str, str] = checkpoint.run.choices
        self.path: Path = checkpoint.run.path
        self.stored_names: list[str] | None = checkpoint.content.get("class_names")
        self.convergence = SampleConvergence(task)
        self.device = device
        self.eval()

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """The network's output."""
        return self.network(*inputs, **settings)

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.task.model
        return network

    @cached_property
    def data(self) -> Any:
        """The data module of the run, which has read nothing yet."""
        node = {key: value for key, value in self.config["task"].items() if key != "objective"}
        return instantiate("task", node)

    @cached_property
    def class_names(self) -> list[str]:
        """The names of the classes from the checkpoint or else the data, else their numbers.

        Empty if the network has no classes.
        """
        names = self.stored_names or self._names_of_data()
        outputs = max(self._count(key) for key in ("classes", "mask_classes"))
        return [*names, *(str(number) for number in range(len(names), outputs))]

    @property
    def label_names(self) -> list[str]:
        """The names of the classes of whole pictures, if the classes of masks are others."""
        names: list[str] = getattr(self.data, "label_names", self.class_names)
        return names

    def preprocess(self, picture: Picture) -> Tensor:
        """The network's input for a picture in evaluation, float32 (C, H, W), on the CPU.

        picture: a path, a PIL image, or uint8 numbers (`as_pixels`). Raises UserError where it
        cannot be read, or the network does not take pictures.
        """
        return self.seen(as_pixels(picture))

    def seen(self, pixels: Tensor) -> Tensor:
        """The same of pixels, uint8 (1 or 3, H, W)."""
        if not hasattr(self.data, "preprocess"):
            raise UserError(
                f"{self.path} is of task={self.choices['task']}, whose network reads no pictures: "
                "python -m equipoise predict --help says what it can be used for"
            )
        seen: Tensor = self.data.preprocess(pixels)
        return seen

    @property
    def channels(self) -> int:
        """Channels of the pictures that the network takes; 3 where it takes none."""
        preprocessing = getattr(self.data, "preprocessing", None)
        return 3 if preprocessing is None else len(preprocessing.normalization.mean)

    @property
    def batch_size(self) -> int:
        """The batch size of the task's test."""
        task = self.config["task"]
        return int(task.get("eval_batch_size") or task["batch_size"])

    def predict(self, pictures: Any, batch_size: int | None = None) -> Predictions:
        """The predictions for pictures, in their order.

        pictures: one or a list of paths, PIL images, uint8 arrays or tensors; a stack (N, ...) of
        these; or a folder. batch_size: by default that of the task's test, so that the same
        pictures in the same order give the same bits. Raises UserError.
        """
        source = GivenPictures(as_list(pictures, self.channels))
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"batch_size={batch_size} must be 1 or more")
        content = PictureBatches(source, self.seen)
        order = OrderedIndices(len(source), size, Shard()).batches()
        batches = (content[BatchIndex(0, rows)] for rows in order)
        parts, masks = list[Batch](), list[Tensor]()
        for batch, found in self.steps(batches, len(source)):
            masks += self.masks_of(batch, found)
            parts.append(found)
        return self._joined(parts, masks)

    def steps(self, batches: Iterable[Batch], total: int) -> Iterator[tuple[Batch, Batch]]:
        """The task's predictions for batches, and how near their samples came to their equilibria.

        Yields each batch, possibly in several parts, with {name: (B, ...)} on the
        CPU; the names depend on the task. total: number of samples in all batches. Raises UserError
        where a batch does not fit into memory, or the network refuses it.
        """

        def compute(batch: Batch) -> Batch:
            self.convergence.reports.clear()
            with self.arithmetic():
                found: Batch = self.task.predict_step(batch, 0)
            return found | self.convergence.take(len(batch["index"]))

        parts = (part for batch in batches for part in of_one_shape(batch))
        for batch, found in outputs(compute, parts, self.device, total=total, unit="sample"):
            yield batch, {name: value.cpu() for name, value in found.items()}

    def masks_of(self, batch: Batch, found: Batch) -> list[Tensor]:
        """Take the masks out of the predictions: uint8 (H, W), each of its picture's own size."""
        if (masks := found.pop("mask", None)) is None:
            return []
        kind = masks.to(torch.uint8)
        sizes = batch["size"].tolist() if "size" in batch else [mask.shape for mask in kind]
        return [self.data.mask_at(mask, size) for mask, size in zip(kind, sizes, strict=True)]

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of the run's own evaluation."""
        kind = AUTOCAST.get(str(self.config["trainer"].get("precision")))
        if kind is None or (kind == torch.float16 and self.device.type == "cpu"):
            return nullcontext()
        return torch.autocast(self.device.type, kind)

    def _joined(self, parts: Sequence[Batch], masks: list[Tensor]) -> Predictions:
        values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        labels = values["probabilities"].argmax(dim=1) if "probabilities" in values else None
        names = None if labels is None else [self.label_names[k] for k in labels.tolist()]
        return Predictions(labels=labels, names=names, masks=masks or None, **values)

    def _count(self, key: str) -> int:
        value = self.config["task"].get(key)
        return value if isinstance(value, int) else 0

    def _names_of_data(self) -> list[str]:
        """Names of classes from the data if they are on this machine; a hub is not asked."""
        task = self.config["task"]
        if about(task, "from_hub", False) or not data_is_there(task):
            return []
        if not hasattr(self.data, "class_names"):
            return []
        self.data.setup("test")
        return list(self.data.class_names)


def load(path: str | Path, device: str | None = None, trust: Sequence[str] = ()) -> Loaded:
    """The model of a run, of one of its checkpoints, or of an exported folder, ready for use.

    path: a checkpoint, a run's folder (its best.ckpt, or else its last.ckpt), or a folder that
    `python -m equipoise export` wrote. device: by default a GPU if there is one. trust: packages of
    your own whose classes the checkpoint may name. Raises UserError if it cannot be used.
    """
    return loaded(read_run(path), device, trust)


def loaded(checkpoint: StoredRun, device: str | None, trust: Sequence[str]) -> Loaded:
    """The same for a checkpoint that has already been read."""
    if not about(checkpoint.run.config["model"], "weights", True):
        raise UserError(
            f"{checkpoint.run.path} is of task={checkpoint.task}, which has no network to load: "
            "answer queries with python -m equipoise query"
        )
    task, place = restored(restored_task, checkpoint, device, trust)
    restore_layers(task, checkpoint)
    return Loaded(task, checkpoint, place)


def restore_layers(task: nn.Module, checkpoint: StoredRun) -> None:
    """Put the layers into the state that the checkpoint was saved in, as an evaluation does."""
    config = checkpoint.run.config
    for key, node in config["callbacks"].items():
        if node and hasattr(locate(f"callbacks.{key}", str(node["_target_"])), "restore"):
            callback = instantiate(f"callbacks.{key}", node)
            if isinstance(callback, Restoring):
                callback.restore(task, checkpoint.content, config)  # type: ignore[arg-type]

"""What the data modules of several modalities share: three streams of features, and one label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.module import SplitDataModule, SplitName, shard_of
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError

MODALITIES = ("language", "audio", "vision")


@dataclass(frozen=True, eq=False)
class MultimodalSamples:
    """The samples of a split: a stream of features for each modality, and the labels.

    streams: float32 (N, T, F), with T and F of the modality; a sample with fewer steps begins with
    rows of zeros. They may be in a file mapped into memory, since a batch takes only its own rows.
    labels: float32 (N,), or int64 (N, emotions).
    """

    streams: Mapping[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __getitem__(self, index: BatchIndex) -> Batch:
        """The samples of the rows in `index`."""
        streams = {
            name: stream.index_select(0, index.rows) for name, stream in self.streams.items()
        }
        return {
            **streams,
            "label": self.labels.index_select(0, index.rows),
            "index": index.rows,
        }


@dataclass(kw_only=True, eq=False)
class MultimodalDataModule(SplitDataModule, ABC):
    """Samples of language, audio and vision, whose steps need not be aligned.

    A batch is {"language", "audio", "vision": float32 (B, T, F), "label": (B,) or (B, emotions),
    "index": int64 (B,)}. `features` and `lengths` are the widths and the steps of the three, in
    that order; None: those of the data. emotions: how many a label has; 0 for a sentiment score.
    """

    emotions: ClassVar[int] = 0

    features: Sequence[int] | None = None
    lengths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        self._shown = False

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Steps and width of each modality; raises UserError if the data are not available."""

    @abstractmethod
    def read_split(self, name: SplitName) -> MultimodalSamples:
        """Read one split; raises UserError when it cannot be had."""

    def inspect(self) -> dict[str, Any]:
        """The widths and the steps of the three modalities.

        Raises UserError if they differ from those of the configuration, for example a checkpoint's.
        """
        shapes = self.shapes()
        found = {
            "features": [shapes[name][1] for name in MODALITIES],
            "lengths": [shapes[name][0] for name in MODALITIES],
        }
        for key, numbers in found.items():
            wanted = getattr(self, key)
            if wanted is not None and list(wanted) != numbers:
                raise UserError(
                    f"task.{key}={list(wanted)} is not what the data has, {numbers} of "
                    f"{', '.join(MODALITIES)}: set task.{key}=null, or give the data that the "
                    "model was trained on"
                )
        return found

    def check_model(self, model: object) -> None:
        """Raise UserError if the network is made for other widths or labels than these."""
        widths, wanted = self.inspect()["features"], getattr(model, "features", None)
        if wanted is not None and list(wanted) != widths:
            raise UserError(
                f"the model reads {list(wanted)} features of {', '.join(MODALITIES)}, but the data "
                f"has {widths}: give the data that it was trained on, or train again"
            )
        outputs, needed = getattr(model, "outputs", None), 2 * self.emotions or 1
        if outputs is not None and outputs != needed:
            labels = f"{self.emotions} emotions need" if self.emotions else "a sentiment needs"
            raise UserError(
                f"the model has {outputs} outputs, and {labels} {needed}: set task.outputs={needed}"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the splits of a stage, and print once how large the streams are."""
        super().setup(stage)
        if not self._shown and shard_of(self).rank == 0:
            print(self.described(), flush=True)
            self._shown = True

    def described(self) -> str:
        """The sizes in words: "language 50 x 300, ..."."""
        sizes = [f"{name} {steps} x {width}" for name, (steps, width) in self.shapes().items()]
        return f"{', '.join(sizes)} (steps x features)"

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        if name not in self.splits:
            self.splits[name] = self.read_split(name)
        return {
            "samples": len(self.splits[name]),
            "streams": {n: f"{t} x {f}" for n, (t, f) in self.shapes().items()},
        }

"""Pictures: their classes, masks or features, of files or of a split of the run's own data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equipoise.commands.predict.job import Job
from equipoise.commands.predict.masks import MaskFolder, mask_folder
from equipoise.commands.predict.samples import split_batches
from equipoise.commands.predict.table import Column, Table, whole_table
from equipoise.data.images.picture_sources import PictureBatches, Pictures, opened_pictures
from equipoise.data.loading import Batch, BatchLoader
from equipoise.data.sampling import OrderedIndices, Shard
from equipoise.errors import UserError
from equipoise.report.plot import visible
from equipoise.running.loaded import Loaded, loaded

SETTINGS = frozenset({"split", "top", "damaged", "overlays", "workers"})
MOST_CLASSES = 100
"""Most classes that get a column each, unless `top` says otherwise."""
FEW = 5
MOST_WORKERS = 8
WHITE = 255


@dataclass
class Source:
    """Batches of pictures, the name of a row, and its picture: uint8 RGB (3, H, W).

    damaged: returns the rows that were left out, once all batches are read.
    """

    batches: Iterable[Batch]
    size: int
    column: str
    describe: Callable[[int], str]
    look: Callable[[Batch, int], Tensor]
    damaged: Callable[[], Sequence[str]] = field(default=list[str])


def predict(job: Job) -> str:
    """Write the network's predictions for the pictures, and return a line that sums them up.

    Raises UserError where the pictures cannot be read, or the network does not take pictures.
    """
    request = job.request
    model = loaded(job.checkpoint, request.device, request.trust)
    source = of_split(job, model) if request.split else of_files(job, model)
    with ExitStack() as stack:
        table = stack.enter_context(whole_table(job.target, request.overwrite))
        masks: MaskFolder | None = None
        for batch, found in model.steps(source.batches, source.size):
            drawn = model.masks_of(batch, found)
            if drawn and masks is None:
                masks = stack.enter_context(mask_folder(job, model.data, model.class_names))
            names = [source.describe(row) for row in batch["index"].tolist()]
            columns: dict[str, Column] = {source.column: names}
            columns |= columns_of(batch, found, model, request.top, table.one_column)
            if masks is not None:
                looks = (source.look(batch, place) for place in range(len(names)))
                columns |= masks.add(names, drawn, looks)
            table.add({**columns, **last_columns(found)})
        refuse_nothing(table, source)
    return ", ".join(described(table, source))


def columns_of(
    batch: Batch, found: Batch, model: Loaded, top: int | None, one_column: bool
) -> dict[str, Column]:
    """The columns of classes and features, and of the true class where the data have it."""
    columns: dict[str, Column] = {}
    if (labels := batch.get("label")) is not None:
        columns["target"] = [model.label_names[k] if k >= 0 else "" for k in labels.tolist()]
    if (probabilities := found.get("probabilities")) is not None:
        columns |= class_columns(probabilities, model.label_names, top, one_column)
    return columns | ({"feature": found["features"]} if "features" in found else {})


def class_columns(
    probabilities: Tensor, names: Sequence[str], top: int | None, one_column: bool = False
) -> dict[str, Column]:
    """The likeliest class with its probability; then every class, or the rest of the `top` first.

    probabilities: (B, classes), possibly a single column. Raises UserError where there are fewer
    classes than `top`.
    """
    classes = probabilities.shape[1]
    if top is not None and top > classes:
        raise UserError(f"predict: top={top} is more than the {classes} classes")
    every = top is None and classes <= MOST_CLASSES
    best, places = probabilities.topk(1 if every else top or FEW, dim=1)
    columns: dict[str, Column] = {}
    for place in range(best.shape[1]):
        mark = f"_{place + 1}" if place else ""
        columns[f"label{mark}"] = [names[k] for k in places[:, place].tolist()]
        columns[f"probability{mark}"] = best[:, place]
    if every and one_column:
        columns["probabilities"] = probabilities
    elif every:
        columns |= {f"probability of {names[k]}": probabilities[:, k] for k in range(classes)}
    return columns


def last_columns(found: Batch) -> dict[str, Column]:
    """How near the samples came to their equilibria; empty for a model without any."""
    return {name: found[name] for name in ("residual", "converged") if name in found}


def of_files(job: Job, model: Loaded) -> Source:
    """The pictures of files and folders, in the order of the words, then of their names."""
    request, pictures = job.request, opened_pictures(job.files)
    content = PictureBatches(pictures, model.seen, request.damaged == "skip")
    read: list[int] = []
    order = OrderedIndices(len(pictures), request.batch_size or model.batch_size, Shard())
    loader = BatchLoader(content, order, seed=0, num_workers=workers_for(job, model.device))

    def batches() -> Iterator[Batch]:
        try:
            for batch in loader:
                read.extend(batch["index"].int().tolist())
                yield batch
        finally:
            loader.shut_down()

    return Source(
        batches(),
        len(pictures),
        "file",
        pictures.describe,
        lambda batch, place: pictures.pixels(int(batch["index"][place])),
        lambda: list(damaged(pictures, set(read))),
    )


def of_split(job: Job, model: Loaded) -> Source:
    """The pictures of a split of the run's own data."""
    if job.files:
        raise UserError(f"predict: split= reads the run's own data: leave out {job.files[0]}")
    batches, size = split_batches(model, str(job.request.split), job.request.batch_size)

    def look(batch: Batch, place: int) -> Tensor:
        return (visible(batch["image"][place].cpu()) * WHITE).to(torch.uint8).permute(2, 0, 1)

    return Source(batches, size, "row", str, look)


def damaged(pictures: Pictures, read: set[int]) -> Iterator[str]:
    """The pictures that were left out, each with a warning that says why."""
    for row in sorted(set(range(len(pictures))) - read):
        try:
            pictures.pixels(row)
        except UserError as error:
            print(f"warning: left out: {error}", file=sys.stderr)
        yield pictures.describe(row)


def workers_for(job: Job, device: torch.device) -> int:
    """How many processes decode pictures."""
    workers = job.request.workers
    if workers is None:
        return min(MOST_WORKERS, os.cpu_count() or 1) if device.type != "cpu" else 0
    if workers < 0:
        raise UserError(f"predict: workers={workers} must be 0 or more")
    return workers


def refuse_nothing(table: Table, source: Source) -> None:
    """Raise UserError where every picture is damaged."""
    if table.rows == 0:
        (first, *_) = source.damaged()
        raise UserError(f"all {source.size} pictures are damaged, the first of them {first}")


def described(table: Table, source: Source) -> Iterator[str]:
    """How many pictures were read and left out, and how near they came to their equilibria."""
    yield f"{table.rows:,} picture{'s' if table.rows > 1 else ''}"
    if left_out := source.damaged():
        yield f"{len(left_out):,} damaged left out"
    if (convergence := table.convergence()) is not None:
        yield convergence

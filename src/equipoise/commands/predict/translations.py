"""Translations of a file with one sentence a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tqdm import tqdm

from equipoise.commands import translate
from equipoise.commands.predict.job import Job
from equipoise.commands.predict.table import whole_table
from equipoise.running.prediction import PROGRESS_AFTER_SECONDS, Convergence

if TYPE_CHECKING:
    from torch import nn

SETTINGS = frozenset({"beam", "length_penalty"})


def predict(job: Job) -> str:
    """Write each line with its translation; returns a sentence that counts them.

    Raises UserError where the file cannot be read, or a sentence is too long.
    """
    request, file = job.request, job.only_file("of sentences, one a line")
    size = request.batch_size or translate.Request.batch_size
    settings = translate.Request(
        str(job.checkpoint.run.path), request.device, request.trust, request.beam,
        request.length_penalty, size,
    )  # fmt: skip
    lines = translate.lines_of(file)
    translator = translate.restore(settings)
    convergence = Convergence(cast("nn.Module", translator.model))
    with (
        whole_table(job.target, request.overwrite) as table,
        tqdm(total=len(lines), desc="translations", unit="line", leave=False,
             delay=PROGRESS_AFTER_SECONDS, disable=None) as progress,
    ):  # fmt: skip
        for begin in range(0, len(lines), size):
            batch = lines[begin : begin + size]
            texts = list(translator(batch))
            numbers = [line.number for line in batch]
            sources = [line.text for line in batch]
            table.add({"line": numbers, "source": sources, "translation": texts})
            progress.update(len(batch))
    said = [f"{table.rows:,} lines, {translator.tokens:,} tokens", convergence.described()]
    return ", ".join(part for part in said if part)

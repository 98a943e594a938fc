"""The probability that a language model gives to each token of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.commands.predict.job import Job
from equipoise.commands.predict.table import Column, whole_table
from equipoise.commands.stored_model import check_kind
from equipoise.data.loading import Batch
from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.text.files import read_utf8
from equipoise.data.text.module import SegmentIndices, TextSegments
from equipoise.data.text.vocabulary import BOUNDARY, Vocabulary, vocabulary_from_state
from equipoise.errors import UserError
from equipoise.running.loaded import Loaded, loaded
from equipoise.tasks.token_prediction import memory_length

SETTINGS = frozenset[str]()


def predict(job: Job) -> str:
    """Write each token of a text with its probability; returns a line that sums them up.

    The text is read as in the test: in as many streams, with as much memory. Raises
    UserError where the text cannot be used.
    """
    if not job.checkpoint.state.get("vocabulary"):
        raise UserError(
            f"predict reads texts for a language model, but task={job.checkpoint.task} has no "
            "vocabulary: use python evaluate.py"
        )
    check_kind("generate", job.checkpoint)
    file = job.only_file("of text")
    text = read_utf8(file)
    model = loaded(job.checkpoint, job.request.device, job.request.trust)
    vocabulary = vocabulary_from_state(job.checkpoint.state["vocabulary"])
    tokens, unknown = vocabulary.encode(text)
    if len(tokens) < 2:
        raise UserError(
            f"{file} has {len(tokens)} tokens: the first one is not predicted, so give more"
        )
    with whole_table(job.target, job.request.overwrite) as table:
        found = read(model, tokens, job.request.batch_size)
        table.add(columns_of(found, tokens, vocabulary))
    said = [described(found["log_probability"], len(text), unknown), table.convergence()]
    return ", ".join(part for part in said if part)


def read(model: Loaded, tokens: Tensor, batch_size: int | None) -> Batch:
    """The model's results for each token (N,) but the first: {name: (N - 1,)}.

    The residual of a token is that of its segment, whose tokens are solved together.
    """
    task = model.config["task"]
    length = int(task.get("eval_segment_length") or task["segment_length"])
    most = max((len(tokens) - 1) // length, 1)
    segments = TextSegments(tokens, min(batch_size or model.batch_size, most), length)
    order = SegmentIndices(segments.streams, segments.segments, Shard()).batches()
    batches = (segments[BatchIndex(0, rows)] for rows in order)
    with memory_length(model.network, task.get("eval_memory_length")):
        parts = list(_of_tokens(model, batches, len(segments)))
    return {
        name: torch.cat([part[name] for part in parts], dim=1).flatten()[: len(tokens) - 1]
        for name in parts[0]
    }


def _of_tokens(model: Loaded, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
    for _, found in model.steps(batches, total):
        shape = found["log_probability"].shape
        yield {n: v if v.ndim == 2 else v.unsqueeze(1).expand(shape) for n, v in found.items()}


def columns_of(
    found: Mapping[str, Tensor], tokens: Tensor, vocabulary: Vocabulary
) -> dict[str, Column]:
    """The columns of the table: place, token, ln p, p, and how near the segment converged."""
    logarithms = found["log_probability"]
    rest: dict[str, Any] = {n: v for n, v in found.items() if n != "log_probability"}
    return {
        "position": torch.arange(1, len(tokens)),
        "token": [vocabulary.decode([token]) or BOUNDARY for token in tokens[1:].tolist()],
        "log_probability": logarithms,
        "probability": logarithms.exp(),
        **rest,
    }


def described(logarithms: Tensor, characters: int, unknown: int) -> str:
    """How many tokens there were, and how well they were predicted."""
    total = -float(logarithms.double().sum())
    mean = total / len(logarithms)
    parts = [
        f"{len(logarithms):,} tokens predicted",
        f"mean log probability {-mean:.4f}",
        f"perplexity {math.exp(mean):.4g}",
        f"{total / math.log(2) / characters:.4g} bits a character",
    ]
    return ", ".join(parts + ([f"{unknown:,} tokens unknown to the model"] if unknown else []))

"""How streams enter MulT: optionally aligned, then projected, with their padding marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Modality = Literal["language", "audio", "vision"]
MODALITIES: tuple[Modality, ...] = ("language", "audio", "vision")
Entry = TypeVar("Entry", int, float)


class Sequences(NamedTuple):
    """By modality: sequences (B, T, width), and which steps (B, T) are not padding.

    The latter is None if padding is attended to. auxiliary: the loss of the alignments, summed
    over the samples; None in evaluation or without them.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor | None]
    auxiliary: Tensor | None


class Streams(nn.Module):
    """Streams (B, T, features) of the chosen modalities -> `Sequences`.

    `dropout` applies to the features of language. The projections have no bias, so padding stays 0
    if the kernel is 1.

    Source: 1906.00295, section 3.1, "temporal convolutions".
    """

    def __init__(
        self,
        modalities: Sequence[str],
        features: Mapping[str, int],
        widths: Mapping[str, int],
        kernels: Mapping[str, int],
        *,
        dropout: float,
        key_padding_mask: bool,
        aligned_length: int | None,
    ) -> None:
        """aligned_length: the steps of the language, to which the others are aligned, or None."""
        super().__init__()
        self.features = {modality: features[modality] for modality in modalities}
        self.dropout = nn.Dropout(dropout)
        self.key_padding_mask = key_padding_mask
        self.projections = nn.ModuleDict(
            {m: projection(features[m], widths[m], kernels[m]) for m in modalities}
        )
        self.alignment: nn.ModuleDict | None = None
        if aligned_length is not None:
            others = [modality for modality in modalities if modality != "language"]
            self.alignment = nn.ModuleDict(
                {m: Alignment(features[m], aligned_length) for m in others}
            )

    def forward(self, streams: Mapping[str, Tensor]) -> Sequences:
        """Raises ValueError if a stream is missing, or has other features than the model.

        Streams are aligned and projected in full precision: a first channel of exactly 0 marks
        padding, and half precision might round a small number to 0.
        """
        inputs = {modality: self._checked(streams, modality) for modality in self.features}
        present: dict[str, Tensor | None] = dict.fromkeys(inputs)
        if self.key_padding_mask:
            present |= {m: (stream != 0).any(dim=-1) for m, stream in inputs.items()}
        losses, sequences = [], {}
        with torch.autocast(next(iter(inputs.values())).device.type, enabled=False):
            for modality, align in self.alignment.items() if self.alignment is not None else ():
                inputs[modality], scores = align(inputs[modality])
                present[modality] = None
                losses.append(alignment_loss(scores))
            for modality, stream in inputs.items():
                read = self.dropout(stream) if modality == "language" else stream
                sequences[modality] = self.projections[modality](read)
        auxiliary = torch.stack(losses).sum() if losses and self.training else None
        return Sequences(sequences, present, auxiliary)

    def _checked(self, streams: Mapping[str, Tensor], modality: str) -> Tensor:
        features = self.features[modality]
        if modality not in streams:
            raise ValueError(f"this model reads {', '.join(self.features)}: give {modality}")
        stream = streams[modality]
        if stream.dim() != 3 or stream.shape[2] != features:
            raise ValueError(
                f"{modality} must be (batch, steps, {features}), got {tuple(stream.shape)}"
            )
        return stream


def projection(features: int, width: int, kernel: int) -> nn.Module:
    """(B, T, features) -> (B, T, width), a convolution of `kernel` steps that keeps their number.

    A stream that already has the width is left as it is, as published.
    """
    if kernel > 1:
        return TimeConvolution(features, width, kernel)
    return nn.Identity() if features == width else nn.Linear(features, width, bias=False)


class TimeConvolution(nn.Module):
    """A convolution over the steps of (B, T, features), without bias; the length stays."""

    def __init__(self, features: int, width: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(features, width, kernel, padding="same", bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """(B, T, features) -> (B, T, width)."""
        projected: Tensor = self.convolution(stream.transpose(1, 2)).transpose(1, 2)
        return projected


class Alignment(nn.Module):
    """Streams (B, T, features) -> (B, L, features): each of L steps a mixture of the T.

    p(step | t) = softmax over L + 1 classes of a recurrent network's output, class 0 the blank;
    a step is sum_t p(step | t) x_t.

    Source: Graves et al. 2006, "Connectionist temporal classification"; 1906.00295, section 4.2,
    where it aligns what models without crossmodal attention read.
    """

    def __init__(self, features: int, length: int) -> None:
        super().__init__()
        self.classes = nn.LSTM(features, length + 1, num_layers=2, batch_first=True)

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """The aligned stream (B, L, features), and the scores (B, T, L + 1) of the classes."""
        scores, _ = self.classes(stream)
        probabilities = scores.softmax(dim=-1)[..., 1:]
        return probabilities.transpose(1, 2) @ stream, scores


def alignment_loss(scores: Tensor) -> Tensor:
    """-ln p(1, 2, ..., L), summed over the samples, of scores (B, T, L + 1); class 0 is the blank.

    The language's steps are to come one after another. Infinite if T < L.
    """
    batch, steps, classes = scores.shape
    labels = torch.arange(1, classes, device=scores.device).expand(batch, -1)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    log_probabilities = scores.log_softmax(dim=-1, dtype=dtype).transpose(0, 1)
    return functional.ctc_loss(
        log_probabilities,
        labels,
        torch.full((batch,), steps, dtype=torch.int64),
        torch.full((batch,), classes - 1, dtype=torch.int64),
        reduction="sum",
    )


def aligned_length(modalities: Sequence[str], lengths: Sequence[int] | None) -> int:
    """The steps of the language, to which the other modalities are aligned.

    Raises ValueError if there is no language, or a stream is too short to be aligned to it.
    """
    others = [modality for modality in modalities if modality != "language"]
    if lengths is None or "language" not in modalities or not others:
        raise ValueError(
            "alignment=ctc aligns audio and vision to the language: give lengths, and modalities "
            "with language and another"
        )
    steps = by_modality(lengths, "lengths")
    for modality in others:
        if steps[modality] < steps["language"]:
            raise ValueError(
                f"alignment=ctc needs at least as many steps of {modality} as of language, and "
                f"there are {steps[modality]} for {steps['language']}: leave it out"
            )
    return steps["language"]


def by_modality(entries: Entry | Sequence[Entry], name: str) -> dict[str, Entry]:
    """One entry for each modality; a single number applies to all.

    Raises ValueError for any other number of entries.
    """
    if isinstance(entries, int | float):
        return dict.fromkeys(MODALITIES, entries)
    if len(entries) != len(MODALITIES):
        raise ValueError(f"{name} has {len(entries)} entries; give language, audio, vision")
    return dict(zip(MODALITIES, entries, strict=True))


def in_order(chosen: Sequence[str], possible: Sequence[str], name: str) -> tuple[str, ...]:
    """The chosen modalities in the order of all; raises ValueError for one that is not possible."""
    unknown = [entry for entry in chosen if entry not in possible]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"{name} must be some of {', '.join(possible)}, each once, got {list(chosen)}"
        )
    return tuple(entry for entry in possible if entry in chosen)

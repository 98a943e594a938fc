"""MulT: three unaligned streams, each read with attention to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mult.attention import View, view
from equipoise.models.mult.encoder import (
    CrossmodalEncoder,
    CrossmodalStacks,
    Dropout,
    MemoryEncoder,
    Pair,
)
from equipoise.models.mult.equilibrium import CrossmodalCell, CrossmodalEquilibrium
from equipoise.models.mult.streams import (
    MODALITIES,
    Modality,
    Sequences,
    Streams,
    aligned_length,
    by_modality,
    in_order,
)

LEAST_MEMORY_LAYERS = 3
"""The least number of memory encoder layers, however few the crossmodal ones have; published."""


class Prediction(NamedTuple):
    """outputs (B, outputs), and what they are computed from, hidden (B, H).

    auxiliary: the alignment's loss in training, summed over the samples; otherwise None.
    """

    outputs: Tensor
    hidden: Tensor
    auxiliary: Tensor | None = None


class MulT(nn.Module):
    """Streams of language, audio and vision (B, T, features) each -> numbers (B, outputs).

    Each target attends to each other modality in an encoder of its own, without aligning their
    steps; the results for a target are joined along the features and read by a memory encoder, of
    which the last step is kept. A residual network with one hidden layer reads those last steps. A
    single modality is read by its memory encoder.

    With `equilibrium`, one weight-tied layer for each pair, at its fixed point, replaces a
    crossmodal encoder, and memory encoders have the smallest published depth.

    Source: 1906.00295, sections 3.1 and 3.2; initial weights, positions and masks are those of the
    code published with it.
    """

    head_parts = ("output",)

    def __init__(
        self,
        equilibrium: nn.Module | bool = False,
        *,
        features: Sequence[int],
        outputs: int = 1,
        lengths: Sequence[int] | None = None,
        modalities: Sequence[Modality] = MODALITIES,
        targets: Sequence[Modality] | None = None,
        width: int | Sequence[int] = 30,
        kernel: int | Sequence[int] = 1,
        layers: int = 5,
        heads: int = 5,
        attention_dropout: Sequence[float] = (0.1, 0.0, 0.0),
        relu_dropout: float = 0.1,
        residual_dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        output_dropout: float = 0.0,
        causal: bool = True,
        key_padding_mask: bool = False,
        alignment: Literal["none", "ctc"] = "none",
    ) -> None:
        """Lists have an entry each for language, audio and vision; a single number applies to all.

        equilibrium: the layer, or False for stacks of layers. features: columns of the streams.
        lengths: their steps, needed only for an alignment. modalities: those that are read;
        targets: those that attend to the others, None for all. width: channels of a modality;
        kernel: steps of its convolution. attention_dropout: by the modality attended to, the first
        also for memory encoders; embedding_dropout: also for the raw language. causal: the
        published mask (see `view`). key_padding_mask: nothing attends to steps whose features are
        all 0. alignment: audio and vision are read at the steps of the language, which `Alignment`
        finds for them. Raises ValueError if the numbers do not fit each other.
        """
        super().__init__()
        if equilibrium is True:
            raise ValueError("equilibrium is the layer itself, or False: give an Equilibrium")
        self.modalities = in_order(modalities, MODALITIES, "modalities")
        self.targets = in_order(
            self.modalities if targets is None else targets, self.modalities, "targets"
        )
        self.features, self.outputs = tuple(features), outputs
        self.widths = by_modality(width, "width")
        self.causal = causal
        steps = aligned_length(self.modalities, lengths) if alignment == "ctc" else None
        self.streams = Streams(
            self.modalities, by_modality(features, "features"), self.widths,
            by_modality(kernel, "kernel"), dropout=embedding_dropout,
            key_padding_mask=key_padding_mask, aligned_length=steps,
        )  # fmt: skip
        dropouts = {
            source: Dropout(embedding_dropout, rate, relu_dropout, residual_dropout)
            for source, rate in by_modality(attention_dropout, "attention_dropout").items()
        }
        self.pairs = [(t, s) for t in self.targets for s in self.modalities if t != s]
        self.crossmodal = self._crossmodal(equilibrium, heads, layers, dropouts)
        depth = LEAST_MEMORY_LAYERS if equilibrium else max(layers, LEAST_MEMORY_LAYERS)
        self.memory = nn.ModuleDict(
            {t: MemoryEncoder(self._joined(t), heads, depth, dropouts["language"])
             for t in self.targets}
        )  # fmt: skip
        hidden = sum(self._joined(target) for target in self.targets)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, outputs)
        self.output_dropout = nn.Dropout(output_dropout)

    @property
    def alignment(self) -> nn.Module | None:
        """Aligns audio and vision to the language, if requested."""
        return self.streams.alignment

    def forward(self, streams: Mapping[str, Tensor]) -> Prediction:
        """The prediction for streams by name; those of other modalities are not read.

        Raises ValueError if one is missing, or has other features than the model.
        """
        sequences: Sequences = self.streams(streams)
        crossed: dict[str, Tensor] = self.crossmodal(self._pairs(sequences))
        last = []
        for target in self.targets:
            joined, present = self._read(target, crossed, sequences), sequences.present[target]
            seen = self._view(joined, joined, present)
            of_last = view(1, joined.shape[1], causal=False, present=present, like=joined)
            last.append(self.memory[target](joined, seen, of_last))
        hidden = torch.cat(last, dim=1)
        inner = self.output_dropout(functional.relu(self.widen(hidden)))
        return Prediction(self.output(self.narrow(inner) + hidden), hidden, sequences.auxiliary)

    @torch.no_grad()
    def attention_maps(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights (B, heads, T, S) by name: "language from audio 1", and "language memory 1".

        The number counts the layers; an equilibrium's weights are those at the fixed point.
        """
        sequences: Sequences = self.streams(streams)
        pairs = self._pairs(sequences)
        weights = {n.replace("_", " "): maps for n, maps in self.crossmodal.maps(pairs).items()}
        crossed: dict[str, Tensor] = self.crossmodal(pairs)
        for target in self.targets:
            joined, memory = self._read(target, crossed, sequences), self.memory[target]
            assert isinstance(memory, MemoryEncoder)
            seen = self._view(joined, joined, sequences.present[target])
            weights[f"{target} memory"] = memory.maps(joined, seen)
        return {
            f"{name} {number}": of_layer
            for name, maps in weights.items()
            for number, of_layer in enumerate(maps, start=1)
        }

    def _crossmodal(
        self,
        equilibrium: nn.Module | bool,
        heads: int,
        layers: int,
        dropouts: Mapping[str, Dropout],
    ) -> CrossmodalStacks | CrossmodalEquilibrium:
        """Turns every target into its states with attention to every source."""
        sizes = {_name(t, s): (self.widths[t], self.widths[s], heads) for t, s in self.pairs}
        of_pair = {_name(t, s): dropouts[s] for t, s in self.pairs}
        if not isinstance(equilibrium, nn.Module):
            return CrossmodalStacks(
                {n: CrossmodalEncoder(*size, layers, of_pair[n]) for n, size in sizes.items()}
            )
        if not sizes:
            raise ValueError("one modality alone has no crossmodal layer: leave equilibrium out")
        cells = {n: CrossmodalCell(*size, of_pair[n]) for n, size in sizes.items()}
        return CrossmodalEquilibrium(equilibrium, cells)

    def _pairs(self, sequences: Sequences) -> dict[str, Pair]:
        pairs = {}
        for target, source in self.pairs:
            ours, theirs = sequences.features[target], sequences.features[source]
            seen = self._view(ours, theirs, sequences.present[source])
            pairs[_name(target, source)] = Pair(ours, theirs, seen)
        return pairs

    def _view(self, queries: Tensor, keys: Tensor, present: Tensor | None) -> View:
        sizes = queries.shape[1], keys.shape[1]
        return view(*sizes, causal=self.causal, present=present, like=queries)

    def _joined(self, target: str) -> int:
        """The width of what a target's memory encoder reads."""
        return max(len(self.modalities) - 1, 1) * self.widths[target]

    def _read(self, target: str, crossed: Mapping[str, Tensor], sequences: Sequences) -> Tensor:
        """What a target's memory encoder reads: all crossmodal results, or the target itself."""
        made = [crossed[_name(t, s)] for t, s in self.pairs if t == target]
        return torch.cat(made, dim=2) if made else sequences.features[target]


def _name(target: str, source: str) -> str:
    return f"{target}_from_{source}"

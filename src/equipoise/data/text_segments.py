"""One long text in segments that continue each other, for models that carry a memory over."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.data.loading import Batch
from equipoise.data.sampling import BatchIndex, Shard

IGNORED = -100
"""The target where there is nothing to predict."""


class TextSegments:
    """A text of N tokens as `streams` pieces of equal length side by side, each cut into segments.

    A batch is the same segment of several streams: tokens (B, T) and targets (B, T), the tokens one
    place later; index (B,); start, a bool scalar that tells whether the streams begin here, so that
    no memory may be carried in. Row stream * segments + segment names one segment. Each token but
    the first of the text is a target once; past the end of the text targets are -100. The last
    segment of the streams may be shorter.
    """

    def __init__(self, tokens: Tensor, streams: int, length: int) -> None:
        self.tokens = tokens
        self.streams = streams
        self.length = length
        self.stream_length = -(-(len(tokens) - 1) // streams)
        self.segments = -(-self.stream_length // length)

    def __len__(self) -> int:
        """Return the number of segments of all streams."""
        return self.streams * self.segments

    def __getitem__(self, index: BatchIndex) -> Batch:
        """Return the segments of the rows in `index`, which are at the same place of a stream."""
        stream, segment = index.rows // self.segments, int(index.rows[0]) % self.segments
        width = min(self.length, self.stream_length - segment * self.length)
        begin = stream * self.stream_length + segment * self.length
        places = begin.unsqueeze(1) + torch.arange(width)
        last = len(self.tokens) - 1
        targets = self.tokens[(places + 1).clamp(max=last)].long()
        return {
            "tokens": self.tokens[places.clamp(max=last)].long(),
            "targets": targets.masked_fill(places >= last, IGNORED),
            "index": index.rows,
            "start": torch.tensor(segment == 0),
        }


class SegmentIndices:
    """The segments in their order, a batch for each place of the streams of this process.

    Every process takes the same number of streams, which `streams` must divide into.
    """

    def __init__(self, streams: int, segments: int, shard: Shard) -> None:
        self.streams = torch.arange(streams)[shard.rank :: shard.world_size]
        self.segments = segments
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch; its order is that of every other."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.segments

    def batches(self) -> tuple[Tensor, ...]:
        """Return the rows of each batch."""
        return tuple(self.streams * self.segments + place for place in range(self.segments))

"""Classification by the nearest neighbours among training samples, weighted by their similarity.

Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4, as the code of Tsai et al. 2021
(arXiv 2104.13712) computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.errors import UserError

SIMILARITIES = 2**24
"""The most similarities held at once: 64 MiB of float32."""
QUERIES = 1024
"""The most queries compared at once."""
LOWEST_TEMPERATURE = 0.0125
"""Below this, the sum of a few hundred weights exp(1 / temperature) overflows float32."""


class MemoryBank:
    """Features (M, h) of labelled training samples, which vote for the classes of queries.

    A query's neighbours are the `neighbours` samples of the highest cosine with it, or all samples
    if the bank holds fewer; ties for the last place are broken arbitrarily. Its score for a class
    is the sum of exp(cosine / temperature) over its neighbours in that class. All arithmetic is in
    float32, even under autocast.

    Rows that are not finite or have no label (-1) are left out. Raises UserError if no row is left,
    a label is not a class, or a setting cannot work.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        classes: int,
        neighbours: int = 200,
        temperature: float = 0.5,
    ) -> None:
        if neighbours < 1:
            raise UserError(f"{neighbours} neighbours cannot vote: set 1 or more")
        if not temperature >= LOWEST_TEMPERATURE:
            raise UserError(
                f"the temperature of the nearest neighbours is {temperature:g}: set it to "
                f"{LOWEST_TEMPERATURE} or more"
            )
        usable = features.isfinite().all(dim=1) & (labels >= 0)
        if not usable.all():
            features, labels = features[usable], labels[usable]
        if not len(labels):
            raise UserError(
                "no training sample can serve as a neighbour: none has both a label and finite "
                "features"
            )
        if int(labels.max()) >= classes:
            raise UserError(
                f"a neighbour has the label {int(labels.max())}: use labels 0 to {classes - 1}"
            )
        self.features = functional.normalize(features.detach().float(), dim=1)
        self.labels = labels
        self.classes = classes
        self.neighbours = min(neighbours, len(labels))
        self.temperature = temperature

    @torch.no_grad()
    def scores(self, queries: Tensor) -> Tensor:
        """The scores (Q, classes) of queries (Q, h); nan for a query that is not finite."""
        scores = self.features.new_zeros(len(queries), self.classes)
        with torch.autocast(queries.device.type, enabled=False):
            for some, part in zip(queries.split(QUERIES), scores.split(QUERIES), strict=True):
                cosines, rows = self._nearest(functional.normalize(some.float(), dim=1))
                part.scatter_add_(1, self.labels[rows], (cosines / self.temperature).exp())
        return scores.masked_fill_(~queries.isfinite().all(dim=1, keepdim=True), float("nan"))

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and rows (Q, neighbours) of the nearest in the bank, searched in parts."""
        cosines = queries.new_empty(len(queries), 0)
        rows = torch.empty(cosines.shape, dtype=torch.int64, device=queries.device)
        size = SIMILARITIES // max(1, len(queries))
        for first in range(0, len(self.features), size):
            similarity = queries @ self.features[first : first + size].T
            near = similarity.topk(min(self.neighbours, similarity.shape[1]), sorted=False)
            cosines = torch.cat([cosines, near.values], dim=1)
            rows = torch.cat([rows, near.indices + first], dim=1)
            if cosines.shape[1] > self.neighbours:
                cosines, kept = cosines.topk(self.neighbours, sorted=False)
                rows = rows.gather(1, kept)
        return cosines, rows

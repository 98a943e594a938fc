"""Runs batches through a trained task for its predictions alone, with progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from equipoise.callbacks.statistics import SolveStatistics
from equipoise.equilibrium import NotConvergedError, SolveReport
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError

PROGRESS_AFTER_SECONDS = 2.0
OUT_OF_MEMORY = "can't allocate memory"
"""Part of torch's message on too little CPU memory, an error without its own class."""

Batch = dict[str, Tensor]
Output = TypeVar("Output")


def outputs(
    compute: Callable[[Batch], Output],
    batches: Iterable[Batch],
    device: torch.device,
    *,
    total: int,
    unit: str,
) -> Iterator[tuple[Batch, Output]]:
    """Every batch, on the device, and the result of `compute` for it.

    total: number of samples in all batches, where each tensor of a batch has a row per sample;
    unit: the word for a sample. Raises UserError where a batch does not fit into memory, or the
    network refuses it with a ValueError.
    """
    with tqdm(total=total, desc="predictions", unit=unit, leave=False,
              delay=PROGRESS_AFTER_SECONDS, disable=None) as progress:  # fmt: skip
        for batch in batches:
            samples = len(next(iter(batch.values())))
            try:
                with torch.inference_mode():
                    moved = {key: value.to(device) for key, value in batch.items()}
                    output = compute(moved)
            except ValueError as error:
                raise UserError(f"the network cannot read this {unit}: {error}") from error
            except NotConvergedError as error:
                raise UserError(f"{error}, and the run has equilibrium.on_failure=raise") from error
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError) or OUT_OF_MEMORY in str(error):
                    raise UserError(
                        f"a batch of {samples} does not fit into memory: lower batch_size"
                    ) from error
                raise
            yield moved, output
            progress.update(samples)


class SampleConvergence:
    """How near each sample of a batch came to its fixed points.

    With several layers, or several solves of one, a sample's largest residual counts, and it
    has converged if all of its solves have.
    """

    def __init__(self, module: nn.Module) -> None:
        self.reports: list[SolveReport] = []
        for layer in equilibrium_layers(module).values():
            layer.register_forward_hook(self._note)

    def _note(self, layer: nn.Module, *_: Any) -> None:
        report = layer.report
        assert isinstance(report, SolveReport)
        self.reports.append(report)

    def take(self, samples: int) -> Batch:
        """{"residual" float (B,), "converged" bool (B,)} of the solves since the last call.

        Empty where nothing was solved, or the solves do not have one row for each sample.
        """
        reports, self.reports = self.reports, []
        residuals = [report.residual for report in reports if report.residual is not None]
        flags = [flag for report in reports if (flag := report.converged) is not None]
        if not residuals or any(len(rows) != samples for rows in [*residuals, *flags]):
            return {}
        worst = {"residual": torch.stack([r.float() for r in residuals]).amax(dim=0)}
        return worst | ({"converged": torch.stack(flags).all(dim=0)} if flags else {})


class Convergence:
    """How near to their fixed points the equilibrium layers of a module come, whenever they run."""

    def __init__(self, module: nn.Module) -> None:
        self.statistics = SolveStatistics()
        for layer in equilibrium_layers(module).values():
            layer.register_forward_hook(self._note)

    def _note(self, layer: nn.Module, *_: Any) -> None:
        report = layer.report
        assert isinstance(report, SolveReport)
        self.statistics.add(report)

    def described(self) -> str | None:
        """The converged fraction and the median residual; None if nothing was solved."""
        summary = self.statistics.forward_summary() if self.statistics.solves else {}
        fraction, residual = summary.get("converged_fraction"), summary.get("residual_median")
        if fraction is None or residual is None:
            return None
        return f"{100 * fraction:.1f} % of the equilibria converged, median residual {residual:.2g}"

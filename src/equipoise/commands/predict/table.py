"""The table that `predict` writes, batch by batch: csv, or arrays in a file .npz."""

from __future__ import annotations

import csv
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from equipoise.commands.predict.job import whole_file

DIGITS = 6
"""Format of a number in the csv file."""

Column = Sequence[Any] | Tensor


class Table(ABC):
    """Columns by name, with one value (N,) or several (N, K) in each row.

    It also keeps how near the samples came to their equilibria. one_column: whether
    several values of a row stay one column, without a name for each.
    """

    one_column: ClassVar[bool] = False

    def __init__(self, file: IO[Any]) -> None:
        self.file = file
        self.rows = 0
        self.residuals: list[Tensor] = []
        self.converged = 0

    def add(self, columns: Mapping[str, Column]) -> None:
        """Add the rows of a batch; each batch has the same columns."""
        self.rows += len(next(iter(columns.values())))
        if isinstance(residual := columns.get("residual"), Tensor):
            self.residuals.append(residual)
        if isinstance(converged := columns.get("converged"), Tensor):
            self.converged += int(converged.sum())
        self.write(columns)

    @abstractmethod
    def write(self, columns: Mapping[str, Column]) -> None:
        """Write the rows of a batch, or keep them."""

    def close(self) -> None:
        """Write what was kept."""
        return

    def convergence(self) -> str | None:
        """The converged fraction and the median residual; None if nothing was solved."""
        if not self.residuals:
            return None
        share, median = self.converged / self.rows, torch.cat(self.residuals).median()
        return f"{100 * share:.1f} % converged, median residual {float(median):.2g}"


class CsvTable(Table):
    """A line for each row; several values of a row are columns <name>_<number>."""

    def write(self, columns: Mapping[str, Column]) -> None:
        """Write the rows, and before the first ones the names of the columns."""
        flat = dict(_flat(columns))
        writer = csv.writer(self.file, lineterminator="\n")
        if self.file.tell() == 0:
            writer.writerow(flat)
        writer.writerows(zip(*flat.values(), strict=True))


class ArrayTable(Table):
    """An array for each column."""

    one_column = True

    def __init__(self, file: IO[Any]) -> None:
        super().__init__(file)
        self.parts: dict[str, list[np.ndarray[Any, Any]]] = {}

    def write(self, columns: Mapping[str, Column]) -> None:
        """Keep the rows."""
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(np.asarray(values))

    def close(self) -> None:
        """Write the arrays as numpy.savez would, which cannot take an array named "file"."""
        with zipfile.ZipFile(self.file, "w") as archive:
            for name, parts in self.parts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.concatenate(parts), allow_pickle=False)


@contextmanager
def whole_table(target: Path, overwrite: bool) -> Iterator[Table]:
    """The table for a file .csv or .npz, which appears only once it is complete.

    Raises UserError as `whole_file` does.
    """
    arrays = target.suffix.lower() == ".npz"
    with whole_file(target, overwrite, "wb" if arrays else "w") as file:
        table: Table = ArrayTable(file) if arrays else CsvTable(file)
        yield table
        table.close()


def _flat(columns: Mapping[str, Column]) -> Iterator[tuple[str, list[Any]]]:
    for name, values in columns.items():
        if isinstance(values, Tensor) and values.ndim == 2:
            for number, column in enumerate(values.unbind(dim=1)):
                yield f"{name}_{number}", _shown(column.tolist())
        else:
            yield name, _shown(values.tolist() if isinstance(values, Tensor) else values)


def _shown(values: Sequence[Any]) -> list[Any]:
    if values and isinstance(values[0], bool):
        return [str(value).lower() for value in values]
    if values and isinstance(values[0], float):
        return [f"{value:.{DIGITS}g}" for value in values]
    return list(values)

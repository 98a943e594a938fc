"""Graphs in an Arrow file, of which a run maps into memory what it reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from equipoise.data.molecules.graphs import LEVELS, Level, MoleculeGraphs

FORMAT = "equipoise molecules 1"
DESCRIPTION = b"equipoise"


def write_stored(graphs: MoleculeGraphs, target: Path) -> None:
    """Write the graphs, one row per molecule, whole or not at all. Raises OSError.

    A column of a level, `atom.position` say, is a list per molecule of all its numbers in a row.
    """
    names = [pa.array(graphs.names, pa.string()), pa.array(graphs.by_radii)]
    columns = {"name": names[0], "by_radii": names[1]}
    shapes = {}
    for level, key, values in _columns(graphs):
        columns[f"{level}.{key}"] = _lists(graphs.level(level).starts, values)
        shapes[f"{level}.{key}"] = [values.dtype.str, *values.shape[1:]]
    labels = {name: level.labels for name, level in graphs.levels.items()}
    description = json.dumps({"format": FORMAT, "shapes": shapes, "labels": labels})
    table = pa.table(columns).replace_schema_metadata({DESCRIPTION: description.encode()})
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(unfinished), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_stored(file: Path) -> MoleculeGraphs | None:
    """The graphs of a file, mapped into memory; None where it is not one that we can read."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        content = json.loads((table.schema.metadata or {})[DESCRIPTION])
        if content["format"] != FORMAT:
            return None
        levels = {
            name: _level(table, name, content["shapes"], content["labels"][name]) for name in LEVELS
        }
        names = tuple(table["name"].to_pylist())
        return MoleculeGraphs(names, table["by_radii"].to_numpy(), levels)
    except (OSError, pa.ArrowException, ValueError, KeyError):  # absent, damaged, of another kind
        return None


def _columns(graphs: MoleculeGraphs) -> list[tuple[str, str, NDArray]]:
    return [
        (name, key, values)
        for name, level in graphs.levels.items()
        for key, values in level.columns.items()
    ]


def _lists(starts: NDArray[np.int64], values: NDArray) -> pa.LargeListArray:
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    return pa.LargeListArray.from_arrays(pa.array(starts * width), pa.array(values.ravel()))


def _level(table: pa.Table, name: str, shapes: dict[str, Any], labels: list[list[str]]) -> Level:
    columns = {}
    starts = np.zeros(1, dtype=np.int64)
    for key, (dtype, *shape) in shapes.items():
        level, _, column = key.partition(".")
        if level != name:
            continue
        lists = table[key].chunk(0)
        width = int(np.prod(shape, dtype=np.int64))
        starts = lists.offsets.to_numpy() // width
        flat = lists.values.to_numpy(zero_copy_only=dtype != "|b1")
        columns[column] = flat.reshape(-1, *shape)
    return Level(starts, columns, tuple(map(tuple, labels)))

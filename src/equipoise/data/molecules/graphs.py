"""Molecules as graphs of atoms, pairs, triplets and quads, in flat columns of all molecules.

An Arrow file stores them with one row per molecule; a run maps the parts that it reads into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMAT = "equipoise molecules 2"
DESCRIPTION = b"equipoise"
MAGIC = b"ARROW1"
LEVELS = ("atom", "pair", "triplet", "quad")
DAMAGED = (
    OSError, pa.ArrowException, ValueError, LookupError, TypeError, RecursionError, StopIteration,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Level:
    """The items of one kind in M molecules, n in total.

    starts: int64 (M + 1,), where those of each molecule begin. columns: arrays (n, ...); the atoms,
    pairs and triplets that they refer to are numbered within the molecule. labels: the sorted names
    for each column of columns["label"], int32 (n, depths), whose codes index them.
    """

    starts: NDArray[np.int64]
    columns: Mapping[str, NDArray]
    labels: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many items each molecule has."""
        return np.diff(self.starts)


@dataclass(frozen=True, eq=False)
class MoleculeGraphs:
    """M molecules by name, and their atoms, pairs, triplets and quads.

    by_radii: bool (M,), whether bonds could not be perceived (see `Perceived`). Columns:

    - atom: position float32 (n, 3), Angstrom; feature float32 (n, 2), the angle between the two
      nearest atoms over pi, and the charge.
    - pair: atoms int32 (n, 2); squared_distance float32 (n,); real bool (n,), whether bonded or
    with a coupling; type int64 (n,), 0 or 1 + the place in `TYPES`; row int64 (n,), the id of the
    coupling or -1; coupling float32 (n, K), Hz, 0 for none. Real pairs come first, by their atoms,
    then the others by distance.
    - triplet: atoms int32 (n, 3), the centre first; pairs int32 (n, 2), of the centre and each of
      the others; angle float32 (n,), radians.
    - quad: atoms int32 (n, 4), the two in the middle and then the neighbour of each; pairs int32
      (n, 3), the middle one first; triplets int32 (n, 2); angle float32 (n,), radians.
    """

    names: tuple[str, ...]
    by_radii: NDArray[np.bool_]
    levels: Mapping[str, Level]

    def __len__(self) -> int:
        """The number of molecules."""
        return len(self.names)

    def level(self, name: str) -> Level:
        """The items of a kind of `LEVELS`."""
        return self.levels[name]

    @property
    def targets(self) -> int:
        """How many numbers describe a coupling: 1, or 5 with its contributions."""
        return self.levels["pair"].columns["coupling"].shape[1]

    def items_of(self, level: str, molecules: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each item (n,) of a level belongs to one of the molecules of these rows."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[molecules] = True
        return np.repeat(chosen, self.levels[level].counts)


def joined(parts: Sequence[MoleculeGraphs]) -> MoleculeGraphs:
    """The molecules of all parts, one after the other."""
    return MoleculeGraphs(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.by_radii for part in parts]),
        {name: _joined_level([part.levels[name] for part in parts]) for name in LEVELS},
    )


def _joined_level(parts: Sequence[Level]) -> Level:
    depths = range(len(parts[0].labels))
    names = [sorted(set().union(*(part.labels[depth] for part in parts))) for depth in depths]
    columns = {
        key: np.concatenate([part.columns[key] for part in parts])
        for key in parts[0].columns
        if key != "label"
    }
    columns["label"] = np.concatenate([_recoded(part, names) for part in parts])
    starts = np.concatenate([[0], np.concatenate([part.counts for part in parts]).cumsum()])
    return Level(starts, columns, tuple(map(tuple, names)))


def _recoded(part: Level, names: list[list[str]]) -> NDArray[np.int32]:
    codes = np.empty_like(part.columns["label"])
    for depth, (old, new) in enumerate(zip(part.labels, names, strict=True)):
        code = {name: number for number, name in enumerate(new)}
        table = np.array([code[name] for name in old], dtype=np.int32)
        codes[:, depth] = table[part.columns["label"][:, depth]]
    return codes


def write_stored(graphs: MoleculeGraphs, target: Path) -> None:
    """Write the graphs, one row per molecule, whole or not at all. Raises OSError.

    A column of a level, such as `atom.position`, becomes one flat list of numbers per molecule.
    """
    names = [pa.array(graphs.names, pa.string()), pa.array(graphs.by_radii)]
    columns = {"name": names[0], "by_radii": names[1]}
    shapes = {}
    for level, key, values in _columns(graphs):
        columns[f"{level}.{key}"] = _lists(graphs.level(level).starts, values)
        shapes[f"{level}.{key}"] = [values.dtype.str, *values.shape[1:]]
    labels = {name: level.labels for name, level in graphs.levels.items()}
    content = {"format": FORMAT, "shapes": shapes, "labels": labels, "sum": _checksum(graphs)}
    description = json.dumps(content)
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
    """The graphs of a file, mapped into memory; None if we cannot read it."""
    try:
        table = _plain_table(file)
        table.validate(full=True)  # otherwise positions beyond the end of a buffer would be read
        content = json.loads((table.schema.metadata or {})[DESCRIPTION])
        if content["format"] != FORMAT:
            return None
        levels = {
            name: _level(table, name, content["shapes"], content["labels"][name]) for name in LEVELS
        }
        if table.schema.types[:2] != [pa.string(), pa.bool_()]:  # others can be long in few bytes
            return None
        names = tuple(table["name"].to_pylist())
        graphs = MoleculeGraphs(names, table["by_radii"].to_numpy(), levels)
    except DAMAGED:  # or missing, or of another kind
        return None
    return graphs if _checksum(graphs) == content.get("sum") else None


def _plain_table(file: Path) -> pa.Table:
    """The table of one of our files, mapped into memory: eight bytes, then a stream of messages.

    Raises ValueError if a message has compressed buffers, or is of a kind that we do not write: a
    few kilobytes could unpack to gigabytes.
    """
    content = pa.memory_map(str(file)).read_buffer()
    if content.slice(content.size - len(MAGIC)).to_pybytes() != MAGIC:
        raise ValueError(f"{file} is cut off")
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(content.slice(8)))
    schema = pa.ipc.read_schema(messages.read_next_message())
    batches = []
    for message in messages:
        if message.type != "record batch" or _is_compressed(message.metadata):
            raise ValueError(f"{file} holds what Equipoise does not write")
        batches.append(pa.ipc.read_record_batch(message, schema))
    return pa.Table.from_batches(batches, schema)


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a record batch's metadata name a compression: the fourth field of its header.

    Source: Arrow's format/Message.fbs, in which Message.header is the third field.
    """
    content = memoryview(metadata)

    def field(table: int, number: int) -> int:
        """Where a table of FlatBuffers stores a field; the table itself if it lacks the field."""
        places = table - struct.unpack_from("<i", content, table)[0]
        size = struct.unpack_from("<H", content, places)[0]
        inside = 4 + 2 * number
        return table + (
            struct.unpack_from("<H", content, places + inside)[0] if inside < size else 0
        )

    place = field(struct.unpack_from("<I", content, 0)[0], 2)
    header = place + struct.unpack_from("<I", content, place)[0]
    return field(header, 3) != header


def _checksum(graphs: MoleculeGraphs) -> str:
    """Check all that a file holds: a damaged one would be read as other molecules."""
    digest = hashlib.blake2b(json.dumps(graphs.names).encode())
    digest.update(graphs.by_radii.tobytes())
    for name, level in graphs.levels.items():
        digest.update(json.dumps([name, level.labels]).encode())
        digest.update(level.starts.tobytes())
    for name, key, values in _columns(graphs):
        digest.update(f"{name}.{key}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


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
        if lists.type != pa.large_list(pa.from_numpy_dtype(np.dtype(dtype))):
            raise ValueError(f"{key} is no list of {dtype}")
        width = int(np.prod(shape, dtype=np.int64))
        starts = lists.offsets.to_numpy() // width
        flat = lists.values.to_numpy(zero_copy_only=dtype != "|b1")
        columns[column] = flat.reshape(-1, *shape)
    return Level(starts, columns, tuple(map(tuple, labels)))

"""The file of an offline W&B run, and how to truncate its history after a step.

W&B appends to a `.wandb` file in LevelDB's log format
(https://github.com/google/leveldb/blob/main/doc/log_format.md): a header of 7 bytes, then blocks of
32 KiB with the parts of records. Each part is preceded by a checksum (4 bytes), its length (2) and
its kind (1). A record that does not fit into a block continues in the next.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

BEGINNING = b":W&B"
HEADER = 7
BLOCK = 32 * 1024
PART = struct.Struct("<IHB")
WHOLE, LAST = 1, 4
"""The kinds of part that end a record; the others are a first (2) and a middle part."""


def records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The first byte's position and the content of each complete record of a `.wandb` file.

    A record that was being written when the process was killed is left out.
    """
    position, begin, record = HEADER, HEADER, b""
    while position + PART.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < PART.size:  # the rest of a block is padding
            position += left
            continue
        _, length, kind = PART.unpack_from(content, position)
        end = position + PART.size + length
        if not length or end > len(content):
            return
        begin = begin if record else position
        record += content[position + PART.size : end]
        position = end
        if kind in (WHOLE, LAST):
            yield begin, record
            record = b""


def cut_after(file: Path, step: int) -> int:
    """Truncate the file before the first row of its history after a step.

    Returns the step of the last row that remains, -1 if there is none. A file that is not W&B's is
    left as it is.
    """
    content, last = file.read_bytes(), -1
    if not content.startswith(BEGINNING):
        return last
    for begin, data in records(content):
        found = _step_of_row(data)
        if found is not None and found > step:
            with file.open("r+b") as target:
                target.truncate(begin)
            break
        last = last if found is None else found
    return last


def _step_of_row(data: bytes) -> int | None:
    """The step of a record of the history; None for any other record."""
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
    if record.WhichOneof("record_type") != "history":
        return None
    steps = [int(float(i.value_json)) for i in record.history.item if i.key == "_step"]
    return steps[0] if steps else int(record.history.step.num)

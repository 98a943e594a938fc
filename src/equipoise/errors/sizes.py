"""What a file requests, checked before it is read: a small one may request any amount of memory.

The limits are those of `equipoise.errors.LIMITS`, which the user can raise.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from equipoise.errors import MIB, limit, refuse_above

FREE_BYTES = 16 * MIB
"""What a packed file may unpack to before its compression ratio is checked."""
ARCHIVE = b"PK\x03\x04"
OLDER_PICKLES = 5
"""Pickles in a file before torch 1.6: a number, a version, the system, content, storages."""
GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
LOOKED = 4096  # instructions between two checks of their number


def bounded_bytes(file: Path, name: str) -> bytes:
    """The content of a file, of at most as many bytes as the limit of that name allows.

    A device has no size and no end, so the size that the system reports is not trusted. Raises
    OSError, and TooLarge.
    """
    refuse_above(name, file.stat().st_size, f"{file} has")
    with file.open("rb") as opened:
        content = opened.read(limit(name) + 1)
    refuse_above(name, len(content), f"{file} has at least")
    return content


def check_packing(unpacked: int, packed: int, file: Path | str) -> None:
    """Raise TooLarge if a packed file unpacks to more than real data would."""
    if unpacked > FREE_BYTES:
        refuse_above("packed_times", unpacked // max(packed, 1), f"{file} is packed")


def check_arrays(file: Path) -> None:
    """Raise TooLarge if the arrays of an .npz file are too large or packed too well."""
    with zipfile.ZipFile(file) as archive:
        packed = [entry for entry in archive.infolist() if entry.compress_type]
    refuse_above("array_bytes", sum(entry.file_size for entry in packed), f"{file} unpacks to")
    for entry in packed:
        check_packing(entry.file_size, entry.compress_size, file)


def check_csv(file: Path) -> None:
    """Raise TooLarge for a csv file that is too large or too wide, by its size and first line."""
    with file.open("rb") as opened:
        check_width(opened, file)
    refuse_above("text_bytes", file.stat().st_size, f"{file} has")


def check_width(opened: BinaryIO, file: Path | str) -> None:
    """Raise TooLarge if the first line of an ASCII-like csv file has too many columns."""
    columns, quoted, most = 1, False, limit("table_columns")
    while part := opened.read(MIB):
        for number, piece in enumerate(part.split(b'"')):
            quoted ^= number > 0
            line = b"" if quoted else piece.replace(b"\r", b"\n").partition(b"\n")[0]
            columns += line.count(b",")
            if columns > most:
                refuse_above("table_columns", columns, f"{file} has at least")
            if not quoted and len(line) < len(piece):
                return


def check_parquet(file: Path) -> None:
    """Raise TooLarge if the footer of a parquet file states too many columns or values.

    A run of equal values takes some bytes there, and gigabytes in memory. Raises OSError or
    ValueError if it is not a parquet file.
    """
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(file)
    refuse_above("table_columns", metadata.num_columns, f"{file} has")
    refuse_above("table_values", metadata.num_rows * metadata.num_columns, f"{file} has")


def checkpoint_fault(file: Path) -> str | None:
    """What is wrong with a file that torch would read regardless; None if nothing is.

    The file is an archive, or consecutive pickles (torch before 1.6), which have no checksums.
    Raises as `archive_fault`.
    """
    with file.open("rb") as opened:
        if opened.read(len(ARCHIVE)) == ARCHIVE:  # torch checks these bytes alone
            return archive_fault(file)
        opened.seek(0)
        for _ in range(OLDER_PICKLES):
            check_pickle(opened, file)
    return None


def archive_fault(file: Path) -> str | None:
    """What is wrong with an archive that torch would read regardless; None if nothing is.

    Faults are an entry that does not match its checksum, or that unpacks to more than the file
    holds: torch compresses nothing, so a few kilobytes would become gigabytes. Raises OSError,
    TooLarge as `check_pickle` does, and BadZipFile, ValueError or LookupError if it is not a
    checkpoint.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > file.stat().st_size:
            return f"its entry {[*packed, entries[0].filename][0]} unpacks to more than it holds"
        if (broken := archive.testzip()) is not None:
            return f"the checksum of its entry {broken} is wrong"
        for entry in entries:  # every entry that torch could take for its pickle, by its name
            if entry.filename.lower().endswith("data.pkl"):
                check_pickle(io.BytesIO(archive.read(entry)), file)
    return None


def check_pickle(opened: BinaryIO, file: Path) -> None:
    """Raise TooLarge if a pickle nests too deep or has too many instructions; reads to its end.

    A key of 300,000 nested tuples would end the process when it is hashed, on the C stack. The
    levels of nesting are computed from what each instruction takes and makes, without making it.
    Raises ValueError or LookupError if it is not a pickle.
    """
    stack: list[int] = []  # the nesting depth of each value
    marks: list[int] = []
    memory: dict[Any, int] = {}
    most = limit("pickle_levels")
    for step, (opcode, argument, _) in enumerate(pickletools.genops(opened)):
        if step % LOOKED == 0:
            refuse_above("pickle_steps", step, f"{file} has a pickle of over")
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name.endswith("PUT"):
            memory[argument] = stack[-1]
        elif opcode.name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memory[argument])
        else:
            taken = _taken(opcode, stack, marks)
            kept = taken[:1] if opcode.name in GROWING else []  # takes in the others
            level = max([*kept, *(inner + 1 for inner in taken[len(kept) :])], default=0)
            if level > most:
                refuse_above("pickle_levels", level, f"{file} nests its content in")
            stack += [level] * len(opcode.stack_after)


def _taken(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> list[int]:
    """Pop what an instruction takes. Raises LookupError if the stack does not hold it."""
    wanted = opcode.stack_before
    if pickletools.markobject in wanted:
        first = marks.pop() - wanted.index(pickletools.markobject)
    else:
        first = len(stack) - len(wanted)
    if first < 0:
        raise LookupError("the pickle takes more than it holds")
    taken = stack[first:]
    del stack[first:]
    return taken


def bounded_lines(opened: IO[bytes], raw: IO[bytes], file: str) -> Iterator[bytes]:
    """Yield the lines of a file that may be packed; raw: the same file before unpacking.

    Raises TooLarge at a line, or a compression ratio, beyond its limit.
    """
    most, unpacked, looked = limit("line_bytes"), 0, 0
    while line := opened.readline(most + 1):
        if len(line) > most:
            refuse_above("line_bytes", len(line), f"a line of {file} has at least")
        unpacked += len(line)
        if opened is not raw and unpacked > looked + MIB:
            check_packing(unpacked, raw.tell(), file)
            looked = unpacked
        yield line

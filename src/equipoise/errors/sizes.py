"""What a file asks for before it is read: a small one may ask for any amount of memory.

The limits are those of `equipoise.errors.LIMITS`, which the user can raise.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from equipoise.errors import MIB, limit, refuse_above

FREE_BYTES = 16 * MIB
"""What a packed file may unpack to without its packing being looked at."""


def bounded_bytes(file: Path, name: str) -> bytes:
    """The content of a file, of at most as many bytes as the limit of that name says.

    A device has no size and no end, so the size that the system tells is not believed. Raises
    OSError, and TooLarge.
    """
    refuse_above(name, file.stat().st_size, f"{file} has")
    with file.open("rb") as opened:
        content = opened.read(limit(name) + 1)
    refuse_above(name, len(content), f"{file} has at least")
    return content


def check_packing(unpacked: int, packed: int, file: Path | str) -> None:
    """Raise TooLarge where more has been made of a packed file than real data give."""
    if unpacked > FREE_BYTES:
        refuse_above("packed_times", unpacked // max(packed, 1), f"{file} is packed")


def check_arrays(file: Path) -> None:
    """Raise TooLarge where the arrays of an .npz file are too large or packed too well."""
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
    """Raise TooLarge where the first line of an ASCII-like csv file has too many columns."""
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
    """Raise TooLarge where the footer of a parquet file tells of too many columns or values.

    A run of equal values takes some bytes there, and gigabytes in memory. Raises OSError or
    ValueError where it is no parquet file.
    """
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(file)
    refuse_above("table_columns", metadata.num_columns, f"{file} has")
    refuse_above("table_values", metadata.num_rows * metadata.num_columns, f"{file} has")


def bounded_lines(opened: IO[bytes], raw: IO[bytes], file: str) -> Iterator[bytes]:
    """Yield the lines of a file that may be packed; raw: the same before it is unpacked.

    Raises TooLarge at a line, or a packing, beyond its limit.
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

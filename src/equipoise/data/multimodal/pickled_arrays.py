"""The names that a pickle of arrays may use, and what each name builds here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import UnionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = re.compile(r"[biufSU]\d+")  # numbers, bytes and text
LONGEST = 60  # characters of a name that is shown


class Refused(Exception):
    """The file holds something other than arrays of numbers or text; the message names it."""


class Name(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


class DataType:
    """The type of an array's entries, which the instruction after it may complete."""

    def __init__(self, code: Any) -> None:
        text = decoded(code)
        if not KINDS.fullmatch(text):
            kind = "objects" if text.startswith("O") else f"the type {shown(text)}"
            raise Refused(f"an array of {kind}")
        self.dtype = np.dtype(text)

    def complete(self, state: Any) -> None:
        """Record the byte order."""
        order = decoded(state[1])
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class Array:
    """An array, empty until the instruction that fills it."""

    def __init__(self, array: NDArray[Any] | None = None) -> None:
        self.array = np.empty(0, np.float32) if array is None else array

    def complete(self, state: Any) -> None:
        """Store the content: shape, type, order of the axes and bytes."""
        shape, kind, fortran, data = state[-4:]
        self.array = array_of(data, kind, shape, "F" if fortran else "C")


def array_of(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """A view of an array's bytes. Raises ValueError if their number is not the one it needs."""
    if not isinstance(kind, DataType):
        raise ValueError("an array without a type")
    content = data.encode("latin-1") if isinstance(data, str) else data
    sizes = tuple(int(size) for size in shape)
    if min(sizes, default=0) < 0 or len(content) != math.prod(sizes) * kind.dtype.itemsize:
        raise ValueError("an array whose size differs from the stated one")
    if not content and 0 in sizes:
        return np.empty(sizes, kind.dtype)
    return np.frombuffer(content, kind.dtype).reshape(
        sizes, order="F" if decoded(order) == "F" else "C"
    )


def decoded(value: Any) -> str:
    """Text, which Python 2 writes as bytes. Raises TypeError for anything else."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(of_type(value, str))


def of_type(value: Any, kind: type[Any] | UnionType) -> Any:
    """The value. Raises TypeError if it has another type."""
    if not isinstance(value, kind):
        raise TypeError
    return value


def mapping(entries: list[Any]) -> dict[Any, Any]:
    """Alternating keys and values. Raises TypeError for a key that is neither text nor a number."""
    keys, values = entries[::2], entries[1::2]
    if not all(isinstance(key, str | bytes | int) for key in keys):
        raise TypeError
    return dict(zip(keys, values, strict=True))


def shown(text: str) -> str:
    """On one line, and short enough for a sentence."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def known(module: str, name: str) -> Name:
    """A name, under its newest module, if arrays need it. Raises Refused otherwise."""
    for old, new in RENAMED.items():
        if module == old or module.startswith(f"{old}."):
            module = new + module.removeprefix(old)
    found = Name(module, name)
    if found not in CONSTRUCTORS and found != NDARRAY:
        raise Refused(shown(f"{module}.{name}"))
    return found


def constructor(name: Any) -> Callable[..., Any]:
    """What a name stands for. Raises Refused if it is nothing that can be built."""
    if not isinstance(name, Name) or name not in CONSTRUCTORS:
        raise Refused(f"a call of {name if isinstance(name, Name) else type(name).__name__}")
    return CONSTRUCTORS[name]


def _empty_array(kind: Any, *_: Any) -> Array:
    if kind != NDARRAY:
        raise ValueError("an array of a class of its own")
    return Array()


def _filled_array(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    return Array(array_of(data, kind, shape, order))


def _number(kind: Any, data: Any) -> Any:
    return array_of(data, kind, (), "C").item()


def _encoded(text: str, encoding: Any) -> bytes:
    """Bytes, which protocols before 3 write as text. Raises ValueError for another encoding."""
    if decoded(encoding) not in ("latin1", "latin-1"):
        raise ValueError("an encoding that no pickle uses")
    return text.encode("latin-1")


def _pairs(pairs: Any = ()) -> dict[Any, Any]:
    return mapping([entry for pair in pairs for entry in pair])


RENAMED = {"numpy.core": "numpy._core", "__builtin__": "builtins"}
NDARRAY = Name("numpy", "ndarray")
CONSTRUCTORS: dict[Name, Callable[..., Any]] = {
    Name("numpy", "dtype"): lambda code, *_: DataType(code),
    Name("numpy._core.multiarray", "_reconstruct"): _empty_array,
    Name("numpy._core.multiarray", "scalar"): _number,
    Name("numpy._core.numeric", "_frombuffer"): _filled_array,
    Name("_codecs", "encode"): _encoded,
    Name("collections", "OrderedDict"): _pairs,
    Name("builtins", "bytes"): lambda: b"",  # protocols before 3 write only empty ones so
}

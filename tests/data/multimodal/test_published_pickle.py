"""Pickles are read as data: arrays of every kind come back, everything else is refused unrun."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from equipoise.data.multimodal.pickled_arrays import Array
from equipoise.data.multimodal.published_pickle import ArrayPickle, read_pickle
from equipoise.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
NUMBERS = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i8", "u4")]
KINDS = st.sampled_from([*NUMBERS, "b1", "i1", "u1", "S7", "<U4", ">U3"]).map(np.dtype)
ARRAYS = KINDS.flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def plain(value: Any) -> Any:
    """The content with numpy's arrays in place of ours."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(entry) for entry in value)
    return value.array if isinstance(value, Array) else value


def read(data: bytes) -> Any:
    return plain(ArrayPickle(io.BytesIO(data)).read())


@given(array=ARRAYS, protocol=st.sampled_from(PROTOCOLS), fortran=st.booleans())
def test_arrays_come_back_as_they_were(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asarray(array, order="F" if fortran else "C")
    result = read(pickle.dumps({"x": array, "again": [array]}, protocol))
    for found in (result["x"], result["again"][0]):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
CONTAINERS = st.recursive(
    LEAVES | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner).map(collections.OrderedDict)
    ),
    max_leaves=12,
)


@given(content=CONTAINERS, protocol=st.sampled_from(PROTOCOLS))
def test_plain_containers_come_back_as_they_were(content: Any, protocol: int) -> None:
    assert read(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize("number", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("ab")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_of_numpy_are_numbers(number: Any, protocol: int) -> None:
    assert read(pickle.dumps([number], protocol)) == [number.item()]


def test_files_of_numpy_1_and_2_are_the_same(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    newer = pickle.dumps(array, 0)
    assert b"numpy._core" in newer
    assert np.array_equal(read(newer.replace(b"numpy._core", b"numpy.core")), array)


def python_2(array: np.ndarray, protocol: int) -> bytes:
    """What cPickle of Python 2 writes of {"train": array}: its bytes as text without encoding."""

    def text(content: bytes) -> bytes:
        if protocol == 0:
            quoted = repr(content)[1:]
            return b"S" + quoted.encode() + b"\n"
        return b"T" + struct.pack("<i", len(content)) + content

    shape = b"(" + b"".join(b"I%d\n" % size for size in array.shape) + b"t"
    kind = b"cnumpy\ndtype\n(" + text(array.dtype.str[1:].encode()) + b"I0\nI1\ntR"
    kind += b"(I3\n" + text(b"<") + b"NNNI-1\nI-1\nI0\ntb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + text(b"b") + b"tR"
    state = b"(I1\n" + shape + kind + b"I00\n" + text(array.tobytes()) + b"tb"
    begin = b"(d" if protocol == 0 else b"\x80\x02}"
    return begin + text(b"train") + empty + state + b"s."


@pytest.mark.parametrize("protocol", [0, 2])
@given(array=hnp.arrays(np.float32, st.just((2, 3))))
def test_files_of_python_2_are_read(protocol: int, array: np.ndarray) -> None:
    data = python_2(array, protocol)
    theirs = pickle.loads(data, encoding="latin1")["train"]
    assert read(data)[b"train"].tobytes() == array.tobytes() == theirs.tobytes()


def test_an_array_is_a_view_on_the_bytes_that_were_read() -> None:
    result = read(pickle.dumps(np.ones(1000), 4))
    assert isinstance(result.base, bytes | np.ndarray)
    assert not result.flags.owndata


class Command:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        """What a pickle would call."""
        return os.mkdir, (str(self.file),)


class Plain:
    """A class with a state."""

    def __init__(self) -> None:
        self.value = 1


REFUSED = {
    "of objects": np.array([1, "x", None], dtype=object),
    "_mareconstruct": np.ma.array([1.0]),
    "type V4": np.zeros(2, dtype=[("a", "f4")]),
    "type c16": np.array([1j]),
    "type M8": np.array(["2020-01-01"], dtype="M8[D]"),
    "matrix": np.matrix([[1.0]]),
    "builtins.complex": complex(1, 2),
    "Plain|_reconstructor": Plain(),
    "getcwd": os.getcwd,
    "set|SET": {1, 2},
    "PosixPath": Path("x"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("named", REFUSED)
def test_anything_but_arrays_is_refused_by_its_name(
    tmp_path: Path, named: str, protocol: int
) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps({"train": [REFUSED[named]]}, protocol))
    with pytest.raises(UserError, match=rf"x.pkl holds .*({named}).*, and only arrays"):
        read_pickle(file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    data = pickle.dumps(Command(made), protocol)
    pickle.loads(data)
    made.rmdir()
    file = tmp_path / "x.pkl"
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"holds posix.mkdir"):
        read_pickle(file)
    assert not made.exists()


HOSTILE = {
    "a call of what arrays need, on what they do not": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    "a type as a function": b"cnumpy\nndarray\n(I9999999999999\ntR.",
    "a state for a list": b"\x80\x02](I1\ntb.",
    "an instance of old": b"(ios\nsystem\n.",
    "something outside": b"Pelsewhere\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "more bytes than there are": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",
    "a place in memory far away": b"\x80\x02Nr\xff\xff\xff\xffh\x00.",
    "a shape without content": (
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n"
        b"(I9999999999999\ntcnumpy\ndtype\n(VS0\nI0\nI1\ntRI00\nV\ntb."
    ),
    "a negative shape": (
        b"cnumpy._core.numeric\n_frombuffer\n(Vabcd\ncnumpy\ndtype\n(Vf4\nI0\nI1\ntR(I-1\nI-1\nt"
        b"VC\ntR."
    ),
    "an array whose bytes are objects": b"cnumpy._core.multiarray\nscalar\n(VO\nVabcdefgh\ntR.",
    "a list as a key": b"\x80\x02}](K\x01es.",
    "a mark that was never set": b"\x80\x02t.",
    "a tuple of more than there is": b"\x80\x02N\x87.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_no_pickle_of_arrays_does_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(data)
    with pytest.raises(UserError, match=re.escape(str(file))):
        read_pickle(file)


WHOLE = pickle.dumps({"train": {"text": np.ones((2, 3)), "id": ["a", b"b", 1.5]}}, 4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, place: int, value: int, cut: bool
) -> None:
    data = WHOLE[:place] if cut else WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :]
    file = tmp_path / "x.pkl"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        read_pickle(file)
        assert not cut


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello world\n", WHOLE[:-1]])
def test_what_is_no_pickle_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"is not a whole pickle: it is empty, truncated"):
        read_pickle(file)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_pickle(tmp_path)

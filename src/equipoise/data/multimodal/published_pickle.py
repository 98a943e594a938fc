"""Read a pickle of arrays as data: no class is looked up, and nothing in the file is called.

A pickle is a program for a small machine with a stack. The machine below implements the
instructions that build numbers, text, containers and numpy arrays; any other name ends it.
`pickle.Unpickler` would call what the file names, and numpy would believe what it says about an
array's memory.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from equipoise.data.multimodal.pickled_arrays import (
    Array,
    DataType,
    Refused,
    constructor,
    decoded,
    known,
    mapping,
    of_type,
    shown,
)
from equipoise.errors import TooLarge, UserError, refuse_above

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
VALUES = {  # instructions that push what follows them
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINSTRING",
    "BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
KINDS: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "DICT": mapping}
EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
IGNORED = ("PROTO", "FRAME", "STOP")
LOOKED = 4096  # instructions between two checks of their number


class ArrayPickle:
    """The machine: reads one file; the result is what is finally on the stack."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = file.seek(0, os.SEEK_END)  # characters of text that may still be copied
        file.seek(0)
        self.steps = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memory: dict[int, Any] = {}

    def read(self) -> Any:
        """The content: containers of arrays, numbers and text.

        Raises Refused if the file names anything else, and exceptions of any kind if it is not a
        pickle or ends too early.
        """
        while self._step() != "STOP":
            self.steps += 1
            if self.steps % LOOKED == 0:
                refuse_above("pickle_steps", self.steps, "it has over")
        return self.stack.pop()

    def _step(self) -> str:
        opcode = OPCODES[self.file.read(1)]
        argument = self._argument(opcode)
        if opcode.name in VALUES:
            self.stack.append(argument)
        elif opcode.name in CONSTANTS:
            self.stack.append(CONSTANTS[opcode.name])
        elif opcode.name in EMPTY:
            self.stack.append(EMPTY[opcode.name]())
        elif opcode.name not in IGNORED:
            self._carry_out(opcode.name, argument)
        return opcode.name

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        """The argument of an instruction; Python 2 text and all long content as plain bytes."""
        if opcode.name == "STRING":
            return _quoted(self.file.readline())
        if opcode.name in ("BINSTRING", "SHORT_BINSTRING", "BYTEARRAY8"):
            width = {"BINSTRING": 4, "SHORT_BINSTRING": 1, "BYTEARRAY8": 8}[opcode.name]
            return self._bytes(int.from_bytes(self._bytes(width), "little"))
        return None if opcode.arg is None else opcode.arg.reader(self.file)

    def _bytes(self, count: int) -> bytes:
        content = self.file.read(count)
        if len(content) < count:
            raise EOFError
        return content

    def _carry_out(self, instruction: str, argument: Any) -> None:
        match instruction:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP":
                self.stack.pop() if self.stack else self._since_mark()
            case "POP_MARK":
                self._since_mark()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memory[argument])
            case "GLOBAL":
                self.stack.append(known(*argument.split(" ", 1)))
            case "INST":
                raise Refused(shown(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = self.stack.pop(), self.stack.pop()
                self.stack.append(known(decoded(module), decoded(name)))
            case "REDUCE":
                arguments, name = self.stack.pop(), self.stack.pop()
                self._spend(arguments)
                self.stack.append(constructor(name)(*arguments))
            case "BUILD":
                state, value = self.stack.pop(), self.stack[-1]
                if not isinstance(value, Array | DataType):
                    raise Refused(f"a {type(value).__name__} with a state of its own")
                self._spend(state)
                value.complete(state)
            case _:
                self._contain(instruction)

    def _contain(self, instruction: str) -> None:
        """Build or fill a container."""
        match instruction:
            case "DUP":
                self.stack.append(self.stack[-1])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(instruction[-1])
                if len(self.stack) < count:
                    raise EOFError
                self.stack[-count:] = [tuple(self.stack[-count:])]
            case "TUPLE" | "LIST" | "DICT":
                entries = self._since_mark()
                self.stack.append(KINDS[instruction](entries))
            case "APPEND" | "APPENDS":
                entries = self._since_mark() if instruction[-1] == "S" else [self.stack.pop()]
                of_type(self.stack[-1], list).extend(entries)
            case "SETITEM" | "SETITEMS":
                if instruction == "SETITEM":
                    entries, self.stack = self.stack[-2:], self.stack[:-2]
                else:
                    entries = self._since_mark()
                of_type(self.stack[-1], dict).update(mapping(entries))
            case _:
                raise Refused(f"an object that needs the instruction {instruction}")

    def _spend(self, arguments: Any) -> None:
        """Count copied text against the file's size: the file may name one text many times."""
        self.left -= sum(len(part) for part in of_type(arguments, tuple) if isinstance(part, str))
        if self.left < 0:
            raise Refused("the same text in many arrays")

    def _since_mark(self) -> list[Any]:
        """What was pushed since the last mark; the stack is then the one below the mark."""
        since, self.stack = self.stack, self.below.pop()
        return since


def read_pickle(file: Path) -> Any:
    """The content of a pickle of any protocol, of Python 2 or 3 and numpy 1 or 2.

    Arrays are `Array`s, which view the bytes that were read, and Python 2 byte strings stay bytes.
    Raises UserError if the file cannot be read or holds anything but arrays of numbers or text in
    plain containers.
    """
    try:
        with file.open("rb") as content:
            return ArrayPickle(content).read()
    except TooLarge as error:
        raise TooLarge(f"{file} is not read: {error}") from error
    except Refused as refusal:
        raise UserError(
            f"{file} holds {refusal}, and only arrays of numbers or text in dictionaries and lists "
            "are read: the file is not the published one, or unsafe; fetch it again from its source"
        ) from refusal
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(
            f"{file} needs more memory than there is: fetch it again if it is damaged, else run "
            "python -m equipoise convert-multimodal where there is enough"
        ) from error
    except Exception as error:  # bytes that are not a pickle fail in many ways
        raise UserError(
            f"{file} is not a whole pickle: it is empty, truncated or another kind of file; fetch "
            "it again"
        ) from error


def _quoted(line: bytes) -> bytes:
    """Bytes as Python 2 writes them in protocol 0: in quotes, with escapes. Raises ValueError."""
    content = line.rstrip(b"\r\n")
    if len(content) < 2 or content[:1] not in (b"'", b'"') or content[-1:] != content[:1]:
        raise ValueError("text without quotes")
    return content[1:-1].decode("unicode_escape").encode("latin-1")

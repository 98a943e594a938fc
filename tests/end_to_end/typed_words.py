"""What a word of the command line asks for, read by a reader of our own.

It knows the grammar that docs/configuration.md describes and shares no code with Hydra or with
`equipoise.config`, so that a fault in their reading shows as a difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SIGNED = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]+?)(?:=(?P<value>.*))?", re.DOTALL)
INTEGER = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
FRACTION = re.compile(
    r"[+-]?((([0-9](_?[0-9])*)?\.[0-9](_?[0-9])*|[0-9](_?[0-9])*\.?)([eE][+-]?[0-9](_?[0-9])*)?)"
)
WORDS = {"null": None, "true": True, "false": False, "nan": float("nan"), "inf": float("inf")}
CALL = re.compile(r"[A-Za-z_]\w* ?\(")


class NotRead(Exception):
    """The reader does not know this form, which is then compared with Hydra's own reading."""


@dataclass(frozen=True)
class Asked:
    """One word: sign ("", "+", "++", "~"), key, package, value; given: whether it has a value."""

    sign: str
    key: str
    package: str | None
    value: Any
    given: bool


def asked(word: str) -> Asked:
    """Read a word. Raises NotRead for a function or several values."""
    parts = SIGNED.fullmatch(word)
    if parts is None:
        raise NotRead(word)
    key, at, package = parts["key"].partition("@")
    given = parts["value"] is not None
    value = Reader(parts["value"]).whole() if given else None
    return Asked(parts["sign"] or "", key, package if at else None, value, given)


class Reader:
    """A recursive reader of one value."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.at = 0

    def whole(self) -> Any:
        """The value, which has to take up the whole text."""
        if not self.text:
            return ""
        value = self.value("")
        if self.at != len(self.text):
            raise NotRead(self.text)
        return value

    def value(self, ends: str) -> Any:
        """A value in front of one of the marks in `ends`."""
        self.skip()
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"'):
            return self.quoted(first)
        if first == "[":
            return self.entries("]", lambda: self.value(",]"))
        if first == "{":
            return dict(self.entries("}", self.pair))
        return self.plain(ends)

    def entries(self, end: str, read: Any) -> list[Any]:
        """What stands between brackets."""
        self.at += 1
        found: list[Any] = []
        while True:
            self.skip()
            if self.text[self.at : self.at + 1] == end:
                self.at += 1
                return found
            found.append(read())
            self.skip()
            if self.text[self.at : self.at + 1] == ",":
                self.at += 1
            elif self.text[self.at : self.at + 1] != end:
                raise NotRead(self.text)

    def pair(self) -> tuple[Any, Any]:
        """key: value."""
        key = self.value(":")
        self.skip()
        if self.text[self.at : self.at + 1] != ":":
            raise NotRead(self.text)
        self.at += 1
        return key, self.value(",}")

    def quoted(self, mark: str) -> str:
        """A text in quotes; a backslash stands before a quote in it and a backslash at its end."""
        end = re.compile(rf"{mark}((?:[^{mark}\\]|\\.)*){mark}", re.DOTALL).match(
            self.text, self.at
        )
        if end is None:
            raise NotRead(self.text)
        self.at = end.end()
        inner = end[1]
        inner = re.sub(rf"(\\+){mark}", lambda m: "\\" * (len(m[1]) // 2) + mark, inner)
        return re.sub(r"(\\+)$", lambda m: "\\" * (len(m[1]) // 2), inner)

    def plain(self, ends: str) -> Any:
        """A number, a word, an interpolation, or text without quotes."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            mark = self.text[self.at]
            if mark == "\\":
                self.at += 2
                continue
            if self.text.startswith("${", self.at):
                depth += 1
            elif mark == "}" and depth:
                depth -= 1
            elif not depth and mark in (ends or ","):
                break
            self.at += 1
        written = self.text[start : self.at].strip()
        if CALL.match(written) or not written:
            raise NotRead(self.text)
        return read_plain(written)

    def skip(self) -> None:
        """Pass over spaces."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1


def read_plain(written: str) -> Any:
    """A word without quotes."""
    lowered = written.lower()
    if lowered in WORDS:
        return WORDS[lowered]
    if lowered.lstrip("+-") in ("inf", "nan") and lowered[0] in "+-":
        return float(lowered)
    if INTEGER.fullmatch(written):
        return int(written)
    if FRACTION.fullmatch(written):
        return float(written)
    if "${" in written:
        return written
    return re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", written)

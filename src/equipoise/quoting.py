"""Texts in Hydra's grammar: how to write one so that it is read as it stands."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.override_parser.types import QuotedString

WORD = re.compile(r"(?P<key>[+~]*[\w./@-]+)=(?P<value>.*)", re.ASCII | re.DOTALL)
FUNCTION = re.compile(r"(bool|choice|float|glob|int|interval|range|shuffle|sort|str|tag)\(")
UNREADABLE = re.compile(r"[^\w./:@%+*?|$\s-]|[^\x00-\x7f]")


def quoted(text: str) -> str:
    """The text in quotes, with nothing in it that the grammar or an interpolation would take."""
    escaped = re.sub(r"(\\+)(?='|$|\$\{)", r"\1\1", text)
    return "'" + escaped.replace("'", r"\'").replace("${", r"\${") + "'"


def how_to_quote(line: str) -> str:
    """A clause that tells how to type `key=text` with the text in quotes, where that may help."""
    word = WORD.fullmatch(line)
    if word is None:
        return "; a setting has the form name=value"
    key, value = word["key"], word["value"].strip("'\"")
    if FUNCTION.match(value):
        return ""
    strange = sorted(set(UNREADABLE.findall(value)))
    marks = " ".join(mark for mark in strange if not mark.isspace()) or "spaces"
    if value.startswith(("[", "{")):
        marks = f"{value[0]} (and no list or mapping is meant)"
    return f"; a text with {marks} stands in quotes: {for_the_shell(f'{key}={quoted(value)}')}"


def for_the_shell(word: str) -> str:
    """A word in the shell's double quotes."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", word) + '"'


def as_text(value: Any) -> str:
    """A typed value as the user sees it, without quotes."""
    return value.text if isinstance(value, QuotedString) else str(value)

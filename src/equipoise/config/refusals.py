"""Why Hydra cannot read a word or compose with it, as sentences that say what to type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import create_functions
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from equipoise.errors import nearest

ERRORS = (
    HydraException, OmegaConfBaseException, ValueError, TypeError, KeyError, AttributeError,
    AssertionError,
)  # fmt: skip
"""Hydra's exceptions for a word that it cannot apply; the last five have no usable message."""
FUNCTIONS = tuple(sorted(create_functions().functions))
WORD = re.compile(r"(?P<sign>~|\+{0,2})(?P<key>[^=\s]*)=(?P<value>.*)", re.DOTALL)
KEY = re.compile(r"[A-Za-z_$][\w$-]*([./][\w$-]+)*(@([A-Za-z_$][\w$-]*(\.[\w$-]+)*)?)?", re.ASCII)
CALL = re.compile(r"(?P<name>[A-Za-z_][\w-]*) ?\(")
UNREADABLE = re.compile(r"[^\w./:@%+*?|$\s-]|[^\x00-\x7f]")
WHOLE_INTERPOLATION = re.compile(r"[^$]*(\$\{[^{}]+(\{[^{}]*\})*[^{}]*\}[^$]*)+")
IN_OUR_WORDS = (
    (r"Multiple values for (\S+)\. To override", r"\1 is chosen already: leave out the +"),
    (r"force-add of config groups is not supported: '\+\+(.*)'", r"type \1: a choice needs no ++"),
    (r"Could not override '([^']+)'", r"there is nothing called \1 here; +\1=... would add it"),
    (r"Could not delete '?([^'=]+)", r"there is nothing called \1 here to remove"),
    (
        r"(?:In '.*': )?Could not (?:find|load) '(hydra/\w+)/([^']+)'",
        r"\1 has no choice \2; a plugin of Hydra that is installed may bring one",
    ),
    (r"Config group override must be a string or a list", r"a group takes the name of a choice"),
    (
        r".*HydraConfig was not set",
        r"${hydra:...} is filled in for Hydra's own settings alone, such as hydra.run.dir",
    ),
    (r"\w+ raised while resolving interpolation: \"?(.*?)\"?$", r"\1"),
)
"""Patterns of the beginnings of Hydra's and OmegaConf's messages, and the user's remedy."""


def quoted(text: str) -> str:
    """The text in quotes, escaped so that neither grammar nor interpolation interprets it."""
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def in_quotes(text: str) -> str:
    """The text in quotes; its interpolations are still filled in."""
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text)
    return "'" + escaped.replace("'", r"\'") + "'"


def for_the_shell(word: str) -> str:
    """A word in the shell's double quotes."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", word) + '"'


def as_text(value: Any) -> str:
    """A typed value as the user sees it, without quotes."""
    return value.text if isinstance(value, QuotedString) else str(value)


def shown(value: Any) -> str:
    """A value as a message shows it: a text that could be read as another type is quoted."""
    misleads = isinstance(value, str) and re.fullmatch(r"[\d.+-].*|true|false|null", value)
    return f"'{value}'" if misleads else as_text(value)


def one_line(text: str) -> str:
    """The text with line breaks replaced by their escapes."""
    return text.replace("\r", r"\r").replace("\n", r"\n")


def unreadable(line: str, error: BaseException) -> str:
    """Why Hydra's grammar cannot read a word."""
    start = f"cannot read the command line at '{one_line(line)}'"
    word = WORD.fullmatch(line)
    if word is None:
        return f"{start}; a setting has the form name=value"
    if not KEY.fullmatch(word["key"]):
        return f"{start}; '{word['key']}' is no name: a setting has the form name=value"
    call = CALL.match(word["value"])
    if call and call["name"] in FUNCTIONS:
        return f"{start}: {_reason(error)}"
    unknown = ""
    if call:
        hint = nearest(call["name"], FUNCTIONS) or f" among {', '.join(FUNCTIONS)}"
        unknown = f"; there is no function {call['name']}{hint}"
    return f"{start}{unknown}{how_to_quote(line)}"


def how_to_quote(line: str) -> str:
    """A clause that shows how to type `key=text` with the text quoted, where that may help."""
    word = WORD.fullmatch(line)
    if word is None or not KEY.fullmatch(word["key"]):
        return ""
    value = word["value"]
    if (call := CALL.match(value)) and call["name"] in FUNCTIONS:
        return ""
    if value[:1] in ("'", '"') and value.count(value[0]) % 2:
        return f"; close the quote: {value[0]}"
    value = value.strip("'\"")
    strange = sorted(set(UNREADABLE.findall(value)))
    marks = " ".join(mark for mark in strange if not mark.isspace()) or "spaces"
    if value.startswith(("[", "{")):
        marks = f"{value[0]} (unless a list or mapping is meant)"
    if "\n" in value or "\r" in value:
        return "; put a value with line breaks in quotes"
    text = f"'{value}'" if WHOLE_INTERPOLATION.fullmatch(value) else quoted(value)
    typed = for_the_shell(f"{word['sign']}{word['key']}={text}")
    return f"; quote a value with {marks}: {typed}"


def _reason(error: BaseException) -> str:
    """Hydra's reason why it cannot call a function."""
    lines = str(error).strip().splitlines()
    chosen = lines[1] if lines[0].startswith("Error parsing") and lines[1:] else lines[0]
    return chosen.rstrip(".")


def not_composed(error: BaseException, lines: Sequence[str]) -> str:
    """Why Hydra cannot compose with the words."""
    settings = [one_line(line) for line in lines if re.match(r"[+~]*hydra\b", line)]
    place = f" with {', '.join(settings)}" if settings else ""
    return f"cannot compose the configuration{place}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of another library's message, in our words where we have some."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    for pattern, ours in IN_OUR_WORDS:
        if found := re.match(pattern, text):
            return found.expand(ours)
    return text

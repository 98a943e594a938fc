"""Completion in a shell: the words that are possible at the cursor, found without torch.

The shell's function calls `-sc query=<shell>` with the line up to the cursor in COMP_LINE, and
gets whole words, one per line. If there are none, the shell completes file names.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from equipoise.commands.arguments import CHOICES, with_config_dir
from equipoise.commands.jobs import jobs, written_out
from equipoise.config.annotations import accepts, literals, parameters
from equipoise.config.compose import (
    CONF,
    OF_SHAPE,
    apply_recipe,
    parse,
    search_path,
    with_implied_choices,
)
from equipoise.config.hydra import composed_by_hydra, hydra_config
from equipoise.config.overrides import TAKE_SEVERAL, CommandLine, Menu
from equipoise.errors import UserError

PROGRAMS = ("train.py", "evaluate.py")
FLAGS = ("--cfg", "--config-dir", "--help", "--hydra-help", "--info", "--multirun", "--package",
         "--resolve", "--run", "--shell-completion", "--version")  # fmt: skip
OF_PROFILE = ("steps", "warm_up")
TAKES_VALUE = {
    "--cfg": "cfg", "-c": "cfg", "--info": "info", "-i": "info", "--package": "package",
    "-p": "package", "--config-dir": "config_dir", "-cd": "config_dir",
}  # fmt: skip
PATHS = re.compile(r"(.*[._])?(path|dir|dirpath|folder|file|ckpt)")
VALUE = re.compile(r"(?P<head>.*?[=,\[])(?P<last>[^,\[=]*)", re.DOTALL)


def candidates(line: str) -> list[str]:
    """The words that the last one of a command line can become, sorted."""
    words, current = shell_words(line)
    command, rest = command_of(words)
    if command is None:
        return []
    found = _candidates_of(command, rest, current)
    return sorted({word for word in found if word.startswith(current)} - {current})


def shell_words(line: str) -> tuple[list[str], str]:
    """The finished words of a line, and the one at its end, without their quotes."""
    for quote in ("", "'", '"'):
        try:
            words = shlex.split(line.rstrip("\\") + quote)
        except ValueError:
            continue
        between = not quote and line[-1:].isspace() and not line.endswith("\\ ")
        return (words, "") if between or not words else (words[:-1], words[-1])
    return [], ""


def command_of(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Which of our commands a line calls, and the words after it; "" if it is not yet named."""
    for number, word in enumerate(words):
        name, rest = Path(word).name, list(words[number + 1 :])
        if name in PROGRAMS:
            return name.removesuffix(".py"), rest
        if number == 0 and name in ("equipoise-train", "equipoise-evaluate"):
            return name.removeprefix("equipoise-"), rest
        if name == "equipoise" and (number == 0 or words[number - 1] == "-m"):
            return (rest[0], rest[1:]) if rest else ("", [])
    return None, []


def _candidates_of(command: str, rest: Sequence[str], current: str) -> Iterator[str]:
    if command == "":
        from equipoise.commands import NAMES

        yield from NAMES
    elif command == "list":
        from equipoise.commands.list.entries import LISTS, Shelf, plural

        yield from (*LISTS, *map(plural, Shelf([CONF]).groups))
    elif command == "import-weights" and not rest:
        from equipoise.interop import NETWORKS

        yield from NETWORKS
    elif command in ("train", "evaluate") and rest and rest[-1] in TAKES_VALUE:
        yield from _of_flag(TAKES_VALUE[rest[-1]], rest, current)
    elif command in ("train", "evaluate"):
        yield from FLAGS if current.startswith("-") else _settings(rest, current)
    elif command == "profile":
        yield from (*(f"{key}=" for key in OF_PROFILE), *_settings(rest, current))


def _of_flag(kind: str, rest: Sequence[str], current: str) -> Iterator[str]:
    """The values of a flag."""
    if kind == "config_dir":
        yield from (file for file in files(current) if file.endswith("/"))
    else:
        yield from CHOICES.get(kind) or map(str, configuration(typed(rest)))


def typed(words: Sequence[str]) -> list[str]:
    """The overrides among finished words, without those that are wrong."""
    folder, overrides, value_of = None, list[str](), ""
    for word in words:
        if value_of in ("--config-dir", "-cd"):
            folder = word
        elif not value_of and (word.startswith("~") or "=" in word):
            overrides.append(word)
        value_of = word if word in TAKES_VALUE else ""
    try:
        return with_config_dir(folder, overrides)
    except UserError:
        return overrides


def _settings(words: Sequence[str], current: str) -> Iterator[str]:
    """Groups, choices, settings and their values."""
    sign, body = re.match(r"([+~]*)(.*)", current, re.DOTALL).groups()  # type: ignore[union-attr]
    lines = typed(words)
    try:
        menu = Menu.of([CONF, *search_path(parse([w for w in lines if "searchpath" in w]))])
    except UserError:
        menu = Menu.of([CONF])
    key, equals, _ = body.partition("=")
    if equals:
        found = _values(key, body, menu, lines)
    else:
        found = _keys(body, menu, lines, ending="" if sign == "~" else "=")
    yield from (f"{sign}{word}" for word in found)


def _keys(body: str, menu: Menu, lines: Sequence[str], ending: str) -> Iterator[str]:
    """Groups, and settings at the current level; a mapping ends with a dot."""
    yield from (f"{group}{ending}" for group, choices in menu.groups.items() if choices)
    parent = body.rpartition(".")[0]
    config = _hydras(lines) if body.startswith("hydra.") else configuration(lines)
    if "@" in body or body.startswith("solver"):
        yield from (
            f"{place}{ending}" for place in ("solver@eval_solver", "solver@gradient.solver")
        )
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return
    for name, value in node.items_ex(resolve=False):
        word = f"{parent}.{name!s}" if parent else str(name)
        if name == "about" or word == "recipe":
            continue
        has_settings = isinstance(value, DictConfig) and bool(value)
        yield from ([f"{word}."] if has_settings else [])
        yield from ([f"{word}{ending}"] if not has_settings or not ending else [])


def _values(key: str, body: str, menu: Menu, lines: Sequence[str]) -> Iterator[str]:
    """Choices of a group (also within a list), values of a setting, or names of files."""
    group = key.partition("@")[0]
    head, last = VALUE.fullmatch(body).groups() if VALUE.fullmatch(body) else ("", "")  # type: ignore[union-attr]
    if group in menu.groups:
        names = menu.groups[group] if "[" not in head or group in TAKE_SEVERAL else []
        yield from (f"{head}{name}" for name in names)
        return
    if PATHS.fullmatch(key) or last.startswith((".", "/", "~")):
        yield from (f"{head}{file}" for file in files(last))
        return
    config = _hydras(lines) if key.startswith("hydra.") else configuration(lines)
    yield from (f"{head}{value}" for value in values_of(key, config))


def values_of(key: str, config: DictConfig) -> list[str]:
    """The possible values of a setting where its class names them, else its present value."""
    value = OmegaConf.select(config, key, throw_on_missing=False)
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else None
    hints = parameters(str(node.get("_target_"))) if isinstance(node, DictConfig) else {}
    hint = hints.get(name)
    named = [str(choice) for choice in literals(hint)] if hint is not None else []
    if not named and (isinstance(value, bool) or (hint is not None and accepts(True, hint))):
        named = ["true", "false"]
    if not named and value is not None and not isinstance(value, DictConfig):
        named = [str(value)]
    readable = [word for word in named if re.fullmatch(r"[\w.+-]+", word, re.ASCII)]
    nullable = hint is not None and accepts(None, hint)
    return [*readable, *(["null"] if nullable else [])]


def configuration(lines: Sequence[str]) -> DictConfig:
    """What the overrides compose to, recipe included; the default where they do not compose."""
    for words in (lines, [line for line in lines if "searchpath" in line], []):
        try:
            first = CommandLine.of(jobs(written_out(words))[0])
            shape = {name: first.value(f"model.{name}") for name in OF_SHAPE}
            config, choices = with_implied_choices(first.groups, shape)
            apply_recipe(config, choices)
        except UserError:
            continue
        return config
    return composed_by_hydra([])[0]


def _hydras(lines: Sequence[str]) -> DictConfig:
    try:
        return hydra_config([line for line in lines if "hydra" in line])
    except UserError:
        return hydra_config([])


def files(start: str) -> list[str]:
    """Files and folders with this beginning, except those that the grammar needs quoted."""
    folder, name = os.path.split(start)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder or ".")), key=lambda e: e.name)
    except OSError:
        return []
    return [
        os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
        for entry in entries
        if entry.name.startswith(name) and re.fullmatch(r"[\w./:@%+-]+", entry.name, re.ASCII)
        if name.startswith(".") or not entry.name.startswith(".")
    ]


def query() -> str:
    """The answer to the shell; COMP_LINE is its line, COMP_POINT the place of the cursor in it."""
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    return "\n".join(candidates(line[: int(point)] if point.isdecimal() else line))

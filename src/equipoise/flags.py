"""The flags of the command line: those of Hydra that work here, and why the others do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from equipoise.errors import UserError, nearest
from equipoise.quoting import quoted

LONG = {
    "-h": "--help", "-c": "--cfg", "-p": "--package", "-r": "--run", "-m": "--multirun",
    "-i": "--info", "-sc": "--shell-completion", "-cd": "--config-dir", "-cn": "--config-name",
    "-cp": "--config-path",
}  # fmt: skip
WITH_VALUE = {"--cfg", "--package", "--config-dir", "--config-name", "--config-path",
              "--experimental-rerun"}  # fmt: skip
ALONE = {"--help", "--version", "--resolve", "--run", "--multirun", "--info", "--hydra-help",
         "--shell-completion"}  # fmt: skip
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("defaults", "defaults-tree", "plugins", "searchpath"),
}
REFUSED = {
    "--config-name": "train.py always starts from conf/train.yaml; a complete configuration of "
    "your own is a file experiment/<name>.yaml in a folder that --config-dir names",
    "--config-path": "train.py always starts from conf/train.yaml; a folder with choices of your "
    "own is named by --config-dir",
    "--experimental-rerun": "it would unpickle a file, and so run what somebody has put there; to "
    "repeat a run type what .hydra/overrides.yaml in its folder lists",
}


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags in their long form, each with its value behind it, and the overrides.

    Raises UserError for a flag that does not exist or does not work here, or has not its value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        name = LONG.get(name, name)
        _check_name(word, name)
        flags.append(name)
        if equals:
            flags.append(value)
        elif name in WITH_VALUE:
            flags.extend(itertools.islice(words, 1))
        elif name == "--info":
            words, behind = _optional(words)
            flags.extend(behind)
    check(flags)
    return flags, overrides


def _check_name(word: str, name: str) -> None:
    known = WITH_VALUE | ALONE
    if name not in known:
        hint = nearest(name, [*known, *LONG]) or "; train.py --help shows what there is"
        raise UserError(f"there is no flag {word}{hint}")
    if name in REFUSED:
        raise UserError(f"{name}: {REFUSED[name]}")
    if "=" in word and name in ALONE - {"--info"}:
        raise UserError(f"{name} takes no value")


def _optional(words: Iterator[str]) -> tuple[Iterator[str], list[str]]:
    """The next word where it is a value of --info, and the rest."""
    following = next(words, None)
    if following is None:
        return words, []
    if "=" in following or following.startswith("-"):
        return itertools.chain([following], words), []
    return words, [following]


def check(flags: Sequence[str]) -> None:
    """Raise where a flag lacks its value, or the flag that it belongs to."""
    for name in (*WITH_VALUE, "--info"):
        if flags.count(name) > 1:
            raise UserError(f"{name} is given twice: type it once")
    for name, choices in CHOICES.items():
        if name in flags and value_of(flags, name) not in choices:
            given = value_of(flags, name)
            hint = "; the configuration itself is shown by --cfg job" if name == "--info" else ""
            said = f"{name} {given}" if given and "=" not in given else f"{name} alone"
            raise UserError(f"{said} shows nothing: it takes {', '.join(choices)}{hint}")
    for name in ("--package", "--resolve"):
        if name in flags and "--cfg" not in flags:
            raise UserError(f"{name} belongs to --cfg job")
    for name in sorted(WITH_VALUE & set(flags)):
        if not value_of(flags, name):
            raise UserError(f"{name} needs a value behind it")
    ways = [name for name in ("--cfg", "--info", "--multirun", "--shell-completion")
            if name in flags]  # fmt: skip
    if len(ways) > 1:
        raise UserError(f"{ways[0]} and {ways[1]} cannot go together")


def value_of(flags: Sequence[str], name: str) -> str | None:
    """What stands behind a flag; None where nothing does."""
    if name not in flags:
        return None
    behind = list(flags[flags.index(name) + 1 :])
    return behind[0] if behind and not behind[0].startswith("--") else None


def is_multirun(flags: Sequence[str]) -> bool:
    """Whether several jobs were asked for."""
    return "--multirun" in flags


def check_evaluation(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise for what only train.py does."""
    for name in ("--multirun", "--info", "--shell-completion", "--hydra-help"):
        if name in flags:
            raise UserError(f"{name} is a flag of train.py; evaluate.py evaluates one checkpoint")
    if "--cfg" in flags and value_of(flags, "--cfg") != "job":
        raise UserError("evaluate.py shows --cfg job alone: Hydra does not run it")
    for line in overrides:
        if line.lstrip("+~").startswith("hydra") and not line.startswith("hydra.searchpath="):
            raise UserError(f"{line}: Hydra does not run evaluate.py; a folder is named by run_dir")


def with_config_dir(flags: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides, with the folder of --config-dir among those where choices are looked for.

    Raises UserError where there is no such folder.
    """
    folder = value_of(flags, "--config-dir")
    if folder is None:
        return list(overrides)
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir: there is no folder {folder}")
    if any(line.startswith("hydra.searchpath=") for line in overrides):
        raise UserError("--config-dir and hydra.searchpath name the same thing: type one of them")
    return [f"hydra.searchpath=[{quoted(f'file://{Path(folder).absolute()}')}]", *overrides]

"""Hydra's part in composing: its grammar, its search path, its settings, reading `conf/`."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import configure_log, env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from equipoise.config.init_from import spelled_out
from equipoise.config.refusals import (
    ERRORS,
    as_text,
    first_line,
    not_composed,
    one_line,
    unreadable,
)
from equipoise.config.refusals import quoted as quoted
from equipoise.errors import UserError

CONF = next(
    folder
    for folder in (Path(__file__).parents[3] / "conf", Path(__file__).parents[1] / "conf")
    if folder.is_dir()
)
SEARCH_PATH = "hydra.searchpath"
TAKE_SEVERAL = {"logger", "callbacks", "experiment", "debug"}
"""Groups that may have several choices at once, as in logger=[csv,wandb]."""
OUR_SOURCES = {"hydra", "main", "schema"}
"""Providers of the files of a composition without the user's folders: Hydra and `conf/`."""
MOST_KEPT = 64
_KEPT: dict[Any, tuple[DictConfig, dict[str, str]]] = {}
"""The last compositions by their overrides and the files that they were read from."""


def parse(lines: Sequence[str]) -> list[Override]:
    """The overrides by Hydra's grammar. Raises UserError where one is not of the form key=value."""
    parser = OverridesParser.create()
    overrides: list[Override] = []
    for line in spelled_out(lines):
        try:
            overrides += parser.parse_overrides([line])
        except HydraException as error:
            raise UserError(unreadable(line, error)) from error
        if not overrides[-1].key_or_group:
            raise UserError(f"'{one_line(line)}' names nothing; a setting has the form name=value")
    return overrides


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """Folders that `hydra.searchpath=[file://..., pkg://...]` adds to `conf/`, the last of several.

    Raises UserError where it is not a list, or one of them does not exist.
    """
    settings = [override for override in overrides if override.key_or_group == SEARCH_PATH]
    return [
        folder
        for override in settings[-1:]
        for folder in _folders(override.value(), override.input_line)
    ]


def search_entries(overrides: Sequence[Override]) -> list[str]:
    """The entries of `hydra.searchpath`, with absolute paths, so that they hold anywhere."""
    settings = [override for override in overrides if override.key_or_group == SEARCH_PATH]
    values: list[Any] = [override.value() for override in settings]
    entries = [as_text(entry) for value in values for entry in value]
    return [entry if entry.startswith("pkg://") else _absolute(entry) for entry in entries]


def _absolute(entry: str) -> str:
    return f"file://{Path(entry.removeprefix('file://')).absolute()}"


def with_search_entries(lines: Sequence[str], entries: Sequence[str]) -> list[str]:
    """The overrides, with further entries in `hydra.searchpath` after the typed ones."""
    typed = [o for o in parse(lines) if o.key_or_group == SEARCH_PATH]
    every = list(dict.fromkeys([*search_entries(typed), *entries]))
    rest = [line for line in lines if not line.startswith(f"{SEARCH_PATH}=")]
    if not every:
        return list(lines)
    return [f"{SEARCH_PATH}=[{','.join(map(quoted, every))}]", *rest]


def _folders(value: Any, line: str | None) -> Iterator[Path]:
    if not isinstance(value, list):
        raise UserError(f"{line} must be a list: '{SEARCH_PATH}=[file://<folder>]'")
    for entry in value:
        kind, separator, place = as_text(entry).rpartition("://")
        if separator and kind not in ("file", "pkg"):
            raise UserError(f"{line}: {kind}:// cannot be read; give file://<folder>")
        folder = _folder_of_package(place) if kind == "pkg" else Path(place)
        if folder is None or not folder.is_dir():
            raise UserError(f"{line}: there is no folder {place}; give file://<folder>")
        yield folder


def _folder_of_package(name: str) -> Path | None:
    try:
        spec = find_spec(name.replace("/", "."))
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def composed_by_hydra(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """Hydra's own composition, and the choice of every group in it, several with commas.

    The jobs of a sweep mostly make the same choices, so the last compositions are kept as long as
    no file of `conf/` changes.
    """
    state = (tuple(overrides), _files_of_conf())
    if state not in _KEPT:
        config, choices = _composed(overrides)
        sources = [source.provider for source in config.hydra.runtime.config_sources]
        with open_dict(config):
            del config["hydra"]
        if set(sources) - OUR_SOURCES:  # the user's folders, which may change too
            return config, choices
        if len(_KEPT) == MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[state] = config, choices
    config, choices = _KEPT[state]
    return copy.deepcopy(config), dict(choices)


def _files_of_conf() -> tuple[tuple[str, tuple[int, ...]], ...]:
    """A fingerprint that shows whether a file has been changed, added or removed."""
    names = [
        os.path.join(folder, name)
        for folder, inner, files in os.walk(CONF)
        for name in [*inner, *files]
    ]
    linked = (name for name in names if os.path.islink(name) and os.path.isdir(name))
    names += [entry.path for folder in linked for entry in os.scandir(folder)]
    return tuple((name, _stamp(name)) for name in names)


def _stamp(file: str) -> tuple[int, ...]:
    """What changes with a file's content; nothing for a link to nothing, as editors' locks are."""
    try:
        stat = os.stat(file)
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size  # a copy may keep the first


def _composed(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    try:
        with hydra_of_our_own():
            config = hydra_compose("train", list(overrides), return_hydra_config=True)
    except ERRORS as error:
        raise UserError(not_composed(error, overrides)) from error
    choices = {
        group: str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if not group.startswith("hydra/") and choice is not None
    }
    for override in parse(overrides):  # Hydra names none of several choices at once
        if isinstance(override.value(), list) and override.key_or_group in TAKE_SEVERAL:
            choices[override.key_or_group] = ",".join(map(as_text, override.value()))  # type: ignore[arg-type]
    with open_dict(config):
        config.setdefault("recipe", {})
        config.setdefault("sweep", None)
        for group in ("logger", "callbacks"):  # logger=[] and callbacks=[]: none of them
            config.setdefault(group, {})
    return config, choices


@contextmanager
def hydra_of_our_own() -> Iterator[None]:
    """Hydra's compose API on `conf/`, even in a Hydra job, where it is already initialised."""
    of_the_job = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = of_the_job


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf below a mapping; lists are leaves."""
    for key, value in node.items():
        if isinstance(value, Mapping | DictConfig) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(config: Any, resolve: bool = False) -> dict[str, Any]:
    """A configuration as plain dicts and lists, which a weights-only checkpoint may hold.

    Raises UserError where an interpolation cannot be resolved.
    """
    try:
        container = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise UserError(f"cannot resolve the configuration: {first_line(error)}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def hydra_config(overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition of one job's overrides with its own settings under `hydra`.

    Additions by recipes and estimators are not in it. Raises UserError where it cannot be composed.
    """
    try:
        with hydra_of_our_own():
            lines = ["hydra.job.name=train", *overrides]
            return hydra_compose("train", lines, return_hydra_config=True)
    except ERRORS as error:
        raise UserError(not_composed(error, overrides)) from error


def hydra_setting(settings: DictConfig, key: str) -> str | None:
    """The value of one of Hydra's own settings in a composition of `hydra_config`.

    Raises UserError where it cannot be resolved.
    """
    try:
        with in_force(settings):
            value = OmegaConf.select(settings, key, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{key} cannot be resolved: {first_line(error)}") from error
    return None if value is None else str(value)


@contextmanager
def in_force(settings: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` and HydraConfig.get() return these settings."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(settings)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def job_of_hydra(settings: DictConfig, config: DictConfig, directory: Path) -> Iterator[None]:
    """Hydra's work around a single job in `directory`: its record, its logging, variables.

    config: the job's, for the record. Raises UserError where the folder cannot be written.
    """
    with read_write(settings.hydra), open_dict(settings.hydra):
        settings.hydra.mode = RunMode.RUN
        settings.hydra.run.dir = str(directory)
        settings.hydra.runtime.output_dir = str(directory.absolute())
    with in_force(settings):
        try:
            if settings.hydra.output_subdir is not None:
                write_record(config, directory / settings.hydra.output_subdir)
            configure_log(settings.hydra.job_logging, settings.hydra.verbose)
        except OSError as error:
            raise UserError(
                f"{error.filename or directory} cannot be written: {error.strerror or error}; free "
                "space or grant write permission there, or choose another folder with run_dir="
            ) from error
        with env_override(dict(settings.hydra.job.env_set)):
            yield


def write_record(config: DictConfig, folder: Path) -> None:
    """Hydra's three files: the configuration, its own settings, and the overrides."""
    settings: Any = HydraConfig.instance().cfg
    parts = {"config": config, "hydra": settings, "overrides": settings.hydra.overrides.task}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")

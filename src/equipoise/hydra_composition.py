"""Hydra's part of composing: its grammar, its search path, and its composition of `conf/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from equipoise.errors import UserError
from equipoise.quoting import as_text, how_to_quote

CONF = next(
    folder
    for folder in (Path(__file__).parents[2] / "conf", Path(__file__).parent / "conf")
    if folder.is_dir()
)
SEARCH_PATH = "hydra.searchpath"


def parse(typed: Sequence[str]) -> list[Override]:
    """The overrides by Hydra's grammar. Raises UserError where one is not of the form key=value."""
    parser = OverridesParser.create()
    overrides: list[Override] = []
    for line in typed:
        try:
            overrides += parser.parse_overrides([line])
        except HydraException as error:
            hint = how_to_quote(line)
            cause = hint or f": {_reason(error)}"
            raise UserError(f"cannot read the command line at '{line}'{cause}") from error
    return overrides


def _reason(error: BaseException) -> str:
    """What Hydra says of a function that it cannot call."""
    said = str(error).strip().splitlines()
    return (said[1] if said[0].startswith("Error parsing") and said[1:] else said[0]).rstrip(".")


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """Folders that `hydra.searchpath=[file://..., pkg://...]` adds to `conf/`.

    Raises UserError where it is no list, or one of them does not exist.
    """
    typed = [override for override in overrides if override.key_or_group == SEARCH_PATH]
    return [
        folder for override in typed for folder in _folders(override.value(), override.input_line)
    ]


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
    """Hydra's own composition, and the choice of every group in it."""
    try:
        with hydra_of_our_own():
            config = hydra_compose("train", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"cannot compose the configuration: {first_line(error)}") from error
    choices = {
        group: str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if not group.startswith("hydra/") and choice is not None
    }
    with open_dict(config):
        del config["hydra"]
        config.setdefault("recipe", {})
        config.setdefault("sweep", None)
        for group in ("logger", "callbacks"):  # logger=[] and callbacks=[]: none of them
            config.setdefault(group, {})
    return config, choices


@contextmanager
def hydra_of_our_own() -> Iterator[None]:
    """Hydra's compose API on `conf/`, also inside a Hydra job, which has initialised it already."""
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

    Raises UserError where an interpolation of it leads nowhere.
    """
    try:
        container = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise UserError(f"cannot resolve the configuration: {first_line(error)}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def first_line(error: BaseException) -> str:
    """The first line of another library's message, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".")

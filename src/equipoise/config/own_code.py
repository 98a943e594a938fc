"""The user's own code in a run: its packages and folders, and whether to trust a record of them.

A checkpoint records its run's packages and config folders, so nobody has to repeat them. But it
may come from anywhere, and its word alone must not make code run. So the record is sealed
with a key that never leaves the user's account: it is trusted only if one of this user's runs wrote
it and nobody has changed it since.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equipoise.errors import UserError

KNOWN = ("equipoise", "torch", "torchvision", "torchmetrics", "lightning")
"""Packages whose classes a checkpoint may name."""
RECORD = "own_code"
"""The key of the record in checkpoints and config.yaml."""
KEY_BYTES = 32


@dataclass(frozen=True)
class OwnCode:
    """The code that a run used beside our own.

    packages: the packages of its classes. config_folders: entries of `hydra.searchpath`.
    import_folders: where the packages lie that are not installed.
    """

    packages: tuple[str, ...] = ()
    config_folders: tuple[str, ...] = ()
    import_folders: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to record."""
        return bool(self.packages or self.config_folders)

    def as_record(self) -> dict[str, list[str]]:
        """Plain lists by name."""
        return {name: list(values) for name, values in asdict(self).items()}


NO_OWN_CODE = OwnCode()


def own_code(config: Mapping[str, Any], config_folders: Sequence[str]) -> OwnCode:
    """The code that a configuration uses."""
    packages = own_packages(config)
    folders = dict.fromkeys(f for package in packages for f in _import_folders(package))
    return OwnCode(packages, tuple(config_folders), tuple(folders))


def own_packages(config: Any) -> tuple[str, ...]:
    """The packages of a configuration's classes, without our own and those we build on."""
    tops = (target.partition(".")[0] for target in targets(config))
    return tuple(sorted({top for top in tops if top not in KNOWN}))


def targets(config: Any) -> Iterator[str]:
    """Every `_target_` in nested mappings and lists."""
    if isinstance(config, Mapping):
        if isinstance(target := config.get("_target_"), str):
            yield target
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from targets(value)


def check_package(key: str, target: str, trusted: Collection[str]) -> None:
    """Raise UserError where a checkpoint names a class of a package that is not trusted.

    trusted: packages, and single classes by their dotted paths.
    """
    package = target.partition(".")[0]
    if target not in trusted and package not in (*KNOWN, *trusted):
        raise UserError(
            f"{key}: the checkpoint names {target}, which is not our code; if you trust it, set "
            f"trust=[{package}]"
        )


def _import_folders(package: str) -> list[str]:
    """The folder that a package is imported from, unless it is installed."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    places = list(spec.submodule_search_locations or []) or [spec.origin or ""]
    folder = Path(places[0]).parent.absolute()
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    return [] if not places[0] or folder in installed else [str(folder)]


def sealed(config: Mapping[str, Any], choices: Mapping[str, str], code: OwnCode) -> dict[str, Any]:
    """The entry of a checkpoint with this configuration; empty where there is no own code."""
    if not code:
        return {}
    record: dict[str, Any] = code.as_record()
    key = _key(create=True)
    if key is not None:
        record["seal"] = _seal(key, config, choices, code)
    return {RECORD: record}


def believed(content: Mapping[str, Any]) -> OwnCode:
    """A checkpoint's record, if one of this user's runs wrote it; else an empty one.

    The seal covers the whole configuration: changing a class, or an argument of one, breaks
    it.
    """
    record = content.get(RECORD)
    key = _key(create=False)
    if key is None or not isinstance(record, Mapping):
        return NO_OWN_CODE
    fields = {name: record.get(name) for name in OwnCode.__dataclass_fields__}
    if not all(_are_texts(values) for values in fields.values()):
        return NO_OWN_CODE
    code = OwnCode(**{name: tuple(values or ()) for name, values in fields.items()})
    seal = record.get("seal")
    right = isinstance(seal, str) and hmac.compare_digest(
        seal.encode(), _seal(key, content["config"], content["choices"], code).encode()
    )
    return code if right else NO_OWN_CODE


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _seal(key: bytes, config: Mapping[str, Any], choices: Mapping[str, str], code: OwnCode) -> str:
    told = {"config": config, "choices": choices, **code.as_record()}
    return hmac.new(key, json.dumps(told, sort_keys=True).encode(), "sha256").hexdigest()


def key_file() -> Path:
    """The path of the user's key: $XDG_STATE_HOME/equipoise/key, by default in ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "equipoise" / "key"


def _key(create: bool) -> bytes | None:
    """The user's key; None where there is none, or none can be made, with a warning."""
    file = key_file()
    if create and not file.exists():
        try:
            _make_key(file)
        except OSError as error:
            warnings.warn(
                f"{file} cannot be written ({error.strerror}), so evaluating or resuming this run "
                "will need trust=[<package>]: set XDG_STATE_HOME to a folder of yours",
                stacklevel=2,
            )
    try:
        key = file.read_bytes()
    except OSError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make_key(file: Path) -> None:
    """Write a new key whole, readable only by the user; a key made meanwhile stays."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = file.with_name(f"key.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(secrets.token_bytes(KEY_BYTES))
    with suppress(FileExistsError):
        os.link(new, file)
    new.unlink()


def make_importable(folders: Sequence[str]) -> None:
    """Put folders at the end of the import path, so that they shadow nothing."""
    for folder in folders:
        if folder not in sys.path and Path(folder).is_dir():
            sys.path.append(folder)


def origin(error: BaseException, packages: Collection[str]) -> str:
    """ "<file>, line <number>: " of the innermost line of the packages that an error came through.

    Empty where it came through none.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}, line {error.lineno}: "
    lines = [
        f"{shown(frame.f_code.co_filename)}, line {line}: "
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] in packages
    ]
    return lines[-1] if lines else ""


def shown(file: str) -> str:
    """A path from the working directory where it lies below it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def as_packages(value: Any) -> tuple[str, ...]:
    """The packages of `trust=[my_package]`. Raises UserError where they are no names."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise UserError(f"trust={value} must be a list of packages, such as trust=[my_package]")
    return tuple(names)

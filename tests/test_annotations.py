"""Types read from a source are those that Python itself finds once the class is imported."""

from __future__ import annotations

import inspect
import sys
import typing
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union

import pytest
import yaml

from equipoise.annotations import Built, parameters
from equipoise.compose import CONF
from equipoise.schema import locate, target_nodes, type_hints


def targets() -> list[str]:
    files = sorted(CONF.rglob("*.yaml"))
    nodes = [n for f in files for _, n in target_nodes(yaml.safe_load(f.read_text()) or {})]
    return sorted({str(node["_target_"]) for node in nodes})


def agree(read: Any, imported: Any) -> bool:
    """Whether both are the same type, where `Built` stands for any class."""
    if read is Any or read == imported:
        return True
    if read is Built:
        return typing.get_origin(imported) is not Literal
    kinds = [typing.get_origin(kind) for kind in (read, imported)]
    kinds = [Union if kind is UnionType else kind for kind in kinds]
    inner, theirs = typing.get_args(read), typing.get_args(imported)
    if kinds[0] is Union:
        return all(any(agree(one, other) for one in inner) for other in theirs)
    return kinds[0] == kinds[1] and all(agree(*pair) for pair in zip(inner, theirs, strict=True))


@pytest.mark.parametrize("target", targets())
def test_the_source_says_what_the_imported_class_says(target):
    read = parameters(target)
    imported = locate("", target)
    hints = type_hints(imported)
    named = {
        name
        for name, parameter in inspect.signature(imported).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    assert set(read) >= named or target.endswith("WandbLogger")
    for name in named & set(read) & set(hints):
        assert agree(read[name], hints[name]), f"{name}: {read[name]} is not {hints[name]}"


def test_what_cannot_be_found_has_no_types():
    assert parameters("equipoise.nowhere.Class") == {}
    assert parameters("no_such_package.Class") == {}
    assert parameters("equipoise.models.NoSuchModel") == {}
    assert parameters("MDEQ") == {}


SOURCE = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar, Literal as Words, Optional
from .shapes import Size

@dataclass
class Base:
    name: ClassVar[str]
    first: int = 0

@dataclass(frozen=True)
class Part(Base):
    second: Optional[float] = None
    inner: int = field(init=False, default=3)
    size: Size = "tiny"

class Plain(Base):
    pass

class Between(Part):
    third = 1

@dataclass(kw_only=True)
class Settled(Between, Base):
    first: int = field(default=1, init=False)
    size: int = 2
    fourth: bool = True

@dataclass
class Written(Base):
    def __init__(self, other: str) -> None: ...

def function(a: "int | None", *, b: list[int], **rest: str): ...
"""


def test_dataclasses_functions_and_names_of_other_modules(tmp_path: Path, monkeypatch):
    package = tmp_path / "package_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_a_user.parts import Part, function\n")
    (package / "parts.py").write_text(SOURCE)
    (package / "shapes.py").write_text("import typing\nSize = typing.Literal['tiny']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(parameters("package_of_a_user.Part")) == ["first", "second", "size"]
    assert parameters("package_of_a_user.Part")["second"] == float | None
    assert parameters("package_of_a_user.parts.Plain") == {"first": int}
    settled = {"second": float | None, "size": int, "fourth": bool}
    assert parameters("package_of_a_user.parts.Settled") == settled
    assert parameters("package_of_a_user.parts.Written") == {"other": str}
    assert parameters("package_of_a_user.function") == {"a": int | None, "b": list[int]}
    assert "package_of_a_user" not in sys.modules

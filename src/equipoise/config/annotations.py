"""The annotations of a class's constructor, read from its source without importing it.

Importing torch and Lightning takes seconds, but a value of the wrong type should be refused at
once. Classes count as `Built`, and whatever the source alone does not show as `Any`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

BUILTIN: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple,
    "dict": dict,
}  # fmt: skip
LIGHT = ("typing", "typing_extensions", "collections.abc", "pathlib", "datetime")
"""Modules whose names are resolved by importing them, which is cheap."""


class Built:
    """Stands for any class: no plain value of a yaml file is an instance of one."""


@dataclass(frozen=True)
class Definition:
    """The meaning of a name: a statement or expression in a module, or an object of `LIGHT`."""

    module: str
    value: Any


@cache
def parameters(target: str) -> dict[str, Any]:
    """Name and type of every argument of the class or function at a dotted path.

    Empty where its source is not found.
    """
    module, _, name = target.rpartition(".")
    definition = _lookup(module, name)
    return {} if definition is None else _arguments(definition)


@cache
def takes_others(target: str) -> bool:
    """Whether the class or function at a dotted path also takes `**others`."""
    module, _, name = target.rpartition(".")
    definition = _lookup(module, name)
    return definition is not None and _hands_on(definition)


def _hands_on(definition: Definition) -> bool:
    node = definition.value
    if isinstance(node, ast.FunctionDef):
        return node.args.kwarg is not None
    if not isinstance(node, ast.ClassDef):
        return False
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement.args.kwarg is not None
    return any(_hands_on(base) for base in _bases(node, definition.module))


def _arguments(definition: Definition) -> dict[str, Any]:
    node = definition.value
    if isinstance(node, ast.FunctionDef):
        return _of_function(node, definition.module, first=0)
    if not isinstance(node, ast.ClassDef):
        return {}
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(statement, definition.module, first=1)
    if _is_dataclass(node):
        return _fields(node, definition.module)
    inherited = (_arguments(base) for base in _bases(node, definition.module))
    return next((arguments for arguments in inherited if arguments), {})


def _of_function(node: ast.FunctionDef, module: str, first: int) -> dict[str, Any]:
    arguments = [*node.args.posonlyargs, *node.args.args][first:] + node.args.kwonlyargs
    return {a.arg: _hint(a.annotation, module) if a.annotation else Any for a in arguments}


def _fields(node: ast.ClassDef, module: str) -> dict[str, Any]:
    """The fields of a dataclass, those of its bases first; bases without fields are skipped."""
    fields: dict[str, Any] = {}
    for base in reversed([*_bases(node, module)]):
        if isinstance(base.value, ast.ClassDef):
            fields |= _fields(base.value, base.module)
    if not _is_dataclass(node):
        return fields
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            name = ast.unparse(statement.target)
            if _is_given(statement):
                fields[name] = _hint(statement.annotation, module)
            else:  # a field of a base may be fixed here
                fields.pop(name, None)
    return fields


def _is_given(statement: ast.AnnAssign) -> bool:
    """Whether the constructor takes the field: no ClassVar, no `field(init=False)`."""
    value = statement.value
    words = value.keywords if isinstance(value, ast.Call) else []
    inside = any(word.arg == "init" and ast.unparse(word.value) == "False" for word in words)
    return not inside and "ClassVar" not in ast.unparse(statement.annotation)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _bases(node: ast.ClassDef, module: str) -> Iterator[Definition]:
    for base in node.bases:
        if isinstance(base, ast.Name) and (definition := _lookup(module, base.id)):
            yield definition


@cache
def _lookup(module: str, name: str) -> Definition | None:
    """Where a name of a module is defined, following re-exports."""
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return Definition(module, statement)
        if isinstance(statement, ast.Assign) and name in map(ast.unparse, statement.targets):
            return Definition(module, statement.value)
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
            return Definition(module, statement.value)
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _imported(_absolute(statement, module), alias.name)
    return None


def _imported(module: str, name: str) -> Definition | None:
    if module in LIGHT:
        return Definition(module, getattr(importlib.import_module(module), name, Any))
    return _lookup(module, name)


def _absolute(statement: ast.ImportFrom, module: str) -> str:
    if not statement.level:
        return statement.module or ""
    file = _file(module)
    inside = file is not None and file.name == "__init__.py"
    parts = module.split(".")
    parts = parts[: len(parts) + int(inside) - statement.level]
    return ".".join([*parts, *([statement.module] if statement.module else [])])


@cache
def _statements(module: str) -> list[ast.stmt]:
    """The statements of a module, including those below an `if` or a `try`."""
    file = _file(module)
    if file is None:
        return []
    statements: list[ast.stmt] = []
    try:
        left: list[ast.stmt] = [*ast.parse(file.read_text(encoding="utf-8")).body]
    except SyntaxError:  # in the user's own module: importing it will report the line
        return []
    while left:
        statement = left.pop(0)
        statements.append(statement)
        if isinstance(statement, ast.If | ast.Try):
            left += [*statement.body, *statement.orelse]
    return statements


@cache
def _file(module: str) -> Path | None:
    """The file of a module; only its top package is found by Python's own rules."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
    except ValueError:  # __main__ may have none
        return None
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin)
    for part in inner:
        candidates = (place.parent / part / "__init__.py", place.parent / f"{part}.py")
        below = next((file for file in candidates if file.is_file()), None)
        if place.name != "__init__.py" or below is None:
            return None
        place = below
    return place if place.suffix == ".py" else None


def _hint(expression: ast.expr | None, module: str) -> Any:
    """The type that an annotation denotes."""
    if isinstance(expression, ast.Constant):
        text = expression.value
        return _hint(ast.parse(str(text), mode="eval").body, module) if text else None
    if isinstance(expression, ast.Name):
        return _named(expression.id, module)
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        return _union([_hint(expression.left, module), _hint(expression.right, module)])
    if isinstance(expression, ast.Subscript):
        return _subscripted(expression, module)
    return Any


def _named(name: str, module: str) -> Any:
    if name in BUILTIN:
        return BUILTIN[name]
    definition = _lookup(module, name)
    if definition is not None and isinstance(definition.value, ast.ClassDef):
        return Built
    if definition is None or isinstance(definition.value, ast.stmt):
        return Any
    if isinstance(definition.value, ast.expr):
        return _hint(definition.value, definition.module)
    return definition.value


def _subscripted(expression: ast.Subscript, module: str) -> Any:
    base = _hint(expression.value, module)
    inner = expression.slice
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if base is Literal:
        return Literal[tuple(ast.literal_eval(part) for part in parts)]
    if base is Any:
        return Any
    if getattr(base, "__name__", "") == "Callable":
        return Built
    if base is Annotated:
        return _hint(parts[0], module)
    arguments = [... if ast.unparse(part) == "..." else _hint(part, module) for part in parts]
    if base is Union or getattr(base, "_name", "") == "Optional":
        return _union([*arguments, *([] if base is Union else [None])])
    return base[tuple(arguments)]


def _union(alternatives: list[Any]) -> Any:
    return Any if Any in alternatives else Union[tuple(alternatives)]  # noqa: UP007 - of a list


def accepts(value: Any, hint: Any) -> bool:
    """Whether a value of a yaml file fits the annotated type.

    A mapping with a `_target_` fits anywhere: its class is checked instead.
    """
    if hint is Any or (isinstance(value, Mapping) and value.get("_target_")):
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(accepts(value, alternative) for alternative in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is None:
        return _is_a(value, hint)
    if issubclass(origin, Mapping):
        inner = arguments[1]
        return isinstance(value, Mapping) and all(accepts(v, inner) for v in value.values())
    inner = arguments[:1] if origin is not tuple or ... in arguments else arguments
    if not isinstance(value, list) or (len(inner) > 1 and len(inner) != len(value)):
        return False
    return all(accepts(entry, inner[i % len(inner)]) for i, entry in enumerate(value))


def _is_a(value: Any, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:  # the folder of the run is named later
        return value is None or isinstance(value, str)
    return isinstance(value, hint)


def literals(hint: Any) -> list[Any]:
    """All values that a Literal inside the annotation allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for argument in get_args(hint) for choice in literals(argument)]


def described(hint: Any) -> str:
    """The annotation as one would write it; objects of classes cannot be written in a yaml file."""
    if get_origin(hint) in (Union, UnionType):
        alternatives = [inner for inner in get_args(hint) if inner is not Built]
        return " | ".join(described(inner) for inner in alternatives)
    if hint is Built:
        return "a class, by a _target_"
    if hint in (None, type(None), ...):
        return "None" if hint is not ... else "..."
    if get_args(hint) and get_origin(hint) is not Literal:
        inner = ", ".join(described(argument) for argument in get_args(hint))
        return f"{get_origin(hint).__name__}[{inner}]"
    return str(getattr(hint, "__name__", hint)).replace("typing.", "")

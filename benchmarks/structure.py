"""The shape of the source in figures: files, functions, importers, circles.

    python -m benchmarks.structure              # of this checkout
    python -m benchmarks.structure <folder>/src/equipoise

Imports are read from the syntax, those under TYPE_CHECKING and inside functions with the rest.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[1] / "src" / "equipoise"


def percentile(values: list[int], fraction: float) -> int:
    """The smallest value that this fraction of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(fraction * (len(ordered) - 1)))]


def modules(package: Path) -> dict[str, Path]:
    """Every file of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def function_lengths(package: Path) -> list[int]:
    """Lines of every function and method, from `def` to its last line."""
    return [
        node.end_lineno - node.lineno + 1
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The package's own modules that one file imports: the most exact name that is a module."""
    base = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parent = base.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(part for part in (parent, node.module) if part)
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                if whole in known:
                    yield whole
                elif source in known:
                    yield source


def imports(package: Path) -> dict[str, set[str]]:
    """module -> the modules of the package that it imports."""
    known = modules(package)
    return {name: set(imported(name, path, known)) - {name} for name, path in known.items()}


def importers(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """module -> the modules that import it; packages' own `__init__` counts as any other."""
    return {name: {other for other, seen in graph.items() if name in seen} for name in graph}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other."""
    reach = {name: _reachable(name, graph) for name in graph}
    groups = {
        tuple(sorted({name} | {other for other in reach[name] if name in reach[other]}))
        for name in graph
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def figures(package: Path) -> dict[str, float]:
    """Every figure of the table, by its name."""
    lines = [len(path.read_text().splitlines()) for path in package.rglob("*.py")]
    lengths = function_lengths(package)
    graph = imports(package)
    single = {name: min(readers) for name, readers in importers(graph).items() if len(readers) == 1}
    lonely = [name for name, reader in single.items() if not name.startswith(f"{reader}.")]
    loose = [
        path.name
        for path in package.glob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    return {
        "files": len(lines),
        "lines": sum(lines),
        "file lines, median": median(lines),
        "file lines, p90": percentile(lines, 0.9),
        "file lines, max": max(lines),
        "functions": len(lengths),
        "function lines, median": median(lengths),
        "function lines, p90": percentile(lengths, 0.9),
        "function lines, max": max(lengths),
        "modules with a single importer, %": round(100 * len(single) / len(graph), 1),
        "the same without their own facade, %": round(100 * len(lonely) / len(graph), 1),
        "loose files at the top": len(loose),
        "circles of imports": len(circles(graph)),
    }


def main() -> None:
    """Print the table of the package named, or of this checkout's."""
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    for name, value in figures(package).items():
        print(f"{name:36} {value:g}")
    for group in circles(imports(package)):
        print("circle:", " ".join(group))


if __name__ == "__main__":
    main()

"""Every random draw of the package comes from a generator that a seed or a checkpoint restores.

Three kinds are allowed: of a generator that was made of a seed; of torch's global one, which
`callbacks.checkpointing.RandomState` saves for every process; and of the system, in the places
below, where a number must not be foreseen or tells two things apart.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from benchmarks.structure import PACKAGE

SECURE = {
    "config/own_code.py": "the key that seals what a checkpoint tells of the user's own code",
    "running/loggers.py": "the identity of a W&B run",
    "privacy/client/client.py": "a client's randomised answer: its privacy rests on it",
    "privacy/client/randomizers.py": "the same; a caller may hand over other bytes",
    "privacy/client/ledger.py": "the name of a file that is renamed at once",
}
"""What takes numbers of the system, which no seed repeats."""
SYSTEM = {"secrets", "uuid"}
SEEDED = {"default_rng", "SeedSequence", "Generator", "RandomState", "PCG64", "Philox"}
GLOBAL_STATE = {"get_state", "set_state", "getstate", "setstate", "seed"}
KEEPER = "callbacks/checkpointing.py"
"""What saves the states of the global generators, and gives each process its own."""
TAKING_ORDER = {"list", "tuple", "enumerate", "iter", "next", "zip", "map", "filter", "reversed"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def dotted(node: ast.AST) -> str:
    """The name of a function as it is written: torch.randn."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def found_in(tree: ast.Module) -> list[str]:
    """The draws of a file that no seed and no checkpoint could repeat."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            found += [name for name in names if name.partition(".")[0] in SYSTEM]
            if isinstance(node, ast.ImportFrom) and node.module in {*SYSTEM, "random"}:
                found.append(f"from {node.module}")
        elif isinstance(node, ast.Attribute) and dotted(node) == "os.urandom":
            found.append("os.urandom")
    return found + [name for name, call in calls(tree) if not repeatable(name, call, tree)]


def repeatable(name: str, call: ast.Call, tree: ast.Module) -> bool:
    """Whether a call draws nothing, or of a seed, or of torch's global generator."""
    family, _, last = name.rpartition(".")
    seeded = bool(call.args or call.keywords)
    if family in ("np.random", "numpy.random"):
        return last in SEEDED and seeded
    if family == "random":
        return last == "Random" and seeded
    if name == "torch.Generator":
        return _is_seeded(tree, call)
    return name not in ("hash", "torch.seed", "torch.random.seed")


def _is_seeded(tree: ast.Module, made: ast.Call) -> bool:
    """Whether `manual_seed` follows in the same function, or at once."""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and made in list(ast.walk(node))
    ]
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("manual_seed", "set_state")
        for node in ast.walk(around[-1] if around else tree)
    )


def sets_in_order(tree: ast.Module) -> list[str]:
    """Places that take the elements of a set, as it is written there, in its own order."""
    taken = []
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and is_set(node.iter):
            taken.append(ast.unparse(node.iter))
        elif isinstance(node, ast.ListComp | ast.DictComp):
            taken += [ast.unparse(part.iter) for part in node.generators if is_set(part.iter)]
        elif isinstance(node, ast.Call) and dotted(node.func) in TAKING_ORDER:
            taken += [ast.unparse(each) for each in node.args if is_set(each)]
        elif isinstance(node, ast.Call) and dotted(node.func) == "dict.fromkeys":
            taken += [ast.unparse(each) for each in node.args[:1] if is_set(each)]
    return taken


def is_set(node: ast.AST) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return dotted(node.func) in ("set", "frozenset")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub):
        return is_set(node.left) or is_set(node.right)
    return False


def test_every_draw_can_be_repeated() -> None:
    found = {file: names for file, tree in trees() if (names := found_in(tree))}
    assert set(found) - set(SECURE) - {KEEPER} == set(), found


def test_the_places_that_take_numbers_of_the_system_are_those_that_are_listed() -> None:
    found = {file for file, tree in trees() if set(found_in(tree)) & {*SYSTEM, "os.urandom"}}
    assert found == set(SECURE)


def test_the_keeper_only_keeps() -> None:
    (tree,) = (tree for file, tree in trees() if file == KEEPER)
    assert {name.rpartition(".")[2] for name in found_in(tree)} <= GLOBAL_STATE


def test_no_order_of_a_set_is_taken_for_one() -> None:
    found = {file: places for file, tree in trees() if (places := sets_in_order(tree))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "np.random.rand(3)", "np.random.default_rng()", "random.shuffle(x)", "random.Random()",
        "import uuid", "from secrets import token_hex", "torch.seed()", "hash(name)",
        "g = torch.Generator()", "f(os.urandom)",
    ],
)  # fmt: skip
def test_what_no_seed_repeats_is_found(line: str) -> None:
    assert found_in(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    ["np.random.default_rng(seed)", "random.Random(1)", "g = torch.Generator().manual_seed(0)",
     "torch.randn(3)"],
)  # fmt: skip
def test_what_a_seed_repeats_is_not(line: str) -> None:
    assert not found_in(ast.parse(line))


@pytest.mark.parametrize(
    ("line", "number"),
    [("for x in {1, 2}: pass", 1), ("list(set(x) - y)", 1), ("[a for a in set(b) | c]", 1),
     ("sorted(set(x))", 0), ("{a for a in set(b)}", 0), ("for x in sorted({1}): pass", 0)],
)  # fmt: skip
def test_sets_in_their_own_order_are_found(line: str, number: int) -> None:
    assert len(sets_in_order(ast.parse(line))) == number

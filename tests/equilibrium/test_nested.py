"""Values are taken apart into tensors and the rest, and put together again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from equipoise.equilibrium.nested import Nested


class Pair(NamedTuple):
    first: Tensor
    second: tuple[Tensor, ...]


@dataclass(frozen=True)
class Batch:
    tokens: Tensor
    name: str = "words"


A, B = torch.zeros(2, 3), torch.ones(2, dtype=torch.long)
VALUES: dict[str, Any] = {
    "tensor": A,
    "named tuple": Pair(A, (B, A)),
    "list and dictionary": [A, {"x": B, "y": None}],
    "dataclass": Batch(B),
    "numbers alone": (1, "two", 3.0),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, Batch):
        return type(found) is Batch and same(vars(found), vars(expected))
    if isinstance(expected, dict):
        return list(found) == list(expected) and same([*found.values()], [*expected.values()])
    if isinstance(expected, tuple | list):
        pairs = zip(found, expected, strict=True)
        return type(found) is type(expected) and all(same(a, b) for a, b in pairs)
    return bool(found == expected)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_rebuilt_of_other_tensors(name: str) -> None:
    taken = Nested.of(VALUES[name])
    assert same(taken.with_tensors(taken.tensors), VALUES[name])
    doubled = taken.with_tensors(tuple(2 * tensor for tensor in taken.tensors))
    assert Nested.of(doubled).form == taken.form
    for found, expected in zip(Nested.of(doubled).tensors, taken.tensors, strict=True):
        assert torch.equal(found, 2 * expected)


@pytest.mark.parametrize(
    "other",
    [
        A[:1],
        A.double(),
        A.clone().requires_grad_(),
        [A],
        (A, 1),
    ],
    ids=["shape", "dtype", "gradient", "list", "number"],
)
def test_what_differs_in_more_than_numbers_has_another_form(other: Any) -> None:
    assert Nested.of(other).form != Nested.of(A).form
    assert Nested.of((A, 1)).form != Nested.of((A, 2)).form

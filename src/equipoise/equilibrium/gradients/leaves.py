"""The leaf tensors that a graph depends on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equipoise.equilibrium.state import State, parts


def leaf_tensors(outputs: State, stop: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The leaves that require a gradient and reach `outputs` on a way that avoids all of `stop`.

    In the order in which they are met, which is that of the graph and the same in every process.
    """
    barred = {id(tensor) for tensor in stop}
    nodes: list[Any] = [part.grad_fn for part in parts(outputs)]
    seen: set[Any] = {tensor.grad_fn for tensor in stop} | {None}
    leaves: list[Tensor] = []
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in barred:
            leaves.append(leaf)
        nodes.extend(after for after, _ in node.next_functions)
    return tuple(leaves)

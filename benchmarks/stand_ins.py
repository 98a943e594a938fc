"""What stands in the place of an equilibrium layer in a benchmark, and how f is counted.

Each module is called as the layer is: (f, z0, *inputs) -> the state.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...]
Function = Callable[..., State]


def torchdeq_is_there() -> bool:
    return find_spec("torchdeq") is not None


def parts(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


class Bare(nn.Module):
    """Some evaluations without a graph, `graphs` with one, `products` with J^T on that of them."""

    def __init__(self, forward_evaluations: int, graphs: int, products: int) -> None:
        super().__init__()
        self.forward_evaluations = forward_evaluations
        self.graphs = graphs
        self.products = products

    def forward(self, f: Function, z0: State, *inputs: Tensor) -> State:
        z = z0
        with torch.no_grad():
            for _ in range(self.forward_evaluations):
                z = f(z, *inputs)
        leaves = tuple(part.detach().requires_grad_(self.products > 0) for part in parts(z))
        state: State = leaves if isinstance(z, tuple) else leaves[0]
        for _ in range(self.graphs):
            state = f(state, *inputs)
        cotangent = tuple(part.detach() for part in parts(state))
        for _ in range(self.products):
            cotangent = torch.autograd.grad(parts(state), leaves, cotangent, retain_graph=True)
        return state


class TorchDEQ(nn.Module):
    """torchdeq's layer, whose budget is set so that it evaluates f as often as ours."""

    def __init__(self, evaluations: int, settings: dict[str, Any]) -> None:
        super().__init__()
        from torchdeq import get_deq

        options = dict(settings)
        backward = options.pop("backward", evaluations)
        tolerance = options.pop("tol", 0.0)
        # Counted: its Broyden evaluates once more than the budget says.
        spare = 1 if options["f_solver"] == "broyden" else 0
        self.deq = get_deq(
            core="sliced", f_max_iter=evaluations - spare, b_max_iter=backward - spare,
            f_tol=tolerance, b_tol=tolerance, f_stop_mode="rel", b_stop_mode="rel", **options,
        )  # fmt: skip

    def forward(self, f: Function, z0: State, *inputs: Tensor) -> State:
        if isinstance(z0, Tensor):
            states, _ = self.deq(lambda z: f(z, *inputs), z0)
            found: Tensor = states[-1]
            return found
        states, _ = self.deq(lambda *z: f(z, *inputs), list(z0))
        return tuple(states[-1])


class Counted:
    """Counts the calls of the equilibrium's f within one step of a training."""

    @staticmethod
    def in_step(training: Any) -> int:
        """Evaluations of f in a step; those of a recorded graph are not seen, which gives 0."""
        layers = [m for m in training.network.modules() if _stands_for_a_layer(m)]
        count = 0

        def counting(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            f, *rest = arguments

            def counted(*values: Any) -> Any:
                nonlocal count
                count += 1
                return f(*values)

            return (counted, *rest)

        handles = [layer.register_forward_pre_hook(counting) for layer in layers]
        training.step()
        for handle in handles:
            handle.remove()
        return count


def _stands_for_a_layer(module: nn.Module) -> bool:
    return type(module).__name__ in ("Equilibrium", "Bare", "TorchDEQ")

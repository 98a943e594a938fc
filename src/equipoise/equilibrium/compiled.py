"""f compiled by `torch.compile`: its evaluation, and its product with the transposed Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isfunction, ismethod, signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from equipoise.equilibrium.flat_function import transformed
from equipoise.equilibrium.state import Function

VARIANTS = 64
"""Versions of one f at most: one for each shape, mode of autograd, and set of `requires_grad`."""


def compiled(f: Function) -> Function:
    """f whose calls run compiled code, made at the first call of each shape.

    A module is compiled in place, also one inside a `functools.partial` or behind a function whose
    `__wrapped__` it is: names in its state dict stay, and copies and pickles are of the plain
    module, to be compiled anew. Functions and methods are compiled as they are. An object of
    another kind, and any f inside a transform of torch.func or a compiled program, stays as it is.
    """
    if transformed() or torch.compiler.is_compiling():
        return f
    module = _module_within(f)
    if module is not None:
        if module._compiled_call_impl is None:
            module.compile(**_settings(isolate_recompiles=True))
        return f
    if isfunction(f) or ismethod(f) or isinstance(f, partial):
        return torch.compile(f, **_settings())
    return f


def _module_within(f: Any) -> nn.Module | None:
    """The module that f calls in the end, if it tells."""
    while not isinstance(f, nn.Module):
        f = f.func if isinstance(f, partial) else getattr(f, "__wrapped__", None)
        if f is None:
            return None
    return f


def _settings(**more: bool) -> dict[str, Any]:
    """Those of torch.compile that this version of torch knows."""
    wanted = {"backend": _retaining, "dynamic": False, "recompile_limit": VARIANTS, **more}
    known = signature(torch.compile).parameters
    return {name: value for name, value in wanted.items() if name in known}


APART = {"freezing_discard_parameters": True}
"""A setting of Inductor that does nothing in training, and keeps its caches apart from others."""


def _retaining(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
    """Inductor, told to leave what a graph has saved as it is.

    It would reuse that memory within the backward pass, which a solve of the adjoint system goes
    through many times.
    """
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx

    with config.patch(donated_buffer=False):
        made: Any = compile_fx(
            graph, examples, inner_compile=_compile_without_reuse, config_patches=APART
        )
    return cast(Callable[..., Any], made)


def _compile_without_reuse(*arguments: Any, **settings: Any) -> Any:
    """One graph, forward or backward.

    The setting above belongs to its thread, and on a GPU the backward pass, which asks for it
    again, has another one. So what it decides is written down with the graph as well.
    """
    from torch._guards import TracingContext
    from torch._inductor.compile_fx import compile_fx_inner

    context = TracingContext.try_get()
    if context is not None and context.fw_metadata is not None:
        context.fw_metadata.bw_donated_idxs = []
    return compile_fx_inner(*arguments, **settings)

"""A network's training pass as CUDA graphs: one launch in place of one for every operation.

At small batches a step of an equilibrium model is bound by the launches of its kernels. With
tol = 0 no step of a solve depends on values, so the whole forward pass and the whole backward pass,
adjoint solve included, can each be recorded once and replayed.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from equipoise.equilibrium.fixed_budget import TRACEABLE
from equipoise.equilibrium.gradients import Auto, Exact, GradientEstimator, Reversible, Unrolled
from equipoise.equilibrium.layer import Equilibrium, equilibrium_layers
from equipoise.equilibrium.solvers import Solver

Network = TypeVar("Network", bound=nn.Module)


def graphed(network: Network, *inputs: Tensor, warmups: int = 3) -> Network:
    """The network itself, whose forward and backward passes in training are replayed as graphs.

    inputs: tensors of the shapes and dtypes of every later call; their values do not matter. The
    caller's autocast becomes part of the graphs. Every equilibrium layer needs solvers with
    tol = 0 and nothing that is drawn or decided on the host (jitter, random start, regulariser,
    `Auto`, `Reversible`). warmups: passes before the recording, for libraries that measure first.

    Outputs and the tensors of a layer's report are overwritten by the next call, and the backward
    pass has to come before it. In evaluation mode the network runs as before. It can no longer be
    copied or pickled, its state dict can. Raises ValueError for a layer that cannot be recorded, a
    network in evaluation mode, and where the network or an input is not on a GPU.
    """
    layers = equilibrium_layers(network)
    for name, layer in layers.items():
        _check(name, layer)
    if not network.training:
        raise ValueError("CUDA graphs are of a network in training mode: call train() first")
    if not all(tensor.is_cuda for tensor in (*inputs, *network.parameters())):
        raise ValueError("CUDA graphs need the network and its inputs on a GPU")
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    recorded = tuple(tensor.detach().clone() for tensor in inputs)  # memory of the graphs
    for mine, given in zip(recorded, inputs, strict=True):
        mine.requires_grad_(given.requires_grad)
    with _autocast_without_cache():
        torch.cuda.make_graphed_callables(
            network, recorded, num_warmup_iters=warmups, allow_unused_input=True
        )
    for buffer, value in kept:  # the passes above have moved running statistics
        buffer.copy_(value)
    for parameter in network.parameters():
        if parameter.requires_grad:
            # What a replay gives is memory of the graph, which the next replay writes again.
            parameter.register_hook(torch.clone)
    _watch_replays(network, layers, [tensor.shape for tensor in inputs])
    return network


def _check(name: str, layer: Equilibrium) -> None:
    """Raise ValueError where a solve would read the device, or something changes between steps."""
    reason = _reason(layer)
    if reason:
        raise ValueError(f"the layer {name!r} cannot be recorded as a CUDA graph: {reason}")


def _reason(layer: Equilibrium) -> str | None:
    """Why the layer cannot be recorded."""
    for word in ("jitter", "random_start", "regularizer", "start"):
        if getattr(layer, word) is not None:
            return f"its {word} changes from step to step"
    return _of_estimator(layer.gradient) or (
        None if layer.gradient.own_iteration else _of_solver(layer.solver)
    )


def _of_estimator(estimator: GradientEstimator) -> str | None:
    if isinstance(estimator, Auto | Reversible):
        return f"{type(estimator).__name__} reads or restores states of the device"
    if isinstance(estimator, Unrolled) and estimator.checkpoint:
        return "activation checkpointing restores random states"
    if isinstance(estimator, Exact):
        if estimator.adjoint is not None:
            return "its adjoint starts where the latest one ended"
        return _of_solver(estimator.solver)
    return None


def _of_solver(solver: Solver) -> str | None:
    if solver.name not in TRACEABLE:
        return f"{solver.name} decides on the host; use one of {', '.join(TRACEABLE)}"
    return None if solver.tol == 0 else f"{solver.name} needs tol=0, not {solver.tol:g}"


def _autocast_without_cache() -> torch.autocast:
    """The caller's autocast; its cache would hold weights that a replay does not renew."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )


def _watch_replays(
    network: nn.Module, layers: dict[str, Equilibrium], shapes: list[torch.Size]
) -> None:
    """Refuse inputs of other shapes, which a copy might broadcast, and renew the reports.

    After a replay every layer has the report of the recording, whose tensors the replay has
    written; an evaluation in between leaves a report of its own.
    """
    reports = {name: layer.report for name, layer in layers.items()}
    forward = network.forward

    def watched(*inputs: Tensor, **options: Any) -> Any:
        if not network.training:
            return forward(*inputs, **options)
        if options or [tensor.shape for tensor in inputs] != shapes:
            raise ValueError(f"the CUDA graphs are of inputs of the shapes {shapes} alone")
        outputs = forward(*inputs)
        for name, layer in layers.items():
            layer.report = reports[name]
        return outputs

    network.forward = watched

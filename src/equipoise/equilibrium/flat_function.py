"""Evaluating f: as a state, with its graph, and as a map of matrices with a row per sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.state import Function, Layout, State, constant, other_shapes, parts


def evaluate(f: Function, z: State, *inputs: Tensor) -> State:
    """f(z, *inputs) as a state of z's form and shapes.

    f may return a list for a tuple, or one tensor for a tuple of one, and vice versa; integers are
    converted to z's dtype. Raises TypeError if f returns no state, or one whose dtype does not fit
    into z's, and ValueError if its shape differs, or if z's version counter shows that f wrote into
    z: then f(z) - z would be zero for any z. Inference mode keeps no such counters.
    """
    if isinstance(z, Tensor) and not z.is_inference():  # the short way, taken in every step
        version = z._version
        value = f(z, *inputs)
        written = z._version != version
        if not written and isinstance(value, Tensor) and _alike(value, z):
            return value
    else:
        versions = _versions(z)
        value = f(z, *inputs)
        written = _versions(z) != versions
    if written:
        raise ValueError(
            "f modifies the state that it is given, by an in-place operation such as relu_ or "
            "mul_, which makes every state look like a solution: use the operation that returns a "
            "new tensor, or z.clone()"
        )
    return _conformed(value, z)


def _versions(z: State) -> list[int]:
    return [0 if part.is_inference() else part._version for part in parts(z)]


def _alike(value: Tensor, z: Tensor) -> bool:
    return value.shape == z.shape and value.dtype == z.dtype


def _conformed(value: object, z: State) -> State:
    """What f has returned for z, in z's form."""
    tensors = (value,) if isinstance(value, Tensor) else value
    expected = parts(z)
    if not isinstance(tensors, tuple | list) or not all(isinstance(x, Tensor) for x in tensors):
        kind = "None" if value is None else f"a value of type {type(value).__name__}"
        form = "a tensor" if isinstance(z, Tensor) else f"a tuple of {len(expected)} tensors"
        raise TypeError(f"f must return a state of the form that it takes, {form}, but got {kind}")
    if tuple(part.shape for part in tensors) != tuple(part.shape for part in expected):
        raise ValueError(other_shapes(tuple(part.shape for part in expected), tuple(tensors)))
    cast = tuple(_in_dtype(part, z.dtype) for part, z in zip(tensors, expected, strict=True))
    return cast[0] if isinstance(z, Tensor) else cast


def _in_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A value that a part of this dtype can hold; floats of less precision stay as they are."""
    if value.dtype == dtype:
        return value
    if not _holds(dtype, value.dtype):
        raise TypeError(
            f"f returns {value.dtype} for a state of {dtype}: start from a z0 of {value.dtype}"
        )
    keeps = value.is_complex() if dtype.is_complex else value.is_floating_point()
    return value if keeps else value.to(dtype)


def _holds(dtype: torch.dtype, value: torch.dtype) -> bool:
    """Whether a part of `dtype` takes in such a value with its imaginary part and its digits."""
    if value.is_complex and not dtype.is_complex:
        return False
    return _bits(value) <= max(_bits(dtype), 32)


def _bits(dtype: torch.dtype) -> int:
    """Of a real number; 0 for integers, which become whatever the state is."""
    return torch.finfo(dtype).bits if dtype.is_floating_point or dtype.is_complex else 0


Origin = Callable[[State], State]
"""Of a state, the tensors at which a graph begins: constants, or leaves that require gradients."""


@dataclass(frozen=True)
class Evaluation:
    """z and f(z), with a graph from the one to the other."""

    z: State
    fz: State


@dataclass(frozen=True)
class AttachedGraph:
    """The graph that leads from z to f(z), kept for products with J^T, J = df/dz."""

    z: tuple[Tensor, ...]
    fz: tuple[Tensor, ...]
    layout: Layout

    def product(self, w: Tensor) -> Tensor:
        """J^T w: (B, D) -> (B, D)."""
        pairs = zip(self.z, self.gradients(w, self.z), strict=True)
        full = tuple(torch.zeros_like(z) if product is None else product for z, product in pairs)
        return self.layout.flatten(full)

    def gradients(self, w: Tensor, towards: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """w^T df/dt for w (B, D) and every tensor t of the graph; None where t does not matter.

        Where w has a graph, so has the product: a backward solver may ask for its derivatives.
        """
        pairs = zip(parts(self.layout.restore(w)), self.fz, strict=True)
        reached = [(a.to(b.dtype), b) for a, b in pairs if b.requires_grad]
        cotangents = [a for a, _ in reached]
        outputs = [b for _, b in reached]
        return torch.autograd.grad(
            outputs,
            towards,
            cotangents,
            retain_graph=True,
            create_graph=w.requires_grad,
            allow_unused=True,
        )


@dataclass(frozen=True)
class AffineMap:
    """f(z) = J z + constant, on matrices (B, D); linear: z -> J z."""

    linear: Callable[[Tensor], Tensor]
    constant: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """J z + constant."""
        return self.linear(z) + self.constant


class FlatFunction:
    """f(z, *inputs) on (B, D) matrices, with counts of its evaluations and products.

    evaluations: of f. products: of a vector with the transposed Jacobian of f. origin: where the
    graphs of the evaluations from now on begin; None: no graphs. latest: the latest evaluation that
    has a graph, which `transposed_product` needs. resolution: unit round-off of f, which bounds the
    step of a difference from below.
    """

    def __init__(
        self, f: Function, layout: Layout, inputs: tuple[Tensor, ...], resolution: float
    ) -> None:
        self.f = f
        self.layout = layout
        self.inputs = inputs
        self.resolution = resolution
        self.evaluations = 0
        self.products = 0
        self.origin: Origin | None = None
        self.latest: Evaluation | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """f(z): (B, D) -> (B, D)."""
        self.evaluations += 1
        state = self.layout.restore(z)
        if self.origin is None:
            return self.layout.flatten(evaluate(self.f, state, *self.inputs))
        self.latest = None  # frees the earlier graph before the next one is built
        with torch.enable_grad():
            state = self.origin(state)
            value = evaluate(self.f, state, *self.inputs)
        self.latest = Evaluation(state, value)
        return self.layout.flatten(constant(value))

    def affine(self, z: Tensor) -> AffineMap:
        """f by its linear part and its constant, f(0) for states like z (B, D); f has to be affine.

        Its products count as evaluations; one more is spent where f is no `AffineMap` itself.
        """
        f = self.f
        if not isinstance(f, AffineMap):
            constant = self(torch.zeros_like(z))
            return AffineMap(lambda v: self(v) - constant, constant)

        def counted(v: Tensor) -> Tensor:
            self.evaluations += 1
            return f.linear(v)

        return AffineMap(counted, f.constant)

    def transposed_product(self, w: Tensor) -> Tensor:
        """J_f^T w at the z of the latest evaluation: (B, D) -> (B, D).

        Raises ValueError where f cannot be differentiated.
        """
        if self.latest is None or not any(part.requires_grad for part in parts(self.latest.fz)):
            raise _no_derivative("f disables autograd")
        self.products += 1
        graph = AttachedGraph(parts(self.latest.z), parts(self.latest.fz), self.layout)
        try:
            return graph.product(w)
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            # A product with the Jacobian of fused attention has no derivative of its own.
            raise _no_derivative("a kernel in f has none") from error

    def product(self, z: Tensor, fz: Tensor, v: Tensor) -> Tensor:
        """J_f v at z, with f(z) given, for v (B, D) of unit norm: a forward difference.

        It costs one evaluation, and works with fused kernels and for functions that are products
        with a Jacobian themselves, where neither forward mode nor a double backward does.
        """
        size = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        increment = self.resolution**0.5 * (1.0 + size)
        self.evaluations += 1
        shifted = self.layout.restore(z + increment * v)
        value = self.layout.flatten(evaluate(self.f, shifted, *self.inputs))
        return (value - fz).div_(increment)

    def keep_rows(self, rows: Tensor) -> None:
        """From now on f gets these rows (b,) of its inputs, and states of as many rows."""
        self.layout = self.layout.with_batch(len(rows))
        self.inputs = tuple(tensor[rows] for tensor in self.inputs)
        self.latest = None


def transformed() -> bool:
    """Whether a transform of torch.func is at work, where `requires_grad_` is not allowed."""
    return torch._C._are_functorch_transforms_active()


def _no_derivative(reason: str) -> ValueError:
    return ValueError(
        f"derivatives of f are needed here, and {reason}; a solver that needs none is broyden"
    )

"""Evaluating f, and telling its author what a solve cannot work with."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.state import Function, State, other_shapes, parts


def evaluate(f: Function, z: State, *inputs: Tensor) -> State:
    """f(z, *inputs) as a state of z's form and shapes.

    A list stands for a tuple, one tensor for a tuple of one, and the reverse; integers are taken in
    z's dtype. Raises TypeError where f returns no state, or one whose dtype z's cannot hold, and
    ValueError where it is of another shape or f has written into z, by z's version counter: then
    f(z) - z would be zero whatever z is. Inference mode keeps no such counters.
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
            "f writes into the state that it is given, by an operation in place such as relu_ or "
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
    found = (value,) if isinstance(value, Tensor) else value
    wanted = parts(z)
    if not isinstance(found, tuple | list) or not all(isinstance(x, Tensor) for x in found):
        kind = "None" if value is None else f"a value of type {type(value).__name__}"
        form = "a tensor" if isinstance(z, Tensor) else f"a tuple of {len(wanted)} tensors"
        raise TypeError(f"f must return a state of the form that it takes, {form}, but got {kind}")
    if tuple(part.shape for part in found) != tuple(part.shape for part in wanted):
        raise ValueError(other_shapes(tuple(part.shape for part in wanted), tuple(found)))
    cast = tuple(_in_dtype(part, z.dtype) for part, z in zip(found, wanted, strict=True))
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

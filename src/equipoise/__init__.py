"""Equipoise: train models whose output is an equilibrium z* = f(z*, x)."""

from typing import TYPE_CHECKING, Any

from equipoise import interop

if TYPE_CHECKING:
    from equipoise.running.api import build, evaluate, run
    from equipoise.running.loaded import load

__version__ = "0.1.0"

__all__ = ["__version__", "build", "evaluate", "interop", "load", "run"]


def __getattr__(name: str) -> Any:
    """Import what needs Hydra when it is asked for: the layers and solvers do without."""
    if name == "load":
        from equipoise.running.loaded import load

        return load
    if name not in ("build", "evaluate", "run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from equipoise.running import api

    return getattr(api, name)

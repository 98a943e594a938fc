"""Equipoise: train models whose output is an equilibrium z* = f(z*, x)."""

# The function `run` shares its name with the module that holds it: importing it here, where the
# package is made, lets `equipoise.run(...)` be the function from then on. Both modules are light.
from equipoise import interop
from equipoise.running.api import build, run

__version__ = "0.1.0"

__all__ = ["__version__", "build", "interop", "run"]

"""LightningModules: loss, metrics and optimiser around any model that fits."""

from equipoise.tasks.classification import Classification

__all__ = ["Classification"]

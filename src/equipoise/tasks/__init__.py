"""LightningModules: loss, metrics and optimiser around any model that fits."""

from equipoise.tasks.classification import Classification
from equipoise.tasks.classification_and_segmentation import ClassificationAndSegmentation
from equipoise.tasks.segmentation import Segmentation

__all__ = [
    "Classification",
    "ClassificationAndSegmentation",
    "Segmentation",
]

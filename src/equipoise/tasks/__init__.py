"""LightningModules: loss, metrics and optimiser around any model that fits."""

from importlib import import_module
from typing import Any

OBJECTIVES = {
    "Classification": "classification",
    "ClassificationAndSegmentation": "classification_and_segmentation",
    "EmotionRecognition": "multimodal",
    "LanguageModelling": "language_modelling",
    "LinearProbe": "linear_probe",
    "RangeQueries": "range_queries",
    "ScalarCoupling": "scalar_coupling",
    "Segmentation": "segmentation",
    "SelfSupervised": "self_supervised",
    "SentimentRegression": "multimodal",
    "SequenceRecall": "sequence_recall",
    "Translation": "translation",
}
"""Each class, and the module below this package that it is in."""

__all__ = [*OBJECTIVES]


def __getattr__(name: str) -> Any:
    """Import an objective when it is asked for: what stands beside it loads without Lightning."""
    if name not in OBJECTIVES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{OBJECTIVES[name]}"), name)

"""LightningModules: loss, metrics and optimiser around any model that fits."""

# ruff: noqa: F401 - ruff does not see that `locals` is the use of the imports
from typing import Any

__all__ = [
    "Classification",
    "ClassificationAndSegmentation",
    "EmotionRecognition",
    "LanguageModelling",
    "LinearProbe",
    "RangeQueries",
    "ScalarCoupling",
    "Segmentation",
    "SelfSupervised",
    "SentimentRegression",
    "SequenceRecall",
    "Translation",
]


def __getattr__(name: str) -> Any:
    """Import an objective when it is asked for: what lies beside them loads without Lightning."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(_classes())
    return globals()[name]


def _classes() -> dict[str, Any]:
    from equipoise.tasks.classification import Classification
    from equipoise.tasks.classification_and_segmentation import ClassificationAndSegmentation
    from equipoise.tasks.language_modelling import LanguageModelling
    from equipoise.tasks.linear_probe import LinearProbe
    from equipoise.tasks.multimodal import EmotionRecognition, SentimentRegression
    from equipoise.tasks.range_queries import RangeQueries
    from equipoise.tasks.scalar_coupling import ScalarCoupling
    from equipoise.tasks.segmentation import Segmentation
    from equipoise.tasks.self_supervised import SelfSupervised
    from equipoise.tasks.sequence_recall import SequenceRecall
    from equipoise.tasks.translation import Translation

    return locals()

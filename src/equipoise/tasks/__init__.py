"""LightningModules: loss, metrics and optimiser around any model that fits."""

from equipoise.tasks.classification import Classification
from equipoise.tasks.classification_and_segmentation import ClassificationAndSegmentation
from equipoise.tasks.hyperparameter import Hyperparameter
from equipoise.tasks.language_modelling import LanguageModelling
from equipoise.tasks.linear_probe import LinearProbe
from equipoise.tasks.multimodal import EmotionRecognition, SentimentRegression
from equipoise.tasks.range_queries import RangeQueries
from equipoise.tasks.scalar_coupling import ScalarCoupling
from equipoise.tasks.segmentation import Segmentation
from equipoise.tasks.self_supervised import SelfSupervised
from equipoise.tasks.sequence_recall import SequenceRecall
from equipoise.tasks.translation import Translation

__all__ = [
    "Classification",
    "ClassificationAndSegmentation",
    "EmotionRecognition",
    "Hyperparameter",
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

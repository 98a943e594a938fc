"""One LightningDataModule a dataset, and the parsing that it needs."""

from equipoise.data.cifar10 import Cifar10
from equipoise.data.cityscapes import Cityscapes
from equipoise.data.copy_memory import CopyMemory
from equipoise.data.digit_scenes import DigitScenes
from equipoise.data.digits import Digits
from equipoise.data.digits_and_scenes import DigitsAndScenes
from equipoise.data.imagenet import ImageNet
from equipoise.data.penn_treebank import PennTreebank, PennTreebankCharacters
from equipoise.data.python_docs import PythonDocs
from equipoise.data.range_query import RangeQuery
from equipoise.data.segmentation_folder import SegmentationFolder
from equipoise.data.text_folder import TextFolder
from equipoise.data.wikitext import WikiText

__all__ = [
    "Cifar10",
    "Cityscapes",
    "CopyMemory",
    "DigitScenes",
    "Digits",
    "DigitsAndScenes",
    "ImageNet",
    "PennTreebank",
    "PennTreebankCharacters",
    "PythonDocs",
    "RangeQuery",
    "SegmentationFolder",
    "TextFolder",
    "WikiText",
]

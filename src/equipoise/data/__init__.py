"""One LightningDataModule per dataset; start at `module`, which says what all of them share."""

from equipoise.data.images.cifar10 import Cifar10
from equipoise.data.images.cityscapes import Cityscapes
from equipoise.data.images.digit_scenes import DigitsAndScenes, DigitScenes
from equipoise.data.images.digits import Digits
from equipoise.data.images.imagenet import ImageNet
from equipoise.data.images.picture_folder import ClassFolders, PictureFolder
from equipoise.data.images.picture_table import PictureTable
from equipoise.data.images.segmentation_folder import SegmentationFolder
from equipoise.data.images.stl10 import Stl10
from equipoise.data.images.tiny_imagenet import TinyImageNet
from equipoise.data.images.view_augmentations import AffineViews, PhotographViews
from equipoise.data.images.views import Views
from equipoise.data.molecules.champs import Champs
from equipoise.data.molecules.nmr_small import NmrSmall
from equipoise.data.multimodal.cmu import Iemocap, Mosei, Mosi
from equipoise.data.multimodal.trimodal import Trimodal
from equipoise.data.surveys.range_query import RangeQuery
from equipoise.data.tabular.module import Tabular
from equipoise.data.text.copy_memory import CopyMemory
from equipoise.data.text.number_words import NumberWords
from equipoise.data.text.penn_treebank import PennTreebank, PennTreebankCharacters
from equipoise.data.text.python_docs import PythonDocs
from equipoise.data.text.text_folder import TextFolder
from equipoise.data.text.translation_corpora import ParallelFolder, PublishedTranslations
from equipoise.data.text.wikitext import WikiText

__all__ = [
    "AffineViews",
    "Champs",
    "Cifar10",
    "Cityscapes",
    "ClassFolders",
    "CopyMemory",
    "DigitScenes",
    "Digits",
    "DigitsAndScenes",
    "Iemocap",
    "ImageNet",
    "Mosei",
    "Mosi",
    "NmrSmall",
    "NumberWords",
    "ParallelFolder",
    "PennTreebank",
    "PennTreebankCharacters",
    "PhotographViews",
    "PictureFolder",
    "PictureTable",
    "PublishedTranslations",
    "PythonDocs",
    "RangeQuery",
    "SegmentationFolder",
    "Stl10",
    "Tabular",
    "TextFolder",
    "TinyImageNet",
    "Trimodal",
    "Views",
    "WikiText",
]

"""One LightningDataModule per dataset; start at `module`, which says what all of them share."""

from importlib import import_module
from typing import Any

DATASETS = {
    "AffineViews": "images.view_augmentations",
    "Champs": "molecules.champs",
    "Cifar10": "images.cifar10",
    "Cityscapes": "images.cityscapes",
    "CopyMemory": "text.copy_memory",
    "DigitScenes": "images.digit_scenes",
    "Digits": "images.digits",
    "DigitsAndScenes": "images.digit_scenes",
    "Iemocap": "multimodal.cmu",
    "ImageNet": "images.imagenet",
    "Mosei": "multimodal.cmu",
    "Mosi": "multimodal.cmu",
    "NmrSmall": "molecules.nmr_small",
    "NumberWords": "text.number_words",
    "ParallelFolder": "text.translation_corpora",
    "PennTreebank": "text.penn_treebank",
    "PennTreebankCharacters": "text.penn_treebank",
    "PhotographViews": "images.view_augmentations",
    "PictureFolder": "images.picture_folder",
    "PublishedTranslations": "text.translation_corpora",
    "PythonDocs": "text.python_docs",
    "RangeQuery": "surveys.range_query",
    "SegmentationFolder": "images.segmentation_folder",
    "Stl10": "images.stl10",
    "TextFolder": "text.text_folder",
    "TinyImageNet": "images.tiny_imagenet",
    "Trimodal": "multimodal.trimodal",
    "Views": "images.views",
    "WikiText": "text.wikitext",
}
"""Each class, and the module below this package that it is in."""

__all__ = [*DATASETS]


def __getattr__(name: str) -> Any:
    """Import a dataset when it is asked for: what stands beside it loads without Lightning."""
    if name not in DATASETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{DATASETS[name]}"), name)

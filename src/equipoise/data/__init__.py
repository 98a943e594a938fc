"""One LightningDataModule a dataset, and the parsing that it needs."""

from equipoise.data.cifar10 import Cifar10
from equipoise.data.cityscapes import Cityscapes
from equipoise.data.digit_scenes import DigitScenes
from equipoise.data.digits import Digits
from equipoise.data.digits_and_scenes import DigitsAndScenes
from equipoise.data.imagenet import ImageNet
from equipoise.data.segmentation_folder import SegmentationFolder

__all__ = [
    "Cifar10",
    "Cityscapes",
    "DigitScenes",
    "Digits",
    "DigitsAndScenes",
    "ImageNet",
    "SegmentationFolder",
]

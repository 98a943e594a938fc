"""One LightningDataModule a dataset, and the parsing that it needs."""

from equipoise.data.cifar10 import Cifar10
from equipoise.data.digits import Digits
from equipoise.data.imagenet import ImageNet

__all__ = ["Cifar10", "Digits", "ImageNet"]

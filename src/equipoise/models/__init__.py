"""The networks: one family a file or folder, each an nn.Module from batch inputs to outputs."""

from equipoise.models.mdeq import MDEQ
from equipoise.models.resnet import ResNet

__all__ = ["MDEQ", "ResNet"]

"""Residual networks: the explicit baselines of MDEQ, one for each of its sizes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from equipoise.models.sizes import Family, SizeName, image_family, size_for_images


@dataclass(frozen=True)
class Stages:
    """Widths (channels) and numbers of blocks of the stages; each stage but the first halves."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]


_RESNET_18 = Stages((64, 128, 256, 512), (2, 2, 2, 2))
_THREE_STAGES = Stages((64, 128, 256), (2, 2, 2))
_ABOUT_150_THOUSAND = Stages((16, 32, 64), (1, 1, 2))

# Chosen so that the number of parameters is close to MDEQ's of the same name.
SIZES: dict[Family, dict[str, Stages]] = {
    "miniature": {
        "tiny": Stages((16, 32), (2, 2)),
        "small": _ABOUT_150_THOUSAND,
        "large": _THREE_STAGES,
        "xl": _RESNET_18,
    },
    "thumbnail": {
        "tiny": _ABOUT_150_THOUSAND,
        "small": _THREE_STAGES,
        "large": _RESNET_18,
        "xl": Stages((64, 128, 256, 512), (3, 4, 6, 3)),
    },
    "photograph": {
        "tiny": Stages((64, 128), (2, 4)),
        "small": Stages((64, 128, 256, 512), (3, 3, 3, 3)),
        "large": Stages((112, 224, 448, 896), (3, 4, 6, 3)),
        "xl": Stages((128, 256, 512, 1024), (3, 4, 6, 3)),
    },
}


class ResNet(nn.Module):
    """Classify images (B, image_channels, H, W) by a residual network of basic blocks.

    Images up to 64 pixels a side enter through one 3x3 convolution of stride 1, larger ones
    through a 7x7 convolution of stride 2 and max pooling.

    Source: He et al. 2016, "Deep residual learning"; the 18-layer network is its table 1.
    """

    def __init__(
        self,
        *,
        classes: int,
        image_size: int,
        image_channels: int = 3,
        size: SizeName = "auto",
    ) -> None:
        """Build the network of `size`; raises ValueError when there is no such size."""
        super().__init__()
        stages = size_for_images(size, image_size, SIZES)
        photograph = image_family(image_size) == "photograph"
        self.stem = (_large_stem if photograph else _small_stem)(image_channels, stages.widths[0])
        sources = (stages.widths[0], *stages.widths)
        self.stages = nn.Sequential(
            *(
                _stage(source, width, blocks, stride=1 if index == 0 else 2)
                for index, (source, width, blocks) in enumerate(
                    zip(sources, stages.widths, stages.blocks, strict=False)
                )
            )
        )
        self.classifier = nn.Linear(stages.widths[-1], classes)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """The logits (B, classes)."""
        features = self.stages(self.stem(image))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


def _small_stem(image_channels: int, width: int) -> nn.Sequential:
    return _stem_convolution(image_channels, width, kernel=3, stride=1)


def _large_stem(image_channels: int, width: int) -> nn.Sequential:
    stem = _stem_convolution(image_channels, width, kernel=7, stride=2)
    return stem.append(nn.MaxPool2d(3, stride=2, padding=1))


def _stem_convolution(image_channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(image_channels, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _stage(source: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(source, width, stride, _shortcut(source, width, stride))
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


def _shortcut(source: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and source == width:
        return None
    return nn.Sequential(nn.Conv2d(source, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

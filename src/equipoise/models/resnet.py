"""Residual networks: the explicit baselines of MDEQ, one for each of its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from equipoise.models.backbone import load_backbone
from equipoise.models.sizes import Family, SizeName, image_family, size_for_images

ResNetSize = SizeName | Literal["resnet18", "resnet34", "resnet50"]
StemName = Literal["auto", "small", "small_pooled", "large"]
BACKBONE = ("stem.", "stages.")
"""The parts that a classifier or a projector builds on."""


@dataclass(frozen=True)
class Stages:
    """Channels and numbers of blocks of the stages; each stage but the first halves the image."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock


_RESNET_18 = Stages((64, 128, 256, 512), (2, 2, 2, 2))
_RESNET_34 = Stages((64, 128, 256, 512), (3, 4, 6, 3))
_RESNET_50 = Stages((64, 128, 256, 512), (3, 4, 6, 3), Bottleneck)
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
        "xl": _RESNET_34,
    },
    "photograph": {
        "tiny": Stages((64, 128), (2, 4)),
        "small": Stages((64, 128, 256, 512), (3, 3, 3, 3)),
        "large": Stages((112, 224, 448, 896), (3, 4, 6, 3)),
        "xl": Stages((128, 256, 512, 1024), (3, 4, 6, 3)),
    },
}

PUBLISHED = {"resnet18": _RESNET_18, "resnet34": _RESNET_34, "resnet50": _RESNET_50}
"""For images of any size; the numbers count layers."""


class ResNet(nn.Module):
    """Classify images (B, image_channels, H, W) by a residual network, or encode them.

    Images up to 64 pixels a side enter through one 3x3 convolution of stride 1, larger ones
    through a 7x7 convolution of stride 2 and max pooling.

    Source: He et al. 2016, "Deep residual learning", table 1 for 18, 34 and 50 layers; the latter
    halves in its 3x3 convolutions, as torchvision's does.
    """

    head_parts = ("classifier",)

    def __init__(
        self,
        *,
        classes: int | None,
        image_size: int,
        image_channels: int = 3,
        size: ResNetSize = "auto",
        stem: StemName = "auto",
        zero_init_residual: bool = False,
        backbone_ckpt: str | None = None,
    ) -> None:
        """Build the network of `size`; raises ValueError if there is no such size or stem.

        Without `classes` there is no classifier, and the output is what it would read.
        stem: "small" is the 3x3 convolution, "small_pooled" adds max pooling, "large" is the other
        one. zero_init_residual: blocks begin as the identity (Goyal et al. 2017, section 5.1).
        backbone_ckpt: a checkpoint whose stem and stages to start from; it must fit.
        """
        super().__init__()
        stages = PUBLISHED.get(size) or size_for_images(size, image_size, SIZES)  # type: ignore[arg-type]
        self.stem = _stem(stem, image_channels, stages.widths[0], image_size)
        outputs = [width * stages.block.expansion for width in stages.widths]
        self.stages = nn.Sequential(
            *(
                _stage(stages.block, source, width, blocks, stride=1 if index == 0 else 2)
                for index, (source, width, blocks) in enumerate(
                    zip([stages.widths[0], *outputs], stages.widths, stages.blocks, strict=False)
                )
            )
        )
        self.features = outputs[-1]
        self.classifier = nn.Identity() if classes is None else nn.Linear(self.features, classes)
        _initialise(self, zero_init_residual)
        if backbone_ckpt is not None:
            load_backbone(self, backbone_ckpt, BACKBONE)

    def forward(self, image: Tensor) -> Tensor:
        """The logits (B, classes), or the features (B, features) of a network without classes."""
        output: Tensor = self.classifier(self.stages(self.stem(image)).mean(dim=(2, 3)))
        return output


def _stem(name: StemName, image_channels: int, width: int, image_size: int) -> nn.Sequential:
    if name == "auto":
        name = "large" if image_family(image_size) == "photograph" else "small"
    if name not in ("small", "small_pooled", "large"):
        raise ValueError(f"there is no stem {name!r}; choose auto, small, small_pooled, large")
    large = name == "large"
    stem = _stem_convolution(image_channels, width, kernel=7 if large else 3, stride=1 + large)
    return stem if name == "small" else stem.append(nn.MaxPool2d(3, stride=2, padding=1))


def _stem_convolution(image_channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(image_channels, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _stage(
    block: type[BasicBlock] | type[Bottleneck], source: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    output = width * block.expansion
    first = block(source, width, stride, _shortcut(source, output, stride))
    return nn.Sequential(first, *(block(output, width) for _ in range(blocks - 1)))


def _shortcut(source: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and source == width:
        return None
    return nn.Sequential(nn.Conv2d(source, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def _initialise(network: nn.Module, zero_init_residual: bool) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
            last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
            nn.init.zeros_(last.weight)

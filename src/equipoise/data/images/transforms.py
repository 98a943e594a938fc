"""From stored pixels to the network's input: the published augmentations, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from equipoise.data.images.masked_files import IGNORED
from equipoise.data.sampling import BatchIndex, stream

STEP = 0.1
WHITE = 255
LUMA = (19595, 38470, 7471)
"""The weights of red, green and blue in grey, out of 65536 (ITU-R BT.601)."""
LONGEST = 16


class Draw(NamedTuple):
    """The random choices for one sample: scale, place of the crop in 0 to 1, and the flip."""

    scale: float
    top: float
    left: float
    flip: bool


class ScaleCropAndFlip:
    """Resize by a random scale, cut out `crop` = (height, width), flip half of the samples.

    The scale is relative to the image's own size, from scales[0] to scales[1] in steps of 0.1; an
    image smaller than the crop is padded below and on the right with 0 (black), its mask with 255.
    The image is interpolated bilinearly, the mask takes the nearest pixel. The draws are a pure
    function of (seed, epoch, row).

    Source: the published Cityscapes training of MDEQ, with scales from 0.5 to 2.1 relative to a
    long side of 2048, that of every image in Cityscapes.
    """

    def __init__(self, crop: Sequence[int], scales: Sequence[float], seed: int) -> None:
        self.height, self.width = crop
        self.least, most = scales
        self.count = round((most - self.least) / STEP) + 1
        self.seed = seed

    def __call__(self, image: Tensor, mask: Tensor, epoch: int, row: int) -> tuple[Tensor, Tensor]:
        """The crops (3, height, width) and (height, width) of a uint8 image and its mask."""
        drawn = self.draw(epoch, row)
        image, mask = resize(image, mask, drawn.scale)
        image, mask = pad(image, mask, self.height, self.width)
        top = int(drawn.top * (mask.shape[0] - self.height + 1))
        left = int(drawn.left * (mask.shape[1] - self.width + 1))
        rows, columns = slice(top, top + self.height), slice(left, left + self.width)
        image, mask = image[:, rows, columns], mask[rows, columns]
        return (image.flip(-1), mask.flip(-1)) if drawn.flip else (image, mask)

    def draw(self, epoch: int, row: int) -> Draw:
        """The choices for a row in an epoch."""
        generator = stream(self.seed, epoch, row, 3)
        scale, top, left, flip = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        return Draw(self.least + STEP * int(scale * self.count), top, left, flip < 0.5)


def resize(image: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Resize so that the longer side becomes int(scale * side + 0.5), keeping the proportions."""
    longer = max(mask.shape)
    factor = int(longer * scale + 0.5) / longer
    size = [int(side * factor + 0.5) for side in mask.shape]
    pixels = functional.interpolate(image[None].float(), size, mode="bilinear")[0]
    classes = functional.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0]
    return pixels.round().to(torch.uint8), classes.to(torch.uint8)


def pad(image: Tensor, mask: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pad below and on the right to at least (height, width), with black and ignored pixels."""
    below, right = max(height - mask.shape[0], 0), max(width - mask.shape[1], 0)
    margins = (0, right, 0, below)
    return functional.pad(image, margins), functional.pad(mask, margins, value=IGNORED)


class CropAndFlip:
    """Per sample a random crop of the padded image, and a horizontal flip for half of them.

    The same images as torchvision's `v2.RandomCrop(size, padding=4)` followed by
    `v2.RandomHorizontalFlip()` with independent draws for each sample (He et al. 2016,
    section 4.2). The draws are a pure function of (seed, epoch, row): each epoch draws one table
    with a row for every sample of the split.
    """

    def __init__(self, samples: int, seed: int, padding: int = 4) -> None:
        self.samples = samples
        self.seed = seed
        self.padding = padding
        self._epoch = -1
        self._draws = torch.empty(0)

    def __call__(self, images: Tensor, index: BatchIndex) -> Tensor:
        """New images (B, C, H, W) for the rows and the epoch of `index`."""
        top, left, flip = self.draws(index)
        height, width = images.shape[-2:]
        padded = functional.pad(images, [self.padding] * 4)
        # A view of every possible crop: (B, C, tops, lefts, H, W).
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(len(images)), :, top, left]
        cropped[flip] = cropped[flip].flip(-1)
        return cropped

    def draws(self, index: BatchIndex) -> tuple[Tensor, Tensor, Tensor]:
        """Top, left (int64, 0 to 2 * padding) and flip (bool), each (B,)."""
        if index.epoch != self._epoch:
            generator = stream(self.seed, index.epoch, 1)
            self._draws = torch.rand(self.samples, 3, generator=generator)
            self._epoch = index.epoch
        top, left, flip = self._draws[index.rows].unbind(1)
        positions = 2 * self.padding + 1
        return (top * positions).long(), (left * positions).long(), flip < 0.5


class Normalization:
    """Turn pixels p of 0 to `white` into (p / white - mean) / std, channel by channel.

    Takes uint8 images (B, C, H, W) and returns float32 images of the same shape.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], white: int = 255) -> None:
        self.white = white
        self.mean = torch.tensor(mean).view(-1, 1, 1) * white
        self.std = torch.tensor(std).view(-1, 1, 1) * white

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised images."""
        return images.float().sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class Preprocessing:
    """What a network sees in evaluation of a picture, uint8 (1 or 3, H, W) with white at 255.

    Colour becomes grey, or grey colour, to match the network's channels; then comes the
    `transform`. `multiple`: pad below and on the right with black to multiples of this many pixels.
    """

    normalization: Normalization
    transform: Callable[[Tensor], Tensor] | None = None
    multiple: int = 1

    def __call__(self, pixels: Tensor) -> Tensor:
        """The picture as float32 (C, H', W')."""
        pixels = with_channels(pixels, len(self.normalization.mean))
        if self.transform is not None:
            pixels = self.transform(pixels)
        if (white := self.normalization.white) != WHITE:
            pixels = ((pixels.int() * white + WHITE // 2) // WHITE).to(torch.uint8)
        below, right = (-side % self.multiple for side in pixels.shape[1:])
        return self.normalization(functional.pad(pixels, (0, right, 0, below))[None])[0]

    def numbers(self) -> dict[str, Any]:
        """Its numbers as plain data: mean and std of each channel, relative to white."""
        white = self.normalization.white
        scaled = {"mean": self.normalization.mean, "std": self.normalization.std}
        channels = {
            name: [round(value, 6) for value in (tensor / white).flatten().tolist()]
            for name, tensor in scaled.items()
        }
        return {"white": white, **channels, "multiple": self.multiple}


def with_channels(pixels: Tensor, channels: int) -> Tensor:
    """Pixels uint8 (1 or 3, H, W) in 1 or 3 channels; grey is weighted as in Pillow."""
    if len(pixels) == channels:
        return pixels
    if len(pixels) == 1:
        return pixels.expand(channels, -1, -1)
    weighted = pixels.int() * torch.tensor(LUMA).view(-1, 1, 1)
    return ((weighted.sum(dim=0, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GREY = Normalization(mean=(0.459,), std=(0.226,))
"""The normalisation of the same photographs in grey."""
CIFAR10 = Normalization(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def training_transform(
    size: int, scale: Sequence[float] = (0.08, 1.0), flip: float = 0.5
) -> v2.Transform:
    """A crop of random shape and a random part `scale` of the area, resized to `size`, and a flip.

    The augmentation of Szegedy et al. 2015, section 6, with torchvision's default ranges. `flip` is
    the fraction of the images that are mirrored.
    """
    crop = v2.RandomResizedCrop(size, scale=tuple(scale))
    return v2.Compose([crop, v2.RandomHorizontalFlip(flip)])


def evaluation_transform(size: int) -> v2.Transform:
    """The central `size` pixels after resizing the shorter side to 256/224 of it."""
    return v2.Compose([Middle(), v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)])


def whole_at(size: int) -> v2.Transform:
    """The whole image with its shorter side at `size`; of a longer one the middle."""
    return v2.Compose([Middle(), v2.Resize(size), v2.CenterCrop(size)])


class Middle(v2.Transform):
    """The middle of an image more than sixteen times as long as wide; others unchanged.

    The next step resizes the shorter side, which may be a single pixel, and would make the longer
    one huge before cutting out a central square; cutting out the middle first gives the same
    square.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (C, H, W) -> (C, H', W')."""
        height, width = pixels.shape[-2:]
        longest = LONGEST * min(height, width)
        if max(height, width) <= longest:
            return pixels
        return v2.functional.center_crop(pixels, [min(height, longest), min(width, longest)])


class Grey(v2.Transform):
    """Keep one of the three channels."""

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (3, H, W) -> (1, H, W)."""
        return with_channels(pixels, 1)

"""MDEQ's published configurations, as arguments of our classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.errors import DoesNotFit

SECTIONS = ("MODEL.", "EXTRA.", "FULL_STAGE.")
"""Sections of the published files whose keys have one meaning, so that they may stand alone."""


class Published:
    """A published configuration, read by its own keys, however deep they lie.

    Nested as the published file, flat, or with dotted keys; MODEL.EXTRA.FULL_STAGE.NUM_CHANNELS may
    be called NUM_CHANNELS, keys of the other sections keep them: TRAIN.PRETRAIN_STEPS.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read `config`; raises DoesNotFit where it is no mapping."""
        if not isinstance(config, Mapping):
            raise DoesNotFit("a published configuration is a mapping of keys such as NUM_CHANNELS")
        self.values = dict(_flat(config))

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any) -> Any:
        """Return the value of `key`, or the default of the published code."""
        return self.values[key] if key in self else default

    def need(self, key: str) -> Any:
        """Return the value of `key`; raises DoesNotFit where there is none."""
        if key not in self:
            raise DoesNotFit(f"the configuration of a published MDEQ needs {key}, and has none")
        return self.values[key]


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
            continue
        for section in SECTIONS:
            name = name.removeprefix(section)
        yield name, value


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of our MDEQ, all but its equilibrium and the image's size.

    The weights decide where versions of the code differ without a key that says so: which head
    there is, which convolutions are normalised, and that the norms of 2020 are always affine.
    Raises DoesNotFit where an entry that is needed is missing, or branches are miscounted.
    """
    published = Published(config)
    channels = list(published.need("NUM_CHANNELS"))
    branches = len(channels)
    if published.get("NUM_BRANCHES", branches) != branches:
        raise DoesNotFit(
            f"NUM_CHANNELS has {branches} entries for {published.need('NUM_BRANCHES')} NUM_BRANCHES"
        )
    return {
        **_heads(published, weights),
        "channels": channels,
        "blocks": list(published.get("NUM_BLOCKS", [1] * branches)),
        "big_kernels": list(published.get("BIG_KERNELS", [0] * branches)),
        "expansion": published.get("EXPANSION_FACTOR", 5),
        "groups": published.get("NUM_GROUPS", 4),
        "stem_stride": 2 ** published.get("DOWNSAMPLE_TIMES", 2),
        "block_affine": _affine("BLOCK", published, weights, ".gn1."),
        "fusion_affine": _affine("FUSE", published, weights, ".fuse_layers.", "gnorm."),
        "post_affine": _affine("POST", published, weights, ".post_fuse_layers.", "gnorm."),
        "weight_norm": _weight_norm(published, weights),
        "dropout": published.get("DROPOUT", 0.0),
    }


def _heads(published: Published, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if _any(weights, "classifier.") or _any(weights, "final_layer."):
        arguments["classes"] = published.get("NUM_CLASSES", 1000)
        arguments["head_channels"] = list(published.need("HEAD_CHANNELS"))
        arguments["final_channels"] = published.need("FINAL_CHANSIZE")
    if _any(weights, "last_layer."):
        last = weights.get("last_layer.3.weight")
        counted = 19 if last is None else len(last)
        arguments["mask_classes"] = published.get("DATASET.NUM_CLASSES", counted)
        arguments["final_kernel"] = published.get("FINAL_CONV_KERNEL", 1)
        arguments["batch_norm_momentum"] = 0.01
    if not arguments:
        raise DoesNotFit(
            "the weights have no head (classifier.* for classes, last_layer.* for masks), so they "
            "are not a published MDEQ's"
        )
    return arguments


def _affine(part: str, published: Published, weights: Mapping[str, Tensor], *names: str) -> bool:
    """Whether the norms are affine: where the configuration says so, or the weights are there."""
    stated: bool = published.get(f"{part}_GN_AFFINE", False)
    return stated or _any(weights, *names)


def _weight_norm(published: Published, weights: Mapping[str, Tensor]) -> str:
    if _any(weights, ".fuse_layers.", "weight_g"):
        return "all"
    if _any(weights, ".post_fuse_layers.", "weight_g"):
        return "published"
    if _any(weights, ".branches.", "weight_g"):
        # A single branch has nothing behind it to normalise.
        return "blocks" if _any(weights, ".post_fuse_layers.") else "published"
    return "published" if published.get("WNORM", False) else "none"


def _any(weights: Mapping[str, Tensor], *parts: str) -> bool:
    return any(all(part in name for part in parts) for name in weights)

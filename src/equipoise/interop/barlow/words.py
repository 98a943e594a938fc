"""The words of the three codes: their settings for the loss and for the projector's widths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.interop.published_configuration import DoesNotFit, PublishedConfiguration

NAME = "Barlow Twins"
OF_THE_HSIC_CODE = ("l2_normalize_first", "corr_neg_one", "corr_zero", "lmbda")
OF_THE_ORIGINAL = ("lambd", "lamb", "scale_loss", "scale-loss")
"""Words of the original and of solo-learn, whose losses are the same up to the scale."""


class Words(PublishedConfiguration):
    """The words of the three codes, with the type of each."""

    example = "lmbda"

    def number(self, words: Sequence[str], otherwise: float) -> float:
        """The first of several words for one number, not negative."""
        value = self.first(words)
        value = otherwise if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise DoesNotFit(f"{words[0]} is {value}; it must be a number, at least 0")
        return float(value)

    def widths(self) -> list[int]:
        """The projector's widths; none if no word gives them."""
        if "projector" in self:
            text = str(self.values["projector"])
            if not re.fullmatch(r"\d+(-\d+)*", text):
                raise DoesNotFit(f"projector is {text}; it must be widths such as 8192-8192-8192")
            return [int(width) for width in text.split("-")]
        if "feature_dim" in self:
            return [512, int(self.number(("feature_dim",), 128))]
        if "proj_hidden_dim" in self and "proj_output_dim" in self:
            hidden, output = (int(self.need(f"proj_{part}_dim")) for part in ("hidden", "output"))
            return [hidden, hidden, output]
        return []


def loss_arguments(config: Mapping[str, Any], original: bool = False) -> dict[str, Any]:
    """The arguments of our loss; without words, the original's if `original`, else the HSIC code's.

    Raises DoesNotFit if words of both are given, or if one has an invalid value.
    """
    words = Words(config, NAME)
    theirs, hsic = ([w for w in them if w in words] for them in (OF_THE_ORIGINAL, OF_THE_HSIC_CODE))
    if theirs and hsic:
        raise DoesNotFit(
            f"{theirs[0]} is a word of the original code and {hsic[0]} of the HSIC code: give "
            "those of one"
        )
    if theirs or (original and not hsic):
        weight = words.number(("lambd", "lamb"), 0.0051)
        scale = words.number(("scale_loss", "scale-loss"), 1.0)
        return _arguments(0.0, weight, "batch_norm", scale)
    negative = words.flag("corr_neg_one", False)
    if negative and words.flag("corr_zero", False):
        raise DoesNotFit("corr_neg_one and corr_zero are both true: choose one")
    normalized = words.flag("l2_normalize_first", True)
    weight = words.number(("lmbda",), 0.005)
    return _arguments(-float(negative), weight, "unit_length" if normalized else "unbiased", 1.0)


def _arguments(target: float, weight: float, normalization: str, scale: float) -> dict[str, Any]:
    return {
        "off_diagonal_target": target + 0.0,
        "off_diagonal_weight": weight,
        "normalization": normalization,
        "scale": scale,
    }

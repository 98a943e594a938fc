"""The methods that the tables compare, by the names of their columns."""

from __future__ import annotations

from equipoise.privacy import (
    Ahead,
    AheadPairs,
    DiscreteHaarTransform,
    Flat,
    HierarchicalHistogram,
    HierarchicalIntervals,
    HybridDimensionalGrids,
    Mechanism,
    SmoothedSquareWave,
    Uniform,
)

BEATEN = ("uniform", "flat", "hio", "dht")  # by AHEAD as published, in one attribute
ONE_ATTRIBUTE: dict[str, Mechanism] = {
    "uniform": Uniform(),
    "flat": Flat(),
    "hio": HierarchicalIntervals(),
    "dht": DiscreteHaarTransform(),
    "hh4": HierarchicalHistogram(),
    "released": Ahead(mode="released"),
    "paper": Ahead(mode="paper"),
    "gls": Ahead(),
    "sw": SmoothedSquareWave(),
}
TWO_ATTRIBUTES: dict[str, Mechanism] = {
    "uniform": Uniform(),
    "hh4": HierarchicalHistogram(),
    "hdg": HybridDimensionalGrids(),
    "paper": Ahead(mode="paper"),
    "gls": Ahead(),
}
THREE_ATTRIBUTES: dict[str, Mechanism] = {
    "uniform": Uniform(),
    "hdg": HybridDimensionalGrids(),
    "direct paper": Ahead(mode="paper"),
    "direct gls": Ahead(),
    "pairs paper": AheadPairs(ahead=Ahead(mode="paper")),
    "pairs gls": AheadPairs(),
}
# Direct estimation splits a box of five attributes into 32: few boxes are ever split.
FIVE_ATTRIBUTES = {
    name: mechanism for name, mechanism in THREE_ATTRIBUTES.items() if "direct" not in name
}

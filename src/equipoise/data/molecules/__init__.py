"""Molecules and the couplings between their nuclei."""

from __future__ import annotations

TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")
"""The types of couplings; their numbers in a batch are 1 to 8 in this order."""

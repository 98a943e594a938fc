"""Couplings computed from a geometry; start at `spin_spin`, which has the equations."""

from equipoise.data.molecules.density_functional.basis_sets import Level
from equipoise.data.molecules.density_functional.calculation import (
    Calculated,
    Job,
    calculate,
    jobs_of_smiles,
    jobs_of_structures,
)
from equipoise.data.molecules.density_functional.geometries import NoCouplings
from equipoise.data.molecules.density_functional.ground_state import ground_state
from equipoise.data.molecules.density_functional.pieces import Pieces
from equipoise.data.molecules.density_functional.spin_spin import contributions

__all__ = [
    "Calculated",
    "Job",
    "Level",
    "NoCouplings",
    "Pieces",
    "calculate",
    "contributions",
    "ground_state",
    "jobs_of_smiles",
    "jobs_of_structures",
]

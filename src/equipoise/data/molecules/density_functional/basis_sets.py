"""The two Gaussian basis sets that couplings are computed in, for H, C, N, O and F."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

Level = Literal["pcj0", "champs"]
ELEMENTS = ("H", "C", "N", "O", "F")

Shells = dict[str, list[list[Any]]]
"""PySCF's shells for each element: angular momentum, then (exponent, coefficients) in bohr^-2."""

PCJ0: Shells = {
    "H": [
        [0, [1357.75, 0.000662212], [54.31, 0.0301327], [4.3448, 0.5]],
        [0, [0.660491, 1.0]],
        [0, [0.136687, 1.0]],
    ],
    "C": [
        [0, [139534.0, 8.97831e-05], [5581.36, 0.00404024], [446.509, 0.0697449], [67.462, 0.5]],
        [0, [15.0674, 1.0]],
        [0, [3.93876, 1.0]],
        [0, [0.299915, 1.0]],
        [1, [28.39, 0.0422513], [4.36769, 0.5]],
        [1, [0.869817, 1.0]],
        [1, [0.188934, 1.0]],
    ],
    "N": [
        [0, [192453.0, 8.93681e-05], [7698.12, 0.00402418], [615.85, 0.0694684], [93.0439, 0.5]],
        [0, [20.8479, 1.0]],
        [0, [5.49589, 1.0]],
        [0, [0.42624, 1.0]],
        [1, [40.7418, 0.0413624], [6.26797, 0.5]],
        [1, [1.26901, 1.0]],
        [1, [0.273903, 1.0]],
    ],
    "O": [
        [0, [253789.0, 8.89629e-05], [10151.6, 0.00401214], [812.125, 0.0692649], [122.693, 0.5]],
        [0, [27.5608, 1.0]],
        [0, [7.31726, 1.0]],
        [0, [0.57924, 1.0]],
        [1, [53.4157, 0.0410416], [8.21779, 0.5]],
        [1, [1.67544, 1.0]],
        [1, [0.350672, 1.0]],
    ],
    "F": [
        [0, [323467.0, 8.87582e-05], [12938.7, 0.00400349], [1035.09, 0.0691137], [156.377, 0.5]],
        [0, [35.1961, 1.0]],
        [0, [9.39109, 1.0]],
        [0, [0.753418, 1.0]],
        [1, [68.8964, 0.0406431], [10.5994, 0.5]],
        [1, [2.17334, 1.0]],
        [1, [0.448707, 1.0]],
    ],
}  # fmt: skip
"""pcJ-0, contracted, as the Basis Set Exchange (version 1) has it.

Source: Jensen 2006, The basis set convergence of spin-spin coupling constants calculated by
density functional methods, J. Chem. Theory Comput. 2, 1360; Jensen 2010, The optimum contraction of
basis sets for calculating spin-spin coupling constants, Theor. Chem. Acc. 126, 371.
"""
D_EXPONENTS = (1.6, 0.4)
STEP = 0.005
"""The relative change of the exponent in a difference of two s Gaussians."""


def shells(level: Level, elements: Iterable[str]) -> Shells:
    """The basis set of a level for each of the elements, for `pyscf.gto.M(basis=...)`.

    pcj0: pcJ-0. champs: 6-31G(2df,p) as Gaussian runs it, which made the labels of the CHAMPS
    competition: see `gaussian_631g`. Raises KeyError for an element without a basis set.
    """
    chosen = sorted(set(elements))
    if level == "champs":
        return {element: gaussian_631g(element) for element in chosen}
    return {element: PCJ0[element] for element in chosen}


def gaussian_631g(element: str) -> list[list[Any]]:
    """6-31G(2df,p) with the d exponents 1.6 and 0.4, six Cartesian d functions and seven pure f.

    PySCF has either Cartesian or pure functions in a molecule. Six Cartesian d functions span the
    five pure ones and r^2 exp(-a r^2), which `radial_square` adds.

    Source: Ditchfield, Hehre, Pople 1971, J. Chem. Phys. 54, 724; Frisch, Pople, Binkley 1984,
    J. Chem. Phys. 80, 3265 (two d functions at twice and half the exponent 0.8).
    """
    from pyscf import gto

    if element not in ELEMENTS:
        raise KeyError(element)
    published = [shell for shell in gto.basis.load("6-31g(2df,p)", element) if shell[0] != 2]
    if element == "H":
        return published
    added = [[[2, [a, 1.0]], radial_square(a)] for a in D_EXPONENTS]
    return [*published, *(shell for pair in added for shell in pair)]


def radial_square(exponent: float) -> list[Any]:
    """r^2 exp(-a r^2) = -d/da exp(-a r^2) as an s shell: a central difference of two Gaussians.

    The difference is STEP * a wide; PySCF normalises the shell, and multiplies each coefficient by
    the norm of its Gaussian, which goes as a^(3/4).
    """
    low, high = exponent * (1 - STEP), exponent * (1 + STEP)
    return [0, [low, low**-0.75], [high, -(high**-0.75)]]

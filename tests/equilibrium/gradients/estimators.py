"""Every estimator with a forward solver that suits it."""

from __future__ import annotations

from equipoise.equilibrium import (
    Anderson,
    Auto,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    JacobianFree,
    Neumann,
    Phantom,
    Reversible,
    Shine,
    Unrolled,
)


def layers() -> dict[str, Equilibrium]:
    """Fresh layers by the name of their estimator; solves as tight as it needs."""
    anderson = Anderson(tol=1e-12, max_steps=60)
    # A secant pair of two almost equal iterates is mostly rounding: shine gets none of these.
    broyden = Broyden(tol=1e-8, max_steps=60, memory=30)
    return {
        "exact": Equilibrium(anderson, Exact(Anderson(tol=1e-12, max_steps=60))),
        "jfb": Equilibrium(anderson, JacobianFree()),
        "phantom": Equilibrium(anderson, Phantom()),
        "neumann": Equilibrium(anderson, Neumann()),
        "shine": Equilibrium(broyden, Shine()),
        "shine_refined": Equilibrium(broyden, Shine(refine_steps=5)),
        "unrolled": Equilibrium(FixedPoint(), Unrolled()),
        "reversible": Equilibrium(FixedPoint(), Reversible()),
        "auto": Equilibrium(anderson, Auto(every=1, patience=1)),
    }

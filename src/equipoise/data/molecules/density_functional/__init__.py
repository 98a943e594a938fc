"""Couplings computed from a geometry; start at `spin_spin`, which has the equations."""

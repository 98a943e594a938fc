"""Molecules and their couplings: from csv files to batches; start at `tables`."""

"""The collector's side; start at `aggregator`, which opens rounds and counts their reports."""

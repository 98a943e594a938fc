"""Errors of AHEAD and its baselines: `python -m benchmarks.range_queries` makes every table."""

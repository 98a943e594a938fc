"""Timings beside the peers and the limit, each run with `python -m benchmarks.NAME`."""

"""Side-by-side timings against the peers and against the limit; run with `python -m benchmarks.NAME`."""

"""From counts to answers; start at `range_estimate`, the interface of every estimate."""

"""From counts to answers; start at `range_estimate`, the contract that every estimate meets."""

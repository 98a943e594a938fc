"""Images with labels or masks; start at `module`, then `digits`, the smallest dataset."""

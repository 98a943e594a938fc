"""Images with labels or with masks."""

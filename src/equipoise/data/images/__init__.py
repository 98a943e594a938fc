"""Images: to be described."""

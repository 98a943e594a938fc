"""Text: to be described."""

"""Text and generated sequences; start at `module`, then `python_docs`, the smallest dataset."""

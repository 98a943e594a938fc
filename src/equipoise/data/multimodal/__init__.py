"""Language, audio and vision side by side; start at `module`, then `trimodal`."""

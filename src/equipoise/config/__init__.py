"""From overrides to a checked configuration; start at `compose.compose`, then `recompose`."""

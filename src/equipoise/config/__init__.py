"""From overrides to a checked configuration; start with `compose.compose`, then `recompose`."""

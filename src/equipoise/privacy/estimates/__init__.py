"""From counts to answers: trees, grids and distributions that range queries are read from."""

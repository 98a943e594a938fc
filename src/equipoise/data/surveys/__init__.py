"""People, their answers and the queries about them; start at `range_query`, the data module."""

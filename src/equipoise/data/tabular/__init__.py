"""Tables of numbers with a class for each row, from which an inner and an outer problem arise."""

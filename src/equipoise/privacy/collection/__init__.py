"""What runs at the collector: rounds that are opened, counted, closed and saved; simulations."""

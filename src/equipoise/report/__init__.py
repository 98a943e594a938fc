"""Pictures and tables of runs and sweeps; start at `page.page`, the HTML page of one run."""

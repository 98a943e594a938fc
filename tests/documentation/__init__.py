"""README and docs: commands, links, Python blocks, the site and the pages that are generated."""

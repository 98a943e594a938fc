"""Compose a configuration from `conf/` or a checkpoint, and check it before anything heavy runs."""

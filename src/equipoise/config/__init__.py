"""Composing and checking a configuration, before torch or anything else that is heavy."""

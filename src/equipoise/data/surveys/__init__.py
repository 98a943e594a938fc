"""Surveys: to be described."""

"""The command line, one file per verb."""

HELPERS = ("console", "main", "options")
"""Modules here that are no verbs."""

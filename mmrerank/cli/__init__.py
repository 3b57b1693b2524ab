"""The command line, one file per verb."""

HELPERS = ("console", "lazy", "main", "options")
"""Modules here that are no verbs."""

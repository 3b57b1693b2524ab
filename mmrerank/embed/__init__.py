"""Embedders, one file each."""

HELPERS = ("open",)
"""Modules here that are no embedders."""

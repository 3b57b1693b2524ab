"""Embedders, one file each."""

HELPERS = ("open", "overlong")
"""Modules here that are no embedders."""

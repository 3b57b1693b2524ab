"""Embedders, one file each."""

HELPERS = ("later", "open", "overlong")
"""Modules here that are no embedders."""

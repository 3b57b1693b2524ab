"""Embedders, one file each."""

HELPERS = ("later", "open", "overlong", "text_tower")
"""Modules here that are no embedders."""

"""Embedders, one file each."""

HELPERS = ("open", "overlong", "text_tower")
"""Modules here that are no embedders."""

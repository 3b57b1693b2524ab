"""Language-model backends, one file or folder each; around them a cache, a record and a ledger."""

HELPERS = ("around", "fakes", "labels", "open", "probe", "probe_scores", "scoring", "text", "thinking")
"""Modules here that are no backends."""

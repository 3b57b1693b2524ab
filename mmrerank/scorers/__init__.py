"""Dedicated rerankers, one file each: a query and candidates to scores (`mmrerank.ports.Scorer`).

Each asks in the very words and reads the very tokens or head that its weights were trained with.
"""

HELPERS: tuple[str, ...] = ()
"""Modules here that are no scorers."""

"""Rows for the catalogue of models: short names, what they are meant for, and a prompt profile."""

from __future__ import annotations

from mmrerank.catalog import Card

CARDS = (
    Card(name="polly", kind="chat", spec="parrot:polly", about="A parrot", corpora=("colour cards",)),
    Card(name="tint", kind="embedder", spec="colours:", about="Mean colours"),
)

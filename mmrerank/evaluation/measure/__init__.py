"""Runs, relevance judgements and metrics: what a run scores, and how it is read."""

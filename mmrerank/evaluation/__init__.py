"""Evaluation: metrics, runs and comparisons."""

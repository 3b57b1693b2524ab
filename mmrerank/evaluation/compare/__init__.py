"""Comparison of runs: statistics, tables, charts and the report."""

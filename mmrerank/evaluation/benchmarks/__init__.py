"""Benchmarks, one file each; the file name is the benchmark's name."""

HELPERS = ("query_folder",)
"""Modules here that are no benchmarks."""

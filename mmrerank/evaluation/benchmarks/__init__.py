"""Benchmarks, one file each; the file name is the benchmark's name."""

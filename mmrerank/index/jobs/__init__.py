"""Indexing as a job of independent shards, for more than one machine; merged into one ordinary index."""

from mmrerank.index.jobs.job import build_in_shards

__all__ = ["build_in_shards"]

"""Flickr30K, text to image: the 5,000 captions of Karpathy's test split over its 1,000 pictures.

Source: Young et al. 2014 (TACL); split by Karpathy & Fei-Fei 2015, arXiv 1412.2306.
"""

from __future__ import annotations

from pathlib import Path

from mmrerank.evaluation.benchmarks import _karpathy
from mmrerank.evaluation.benchmarks._karpathy import SPLITS, CaptionTask, Options, canonical, score
from mmrerank.evaluation.tasks import find

__all__ = ["SPLITS", "Options", "canonical", "load", "score"]
NAME = "flickr30k"


def load(data: Path, split: str, options: Options) -> CaptionTask:
    """``dataset_flickr30k.json``, or a table whose name has ``flickr`` in it."""
    path = find(data, NAME, "dataset_flickr30k.json", "*flickr*.json", "*flickr*.csv", "*.csv")
    return _karpathy.load(NAME, path, split, options)

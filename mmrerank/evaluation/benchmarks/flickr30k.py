"""Flickr30K, text to image: the 5,000 captions of Karpathy's test split over its 1,000 pictures.

Source: Young et al. 2014 (TACL); split by Karpathy & Fei-Fei 2015, arXiv 1412.2306.
"""

from __future__ import annotations

from pathlib import Path

from mmrerank.evaluation.benchmarks._karpathy import CaptionOptions, Captions, CaptionTask, load_captions
from mmrerank.evaluation.tasks import find

NAME = "flickr30k"


class Flickr30k(Captions):
    """The test split's captions over its pictures."""

    def load(self, data: Path, split: str, options: CaptionOptions) -> CaptionTask:
        """``dataset_flickr30k.json``, or a table whose name has ``flickr`` in it."""
        path = find(data, NAME, "dataset_flickr30k.json", "*flickr*.json", "*flickr*.csv", "*.csv")
        return load_captions(NAME, path, split, options)


BENCHMARK = Flickr30k()

"""MSCOCO, text to image: the captions of Karpathy's test split over its 5,000 pictures (not val2017's).

All 25,010 captions are queries; other papers have ``captions=first5`` (25,000) or ``merged`` (24,809).
Source: Lin et al. 2014, arXiv 1405.0312; split by Karpathy & Fei-Fei 2015, arXiv 1412.2306.
"""

from __future__ import annotations

from pathlib import Path

from mmrerank.evaluation.benchmarks._karpathy import CaptionOptions, Captions, CaptionTask, load_captions
from mmrerank.evaluation.tasks import find

NAME = "mscoco"


class Mscoco(Captions):
    """The test split's captions over its pictures."""

    def load(self, data: Path, split: str, options: CaptionOptions) -> CaptionTask:
        """``dataset_coco.json``, or a table whose name has ``coco`` in it."""
        path = find(data, NAME, "dataset_coco.json", "*coco*.json", "*coco*.csv", "*.csv")
        return load_captions(NAME, path, split, options)


BENCHMARK = Mscoco()

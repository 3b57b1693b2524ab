"""Sources of images, one file each; `open_corpus` picks the one that fits a location."""

from mmrerank.corpus._detect import open_corpora, open_corpus

__all__ = ["open_corpora", "open_corpus"]

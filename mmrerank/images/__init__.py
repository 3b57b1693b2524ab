"""Decoding images safely, and what follows from it: facts from headers, thumbnails, token budgets."""

from mmrerank.images.budget import fit
from mmrerank.images.decode import DEFAULT_MAX_PIXELS, ImageInfo, decode, probe
from mmrerank.images.formats import IMAGE_SUFFIXES
from mmrerank.images.thumbs import data_uri, encoded, thumbnail

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "ImageInfo",
    "data_uri",
    "decode",
    "encoded",
    "fit",
    "probe",
    "thumbnail",
]

"""Decoding images safely, and what follows from it: facts from headers, thumbnails, token budgets."""

from mmrerank.images.budget import fit
from mmrerank.images.decode import ImageInfo, decode, probe
from mmrerank.images.formats import IMAGE_SUFFIXES
from mmrerank.images.limits import DEFAULT_MAX_PIXELS, allowed_pixels
from mmrerank.images.thumbs import data_uri, encoded, thumbnail

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "ImageInfo",
    "allowed_pixels",
    "data_uri",
    "decode",
    "encoded",
    "fit",
    "probe",
    "thumbnail",
]

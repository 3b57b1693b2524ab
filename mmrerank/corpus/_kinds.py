"""What a folder of a real person holds beside pictures: the one list of what is left out, and why.

Names of folders are patterns as in a shell, and their case does not matter. What is on no list is entered.
"""

from __future__ import annotations

import fnmatch
import os
import re

from mmrerank.images import IMAGE_SUFFIXES

# fmt: off
THUMBNAILS = "folders of thumbnails, trash and the like"
LEFT_OUT_FOLDERS = (
    # thumbnails and snapshots of storage boxes: Synology, QNAP, NetApp and others
    "@eaDir", "@tmp", "@__thumb", "@sharebin", "@Recently-Snapshot", "#snapshot", "~snapshot",
    # trash of storage boxes, Windows, macOS, Linux and Nextcloud; what programs keep of old versions
    "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "RECYCLED", "lost+found", "files_trashbin",
    "files_versions", "Recycle Bin", "trashbox", "Network Trash Folder", "System Volume Information",
    "FOUND.[0-9][0-9][0-9]", "__MACOSX",
    # small copies that photo programs make
    "*.lrdata", "*.cocatalogdb", "appdata_oc*",
    # a folder whose name begins with a dot is left out as well: .Trash-1000, .thumbnails, .stversions ...
)

_LIBRARIES = (".photoslibrary", ".photolibrary", ".aplibrary", ".migratedphotolibrary")
_ORIGINALS = frozenset({"originals", "masters"})

_RAW = (
    "3fr ari arw bay cap cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf ori pef ptx "
    "r3d raf raw rw2 rwl sr2 srf srw x3f"
)
_DRAWN = (
    "afdesign afphoto ai blend cdr clip csp drawio dwg dxf emf eps epsf fig indd kra mdp odg ora pdf pdn "
    "procreate "
    "psb psd sai sketch svg svgz vsd vsdx wmf xcf"
)
_PICTURES = (
    "bpg cin cur dcm dcx dds dicom djvu dpx exr fit fits flif fpx hdr heics ico icns insp j2c jls jng jpc "
    "jxr "
    "ktx lfp mng nii pam pcd pcx pfm pict pct ras rgb rgbe sgi tga uhdr vtf wbmp wdp hdp xbm xpm icloud"
)
_VIDEO = (
    "3g2 3gp amv asf avi braw dav divx dv f4v flv insv lrv m1v m2ts m2v m4v mkv mod mov mp4 mpe mpeg mpg "
    "mts mxf ogm "
    "ogv qt rm rmvb swf vob webm wmv"
)
# fmt: on
UNREAD = frozenset(f".{s}" for s in f"{_RAW} {_DRAWN} {_PICTURES} {_VIDEO}".split()) - IMAGE_SUFFIXES
"""Suffixes of pictures and videos that mmrerank does not read."""

_LEFT_OUT = re.compile("|".join(fnmatch.translate(p.lower()) for p in LEFT_OUT_FOLDERS))
SHARD = re.compile(r"\.(tar(\.(gz|bz2|xz|lzma|zst|zstd|lz4|z|br))?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
"""The suffix of a tar file, compressed or not."""
_LONGEST = 12


def is_image(name: str) -> bool:
    """Whether the suffix is that of an image that is read."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_shard(name: str) -> bool:
    """Whether the suffix is that of a tar file, compressed or not."""
    return SHARD.search(name) is not None


def suffix_of(name: str) -> str:
    """The last suffix in lower case, such as ``.jpg``; empty where there is none.

    >>> suffix_of("a/IMG.0001.JPG"), suffix_of(".hidden")
    ('.jpg', '')
    """
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - no Path a file


def named(suffix: str) -> str:
    """A suffix as it is counted: names that merely hold a dot do not make a kind each."""
    if not suffix:
        return "(no suffix)"
    good = len(suffix) <= _LONGEST and suffix.isascii() and suffix[1:].isalnum() and not suffix[1:].isdigit()
    return suffix if good else "(other)"


def left_out(name: str, inside: str) -> bool:
    """Whether the folder ``name`` is left out; ``inside`` is the name of the folder that it is in.

    Of the library of a photo program only the originals are entered.
    """
    low = name.lower()
    if inside.lower().endswith(_LIBRARIES):
        return low not in _ORIGINALS
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or _LEFT_OUT.match(low) is not None

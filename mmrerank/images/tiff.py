"""Opens TIFF: deep, float, signed and unusual samples are read here, everything else by Pillow."""

from __future__ import annotations

from typing import Any

import PIL.Image
from PIL.TiffImagePlugin import TiffImageFile

from mmrerank.errors import ImageError
from mmrerank.images.pixels import upright
from mmrerank.images.tags import modest
from mmrerank.images.tiff_layout import Layout, described, layout, misread, needed
from mmrerank.images.tiff_pixels import picture

_ICC, _ORIENTATION = 34675, 274


class Tiff(TiffImageFile):
    """The first page of a TIFF; upright after `load`, whatever its samples are.

    Opening raises `ImageError` for a kind that is not read.
    """

    deep: Layout | None = None
    """How it is read here; None where Pillow reads it."""
    spare: Layout | None = None
    """How it could be read here, should Pillow fail."""

    lenient: bool = False
    """Whether zeros may stand for bytes that are missing, where it is read here."""

    def _open(self) -> None:
        # Pillow copies the bytes of every tag as it opens a file
        if self.fp is not None and not modest(self.fp):
            raise ImageError("the image is damaged (its tags name more bytes than the file has)")
        super()._open()

    def _setup(self) -> None:
        self.spare = layout(self.tag_v2)
        if self.spare is not None and needed(self.spare):
            self._take(self.spare)
            return
        try:
            if self.spare is None and misread(self.tag_v2):
                raise SyntaxError("unknown pixel mode")
            super()._setup()
        except (SyntaxError, KeyError, ValueError, IndexError, TypeError) as error:
            if self.spare is not None:
                self._take(self.spare)
            elif self.tag_v2.get(256) and self.tag_v2.get(257):
                what = described(self.tag_v2)
                raise ImageError(
                    f"{what} is a kind that is not read; convert it to an 8-bit RGB TIFF"
                ) from error
            else:
                raise

    def _take(self, found: Layout) -> None:
        self.deep = found
        self._tile_size = found.width, found.height
        turned = self.tag_v2.get(_ORIENTATION) in (5, 6, 7, 8)
        self._size = self._tile_size[::-1] if turned else self._tile_size
        self._mode = {1: "L", 3: "RGB", 4: "CMYK"}[3 if found.palette else found.colours]
        self.tile = []
        if _ICC in self.tag_v2:
            self.info["icc_profile"] = self.tag_v2[_ICC]

    def load(self) -> Any:
        """Decodes the pixels. Raises what decoders raise; `OSError` for a file that is cut off."""
        if self.deep is None:
            return super().load()
        if self._im is None:
            assert self.fp is not None
            turn = self.tag_v2.get(_ORIENTATION)
            shown = picture(self.fp, self.deep, lenient=self.lenient)
            shown = upright(shown, turn if isinstance(turn, int) else 1)
            self._mode, self._size, self.im = shown.mode, shown.size, shown.im
        return PIL.Image.Image.load(self)

    def without_pillow(self) -> bool:
        """Turns to reading it here; False where that cannot be done."""
        if self.deep is not None or self.spare is None:
            return False
        self._im = None
        self._take(self.spare)
        return True

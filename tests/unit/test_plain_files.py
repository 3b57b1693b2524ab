"""An image's file is opened only where it is a regular one: a pipe or a device would never end."""

import os
from pathlib import Path

import pytest

from mmrerank.types import Image


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_never_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        Image(path=path).read()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        _ = Image(path=path).digest


def test_a_regular_file_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"abcdef")
    assert (Image(path=path).read(), Image(path=path, offset=2, length=3).read()) == (b"abcdef", b"cde")

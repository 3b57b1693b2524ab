"""What indexing many images takes: the bench, smaller."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_grows_by_few_bytes_an_image_and_only_what_is_new_is_embedded() -> None:
    # some 7 MB do not depend on the number, and count more among fewer images than the bench has
    missed = runpy.run_path(str(ROOT / "bench/index_scale.py"))["measured"](40_000, 2_000, 450)
    # how fast a busy machine is, no test can say
    assert set(missed) <= {"unchanged"}


def test_the_files_of_the_benches_are_pictures(tmp_path: Path) -> None:
    from mmrerank.images import probe
    from mmrerank.types import Image

    runpy.run_path(str(ROOT / "bench/index_scale.py"))["draw"](tmp_path / "p", 998, 1003)
    files = sorted((tmp_path / "p").rglob("*.png"))
    assert [f.relative_to(tmp_path / "p").as_posix() for f in files][1:3] == [
        "00000/00000999.png",
        "00001/00001000.png",
    ]
    assert {(i.width, i.height) for f in files for i in [probe(Image(path=f))]} == {(32, 32)}
    assert len({f.read_bytes() for f in files}) == 5

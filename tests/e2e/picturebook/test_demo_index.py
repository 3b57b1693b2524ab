"""The demo's own index follows the bundled weights; an index of anybody else's is left as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmrerank.errors import MismatchError
from mmrerank.index import manifest
from mmrerank.picturebook.run import prepare_demo


def test_new_bundled_weights_make_the_demo_index_again(tmp_path: Path) -> None:
    index = tmp_path / "book"
    prepare_demo(str(index), scenes=12, seed=5)
    now = manifest.read(index)
    replace(now, fingerprint="sha256:older").write(index)
    prepare_demo(str(index), scenes=12, seed=5)
    assert manifest.read(index).fingerprint == now.fingerprint


def test_somebody_elses_index_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    index = tmp_path / "book"
    prepare_demo(str(index), scenes=12, seed=5)
    theirs = replace(manifest.read(index), fingerprint="sha256:older", domain="")
    theirs.write(index)
    with pytest.raises(MismatchError, match="--rebuild"):
        prepare_demo(str(index), scenes=12, seed=5)
    assert manifest.read(index) == theirs

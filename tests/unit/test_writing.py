"""What is written is there whole or not at all, and private files are their owner's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mmrerank import writing
from mmrerank.terminal import one_line, visible


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_write_that_ends_badly_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    writing.write(path, b"old")
    with pytest.raises(ValueError, match="closed"), writing.replaced(path) as file:
        file.close()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["report.html"]  # noqa: PTH208


def test_private_files_are_their_owners(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        writing.write(tmp_path / "a", b"", private=True)
        writing.write(tmp_path / "b", b"")
        (tmp_path / "c").touch(mode=0o664)
        os.close(writing.private_file(tmp_path / "c"))
        os.close(writing.private_file(tmp_path / "new" / "d"))
    finally:
        os.umask(old)
    found = [rights(tmp_path / n) for n in ("a", "b", "c", "new/d")]
    assert found == [0o600, 0o644, 0o600, 0o600]


def test_an_old_file_keeps_its_rights_and_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    writing.write(link, b"new")
    assert link.is_symlink()
    assert (real.read_bytes(), rights(real)) == (b"new", 0o640)


def test_nobody_else_chooses_where_a_new_file_begins(tmp_path: Path) -> None:
    # whoever guesses the name of the file beside could put a link there
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for name in ("report.html.part", "report.html.tmp", ".report.html.tmp"):
        (tmp_path / name).symlink_to(victim)
    writing.write(tmp_path / "report.html", b"page")
    assert victim.read_bytes() == b"mine"


def test_devices_are_written_and_folders_are_not(tmp_path: Path) -> None:
    writing.write(Path(os.devnull), b"gone", private=True)
    assert not stat.S_ISREG(Path(os.devnull).stat().st_mode)
    with pytest.raises(IsADirectoryError):
        writing.write(tmp_path, b"x")


@pytest.mark.parametrize("mark", "\u202e\u2066\u2069\u200f\u061c\u2028")
def test_marks_that_turn_text_around_are_escaped(mark: str) -> None:
    assert visible(f"photo{mark}gpj.exe") == f"photo\\u{ord(mark):04x}gpj.exe"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("Łódź – Жук", "写真.jpg", "👩‍👩‍👧 a.png", "می‌خواهم", "e\u0301"):
        assert visible(name) == one_line(name) == name
    assert (visible("a\nb"), one_line("a\nb")) == ("a\nb", "a\\nb")

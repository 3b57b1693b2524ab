"""``mmrerank cache`` on files that are no cache, and on numbers that are none."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from command import data, run

from mmrerank.chat.around.cache import APPLICATION, ReplyStore


def made(path: Path, *statements: str) -> Path:
    """A SQLite file."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE notes (a)"],
        # as the records of an index, which bear the same id
        [f"PRAGMA application_id={APPLICATION}", "CREATE TABLE records (a)"],
    ],
    ids=["anybody's", "an index's"],
)
def test_other_files_are_not_cleared(tmp_path: Path, statements: list[str]) -> None:
    path = made(tmp_path / "mine.sqlite", *statements)
    before = path.read_bytes()
    assert "by hand" in run("cache", "clear", "--cache", path, code=3).stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_records_of_an_index_are_not_cleared(imported: Path) -> None:
    run("cache", "clear", "--cache", imported / "records.sqlite", code=3)
    assert data("verify", imported)["ok"]


def test_a_cache_of_which_no_table_is_left_is_cleared(tmp_path: Path) -> None:
    path = made(tmp_path / "c.sqlite", f"PRAGMA application_id={APPLICATION}", "CREATE TABLE replies (a)")
    path.write_bytes(path.read_bytes()[:100].ljust(5000, b"\xff"))
    assert data("cache", "clear", "--cache", path)["deleted"] is True


def test_what_is_told_to_type_works(tmp_path: Path) -> None:
    path = tmp_path / "my cache.sqlite"
    ReplyStore(path).close()
    made(path, "PRAGMA user_version=99")
    told = run("cache", "info", "--cache", path, code=3).stderr
    command = told.partition("`")[2].partition("`")[0]
    assert shlex.split(command)[0] == "mmrerank"
    run(*shlex.split(command)[1:])
    assert not path.exists()


def test_folders_and_empty_files_hold_no_cache(tmp_path: Path) -> None:
    assert "is a folder" in run("cache", "info", "--cache", tmp_path, code=3).stderr
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in run("cache", "info", "--cache", empty, code=3).stderr
    assert empty.stat().st_size == 0
    for verb in ("info", "clear"):
        told = run("cache", verb, "--cache", "c" * 300, code=3).stderr
        assert "File name too long" in told


def test_pruning_by_numbers_that_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    ReplyStore(path).close()
    prune = ("cache", "prune", "--cache", path)
    assert data(*prune, "--older-than", f"{'9' * 20}d")["dropped"] == 0
    assert data(*prune, "--largest", f"{'9' * 20}GB")["dropped"] == 0
    for flag, unit in (("--older-than", "d"), ("--largest", "GB")):
        assert "too large" in run(*prune, flag, f"{'9' * 400}{unit}", code=2).stderr

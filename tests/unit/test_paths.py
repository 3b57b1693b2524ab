"""Paths as people type them, in options and in the specs of models, and the system's refusals in words."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from denied import denied

from mmrerank.errors import ImageIndexError, ModelError
from mmrerank.paths import (
    absolute_spec,
    check_readable,
    database_reason,
    expanded,
    is_windows_path,
    looked_at,
    looks_like_path,
    model_path,
    reason,
    refused,
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("~", "/home/me"), ("~/x y", "/home/me/x y"), ("a/~/b", "a/~/b"), ("~nobody-here/x", "~nobody-here/x")],
)
def test_a_tilde_at_the_beginning_is_the_home_folder(typed: str, meant: str) -> None:
    assert expanded(typed) == expanded(Path(typed)) == Path(meant)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("open_clip:local-dir:/m/clip", "/m/clip"),
        ("open_clip:local-dir:~/clip", "/home/me/clip"),
        ("open_clip:ViT-B-32:./w.pt", "w.pt"),
        ("open_clip:ViT-B-32:/m/my model/w.safetensors", "/m/my model/w.safetensors"),
        ("qwen3_vl:/m/q@256", "/m/q"),
        ("qwen3_vl:/m/q@home", "/m/q@home"),
        ("unime:v2:../m", "../m"),
        ("open_clip:local-dir:C:\\m\\clip", "C:\\m\\clip"),
        ("open_clip:ViT-B-32:openai", None),
        ("qwen3_vl:Qwen/Qwen3-VL-Embedding-2B", None),
        ("openai:m@http://127.0.0.1:8000/v1", None),
        ("clip-b32", None),
    ],
)
def test_the_path_in_a_spec_is_found(spec: str, path: str | None) -> None:
    assert model_path(spec) == (None if path is None else Path(path))


def test_a_spec_with_a_path_means_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models/clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for spec, wanted in [
        ("open_clip:local-dir:./models/clip", f"open_clip:local-dir:{tmp_path}/models/clip"),
        ("open_clip:local-dir:models/clip", f"open_clip:local-dir:{tmp_path}/models/clip"),
        ("qwen3_vl:~/q@64", "qwen3_vl:/home/me/q@64"),
        ("qwen3_vl:Qwen/Qwen3-VL", "qwen3_vl:Qwen/Qwen3-VL"),
        ("open_clip:ViT-B-32:openai", "open_clip:ViT-B-32:openai"),
        ("clip-b32", "clip-b32"),
    ]:
        assert absolute_spec(spec) == wanted
        assert absolute_spec(wanted) == wanted


def test_what_looks_like_a_path() -> None:
    paths = ["/a", "~/a", "./a", "..", "a/b", "a\\b", "C:\\m", "c:/m", "\\\\host\\share"]
    assert [looks_like_path(p) for p in paths] == [True] * len(paths)
    assert not any(looks_like_path(t) for t in ("openai", "ViT-B-32", "a:b", "C:"))
    assert [is_windows_path(p) for p in paths] == [False] * 6 + [True] * 3


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (errno.EACCES, "Permission denied; this user has no right to it"),
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EROFS, "Read-only file system; name a place"),
        (errno.EISDIR, "Is a directory; a file is needed"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_a_refusal_of_the_system_names_the_way_on(number: int, way: str) -> None:
    error = OSError(number, os.strerror(number), "/x")
    assert reason(error).startswith(way)
    assert refused(error)
    assert not refused(ValueError("no header"))
    assert not refused(OSError("no header"))
    with (
        pytest.raises(ImageIndexError, match=f"the index '/x' cannot be looked at: {way}"),
        looked_at("/x", "the index", ImageIndexError),
    ):
        raise error


def test_sqlite_names_no_right_and_no_disk_so_we_do(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    sqlite3.connect(file).execute("CREATE TABLE t (a)").connection.close()

    def why(code: str) -> str:
        error = sqlite3.OperationalError("unable to open database file")
        vars(error)["sqlite_errorname"] = code
        return database_reason(file, error)

    assert why("SQLITE_BUSY") == "unable to open database file"
    assert why("SQLITE_FULL").startswith("No space left on device; make room")
    with denied(file):
        assert why("SQLITE_CANTOPEN").startswith("Permission denied")
    with denied(tmp_path, 0o555):
        assert "x.sqlite" not in why("SQLITE_READONLY_DIRECTORY")
        assert "cannot be written: Permission denied" in why("SQLITE_READONLY_DIRECTORY")
    file.unlink()
    file.mkdir()
    assert why("SQLITE_CANTOPEN").startswith("Is a directory")


def test_a_models_file_that_git_has_not_fetched_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605157884\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a git-LFS pointer.*git lfs pull"):
        check_readable(file)
    with denied(file), pytest.raises(ModelError, match="cannot be read: Permission denied"):
        check_readable(file)
    file.write_bytes(b"\0" * 200)
    check_readable(file)

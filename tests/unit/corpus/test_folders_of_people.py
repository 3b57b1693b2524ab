"""What real folders hold beside pictures is left out, counted and named; what may be named as a source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from shards import png, write

from mmrerank.corpus import folder, open_corpora, open_corpus
from mmrerank.corpus._kinds import LEFT_OUT_FOLDERS, UNREAD
from mmrerank.errors import InputError, UsageError
from mmrerank.images import IMAGE_SUFFIXES


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())


def ids(corpus: Any) -> list[str]:
    return [sample.id for sample in corpus.samples()]


def counts(corpus: Any) -> dict[str, dict[str, int]]:
    return {entry.reason: dict(entry.counts) for entry in corpus.left_out()}


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "@EADIR", "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "lost+found"),
        *(".Trash-1000", ".git"),
        *(".Trashes", ".thumbnails", ".stversions", ".stfolder", ".@__thumb", "#snapshot", "__MACOSX"),
        *("System Volume Information", "Lightroom Catalog Previews.lrdata", "files_trashbin", "FOUND.000"),
        *("Recycle Bin", "Network Trash Folder", ".AppleDouble"),
    ],
)
def test_storage_and_trash_folders_are_left_out(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.jpg", f"2024/{name}/x.jpg", f"2025/{name}/y/z.jpg", f"{name}.jpg")
    corpus = open_corpus(tmp_path)
    wanted = ["a.jpg"] if name[0] == "." else sorted(["a.jpg", f"{name}.jpg"])
    assert ids(corpus) == wanted
    assert counts(corpus)["folders of thumbnails, trash and the like"] == {name: 2}
    # named as the source it is taken
    assert ids(open_corpus(tmp_path / "2024" / name)) == ["x.jpg"]


def test_folders_that_only_sound_alike_are_entered(tmp_path: Path) -> None:
    names = ["recycle/a.jpg", "Trash the dress/b.jpg", "lost and found/c.jpg", "eaDir/d.jpg"]
    put(tmp_path, *names)
    assert ids(open_corpus(tmp_path)) == sorted(names)


def test_of_a_photo_library_the_originals_are_entered(tmp_path: Path) -> None:
    put(tmp_path, "Photos.photoslibrary/originals/0/a.jpg", "Photos.photoslibrary/resources/a.jpg")
    put(tmp_path, "iPhoto.photolibrary/Masters/2012/b.jpg", "iPhoto.photolibrary/Thumbnails/b.jpg")
    wanted = ["Photos.photoslibrary/originals/0/a.jpg", "iPhoto.photolibrary/Masters/2012/b.jpg"]
    assert ids(open_corpus(tmp_path)) == wanted
    assert ids(open_corpus(tmp_path / "Photos.photoslibrary")) == ["originals/0/a.jpg"]


def test_kinds_that_are_not_read_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.CR2", "sub/c.cr2", "d.psd", "e.svg", "f.MP4", "g.MPO")
    put(tmp_path, "h.xmp", "noext", "v1.20")
    put(tmp_path, "._a.jpg", ".b.jpg.icloud", ".DS_Store", "Thumbs.db")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["a.jpg", "g.MPO"]
    assert counts(corpus) == {
        "files of kinds that are not read": {".cr2": 2, ".psd": 1, ".svg": 1, ".mp4": 1},
        "hidden files": {"._*": 1},
        "placeholders of files that are in iCloud only": {".icloud": 1},
        "other files": {".db": 1, ".xmp": 1, "(no suffix)": 1, "(other)": 1},
    }
    assert ids(corpus) == ["a.jpg", "g.MPO"]
    assert counts(corpus)["files of kinds that are not read"][".cr2"] == 2  # not added up over walks


def test_no_kind_is_both_read_and_not(tmp_path: Path) -> None:
    assert not UNREAD & IMAGE_SUFFIXES
    assert all(s.startswith(".") and s == s.lower() for s in UNREAD)
    assert len(set(map(str.lower, LEFT_OUT_FOLDERS))) == len(LEFT_OUT_FOLDERS)


def test_folders_can_be_excluded(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "raw/b.jpg", "2024/raw/c.jpg", "2024/rawer/d.jpg", "2024/e.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "raw")

    def kept(*patterns: str) -> list[str]:
        (corpus,) = open_corpora([str(tmp_path)], exclude=patterns)
        found = ids(corpus)
        assert list(counts(corpus)["folders that --exclude-dir names"]) == list(dict.fromkeys(patterns))
        return found

    assert kept("raw") == ["2024/e.jpg", "2024/rawer/d.jpg", "a.jpg", "link/b.jpg"]
    assert kept("raw*", "link") == ["2024/e.jpg", "a.jpg"]
    assert kept("2024/raw") == ["2024/e.jpg", "2024/rawer/d.jpg", "a.jpg", "raw/b.jpg"]
    (corpus,) = open_corpora([str(tmp_path)], exclude=[f"{tmp_path}/2024/", "./link/", "nothing"])
    assert ids(corpus) == ["a.jpg", "raw/b.jpg"]
    assert counts(corpus)["folders that --exclude-dir names"] == {"2024": 1, "link": 1, "nothing": 0}
    for wrong in ("", ".", "/elsewhere"):
        with pytest.raises(UsageError, match="--exclude-dir"):
            open_corpora([str(tmp_path)], exclude=[wrong])
    with pytest.raises(UsageError, match="no SOURCE is one"):
        open_corpora([str(tmp_path / "a.jpg")], exclude=["raw"])


def test_a_folder_of_shards_says_how_to_index_them(tmp_path: Path) -> None:
    for name in ("train/0.tar", "train/1.tar", "test/0.tar.gz"):
        write(tmp_path / name, [])
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == []
    (entry,) = corpus.left_out()
    assert entry.line == (
        f"tar shards: .tar (2), .gz (1); index them by their names: mmrerank index '{tmp_path}/train/*.tar'"
    )


def test_an_index_among_the_pictures_is_none_of_them(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "indexes/x/manifest.json", "indexes/x/records.sqlite", "indexes/x/odd/b.jpg")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["a.jpg"]
    assert corpus.left_out() == []


def test_files_patterns_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "p/a.jpg", "p/b.jpg", "p/sub/c.jpg", "q/d.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def found(*places: str) -> list[tuple[str, list[str]]]:
        corpora = open_corpora(places)
        return [(str(Path(c.location).relative_to(tmp_path)), ids(c)) for c in corpora]

    assert found("p/a.jpg") == [("p", ["a.jpg"])]
    assert found("p/*.jpg") == found("p/a.jpg", "p/b.jpg") == [("p", ["a.jpg", "b.jpg"])]
    assert found("p/sub/c.jpg", "q", "p/a.jpg") == [("p", ["sub/c.jpg", "a.jpg"]), ("q", ["d.jpg"])]
    assert found("p", "./p/", "p") == [("p", ["a.jpg", "b.jpg", "sub/c.jpg"])]
    assert found("~/q") == [("q", ["d.jpg"])]
    assert all(c.partial for c in open_corpora(["p/a.jpg"]))
    for empty in ("", "  "):
        with pytest.raises(UsageError, match="SOURCE is empty"):
            open_corpora([empty])
    with pytest.raises(UsageError, match="zero byte"):
        open_corpora(["a\0b"])
    for name, says in (("none.jpg", "there is no file"), ("*.png", "nothing fits this pattern")):
        with pytest.raises(InputError, match=says):
            open_corpora([f"p/{name}"])


def test_a_list_does_not_make_a_raw_file_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "b.NEF")
    monkeypatch.chdir(tmp_path)
    found = {s.id: s.error for s in folder.open("-", listing=b"a.jpg\nb.NEF\n").samples()}
    assert found == {
        "a.jpg": "",
        "b.NEF": "files of its kind (.nef) are not read; convert it to JPEG, PNG or TIFF",
    }


def test_lists_as_windows_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "ü.jpg")
    monkeypatch.chdir(tmp_path)
    for listing in ("\ufeffa.jpg\r\nü.jpg\r\n".encode(), "a.jpg\r\nü.jpg\r\n".encode("utf-16")):
        corpus = folder.open("-", listing=listing)
        assert (ids(corpus), corpus.count()) == (["a.jpg", "ü.jpg"], 2)
    with pytest.raises(InputError, match="names no file"):
        folder.open("-", listing=b"\r\n")


def test_what_nobody_may_see_is_a_matter_of_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "shut/a.jpg", "shut/0.tar")
    stat, scandir = os.stat, os.scandir

    def refuse(function: Any, inside: bool) -> Any:
        def refused(path: Any = ".", *args: Any, **options: Any) -> Any:
            if f"shut{os.sep * inside}" in str(path):
                raise PermissionError(13, "Permission denied")
            return function(path, *args, **options)

        return refused

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "scandir", refuse(scandir, inside=False))
    with pytest.raises(InputError, match="cannot be listed: Permission denied; .*change its rights"):
        open_corpus(tmp_path / "shut")
    monkeypatch.setattr(os, "stat", refuse(stat, inside=True))
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    for name in ("shut/a.jpg", "shut/0.tar", "shut/sub"):
        with pytest.raises(InputError, match="cannot be looked at: Permission denied; .*change its rights"):
            open_corpus(tmp_path / name)

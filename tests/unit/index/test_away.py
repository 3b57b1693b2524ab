"""A source that is away for a moment loses nothing: what cannot be seen stays; a mass removal needs leave."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from index_world import ColourEmbedder, build, nearest, paint, tally

from mmrerank.corpus import open_corpora, webdataset
from mmrerank.errors import InputError
from mmrerank.index.index import ImageIndex
from mmrerank.index.known import Known
from mmrerank.index.removal import NOT_THERE, needs_leave
from mmrerank.types import Image

NUMBERS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES)


def touched(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("number", "where"), [(errno.EIO, "stat"), (errno.ENOENT, "stat"), *((n, "read") for n in NUMBERS)]
)
def test_a_file_that_the_system_refuses_keeps_its_vector(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    build(tmp_path / "x", source)
    touched(source / "00.png")
    stat, read = os.stat, Image.read

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if where == "stat":
            patch.setattr(Path, "stat", lambda p, **o: refuse() if p.name == "00.png" else stat(p, **o))
        else:
            patch.setattr(
                Image, "read", lambda i: refuse() if i.path and i.path.name == "00.png" else read(i)
            )
        report = build(tmp_path / "x", source)
    assert tally(report) == (0, 0, 0, 9, 0)
    (first,) = report.kept_first
    assert (report.kept, first.source) == (1, "00.png")
    assert os.strerror(number) in first.error
    assert any("00.png" in r and os.strerror(number) in r for r in report.remarks)
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.info()["kept"] == 1
        assert any("could not be seen" in w for w in index.warnings())
        assert nearest(index, source / "00.png")[0] == "00.png"
    # the next run looks again, and the mark is gone
    embedder = ColourEmbedder()
    report = build(tmp_path / "x", source, embedder)
    assert (tally(report), report.kept, embedder.embedded) == ((0, 0, 0, 10, 0), 0, 0)
    assert ImageIndex.open(tmp_path / "x").info()["kept"] == 0


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_placeholder_of_a_file_keeps_its_vector(source: Path, tmp_path: Path, data: bytes) -> None:
    build(tmp_path / "x", source)
    whole = (source / "01.png").read_bytes()
    (source / "01.png").write_bytes(data)
    (source / "new.png").write_bytes(data)
    report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 9, 1), 1)
    (source / "01.png").write_bytes(whole)
    (source / "new.png").unlink()
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 10, 0)
    # other bytes that are no picture are a change: the old vector does not describe them
    (source / "01.png").write_bytes(whole[:60])
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 9, 1)


@pytest.mark.parametrize("form", [".{}.icloud", "{}.nextcloud", "{}.owncloud", "{}.cloud"])
def test_a_file_that_is_in_the_cloud_only_keeps_its_vector(source: Path, tmp_path: Path, form: str) -> None:
    build(tmp_path / "x", source)
    (source / "01.png").rename(source / form.format("01.png"))
    report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 9, 0), 1)
    assert "in the cloud only" in report.kept_first[0].error


def test_a_drive_that_is_not_mounted_keeps_its_images(source: Path, tmp_path: Path) -> None:
    paint(source, ["disk/deep/a.png", "disk/b.png"], start=50)
    build(tmp_path / "x", source)
    (source / "disk").rename(tmp_path / "away")
    (source / "disk").mkdir()
    report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 10, 0), 2)
    assert f"its folder {source}/disk is empty (is a drive not mounted?)" in report.remarks[0]
    assert "--allow-removal" in report.remarks[0]
    (source / "disk").rmdir()
    (tmp_path / "away").rename(source / "disk")
    assert (tally(build(tmp_path / "x", source)), report.kept) == ((0, 0, 0, 12, 0), 2)
    for name in ("disk/deep/a.png", "disk/b.png"):
        (source / name).unlink()
    (source / "disk/deep").rmdir()
    assert build(tmp_path / "x", source, allow_removal=True).removed == 2


def test_a_mass_removal_needs_leave(tmp_path: Path) -> None:
    source, index = tmp_path / "pictures", tmp_path / "x"
    names = [f"{n:02d}.png" for n in range(40)]
    paint(source, names)
    build(index, source)
    for name in names[:10]:
        (source / name).unlink()
    assert build(index, source).removed == 10
    for name in names[10:21]:
        (source / name).unlink()
    paint(source, ["late.png"], start=70)
    report = build(index, source)
    assert tally(report) == (1, 0, 0, 19, 0)
    assert report.withheld == 11
    assert [f.source for f in report.withheld_first] == names[10:21]
    assert {f.error for f in report.withheld_first} == {NOT_THERE}
    assert "11 of the 31 images" in report.remarks[0]
    assert "'10.png', '11.png', '12.png' and 8 more" in report.remarks[0]
    assert len(ImageIndex.open(index)) == 31
    # one comes back, and the rest are ten
    paint(source, ["10.png"], start=10)
    report = build(index, source)
    assert (tally(report), report.withheld) == ((0, 0, 10, 21, 0), 0)
    assert ImageIndex.open(index).info()["kept"] == 0


@pytest.mark.parametrize(
    ("lost", "of", "needs"),
    [(10, 10, False), (11, 110, False), (11, 109, True), (11, 11, True), (0, 0, False)],
)
def test_more_than_ten_and_more_than_a_tenth(lost: int, of: int, needs: bool) -> None:
    assert needs_leave(lost, of) is needs


def test_a_filter_removes_no_mass_of_images_without_leave(tmp_path: Path) -> None:
    source, index = tmp_path / "pictures", tmp_path / "x"
    paint(source, [f"raw/{n}.png" for n in range(11)] + [f"{n}.png" for n in range(11)])

    def run(**options: Any) -> Any:
        corpora = open_corpora([str(source)], exclude=["raw"])
        return ImageIndex.build(index, corpora, ColourEmbedder(), **options)

    build(index, source)
    report = run()
    assert (report.removed, report.withheld, len(ImageIndex.open(index))) == (0, 11, 22)
    report = run(allow_removal=True)
    assert (report.removed, report.withheld, len(ImageIndex.open(index))) == (11, 0, 11)


def test_many_images_that_go_bad_at_once_stay(tmp_path: Path) -> None:
    source, index = tmp_path / "pictures", tmp_path / "x"
    names = [f"{n:02d}.png" for n in range(20)]
    paint(source, names)
    build(index, source)
    for name in names[:12]:  # as a drive does that gives zeros
        (source / name).write_bytes(bytes((source / name).stat().st_size))
    report = build(index, source)
    assert (tally(report), report.withheld) == ((0, 0, 0, 8, 12), 12)
    assert len(ImageIndex.open(index)) == 20
    report = build(index, source, allow_removal=True)
    assert (report.withheld, len(ImageIndex.open(index))) == (0, 8)


def test_a_source_of_which_nothing_can_be_read_keeps_all(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    for path in source.rglob("*.png"):
        touched(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Image, "read", refuse)
        report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 0, 0), 10)
    shutil.rmtree(source)
    source.mkdir()
    with pytest.raises(InputError, match="no images found"):
        build(tmp_path / "x", source)
    assert len(ImageIndex.open(tmp_path / "x")) == 10


# Shards


def pack(shard: Path, names: list[str], start: int) -> None:
    paint(shard.parent / "loose", names, start=start)
    with tarfile.open(shard, "w") as tar:
        for name in names:
            tar.add(shard.parent / "loose" / name, name)


def run(tmp_path: Path) -> Any:
    return ImageIndex.build(tmp_path / "x", webdataset.open(str(tmp_path / "{0..1}.tar")), ColourEmbedder())


NAMES = [f"{n:02d}.png" for n in range(6)]


@pytest.mark.parametrize("cut", ["nothing", "zeros", "member", "header", "boundary"])
def test_a_shard_that_was_cut_off_keeps_its_images(tmp_path: Path, cut: str) -> None:
    for number in (0, 1):
        pack(tmp_path / f"{number}.tar", NAMES, start=10 * number)
    assert tally(run(tmp_path)) == (12, 0, 0, 0, 0)
    shard = tmp_path / "1.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        third = tar.getmembers()[2]
    end = {
        "nothing": 0,
        "zeros": 0,
        "member": third.offset_data + 5,
        "header": third.offset + 100,
        "boundary": third.offset,
    }[cut]
    shard.write_bytes(bytes(10240) if cut == "zeros" else whole[:end])
    report = run(tmp_path)
    assert report.kept == (6 if end == 0 else 4)
    assert report.unchanged == 12 - report.kept
    assert len(ImageIndex.open(tmp_path / "x")) == 12
    shard.write_bytes(whole)
    assert (tally(run(tmp_path)), run(tmp_path).kept) == ((0, 0, 0, 12, 0), 0)


def test_a_shard_that_another_replaces_during_the_run_shows_no_wrong_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 1):
        pack(tmp_path / f"{number}.tar", NAMES, start=10 * number)
    run(tmp_path)
    pack(tmp_path / "other.tar", NAMES[::-1], start=20)
    before = ImageIndex.open(tmp_path / "x").vectors(["1/00"]).tolist()
    is_same = Known.is_same

    def replaced(self: Any, sample: Any, row: Any) -> Any:
        if (tmp_path / "other.tar").exists() and sample.id.startswith("1/"):
            (tmp_path / "other.tar").replace(tmp_path / "1.tar")
        return is_same(self, sample, row)

    monkeypatch.setattr(Known, "is_same", replaced)
    report = run(tmp_path)
    assert (report.kept, report.unchanged) == (6, 6)
    assert "another file took its place while it was read" in report.kept_first[0].error
    assert ImageIndex.open(tmp_path / "x").vectors(["1/00"]).tolist() == before
    assert tally(run(tmp_path)) == (0, 6, 0, 6, 0)


# While the run looks


def test_a_file_that_goes_during_the_run_is_gone_for_the_next(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    is_same = Known.is_same

    def vanished(self: Any, sample: Any, row: Any) -> Any:
        if sample.id == "03.png":
            (source / "03.png").unlink(missing_ok=True)
        return is_same(self, sample, row)

    monkeypatch.setattr(Known, "is_same", vanished)
    report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 9, 0), 1)
    assert tally(build(tmp_path / "x", source)) == (0, 0, 1, 9, 0)


def test_a_file_that_is_being_written_is_looked_at_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "x", source)
    touched(source / "04.png")
    read = Image.read
    half = lambda i: read(i)[:50] if i.path and i.path.name == "04.png" else read(i)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Image, "read", half)
        report = build(tmp_path / "x", source)
    assert (tally(report), report.kept) == ((0, 0, 0, 9, 0), 1)
    assert "changed while it was read" in report.kept_first[0].error
    assert tally(build(tmp_path / "x", source)) == (0, 0, 0, 10, 0)


def test_other_case_is_another_name_of_the_same_picture(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "x", source)
    (source / "05.png").rename(source / "05.PNG")
    embedder = ColourEmbedder()
    assert tally(build(tmp_path / "x", source, embedder)) == (1, 0, 1, 9, 0)
    assert embedder.embedded == 0

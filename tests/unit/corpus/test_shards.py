"""Shards as people pack them: linked, joined, compressed, out of order, with dots in their names."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import LINK, SYMLINK, packed, png, write

from mmrerank.corpus import open_corpora, open_corpus, webdataset
from mmrerank.corpus._group import grouped, samples_of
from mmrerank.corpus._tar import Member
from mmrerank.errors import InputError
from mmrerank.images import decode
from mmrerank.types import Image

THREE = [(f"{n}.{e}", d) for n in range(3) for e, d in (("png", png(n)), ("txt", b"caption %d" % n))]
OTHERS = [(f"b{name}", data) for name, data in THREE]


def captions(corpus: Any) -> dict[str, Any]:
    return {s.id: s.metadata.get("caption") for s in corpus.samples()}


def reds(corpus: Any) -> dict[str, Any]:
    return {s.id: decode(s.image).getpixel((0, 0))[0] for s in corpus.samples() if s.image}  # type: ignore[index]


def errors(corpus: Any) -> dict[str, str]:
    return {s.id: s.error for s in corpus.samples() if s.error}


def test_links_lead_to_the_file_they_mean(tmp_path: Path) -> None:
    members = [("a/0.png", png(7)), ("a/0.txt", b"seven"), ("b/1.png", (LINK, "a/0.png"))]
    members += [("b/1.txt", (SYMLINK, "../a/0.txt")), ("b/2.png", (SYMLINK, "1.png"))]
    members += [("d", (SYMLINK, "a")), ("b/5.png", (SYMLINK, "../d/0.png")), ("away", (SYMLINK, "/home"))]
    members += [("b/3.png", (SYMLINK, "/elsewhere.png")), ("b/4.png", (SYMLINK, "4.png"))]
    corpus = webdataset.open(str(write(tmp_path / "s.tar", members)))
    assert reds(corpus) == {"s/a/0": 7, "s/b/1": 7, "s/b/2": 7, "s/b/5": 7}
    assert captions(corpus)["s/b/1"] == "seven"
    assert errors(corpus) == {
        "s/b/3": "it is a link to 'elsewhere.png', and no file of the shard is there",
        "s/b/4": "it is a link to 'b/4.png', and no file of the shard is there",
    }


def test_joined_archives_are_read_on(tmp_path: Path) -> None:
    one, two = packed(THREE), packed(OTHERS)
    shard = tmp_path / "s.tar"
    shard.write_bytes(one + two + packed([(f"c{name}", data) for name, data in THREE]))
    assert len(captions(webdataset.open(str(shard)))) == 9
    shard.write_bytes(one + two[:700] + b"?" * 600)
    assert "the header at byte 11264 is damaged" in errors(webdataset.open(str(shard)))["s.tar"]
    shard.write_bytes(one + b"?" * 600)
    assert "behind its end, at byte" in errors(webdataset.open(str(shard)))["s.tar"]


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar.bz2", "s.tar.xz", "s.tar", "S.TAR.GZ"])
def test_compressed_shards_are_read_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    pack = {"bz2": bz2.compress, ".xz": lzma.compress}.get(name[-3:], gzip.compress)
    (tmp_path / name).write_bytes(pack(packed(THREE)) + pack(packed(OTHERS)))
    corpus = open_corpus(tmp_path / name)
    stem = name.partition(".")[0]
    assert captions(corpus) == {f"{stem}/{b}{n}": f"caption {n}" for b in ("", "b") for n in range(3)}
    assert list(reds(corpus).values()) == [0, 1, 2, 0, 1, 2]


def test_a_shard_of_zstd(tmp_path: Path) -> None:
    if not shutil.which("zstd"):
        pytest.skip("the program zstd is not here")
    subprocess.run(["zstd", "-q", "-", "-o", tmp_path / "s.tar.zst"], input=packed(THREE), check=True)
    assert reds(open_corpus(tmp_path / "s.tar.zst")) == {"s/0": 0, "s/1": 1, "s/2": 2}
    (tmp_path / "s.tar.zst").write_bytes((tmp_path / "s.tar.zst").read_bytes()[:-40])
    assert "the shard cannot be unpacked on" in errors(open_corpus(tmp_path / "s.tar.zst"))["s.tar"]


def test_zstd_without_a_reader_names_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 60)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install zstandard" in errors(webdataset.open(str(tmp_path / "s.tar.zst")))["s.tar"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_stands_before_the_damage_is_there(tmp_path: Path, pack: Any) -> None:
    members = [(f"{n}.png", png(n) + random.Random(n).randbytes(9000)) for n in range(8)]
    whole = pack(packed(members))
    (tmp_path / "s.tar").write_bytes(whole[: len(whole) // 2])
    corpus = webdataset.open(str(tmp_path / "s.tar"))
    assert list(errors(corpus)) == ["s.tar"]
    assert 2 <= len(reds(corpus)) <= 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04rest", "a zip file"),
        (b"", "empty file"),
    ],
)
def test_what_is_no_shard_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "s.tar").write_bytes(data)
    assert says in errors(webdataset.open(str(tmp_path / "s.tar")))["s.tar"]


def test_a_shard_that_nobody_may_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s.tar", THREE)
    opened = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "s.tar":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert errors(webdataset.open(str(tmp_path / "s.tar"))) == {
        "s.tar": "the shard cannot be read: Permission denied"
    }


def test_samples_out_of_order_are_joined(tmp_path: Path) -> None:
    for order in (THREE[::2] + THREE[1::2], THREE[1::2] + THREE[::2], THREE[::-1]):
        corpus = webdataset.open(str(write(tmp_path / "s.tar", order)))
        assert captions(corpus) == {f"s/{n}": f"caption {n}" for n in range(3)}
        assert reds(corpus) == {f"s/{n}": n for n in range(3)}


def test_names_with_dots_keep_their_own_captions(tmp_path: Path) -> None:
    members = [(f"IMG.00{n}.{e}", d) for n in (1, 2) for e, d in (("jpg", png(n)), ("txt", b"%d" % n))]
    members += [("IMG.003.txt", b"3"), ("k.jpg", png(4)), ("k.caption.txt", b"4"), ("k.seg.png", png(5))]
    members += [("k.seg.txt", b"5"), ("m.left.png", png(6)), ("m.right.png", png(7)), ("m.txt", b"both")]
    corpus = webdataset.open(str(write(tmp_path / "s.tar", members)))
    assert captions(corpus) == {
        "s/IMG": "1", "s/IMG.002.jpg": "2", "s/IMG.003": "3", "s/k": "4", "s/k.seg.png": "5",
        "s/m": "both", "s/m.right.png": "both",
    }  # fmt: skip
    assert errors(corpus) == {"s/IMG.003": "the sample holds no image, only: 003.txt"}


@given(st.permutations(range(6)), st.lists(st.sampled_from(["", ".1", ".2", ".x.y"]), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_picture_gets_the_caption_of_another(order: list[int], dots: list[str]) -> None:
    """Whatever the order and the dots: a caption of exactly an image's name is that image's."""
    names = dict.fromkeys(f"k{dot}" for dot in dots)
    members = [Member(name=f"{name}.{e}") for name in names for e in ("png", "txt")]
    members = [members[i] for i in order if i < len(members)]
    texts = {m.name for m in members if m.name.endswith(".txt")}
    read = [
        sample
        for parts in grouped(members).values()
        for part in parts
        for sample in samples_of("s", part, lambda m: m.name.encode(), lambda m: Image(data=m.name.encode()))
        if sample.image
    ]
    for sample in read:
        assert sample.image is not None
        own = sample.image.read().decode().removesuffix(".png") + ".txt"
        if own in texts:
            assert sample.metadata == {"caption": own}


def test_names_that_occur_twice_are_two_samples(tmp_path: Path) -> None:
    twice = [("0.png", png(1)), ("0.txt", b"one"), ("0.png", png(2)), ("0.txt", b"two")]
    corpus = webdataset.open(str(write(tmp_path / "s.tar", twice)))
    assert captions(corpus) == {"s/0": "one", "s/0#2": "two"}
    assert reds(corpus) == {"s/0": 1, "s/0#2": 2}


def test_texts_as_windows_wrote_them_and_classes(tmp_path: Path) -> None:
    said = ["\ufeffcafé".encode(), "café".encode("latin-1"), "café".encode("utf-16")]
    members = [(f"{n}.{e}", d) for n, t in enumerate(said) for e, d in (("png", png(n)), ("txt", t))]
    members += [("3.png", png(3)), ("3.json", b'\xef\xbb\xbf{"a": 1}'), ("3.cls", b"12\n")]
    corpus = webdataset.open(str(write(tmp_path / "s.TAR", members)))
    assert list(captions(corpus).values()) == ["café"] * 3 + [None]
    assert list(corpus.samples())[3].metadata == {"a": 1, "class": 12}


def test_odd_members(tmp_path: Path) -> None:
    members = [("/abs/0.png", png(0)), ("./1.png", png(1)), ("a//2.png", png(2)), ("../3.png", png(3))]
    members += [("__MACOSX/._4.png", b"junk"), ("é" * 90 + "/5.png", png(5))]
    assert list(reds(webdataset.open(str(write(tmp_path / "s.tar", members))))) == [
        "s/abs/0", "s/1", "s/a/2", "s/../3", "s/" + "é" * 90 + "/5",
    ]  # fmt: skip
    (tmp_path / "p.tar").write_bytes(packed(members, format=tarfile.PAX_FORMAT))
    assert len(reds(webdataset.open(str(tmp_path / "p.tar")))) == 5


def test_thumbnails_in_a_shard_are_left_out(tmp_path: Path) -> None:
    members = [("p/0.png", png(0)), ("p/@eaDir/0.png/T.png", png(1)), ("p/@eaDir/1.png/T.png", png(2))]
    members += [("q/@eaDir/x.png", png(3)), (".Trash-0/y.png", png(4)), ("../1.png", png(5))]
    corpus = webdataset.open(str(write(tmp_path / "s.tar", members)))
    for _ in range(2):
        assert list(reds(corpus)) == ["s/p/0", "s/../1"]
        assert {e.reason: dict(e.counts) for e in corpus.left_out()} == {
            "folders of thumbnails, trash and the like": {"@eaDir": 2, ".Trash-0": 1}
        }


def test_several_shards_of_one_command_are_one_source(tmp_path: Path) -> None:
    for name, members in (("0.tar", THREE), ("1.tar", OTHERS), ("x/0.tar", THREE), ("empty.tar", [])):
        write(tmp_path / name, members)
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(packed(THREE)))
    names = [str(tmp_path / n) for n in ("0.tar", "1.tar", "0.tar.gz", "empty.tar")]
    (corpus,) = open_corpora(names)
    assert list(captions(corpus)) == [
        *("0/0", "0/1", "0/2", "1/b0", "1/b1", "1/b2"),
        *("0.tar.gz/0", "0.tar.gz/1", "0.tar.gz/2"),
    ]
    assert [e.line for e in corpus.left_out()] == ["shards that hold nothing: empty (1)"]
    assert list(captions(open_corpus(corpus.location))) == list(captions(corpus))
    assert list(captions(open_corpus("::".join(names[:2])))) == list(captions(corpus))[:6]
    assert len(captions(open_corpus(f"{tmp_path}/**/0.tar"))) == 6
    assert captions(open_corpus(Path(names[0]).as_uri())) == captions(open_corpus(names[0]))
    with pytest.raises(InputError, match="--allow-urls"):
        open_corpus("https://example.org/0.tar")

"""Every image of a source is found once, under an id any file can hold; damage is named, not fatal."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.corpus import embeddings, folder, open_corpus, webdataset
from mmrerank.corpus._names import decodable, id_of, path_of
from mmrerank.errors import InputError, UsageError
from mmrerank.images import decode


def png(colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 3), (colour, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())


def ids(corpus: Any) -> list[str]:
    return [sample.id for sample in corpus.samples()]


def errors(corpus: Any) -> dict[str, str]:
    return {sample.id: sample.error for sample in corpus.samples() if sample.error}


# --- folder ---


def test_folder_finds_images_in_the_order_of_their_ids(tmp_path: Path) -> None:
    put(tmp_path, "b.JPG", "a/z.png", "a-b/x.webp", "a.gif", "ä/é.HEIC", "a/b/c.tiff", "d.avif")
    put(tmp_path, "notes.txt", ".hidden.jpg", ".cache/x.jpg", "a/.thumbs/x.jpg", "noext", ".jpg")
    found = ids(folder.open(str(tmp_path)))
    assert found == sorted(found)
    assert set(found) == {*("b.JPG", "a/z.png", "a-b/x.webp", "a.gif", "ä/é.HEIC", "a/b/c.tiff", "d.avif")}


def test_folder_takes_names_of_any_kind(tmp_path: Path) -> None:
    names = ["new\nline.png", 'it\'s "quoted".png', "🎉 party.png", "50%25.png", "a\\b.png", " .png"]
    put(tmp_path, *names)
    raw = b"caf\xe9 100%.png"
    (tmp_path / os.fsdecode(raw)).write_bytes(png(9))
    put(tmp_path, "caf%E9 100%25.png")  # the name that the escaped one would take
    corpus = folder.open(str(tmp_path))
    samples = {sample.id: sample for sample in corpus.samples()}
    assert set(samples) == {*names, "caf%E9 100%25.png", "caf%25E9 100%2525.png"}
    json.dumps(list(samples)).encode()
    for id_, sample in samples.items():
        assert sample.image is not None
        id_.encode()
        assert decode(sample.image).size == (4, 3)
        assert path_of(corpus.root, id_) == sample.image.path
    assert decode(samples["caf%25E9 100%2525.png"].image).getpixel((0, 0)) == (9, 0, 0)  # type: ignore[arg-type]


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_ids_are_unique_and_lead_back(tmp_path_factory: Any, names: list[bytes]) -> None:
    root = tmp_path_factory.mktemp("names")
    paths = [os.fsdecode(n) for n in names if not set(n) & {0, 47} and n not in (b".", b"..")]
    for path in paths:
        (root / path).touch()
    given_ids = [id_of(root, path) for path in paths]
    assert all(decodable(id_) for id_ in given_ids)
    assert len(set(given_ids)) == len(paths)
    assert [path_of(root, id_) for id_ in given_ids] == [root / path for path in paths]


def test_folder_survives_symlinks(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root, "real/a.png")
    put(outside, "o.png")
    put(tmp_path, "sibling/not-ours.png")
    (root / "loop").symlink_to(root)
    (root / "real" / "up").symlink_to("..")
    (root / "above").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "real")
    (root / "out1").symlink_to(outside)
    (root / "out2").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "self.png").symlink_to("self.png")
    (root / "broken.png").symlink_to("nowhere.png")
    (root / "linked.png").symlink_to(root / "real/a.png")
    corpus = folder.open(str(root))
    assert ids(corpus) == ["broken.png", "linked.png", "out1/o.png", "real/a.png", "self.png"]
    assert set(errors(corpus)) == {"broken.png", "self.png"}


def test_folder_deeper_than_the_interpreter_recurses(tmp_path: Path) -> None:
    deep = "d/" * 1200
    for depth in range(2, len(deep) + 2, 2):
        (tmp_path / deep[:depth]).mkdir()
    put(tmp_path, deep + "x.png")
    assert ids(folder.open(str(tmp_path))) == [deep + "x.png"]
    # Cleaning up after tests recurses; it must find nothing to recurse into.
    (tmp_path / deep / "x.png").unlink()
    for depth in range(len(deep), 0, -2):
        (tmp_path / deep[:depth]).rmdir()


def test_folder_names_what_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png", "shut/x.png", "z.png", "locked.png")
    os.mkfifo(tmp_path / "pipe.png")
    scandir, access = os.scandir, os.access

    def refuse(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda p, m: "locked" not in str(p) and access(p, m))
    corpus = folder.open(str(tmp_path))
    assert ids(corpus) == ["a.png", "locked.png", "pipe.png", "shut/", "z.png"]
    found = errors(corpus)
    assert set(found) == {"locked.png", "pipe.png", "shut/"}
    assert "cannot be listed: Permission denied" in found["shut/"]


def test_folder_missing_empty_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder '.*nowhere'"):
        folder.open(str(tmp_path / "nowhere"))
    put(tmp_path, "one.png")
    with pytest.raises(InputError, match="is a file"):
        folder.open(str(tmp_path / "one.png"))
    (tmp_path / "empty").mkdir()
    assert ids(folder.open(str(tmp_path / "empty"))) == []


def test_list_on_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png", "sub/b.bin", "new\nline.png")
    monkeypatch.chdir(tmp_path)
    absolute = str(tmp_path / "a.png")
    listing = f"sub/b.bin\r\na.png\n\na.png\n{absolute}\nnone.png\nsub\n".encode()
    corpus = folder.open("-", listing=listing)
    assert corpus.location == str(tmp_path)
    assert ids(corpus) == ["sub/b.bin", "a.png", absolute, "none.png", "sub"]
    assert errors(corpus) == {
        "none.png": "the file cannot be read: No such file or directory",
        "sub": "it is not a regular file",
    }
    assert ids(folder.open("-", listing=b"new\nline.png\0a.png")) == ["new\nline.png", "a.png"]
    stdin = io.TextIOWrapper(io.BytesIO(b"a.png\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert ids(open_corpus("-")) == ["a.png"]


# --- webdataset ---


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))


def test_shards_written_by_webdataset(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    for shard in range(2):
        with wds.TarWriter(str(tmp_path / f"part-{shard:03d}.tar")) as writer:
            for key in range(3):
                sample = {"__key__": f"k{key}", "png": png(key), "txt": f"caption {key}"}
                writer.write({**sample, "json": {"n": key}})
    corpus = open_corpus(str(tmp_path / "part-{000..001}.tar"))
    samples = list(corpus.samples())
    assert [s.id for s in samples] == [f"part-{s:03d}/k{k}" for s in range(2) for k in range(3)]
    for number, found in enumerate(samples):
        assert found.image is not None
        assert decode(found.image).getpixel((0, 0)) == (number % 3, 0, 0)
        assert found.metadata == {"caption": f"caption {number % 3}", "n": number % 3}


def test_shards_that_a_command_prints(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    tar(tmp_path / "s.tar", {"0.png": png(1), "0.txt": b"one"})
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress((tmp_path / "s.tar").read_bytes()))
    corpus = open_corpus(f"pipe:cat {shlex.quote(str(tmp_path / 's.tar.gz'))}")
    (sample,) = corpus.samples()
    assert (sample.id, sample.metadata, sample.origin) == ("s/0", {"caption": "one"}, None)
    assert sample.image is not None
    assert decode(sample.image).getpixel((0, 0)) == (1, 0, 0)
    failing = webdataset.open("pipe:exit 3")
    assert errors(failing) == {"pipe.tar": "the command ended with exit code 3"}


def test_shard_with_oddities(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    members = {"a/x.left.PNG": png(1), "a/x.right.png": png(2), "a/x.json": b"[1]"}
    members |= {"._x.png": b"junk", "__meta__.png": b"junk", "t.txt": b"\xff", "bad.png": png()}
    members |= {"bad.json": b"{", "long" * 60 + ".jpg": png(7)}
    tar(path, members)
    with tarfile.open(path, "a") as shard:
        info = tarfile.TarInfo("a/x.png")
        info.size = len(png(3))
        shard.addfile(info, io.BytesIO(png(3)))
    samples = {s.id: s for s in webdataset.open(str(path)).samples()}
    assert list(samples) == ["s/a/x", "s/a/x.right.png", "s/a/x.png", "s/t", "s/bad", "s/" + "long" * 60]
    assert samples["s/a/x"].metadata == {"json": [1]}
    assert "holds no image, only: txt" in samples["s/t"].error
    assert "not JSON" in samples["s/bad"].metadata["note"]
    assert samples["s/a/x.right.png"].metadata == samples["s/a/x.png"].metadata == {"json": [1]}
    assert decode(samples["s/a/x.png"].image).getpixel((0, 0)) == (3, 0, 0)  # type: ignore[arg-type]


def test_damaged_shards_do_not_stop_the_others(tmp_path: Path) -> None:
    members = {f"k{n}.png": png(n) for n in range(4)}
    for name in ("0-good", "1-cut", "2-header", "3-text", "4-empty", "6-good"):
        tar(tmp_path / f"{name}.tar", members)
    whole = (tmp_path / "0-good.tar").read_bytes()
    (tmp_path / "1-cut.tar").write_bytes(whole[: 1024 + 512 + 20])
    (tmp_path / "2-header.tar").write_bytes(whole[:2048] + b"?" * 512 + whole[2560:])
    (tmp_path / "3-text.tar").write_text("not a shard " * 100)
    (tmp_path / "4-empty.tar").write_bytes(b"")
    pattern = str(tmp_path / "{0-good,1-cut,2-header,3-text,4-empty,5-missing,6-good}.tar")
    corpus = webdataset.open(pattern)
    good = [f"k{n}" for n in range(4)]
    assert ids(corpus) == [
        *(f"0-good/{k}" for k in good),
        *("1-cut/k0", "1-cut.tar", "2-header/k0", "2-header/k1", "2-header.tar"),
        *("3-text.tar", "4-empty.tar", "5-missing.tar"),
        *(f"6-good/{k}" for k in good),
    ]
    assert set(errors(corpus)) == {
        f"{n}.tar" for n in ("1-cut", "2-header", "3-text", "4-empty", "5-missing")
    }
    assert "cut off within 'k1.png'" in errors(corpus)["1-cut.tar"]
    assert "byte 2048 is damaged" in errors(corpus)["2-header.tar"]


@given(st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_any_damage_to_a_shard_is_survived(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("shard") / "s.tar"
    tar(path, {"a.png": png(), "a.txt": b"words", "b" * 120 + ".png": png()})
    raw = bytearray(path.read_bytes()[:6000])
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    found = ids(webdataset.open(str(path)))
    assert len(found) == len(set(found))


def test_patterns(tmp_path: Path) -> None:
    for name in ("a/008", "a/009", "a/010", "b/008", "odd{1,2}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tar(tmp_path / f"{name}.tar", {"k.png": png()})
    place = str(tmp_path)
    assert ids(open_corpus(place + "/a/{008..010}.tar")) == ["008/k", "009/k", "010/k"]
    assert ids(open_corpus(place + "/{a,b}/008.tar")) == ["a/008/k", "b/008/k"]
    assert ids(open_corpus(place + "/a/*.tar")) == ["008/k", "009/k", "010/k"]
    assert ids(open_corpus(place + "/odd{1,2}.tar")) == ["odd{1,2}/k"]
    for location, message in [
        (place + "/none.tar", "no shard"),
        (place + "/{5..1}.tar", "no shard"),
        (place + "/{0..99999999}.tar", "million"),
        (place + "/a/a.tar.gz", r"no shard .*; in '.*/a' there are 008.tar, 009.tar, 010.tar"),
        ("https://example.org/{000..012}.tar", "not on this machine"),
    ]:
        with pytest.raises(InputError, match=message):
            open_corpus(location)


# --- embeddings ---


def write_vectors(tmp_path: Path, vectors: Any, lines: list[Any]) -> dict[str, Path]:
    np.save(tmp_path / "v.npy", vectors)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (tmp_path / "ids.jsonl").write_text(text, encoding="utf-8")
    return {"vectors": tmp_path / "v.npy", "ids": tmp_path / "ids.jsonl"}


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_embeddings(tmp_path: Path, dtype: str) -> None:
    put(tmp_path, "x/a.png")
    vectors = np.eye(3, 5, dtype=dtype)
    lines = [{"image": "x/./a.png", "caption": "é"}, {"image": "gone.jpg"}, {"image": "c%\udce9.jpg"}]
    corpus = open_corpus(tmp_path, kind="embeddings", **write_vectors(tmp_path, vectors, lines))
    samples = list(corpus.samples())
    assert [s.id for s in samples] == ["x/a.png", "gone.jpg", "c%25%E9.jpg"]
    assert samples[0].metadata == {"caption": "é"}
    assert samples[0].image is not None
    assert len(samples[0].image.digest) == 64
    assert not any(s.error for s in samples)
    assert isinstance(corpus, embeddings.EmbeddingsCorpus)
    assert isinstance(corpus.vectors, np.memmap)
    assert np.array_equal(corpus.vectors, vectors)
    assert corpus.location == str(tmp_path)


def test_embeddings_of_nothing(tmp_path: Path) -> None:
    files = write_vectors(tmp_path, np.zeros((0, 4), np.float32), [])
    assert ids(embeddings.open(str(tmp_path), **files)) == []


OK = np.eye(2, dtype=np.float32)
TWO = [{"image": "a.png"}, {"image": "b.png"}]


@pytest.mark.parametrize(
    ("vectors", "lines", "message"),
    [
        (np.eye(3, dtype=np.float32), TWO, "3 rows and .* 2 lines"),
        (np.ones(2, np.float32), TWO, "shape"),
        (np.ones((2, 0), np.float32), TWO, "shape"),
        (np.ones((2, 2), np.int64), TWO, "int64"),
        (np.array([["a"], ["b"]], dtype=object), TWO, "object"),
        (np.array([[1, 0], [np.nan, 1]], np.float32), TWO, "row 1 is not finite"),
        (np.array([[np.inf, 0], [0, 1]], np.float16), TWO, "row 0 is not finite"),
        (np.array([[1, 0], [0, 0]], np.float32), TWO, "row 1 is all zero"),
        (OK, [TWO[0], TWO[0]], "line 2: image 'a.png' was named in line 1"),
        (OK, [TWO[0], {"image": "./a.png"}], "line 2: .* named in line 1"),
        (OK, [TWO[0], '{"image": '], "line 2 is not a JSON object"),
        (OK, [TWO[0], ""], "2 rows and .* 1 lines"),
        (OK, [TWO[0], "", TWO[1]], "line 2 is not"),
        (OK, [TWO[0], ["image"]], 'line 2: a JSON object with the key "image"'),
        (OK, [TWO[0], {"image": 7}], "line 2"),
        (OK, [TWO[0], {"image": "a\0b"}], "line 2"),
        (OK, [TWO[0], {"image": "/etc/x.png"}], "line 2: .* inside"),
        (OK, [TWO[0], {"image": "../x.png"}], "line 2: .* inside"),
        (OK, [TWO[0], {"image": "."}], "line 2: .* inside"),
        (OK, [TWO[0], "[" * 100_000], "line 2"),
    ],
)
def test_embeddings_refuse(tmp_path: Path, vectors: Any, lines: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        embeddings.open(str(tmp_path), **write_vectors(tmp_path, vectors, lines))


def test_embeddings_refuse_files(tmp_path: Path) -> None:
    files = write_vectors(tmp_path, OK, TWO)
    with pytest.raises(InputError, match="no folder"):
        embeddings.open(str(tmp_path / "none"), **files)
    with pytest.raises(InputError, match=r"none.npy cannot be read: No such"):
        embeddings.open(str(tmp_path), vectors=tmp_path / "none.npy", ids=files["ids"])
    with pytest.raises(InputError, match=r"none.jsonl cannot be read: No such"):
        embeddings.open(str(tmp_path), vectors=files["vectors"], ids=tmp_path / "none.jsonl")
    whole = files["vectors"].read_bytes()
    for data in (b"", b"junk", whole[:30], whole[:-4], whole.replace(b"descr", b"\xff{(((")):
        (tmp_path / "bad.npy").write_bytes(data)
        with pytest.raises(InputError, match=r"bad.npy is not a usable .npy file"):
            embeddings.open(str(tmp_path), vectors=tmp_path / "bad.npy", ids=files["ids"])
    files["ids"].write_bytes(b'{"image": "\xe9"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        embeddings.open(str(tmp_path), **files)


# --- the choice ---


def test_open_corpus_says_what_it_takes(tmp_path: Path) -> None:
    put(tmp_path, "one.png")
    with pytest.raises(InputError, match=r"no folder '.*nowhere'"):
        open_corpus(tmp_path / "nowhere")
    assert ids(open_corpus(tmp_path / "one.png")) == ["one.png"]
    put(tmp_path, "picture without a suffix")
    assert ids(open_corpus(tmp_path / "picture without a suffix")) == ["picture without a suffix"]
    for name, message in [
        ("notes.md", r"is a file; give a folder, tar shards \(such as '.*\{000"),
        ("list.txt", "to index the files that it lists: mmrerank index - --index X < "),
        ("photo.CR2", r"of a kind that is not read \(\.cr2\); convert it"),
        ("photos.zip", "is packed .*unpack it"),
    ]:
        (tmp_path / name).write_text("words")
        with pytest.raises(InputError, match=message):
            open_corpus(tmp_path / name)
    with pytest.raises(UsageError, match=r"there is no corpus 'folders'.*'folder'"):
        open_corpus(tmp_path, kind="folders")
    (tmp_path / "odd.tar").mkdir()
    put(tmp_path, "odd.tar/x.png")
    assert ids(open_corpus(tmp_path / "odd.tar")) == ["x.png"]

"""Ids that other systems wrote, and the files that they mean (triplet-reid#82, Cara#6012 and their kind)."""

from __future__ import annotations

import json
import os
import posixpath
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.corpus import embeddings
from mmrerank.corpus._match import Finder, relative
from mmrerank.errors import InputError

NFC, NFD = (unicodedata.normalize(form, "sub/Café.jpg") for form in ("NFC", "NFD"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def taken(root: Path | str, *names: str, where: Path) -> embeddings.EmbeddingsCorpus:
    """The corpus of these ids over the folder ``root``."""
    np.save(where / "v.npy", np.eye(len(names), 9, dtype=np.float32))
    (where / "ids.jsonl").write_text("\n".join(json.dumps({"image": n}) for n in names))
    return embeddings.open(str(root), vectors=where / "v.npy", ids=where / "ids.jsonl")


def files(corpus: embeddings.EmbeddingsCorpus) -> dict[str, str]:
    """The file of each id, relative to the source."""
    return {
        s.id: os.path.relpath(s.image.path, corpus.location)
        for s in corpus.samples()
        if s.image is not None and s.image.path is not None
    }


@pytest.mark.parametrize(
    ("given", "differs"),
    [
        (NFC, "another Unicode form"),
        ("SUB/" + NFD[4:], "upper and lower case"),
        (quote(NFC), "percent-encoding"),
        (f"{NFD} ", "spaces at an end"),
        (NFC.removesuffix(".jpg"), "a suffix left out"),
    ],
)
def test_a_file_is_found_under_another_spelling_and_that_is_said(
    given: str, differs: str, tmp_path: Path
) -> None:
    root = touch(tmp_path / "pics", NFD, "sub/other.jpg")
    corpus = taken(root, "sub/other.jpg", given, where=tmp_path)
    assert files(corpus) == {"sub/other.jpg": "sub/other.jpg", given: NFD}
    (said,) = corpus.remarks()
    assert said.startswith("1 of 2 ids and the names of their files differ (")
    assert differs in said
    assert repr(given) in said


@pytest.mark.parametrize("name", ["sub\\b.jpg", ".\\sub\\b.jpg", "./sub/./b.jpg", "x/../sub//b.jpg"])
def test_an_id_is_the_path_from_the_source_however_it_is_written(name: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "sub/b.jpg")
    corpus = taken(root, name, where=tmp_path)
    assert files(corpus) == {"sub/b.jpg": "sub/b.jpg"}
    assert corpus.remarks() == (f"1 of 1 ids are in the index as paths from SOURCE: {name!r} is 'sub/b.jpg'",)


def test_a_backslash_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    corpus = taken(touch(tmp_path / "pics", "a\\b.jpg", "a/b.jpg"), "a\\b.jpg", where=tmp_path)
    assert (files(corpus), corpus.remarks()) == ({"a\\b.jpg": "a\\b.jpg"}, ())


def test_absolute_ids_below_the_source_are_taken_through_links_too(tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg", "sub/b.jpg")
    (tmp_path / "link").symlink_to(root)
    for source in (root, tmp_path / "link"):
        for place in (root, tmp_path / "link"):
            corpus = taken(source, f"{place}/a.jpg", f"{place}/sub/b.jpg", where=tmp_path)
            assert files(corpus) == {"a.jpg": "a.jpg", "sub/b.jpg": "sub/b.jpg"}
            assert corpus.location == str(source)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("C:\\Users\\me\\pics\\a.jpg", "an absolute path of Windows.*There the file is 'a.jpg'"),
        ("C:/Users/me/none.jpg", "an absolute path of Windows.*inside SOURCE"),
        ("\\\\server\\share\\a.jpg", "Windows.*There the file is 'a.jpg'"),
        ("/data/pics/a.jpg", "not below SOURCE.*There the file is 'a.jpg': write the ids like that"),
        ("../other/z.jpg", "not below SOURCE.*inside SOURCE"),
        ("@/other/z.jpg", "Give a folder above all of the images as SOURCE, such as '@'"),
    ],
)
def test_an_id_that_lies_elsewhere_is_explained(name: str, says: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg")
    touch(tmp_path, "other/z.jpg")
    at = str(tmp_path)
    with pytest.raises(InputError, match=rf"line 1: image .*{says.replace('@', at)}"):
        taken(root, name.replace("@", at), where=tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["pics/a.jpg", "pics/sub/b.jpg"], "give '@' as SOURCE, or write the ids without 'pics/'"),
        (["data/a.jpg", "data/sub/b.jpg"], "The files are there without 'data/' in front"),
        (["b.jpg", "c.jpg"], "The files are in '@/pics/sub': give that as SOURCE"),
    ],
)
def test_a_folder_too_much_or_too_little_is_explained(names: list[str], says: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg", "sub/b.jpg", "sub/c.jpg")
    corpus = taken(root, *names, where=tmp_path)
    assert list(files(corpus).values()) == names
    (said,) = corpus.remarks()
    assert says.replace("@", str(tmp_path)) in said


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.jpg", "./a.jpg"], "line 2: image 'a.jpg' was named in line 1 already"),
        (["sub/b.jpg", "sub\\b.jpg"], "line 2: image 'sub/b.jpg' was named in line 1 already"),
        ([NFC, NFD], "line 1: image .* is the file of line 2, in another Unicode form"),
    ],
)
def test_one_image_twice_is_refused(names: list[str], says: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg", "sub/b.jpg", NFD)
    with pytest.raises(InputError, match=says):
        taken(root, *names, where=tmp_path)


def test_a_file_is_nobodys_second(tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg", "B.jpg", "b.JPG", "c.png", "c.jpg")
    # A.jpg is another picture than a.jpg; which of two is meant by b.jpg or c, nobody knows
    corpus = taken(root, "A.jpg", "a.jpg", "b.jpg", "c", where=tmp_path)
    assert files(corpus) == {"A.jpg": "A.jpg", "a.jpg": "a.jpg", "b.jpg": "b.jpg", "c": "c"}
    assert corpus.remarks() == ()


NAMES = st.text(
    st.characters(categories=["L", "N"], include_characters=" -_.é"), min_size=1, max_size=8
).filter(lambda n: n.strip(" .") == n)


@given(folder=NAMES, name=NAMES, form=st.sampled_from(["NFC", "NFD"]), data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_spelling_leads_to_the_one_file(
    tmp_path_factory: Any, folder: str, name: str, form: Any, data: st.DataObject
) -> None:
    file = unicodedata.normalize(form, f"{folder}/{name}.jpg")
    root = touch(tmp_path_factory.mktemp("any"), file)
    spelling = data.draw(
        st.sampled_from(
            [
                lambda n: unicodedata.normalize("NFC", n),
                lambda n: unicodedata.normalize("NFD", n),
                quote,
                lambda n: f"{n} ",
                lambda n: n.removesuffix(".jpg"),
            ]
        )
    )
    found = Finder(root).find(spelling(file))
    assert found is not None
    assert found[0] == file
    assert Finder(root).find(f"{file}x") is None


@given(
    st.lists(st.sampled_from(["a", "b.jpg", ".", "..", "c d"]), min_size=1, max_size=6),
    st.sampled_from("/\\"),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_inside_stays_inside(parts: list[str], separator: str) -> None:
    root = Path("/no/such/root")
    inside = relative(separator.join(parts), root)
    plain = posixpath.normpath("/".join(parts))
    assert inside == ("" if plain == "." or plain.startswith("..") else plain)
    if inside:
        assert relative(inside, root) == inside
        assert relative(f"{root}/{inside}", root) == inside


def test_files_that_are_no_vectors_and_no_ids_say_what_they_are(tmp_path: Path) -> None:
    root = touch(tmp_path / "pics", "a.jpg")
    pointer, table = tmp_path / "p.npy", tmp_path / "t.csv"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n")
    table.write_text("image,label\na.jpg,1\n")
    taken(root, "a.jpg", where=tmp_path)
    with pytest.raises(InputError, match=r"p\.npy is a git-LFS pointer.*git lfs pull"):
        embeddings.open(str(root), vectors=pointer, ids=tmp_path / "ids.jsonl")
    with pytest.raises(InputError, match=r't\.csv, line 1 .*such as \{"image": "a/b\.jpg"\}'):
        embeddings.open(str(root), vectors=tmp_path / "v.npy", ids=table)
    table.write_text('{"path": "a.jpg"}\n')
    with pytest.raises(InputError, match=r"""key "image" .*the line has 'path'"""):
        embeddings.open(str(root), vectors=tmp_path / "v.npy", ids=table)


def test_an_id_may_be_the_uri_of_a_file(tmp_path: Path) -> None:
    root = touch(tmp_path / "photos", "a b.jpg", "sub/c.jpg")
    uri = (root / "a b.jpg").as_uri()
    assert "%20" in uri
    corpus = taken(root, uri, f"file://localhost{root}/sub/c.jpg", where=tmp_path)
    assert files(corpus) == {"a b.jpg": "a b.jpg", "sub/c.jpg": "sub/c.jpg"}


def test_the_id_of_an_image_elsewhere_stays_whole(tmp_path: Path) -> None:
    root = touch(tmp_path / "photos", "a.jpg")
    corpus = taken(root, "https://example.invalid/x/a.jpg", where=tmp_path)
    assert [s.id for s in corpus.samples()] == ["https://example.invalid/x/a.jpg"]
    assert "without 'https://example.invalid/x/' in front" in " ".join(corpus.remarks())
    with pytest.raises(InputError, match="not below SOURCE"):
        taken(root, "https://../../../secret.jpg", where=tmp_path)

"""Shards at addresses: allowed or not, compressed, in ranges, gone, and what a name may not do to a shell."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from shards import packed, png, write
from sources import serving

from mmrerank.corpus import open_corpora, open_corpus, webdataset
from mmrerank.errors import InputError

FOUR = [("a.png", png(1)), ("a.json", b'{"n": 1}'), ("b.png", png(2)), ("b.txt", b"two")]


def seen(corpus: Any) -> list[tuple[str, bytes, dict[str, Any], str]]:
    return [(s.id, s.image.read() if s.image else b"", dict(s.metadata), s.error) for s in corpus.samples()]


def test_a_shard_is_the_same_wherever_it_is_and_however_it_is_packed(tmp_path: Path) -> None:
    plain = write(tmp_path / "s-0.tar", FOUR)
    (tmp_path / "z" / "s-0.tar.gz").parent.mkdir()
    (tmp_path / "z" / "s-0.tar.gz").write_bytes(gzip.compress(packed(FOUR)))
    expected = seen(webdataset.open(str(plain)))
    assert [row[0] for row in expected] == ["s-0/a", "s-0/b"]
    assert seen(open_corpus(tmp_path / "z" / "s-0.tar.gz")) == expected
    with serving(tmp_path) as address:
        for place in ("s-0.tar", "z/s-0.tar.gz", "s-0.tar?key=1"):
            assert seen(open_corpus(f"{address}/{place}", allow_urls=True)) == expected


def test_ranges_of_addresses_are_one_source(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"s-{number}.tar", [(f"{number}.png", png(number))])
    with serving(tmp_path) as address:
        (corpus,) = open_corpora([f"{address}/s-{{0..3}}.tar"], allow_urls=True)
        assert corpus.location == f"{address}/s-{{0..3}}.tar"
        found = seen(corpus)
    assert [row[0] for row in found] == ["s-0/0", "s-1/1", "s-2/2", "s-3.tar"]
    assert found[3][3].endswith("s-3.tar' ended with exit code 22 (the server refused it)")


def test_addresses_are_off_until_they_are_allowed() -> None:
    for place in ("https://example.org/s.tar", "s3://bucket/s-{0..9}.tar", "HTTPS://example.org/s.tar.gz"):
        with pytest.raises(InputError, match="--allow-urls"):
            open_corpora([place])


def test_an_unknown_kind_of_address_and_a_page_in_place_of_a_shard(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"<!DOCTYPE html><p>log in")
    (only,) = seen(open_corpus("gopher://x.org/s.tar", allow_urls=True))
    assert "addresses of the kind gopher:// are not read" in only[3]
    with serving(tmp_path) as address:
        (only,) = seen(open_corpus(f"{address}/s.tar", allow_urls=True))
    assert "a web page" in only[3] or "cannot be read" in only[3]


def test_an_address_is_one_word_of_the_command_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "shard", FOUR)
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {tmp_path}/told\ncat {tmp_path}/shard\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    place = f"s3://b/$(touch {tmp_path}/bad);'x' s.tar"
    found = seen(open_corpus(place, allow_urls=True))
    assert [row[1] for row in found] == [png(1), png(2)]
    assert (tmp_path / "told").read_text() == f"s3|cp|{place}|-|"
    assert not (tmp_path / "bad").exists()


def test_the_library_reads_the_same_members(tmp_path: Path) -> None:
    from webdataset.tariterators import tarfile_samples

    members = [*FOUR, ("c/d.seg.png", png(3)), ("c/d.jpg", png(4))]
    place = write(tmp_path / "s.tar", members)
    ours = {(row[0].removeprefix("s/").split(".")[0], row[1]) for row in seen(open_corpus(place))}
    grouped = tarfile_samples([{"url": str(place)}])
    theirs = {
        (sample["__key__"], data)
        for sample in grouped
        for name, data in sample.items()
        if name.endswith(("png", "jpg"))
    }
    assert ours == theirs


def test_the_library_expands_the_same_ranges() -> None:
    import braceexpand

    for pattern in ("s-{000..012}.tar", "{a,b}/s-{0..2}.tar", "s.tar", "x{8..11}y{1,2,x}.tar"):
        assert list(webdataset._expand(pattern)) == list(braceexpand.braceexpand(pattern))

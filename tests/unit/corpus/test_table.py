"""Tables of images: which column is taken, what a cell may be, and what is said of a row that is wrong."""

from __future__ import annotations

import base64
import datetime
import json
import math
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import png
from sources import parquet, serving

from mmrerank.corpus import open_corpora, open_corpus, table
from mmrerank.corpus._csv import Csv
from mmrerank.errors import InputError, MissingExtraError, UsageError
from mmrerank.images.urls import Urls
from mmrerank.ports import Sample

B64 = base64.b64encode(png(7)).decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "sub/b.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
    return tmp_path


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(path: Path, *rows: Any) -> Path:
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


def samples(place: Path, **options: Any) -> list[Sample]:
    return list(open_corpus(place, **options).samples())


def errors(found: list[Sample]) -> dict[str, str]:
    return {s.id: s.error for s in found if s.error}


def metadata(found: list[Sample]) -> list[Any]:
    return [dict(s.metadata) for s in found]


def test_columns_are_found_by_their_names_and_typed_as_a_whole(home: Path) -> None:
    text = (
        "\ufeffFile_Name;taken;stars;code;size;good;note\r\n"
        'a.png;2024-06-01;5;007;1.5;true;"two\r\nlines; and ""more"""\r\n'
        "\r\n"
        "sub\\b.png;2024-06-02;4;12;2;False;\r\n"
    )
    first, second = samples(written(home / "t.csv", text))
    assert (first.id, second.id) == ("a.png", "sub/b.png")
    assert first.image is not None
    assert first.image.path == home / "a.png"
    assert first.metadata == {
        "taken": "2024-06-01", "stars": 5, "code": "007", "size": 1.5, "good": True,
        "note": 'two\r\nlines; and "more"',
    }  # fmt: skip
    assert second.metadata == {"taken": "2024-06-02", "stars": 4, "code": "12", "size": 2.0, "good": False}
    assert type(second.metadata["size"]) is float


def test_a_path_is_named_before_an_address_and_the_choice_is_told(home: Path) -> None:
    place = lines(home / "t.jsonl", {"url": "https://x.org/a.png", "path": "a.png"})
    corpus = open_corpus(place)
    (only,) = corpus.samples()
    assert (only.id, only.metadata) == ("a.png", {"url": "https://x.org/a.png"})
    assert corpus.remarks() == (
        f"the images of {place} are taken from its column 'path', not from 'url'; --image-column "
        "names another",
    )


def test_columns_that_a_person_names(home: Path) -> None:
    place = lines(home / "t.jsonl", {"where": "a.png", "id": 1, "code": 3.0, "x": None})
    (only,) = samples(place, image_column="where", id_column="code")
    assert (only.id, only.metadata) == ("3", {"id": 1})
    with pytest.raises(
        InputError, match=r"no column 'there' \(--image-column\); its columns are 'where' \(str\)"
    ):
        open_corpus(place, image_column="there")
    with pytest.raises(InputError, match=r"no column 'key' \(--id-column\)"):
        open_corpus(place, image_column="where", id_column="key")


def test_parquet_without_the_column_names_those_that_are_there(home: Path) -> None:
    place = parquet(home / "t.parquet", {"species": ["Larus"], "count": [3]})
    with pytest.raises(InputError, match=r"no column of images.*'species' \(string\), 'count' \(int64\)"):
        open_corpus(place)


def test_every_form_of_a_cell(home: Path) -> None:
    cells = [B64, f"data:image/png;base64,{B64}", "a.png", {"bytes": None, "path": "sub/b.png"}]
    found = samples(lines(home / "t.jsonl", *({"image": c} for c in cells)))
    assert [s.id for s in found] == ["0", "1", "a.png", "sub/b.png"]
    assert [s.image.read() for s in found if s.image] == [png(7), png(7), png(0), png(1)]
    data: dict[str, list[Any]] = {
        "image": [{"bytes": png(1), "path": "x/y.png"}, {"bytes": png(2), "path": None}]
    }
    found = samples(parquet(home / "t.parquet", data))
    assert [s.id for s in found] == ["y.png", "1"]
    assert [s.origin for s in found] == [home / "t.parquet"] * 2
    digest = "0123456789abcdef" * 4  # 64 letters of base64, and the name of a file
    written(home / digest, png(3))
    assert [s.id for s in samples(lines(home / "t.jsonl", {"image": digest}))] == [digest]
    path = "/work/shared/photographs/of/a/person/who/likes/long/names/of/folders/a.png"  # begins like base64
    (only,) = samples(lines(home / "t.jsonl", {"image": path}))
    assert "no path below" in only.error


def test_metadata_are_plain_and_typed(home: Path) -> None:
    data: dict[str, list[Any]] = {
        "path": ["a.png"], "taken": [datetime.datetime(2024, 6, 1, 12)], "day": [datetime.date(2024, 6, 1)],
        "price": [Decimal("1.50")], "none": [None], "nan": [math.nan], "raw": [b"x"], "tags": [["a", "b"]],
        "gps": [{"lat": 1.0, "alt": None}],
    }  # fmt: skip
    assert metadata(samples(parquet(home / "t.parquet", data))) == [
        {
            "taken": "2024-06-01T12:00:00",
            "day": "2024-06-01",
            "price": 1.5,
            "tags": ["a", "b"],
            "gps": {"lat": 1.0},
        }
    ]
    (only,) = samples(written(home / "t.jsonl", '{"path": "a.png", "c": "\\ud800", "n": NaN}\n'))
    assert only.metadata == {"c": "?"}
    (only,) = samples(lines(home / "t.jsonl", {"path": "a.png", "c": "x" * (2 << 20)}))
    assert "its other columns are left out" in only.metadata["note"]


def test_ids_that_occur_again_are_numbered_and_told(home: Path) -> None:
    corpus = open_corpus(written(home / "t.csv", "path,caption\na.png,one\na.png,two\n./a.png,three\n"))
    assert [s.id for s in corpus.samples()] == ["a.png", "a.png#2", "a.png#3"]
    assert "2 rows of" in corpus.remarks()[0]
    assert [s.id for s in corpus.samples()] == ["a.png", "a.png#2", "a.png#3"]
    assert "2 rows of" in corpus.remarks()[0]


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/passwd", "sub/../../out.png", "C:\\x.png", "..", "link.png"]
)
def test_a_path_that_leaves_the_folder_is_refused_with_its_place(home: Path, name: str) -> None:
    root = home / "inner"
    root.mkdir()
    written(home / "out.png", png())
    written(root / "in.png", png())
    (root / "link.png").symlink_to(home / "out.png")
    place = lines(root / "t.jsonl", {"path": "in.png"}, {"path": name})
    good, bad = samples(place)
    assert (good.error, bad.image, bad.final) == ("", None, True)
    assert bad.error.startswith(f"{place}, line 2: ")
    assert str(root) in bad.error


def test_a_folder_of_images_elsewhere_is_named(home: Path) -> None:
    (home / "tables").mkdir()
    place = written(home / "tables/t.csv", "path\nsub/b.png\n")
    (only,) = samples(place, image_root=home)
    assert only.image is not None
    assert only.image.path == home / "sub/b.png"


def test_addresses_are_fetched_where_they_are_allowed(home: Path) -> None:
    with serving(home) as address:
        urls = [f"{address}/a.png", "a.png", f"{address}/gone.png", "ftp://x.org/a.png"]
        place = lines(home / "t.jsonl", *({"image": url, "n": n} for n, url in enumerate(urls)))
        refused = samples(place)
        assert refused[0].error == f"{place}, line 1: {urls[0]!r} is an address, which --allow-urls fetches"
        found = samples(place, allow_urls=Urls(private=True))
        private = samples(place, allow_urls=True)
    assert [s.id for s in found] == [urls[0], "a.png", urls[2], "row-3"]
    assert found[0].image is not None
    assert found[0].image.read() == png(0)
    assert found[0].metadata == {"image": urls[0], "n": 0}
    assert f"{place}, line 3: {urls[2]} cannot be fetched: the server answered 404" in found[2].error
    assert not found[2].final  # it may be there tomorrow
    assert "no path below" in found[3].error or "not fetched" in found[3].error
    assert "no public address" in private[0].error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,n\na.png\nsub/b.png,1\n", "line 2: the row has 1 cells, and the first line names 2 columns"),
        ('path,n\n"a"x.png,2\nsub/b.png,1\n', "line 2: the row is damaged: ',' expected after '\"'"),
        ('path,n\nsub/b.png,1\n"a.png,2\nc,3\n', "line 3: a quotation mark is opened and never closed"),
        (f"path,n\n{'a' * 140_000},2\nsub/b.png,1\n", "line 2: a cell has more than 131,072 characters"),
        (b"path,n\n\xe4.png,2\nsub/b.png,1\n", "line 2: the row is not UTF-8"),
        ("path,n\n,2\nsub/b.png,1\n", "line 2: the column 'path' is empty"),
    ],
)
def test_a_damaged_row_is_named_and_the_others_go_on(home: Path, text: str | bytes, says: str) -> None:
    place = written(home / "t.csv", text)
    found = samples(place)
    assert [s.id for s in found if s.image] == ["sub/b.png"]
    (error,) = errors(found).values()
    assert error.startswith(f"{place}, {says}")


def test_a_damaged_line_is_named_and_the_others_go_on(home: Path) -> None:
    text = b'{"image": "a.png"}\n\n{"image"\n[1]\n{"x": 1}\n{"image": 5}\n\xff\n{"image": "data:x,y"}\n'
    text += b'{"image": "sub/b.png"}\n'
    place = written(home / "t.jsonl", text)
    found = samples(place)
    assert [s.id for s in found if s.image] == ["a.png", "sub/b.png"]
    said = list(errors(found).values())
    assert [s.removeprefix(f"{place}, ")[:6] for s in said] == [f"line {n}" for n in range(3, 9)]
    for text_, error in zip(
        ("not JSON", "no JSON object", "is empty", "holds int", "not JSON", "base64"), said, strict=True
    ):
        assert text_ in error


@pytest.mark.parametrize(
    "row", [{"id": "", "path": "a.png"}, {"id": [1], "path": "a.png"}, {"id": "\ud800", "path": "a.png"}]
)
def test_a_row_without_its_id_is_an_error(home: Path, row: Any) -> None:
    assert "holds no id" in errors(samples(lines(home / "t.jsonl", row)))["row-0"]


def test_a_damaged_parquet_file(home: Path) -> None:
    place = parquet(
        home / "t.parquet", {"bytes": [bytes([n]) * 5_000 for n in range(90)]}, compression="none"
    )
    data = bytearray(place.read_bytes())
    place.write_bytes(data[:-200])
    with pytest.raises(InputError, match=r"t.parquet cannot be read as Parquet"):
        open_corpus(place)
    with pytest.raises(InputError, match="git lfs pull"):
        open_corpus(written(home / "u.parquet", b"version https://git-lfs.github.com/spec/v1\n"))


def test_parquet_is_read_some_rows_at_a_time(home: Path) -> None:
    place = parquet(home / "t.parquet", {"bytes": [bytes([n]) * 4 for n in range(150)]}, row_group_size=40)
    corpus = open_corpus(place)
    assert corpus.count() == 150
    assert [s.image.read()[0] for s in corpus.samples() if s.image] == list(range(150))


def test_without_pyarrow_the_command_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = written(home / "t.parquet", b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmrerank\[parquet\]'"):
        open_corpus(place)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("path,path\n", "names the column 'path' twice"),
        ("a.png\n", "no column of images"),
        (b"p\xe4th\n", "is not UTF-8"),
    ],
)
def test_a_table_that_is_none(home: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_corpus(written(home / "t.csv", text))


def test_an_option_that_no_source_takes_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="--image-column is for sources of the kind hf or table"):
        open_corpora([str(home)], image_column="x")
    (one,) = open_corpora([str(lines(home / "t.jsonl", {"x": "a.png"}))], image_column="x", allow_urls=False)
    assert isinstance(one, table.TableCorpus)
    with pytest.raises(InputError, match=r"one JSON value; a table has an object a line"):
        open_corpora([str(written(home / "t.json", "[]"))])


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_csv_says_what_python_wrote(rows: list[tuple[str, str]], delimiter: str) -> None:
    import csv

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "t.csv"
        with place.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["path", "note"])
            writer.writerows(rows)
        found = list(Csv(place).rows())
    kept = [r for r in rows if any(cell.strip() for cell in r)]
    assert not [r for r in found if r.error]
    assert [{n: str(v).casefold() for n, v in r.values.items() if isinstance(v, str)} for r in found] == [
        {
            n: cell.strip().casefold()
            for n, cell in zip(("path", "note"), row, strict=True)
            if cell.strip() and isinstance(r.values[n], str)
        }
        for row, r in zip(kept, found, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_of_a_table_raise_anything_else(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("t.csv", "t.tsv", "t.jsonl"):
            for head in (b"", b"path,id\n", b'{"path": "a"}\n'):
                place = Path(folder) / name
                place.write_bytes(head + data)
                try:
                    found = samples(place)
                except InputError:
                    continue
                assert len({s.id for s in found}) == len(found)

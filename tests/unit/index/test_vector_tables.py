"""Vectors made elsewhere that name their images themselves: Parquet, and what clip-retrieval writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import contents
from sources import parquet
from typer.testing import CliRunner

from mmrerank.cli.main import cli
from mmrerank.corpus import embeddings
from mmrerank.errors import InputError, UsageError
from mmrerank.index.index import ImageIndex

SPEC = "open_clip:ViT-B-32:openai"


@pytest.fixture
def rows(source: Path) -> tuple[list[str], Any]:
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.png"))
    return names, np.random.default_rng(1).normal(size=(len(names), 6)).astype(np.float32)


def imported(source: Path, index: Path, **given: Any) -> tuple[dict[str, tuple[Any, ...]], list[Any]]:
    corpus = embeddings.open(str(source), **given)
    ImageIndex.import_vectors(index, corpus, embedder_spec=SPEC)
    return contents(index), [dict(s.metadata) for s in corpus.samples()]


def by_jsonl(source: Path, folder: Path, names: list[str], vectors: Any) -> dict[str, Any]:
    folder.mkdir()
    np.save(folder / "v.npy", vectors)
    lines = [json.dumps({"image": name, "n": n}) + "\n" for n, name in enumerate(names)]
    (folder / "ids.jsonl").write_text("".join(lines))
    return {"vectors": folder / "v.npy", "ids": folder / "ids.jsonl"}


def shards(folder: Path, names: list[str], vectors: Any, cuts: list[int]) -> Path:
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(names)], strict=True)):
        np.save(folder / f"img_emb/img_emb_{number}.npy", vectors[a:b].astype(np.float16))
        bare = [name.removesuffix(".png") for name in names[a:b]]
        parquet(folder / f"metadata/metadata_{number}.parquet", {"image_path": bare, "n": list(range(a, b))})
    return folder


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_a_parquet_file_is_the_same_as_two_files(
    kind: str, source: Path, rows: tuple[list[str], Any], tmp_path: Path
) -> None:
    import pyarrow

    names, vectors = rows
    expected = imported(source, tmp_path / "a", **by_jsonl(source, tmp_path / "two", names, vectors))
    make = {"list": pyarrow.list_(pyarrow.float32()), "large": pyarrow.large_list(pyarrow.float64())}
    type_ = make.get(kind, pyarrow.list_(pyarrow.float32(), 6))
    column = pyarrow.array([v.tolist() for v in vectors], type_)
    data: dict[str, Any] = {"n": list(range(len(names))), "embedding": column, "path": names}
    place = parquet(tmp_path / "v.parquet", data, row_group_size=3)
    assert imported(source, tmp_path / "b", vectors=place) == expected


def test_shards_as_inquire_publishes_them(source: Path, rows: tuple[list[str], Any], tmp_path: Path) -> None:
    names, vectors = rows
    place = shards(tmp_path / "vit-b-32", names, vectors, [1, 2])
    corpus = embeddings.open(str(source), vectors=place)
    assert [dict(s.metadata) for s in corpus.samples()] == [{"n": n} for n in range(len(names))]
    assert [s.image.path for s in corpus.samples() if s.image] == [source / name for name in names]
    assert "a suffix left out" in corpus.remarks()[0]
    assert np.array_equal(corpus.vectors[1:4], vectors[1:4].astype(np.float16))
    arguments = [
        "index",
        str(source),
        "--vectors",
        str(place),
        "--embedder",
        SPEC,
        "--index",
        str(tmp_path / "x"),
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    with ImageIndex.open(tmp_path / "x") as index:
        assert index.verify(deep=True) == []
        first = index.search(vectors[1:2] / np.linalg.norm(vectors[1]), 1)[0][0]
        assert first.id == names[1].removesuffix(".png")
        assert first.score == pytest.approx(1.0, abs=1e-3)


def test_faults_are_named_with_their_place(source: Path, rows: tuple[list[str], Any], tmp_path: Path) -> None:
    names, vectors = rows
    lists = [v.tolist() for v in vectors]

    def refused(data: dict[str, Any], says: str, **given: Any) -> None:
        place = parquet(tmp_path / "v.parquet", data)
        with pytest.raises(InputError, match=says):
            embeddings.open(str(source), vectors=place, **given)

    refused({"path": names}, r"has no column of vectors; its columns are 'path' \(string\)")
    refused({"a": lists, "b": lists}, "several columns of vectors, none called 'embedding'")
    refused({"v": lists, "x": names}, r"no column that names images, such as 'image_path'; .*'x' \(string\)")
    refused({"v": lists, "path": names}, "has no column 'there'", column="there")
    refused(
        {"v": [*lists[:-1], [1.0]], "path": names}, rf"row {len(names) - 1} \(from 0\): 'v' has not 6 numbers"
    )
    refused({"v": [*lists[:-1], None], "path": names}, "has not 6 numbers")
    refused({"v": [*lists[:-1], [0.0] * 6], "path": names}, "is all zero")
    refused(
        {"v": lists, "path": [*names[:-1], names[0]]},
        rf"row {len(names) - 1} \(from 0\): image .* was named in .*row 0",
    )
    refused(
        {"v": lists, "path": [*names[:-1], "../x.png"]}, rf"row {len(names) - 1} \(from 0\): image '../x.png'"
    )
    refused({"v": lists, "path": [*names[:-1], None]}, "names no image")
    with pytest.raises(UsageError, match="names its images itself"):
        embeddings.open(str(source), vectors=tmp_path / "v.parquet", ids=tmp_path / "ids.jsonl")
    with pytest.raises(InputError, match=r"has 0 arrays img_emb/\*.npy"):
        embeddings.open(str(source), vectors=tmp_path)
    place = shards(tmp_path / "s", names, vectors, [2])
    np.save(place / "img_emb/img_emb_1.npy", vectors[3:])
    with pytest.raises(InputError, match=r"img_emb_1.npy has \d+ rows, and .*metadata_1.parquet has"):
        embeddings.open(str(source), vectors=place)
    np.save(place / "img_emb/img_emb_1.npy", vectors[2:, :3])
    with pytest.raises(InputError, match="vectors of another width"):
        embeddings.open(str(source), vectors=place)

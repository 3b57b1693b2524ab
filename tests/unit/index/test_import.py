"""Indexes of vectors that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_world import ColourEmbedder, build, paint, tally
from typer.testing import CliRunner

from mmrerank.benchmark import Scored
from mmrerank.cli.main import cli
from mmrerank.errors import InputError, MismatchError
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image


@dataclass
class Given(Corpus):
    """A corpus with vectors."""

    location: str
    vectors: Any
    names: list[str]

    def samples(self) -> Iterable[Sample]:
        for name in self.names:
            yield Sample(id=name, image=Image(path=Path(self.location) / name), metadata={"n": name})


def test_imported_vectors_keep_row_order_and_need_no_model(source: Path, tmp_path: Path) -> None:
    names = ["02.png", "00.png", "lost.png", "01.png"]
    given = Given(str(source), np.array([[3, 4], [1, 0], [6, 8], [0, 2]], np.float16), names)
    report = ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec="open_clip:ViT-B-32:openai")
    assert tally(report) == (4, 0, 0, 0, 0)
    index = ImageIndex.open(tmp_path / "x")
    found = index.search(np.array([[3, 4]]), 4)[0]
    assert [s.id for s in found] == ["02.png", "lost.png", "01.png", "00.png"]
    assert found[0] == Scored(id="02.png", score=1.0)
    assert found[0].score == found[1].score
    assert index.image("00.png").width == 8
    assert index.image("lost.png").width is None
    assert [p.split(":")[0] for p in index.verify(deep=True)] == ["lost.png"]
    assert index.candidates(np.array([1, 0]), 1)[0].metadata == {"n": "00.png"}

    embedder = ColourEmbedder()
    embedder.dim = 2
    embedder.spec = "clip-b32"  # a short name of the very model
    index.check_embedder(embedder)
    embedder.spec = "open_clip:ViT-L-14:openai"
    with pytest.raises(MismatchError, match="ViT-B-32:openai"):
        index.check_embedder(embedder)
    with pytest.raises(MismatchError, match="imported"):
        build(tmp_path / "x", source)


def test_importing_again_replaces(source: Path, tmp_path: Path) -> None:
    def run(vectors: Any, names: list[str], spec: str = "clip-b32", **options: Any) -> Any:
        given = Given(str(source), np.array(vectors, np.float32), names)
        return ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec=spec, **options)

    run([[1, 0], [0, 1], [1, 1]], ["a", "b", "c"])
    assert tally(run([[1, 0], [1, 1], [2, 2]], ["a", "b", "d"])) == (1, 1, 1, 1, 0)
    with pytest.raises(MismatchError, match="--rebuild"):
        run([[1, 0]], ["a"], spec="clip-l14-laion")
    assert len(ImageIndex.open(tmp_path / "x")) == 3
    assert tally(run([[1, 0]], ["a"], spec="clip-l14-laion", rebuild=True)) == (1, 0, 0, 0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures", "x"]


@pytest.mark.parametrize(
    ("vectors", "names", "says"),
    [
        ([[1, 0]], ["a", "b"], "more images"),
        ([[1, 0], [0, 1]], ["a"], "only 1 images"),
        ([[1, 0], [0, 1]], ["a", "a"], "twice"),
        ([[1, 0], [0, 0]], ["a", "b"], "vector 1 "),
        ([[1, 0], [0, np.inf]], ["a", "b"], "vector 1 "),
        (np.zeros((0, 2)), [], "no images"),
    ],
)
def test_bad_imports_leave_nothing_behind(
    source: Path, tmp_path: Path, vectors: Any, names: list[str], says: str
) -> None:
    given = Given(str(source), np.asarray(vectors, np.float32), names)
    with pytest.raises(InputError, match=says):
        ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec="clip-b32")
    assert not (tmp_path / "x").exists()


def test_a_source_that_is_gone_is_not_replaced_by_another(source: Path, tmp_path: Path) -> None:
    index = tmp_path / "x"
    build(index, source)
    source.rename(tmp_path / "unmounted")
    other = tmp_path / "other"
    paint(other, ["a.png", "b.png"], start=50)
    assert tally(build(index, other)) == (2, 0, 0, 0, 0)
    with ImageIndex.open(index) as kept:
        assert len(kept) == 12
    assert tally(build(index, tmp_path / "unmounted")) == (0, 0, 0, 10, 0)
    with ImageIndex.open(index) as kept:
        assert kept.verify(deep=True) == []
        assert kept.ids[10:] == ["other//a.png", "other//b.png"]


def test_images_that_are_not_there_are_counted_and_strict_refuses_them(source: Path, tmp_path: Path) -> None:
    names = ["00.png", "lost.png", "01.png", "gone.png"]
    (source / "note.png").write_text("no picture")
    given = Given(str(source), np.eye(5, dtype=np.float32), [*names, "note.png"])
    report = ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec="clip-b32")
    assert [(f.source, f.error) for f in report.unseen[:2]] == [
        ("lost.png", "its file is not there"),
        ("gone.png", "its file is not there"),
    ]
    assert report.unseen[2].source == "note.png"
    assert report.remarks[0] == (
        "2 of 5 images can be found, but neither shown nor judged: its file is not there: 'lost.png', "
        "'gone.png'. --strict refuses such vectors"
    )
    assert len(ImageIndex.open(tmp_path / "x")) == 5
    fewer = Given(str(source), np.eye(2, dtype=np.float32), names[:2])
    with pytest.raises(InputError, match=r"nothing was imported: 1 of 2 images .*'lost\.png'"):
        ImageIndex.import_vectors(tmp_path / "x", fewer, embedder_spec="clip-b32", strict=True)
    assert len(ImageIndex.open(tmp_path / "x")) == 5
    whole = Given(str(source), np.eye(2, dtype=np.float32), ["00.png", "01.png"])
    report = ImageIndex.import_vectors(tmp_path / "x", whole, embedder_spec="clip-b32", strict=True)
    assert (report.unseen, report.remarks) == ((), ())


def test_the_command_reports_them_in_text_and_json(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, 4, dtype=np.float32))
    lines = [{"image": n} for n in ("pictures/00.png", "pictures/more/1.png", "pictures/lost.png")]
    (tmp_path / "ids.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def run(place: Path, *more: str) -> Any:
        files = ["--vectors", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "ids.jsonl")]
        index = ["--index", str(tmp_path / "x"), "--embedder", "clip-b32"]
        return CliRunner().invoke(cli, ["index", str(place), *index, *files, *more])

    told = run(source)
    assert told.exit_code == 0
    assert "3 of 3 images can be found, but neither shown nor judged" in told.stderr
    assert f"give {str(tmp_path)!r} as SOURCE, or write the ids without 'pictures/'" in told.stderr
    told = run(source, "--strict")
    assert (told.exit_code, "nothing was imported: 3 of 3" in told.stderr) == (3, True)
    told = run(tmp_path, "--output", "json")
    body = json.loads(told.stdout)
    assert body["unseen"] == [{"source": "pictures/lost.png", "error": "its file is not there"}]
    assert len(body["warnings"]) == 1
    (source / "lost.png").write_bytes((source / "00.png").read_bytes())
    told = run(tmp_path, "--strict")
    assert (told.exit_code, told.stderr) == (0, "")
    told = CliRunner().invoke(cli, ["index", str(source), "--index", str(tmp_path / "y"), "--strict"])
    assert (told.exit_code, "--strict is for --vectors" in told.stderr) == (2, True)


def test_an_import_for_a_model_in_a_folder_is_known_by_its_whole_path(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models/clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    given = Given(str(source), np.eye(1, 12, dtype=np.float32), ["00.png"])
    ImageIndex.import_vectors(tmp_path / "x", given, embedder_spec="open_clip:local-dir:models/clip")
    index = ImageIndex.open(tmp_path / "x")
    assert index.embedder_spec == f"open_clip:local-dir:{tmp_path}/models/clip"
    embedder = ColourEmbedder()
    embedder.spec = index.embedder_spec
    index.check_embedder(embedder)
    embedder.spec = "open_clip:local-dir:/new/clip"
    with pytest.raises(
        MismatchError, match=r"same model.*--embedder open_clip:local-dir:/new/clip --rebuild"
    ):
        index.check_embedder(embedder)

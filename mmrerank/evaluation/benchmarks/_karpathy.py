"""What Flickr30K and MSCOCO share: Karpathy's splits, as JSON or as the table that reranking papers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmrerank.benchmark import Answer, Benchmark, BenchmarkQuery, Measured, Ranked, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.measure.files import TableRow, Unique, read_json, read_rows, rows_of
from mmrerank.evaluation.tasks import count_warnings, one_run, recall


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """Which captions are queries: ``all`` of them, the ``first5`` of an image, or equal ones ``merged``."""

    captions: Literal["all", "first5", "merged"] = "all"


@dataclass(frozen=True, kw_only=True)
class CaptionTask(Task):
    """``names`` are the ways to name images, each from a name to the image's id."""

    names: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class _Row:
    image: str
    names: Mapping[str, str]
    captions: Sequence[tuple[str, str]]


def load_captions(benchmark: str, path: Path, split: str, options: CaptionOptions) -> CaptionTask:
    """The rows of ``split`` in ``dataset_*.json`` or in a table of filename, split, raw, sentids, imgid."""
    table = ".csv" in path.name
    rows = _table(path, split) if table else _karpathy(path, split)
    if not rows:
        raise InputError(f"{path} has no row of the split {split!r}, column 'split'")
    names: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}
    asked: dict[str, BenchmarkQuery] = {}
    qrels: dict[str, dict[str, int]] = {}
    same: dict[str, str] = {}
    for row in rows:
        for way, name in row.names.items():
            names.setdefault(way, {})[name] = row.image
        files[row.image] = row.names["filename"]
        for sentid, text in row.captions[: 5 if options.captions == "first5" else None]:
            query = same.setdefault(text, sentid) if options.captions == "merged" else sentid
            asked.setdefault(query, BenchmarkQuery(text=text))
            qrels.setdefault(query, {})[row.image] = 1
    found = {"images": len(rows)} | ({"queries": len(asked)} if options.captions == "all" else {})
    return CaptionTask(
        queries=asked,
        qrels=qrels,
        gallery=list(files),
        files=files,
        names=names,
        warnings=count_warnings(benchmark, split, found, str(path)),
    )


def _karpathy(path: Path, split: str) -> list[_Row]:
    body = read_json(path)
    if not isinstance(body, dict) or "images" not in body:
        raise InputError(f"{path} must hold an object with the list 'images'")
    needed = ("filename", "imgid", "split", "sentids", "sentences")
    seen = _Seen()
    rows = rows_of(body["images"], path, needed)
    # rows of other splits are checked as well: an id must be one image's in the whole file
    made = [(row, _row(row, _sentences(row, seen), seen)) for row in rows]
    return [found for row, found in made if row.text("split") == split]


def _sentences(row: TableRow, seen: _Seen) -> list[tuple[str, str]]:
    captions = []
    for place, value in enumerate(row.sequence("sentences")):
        if not isinstance(value, dict):
            raise row.wrong("sentences", f"must hold objects, not {value!r}")
        sentence = TableRow(row.path, row.row, value, f"sentences.{place}.")
        id_ = str(sentence.integer("sentid"))
        seen.captions.add(id_, sentence, "sentid")
        if sentence.has("imgid") and sentence.integer("imgid") != row.integer("imgid"):
            raise sentence.wrong("imgid", f"is {sentence.get('imgid')}, of the image {row.get('imgid')}")
        captions.append((id_, sentence.text("raw", empty=True)))
    listed = [str(n) for n in row.integers("sentids")]
    if sorted(listed) != sorted(i for i, _ in captions):
        raise row.wrong("sentids", f"is {listed}, and the sentences are {[i for i, _ in captions]}")
    return captions


class _Seen:
    def __init__(self) -> None:
        self.captions = Unique("caption id")
        self.images = Unique("image id")
        self.files = Unique("file name")


def _row(row: TableRow, captions: Sequence[tuple[str, str]], seen: _Seen, id_: str = "imgid") -> _Row:
    image, file = str(row.integer(id_)), row.text("filename")
    seen.images.add(image, row, id_)
    seen.files.add(file, row, "filename")
    names: dict[str, Any] = {"filename": file, "stem": file.rpartition(".")[0] or file, id_: image}
    if row.has("filepath"):
        names["path"] = f"{row.text('filepath')}/{file}"
    if row.has("cocoid"):
        names["cocoid"] = str(row.integer("cocoid"))
        names["padded"] = f"{row.integer('cocoid'):012d}"  # as COCO's newer files are named
        names["padded file"] = f"{row.integer('cocoid'):012d}.jpg"
    return _Row(image=image, names=names, captions=captions)


def _table(path: Path, split: str) -> list[_Row]:
    rows = read_rows(path, ("filename", "split", "raw", "sentids"))
    seen = _Seen()
    found = []
    for row in rows:
        # one copy of the Flickr30K table spells it with an underscore
        id_ = "img_id" if row.has("img_id") and not row.has("imgid") else "imgid"
        texts, ids = row.texts("raw", empty=True), [str(n) for n in row.integers("sentids")]
        if len(texts) != len(ids):
            raise row.wrong("sentids", f"has {len(ids)} ids for the {len(texts)} captions in 'raw'")
        for sentid in ids:
            seen.captions.add(sentid, row, "sentids")
        made = _row(row, list(zip(ids, texts, strict=True)), seen, id_)
        if row.text("split") == split:
            found.append(made)
    return found


class Captions(Benchmark):
    """Captions of Karpathy's splits; a benchmark names its files."""

    SPLITS = ("test", "val", "train", "restval")
    Options = CaptionOptions

    def canonical(self, task: CaptionTask, rows: Mapping[str, Ranked]) -> Mapping[str, Ranked]:
        """A run names images in one way throughout: that which knows the most of its names is taken."""
        used = {i for r in rows.values() for i in r.ids}
        # what this way does not know must not pass for another image's id
        best = max(task.names.values(), key=lambda way: sum(i in way for i in used))
        return {
            q: Ranked([best.get(i, f"?{i}" if i in task.files else i) for i in r.ids], r.scores)
            for q, r in rows.items()
        }

    def score(self, task: CaptionTask, answers: Sequence[Answer]) -> dict[str, Measured]:
        """R@1, R@5 and R@10."""
        rows = one_run(task, answers).rows
        return {f"R@{k}": recall(f"R@{k}", rows, task, k) for k in (1, 5, 10)}

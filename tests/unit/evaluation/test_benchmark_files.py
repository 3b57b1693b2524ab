"""What a benchmark's files must not be: each loader refuses it and says file, row and column."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import MAKERS, dump, table

from mmrerank.benchmark import BenchmarkQuery
from mmrerank.errors import InputError
from mmrerank.evaluation.tasks import load_task

Change = Callable[[Any], None]


def put(row: int, column: str, value: Any) -> Change:
    def change(rows: Any) -> None:
        rows[row][column] = value

    return change


def copy(row: int, column: str, source: int) -> Change:
    def change(rows: Any) -> None:
        rows[row][column] = rows[source][column]

    return change


def drop(row: int, column: str) -> Change:
    def change(rows: Any) -> None:
        del rows[row][column]

    return change


def inside(row: int, path: tuple[Any, ...], value: Any) -> Change:
    def change(rows: Any) -> None:
        place = rows[row]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def images(change: Change) -> Change:
    """The change to the list ``images`` of a Karpathy file."""
    return lambda body: change(body["images"])


CIRR, SPLIT = "captions/cap.rc2.val.json", "image_splits/split.rc2.val.json"
DRESS, CIRCO, SAID = ("captions/cap.dress.val.json", "annotations/val.json", "VisDial_v1.0_queries_val.json")
JSON = [
    ("cirr", CIRR, drop(3, "target_hard"), "3 (from 0), column 'target_hard'"),
    ("cirr", CIRR, drop(3, "img_set"), "3 (from 0), column 'img_set'"),
    ("cirr", CIRR, inside(2, ("img_set", "members"), None), "2 (from 0), column 'img_set.members'"),
    ("cirr", CIRR, copy(7, "pairid", 1), "7 (from 0), column 'pairid': pairid '12061' occurs again"),
    ("cirr", CIRR, put(4, "reference", "dev-9"), "4 (from 0), column 'reference': the image 'dev-9'"),
    ("cirr", CIRR, put(4, "target_hard", "dev-9"), "4 (from 0), column 'target_hard': the image 'dev-9'"),
    ("cirr", CIRR, put(4, "target_hard", "dev-5-0-img1"), "is not in the query's img_set.members"),
    ("cirr", CIRR, copy(4, "img_set", 5), "4 (from 0), column 'img_set.members': the reference"),
    ("cirr", CIRR, inside(6, ("img_set", "members", 2), "dev-9"), "6 (from 0), column 'img_set.members'"),
    ("cirr", CIRR, put(4, "pairid", "many"), "4 (from 0), column 'pairid': must be a whole number"),
    ("circo", CIRCO, drop(3, "gt_img_ids"), "3 (from 0), column 'gt_img_ids'"),
    ("circo", CIRCO, copy(5, "id", 2), "5 (from 0), column 'id': query id '2' occurs again"),
    ("circo", CIRCO, put(5, "target_img_id", 999), "5 (from 0), column 'gt_img_ids': must begin with"),
    ("circo", CIRCO, put(5, "reference_img_id", -4), "5 (from 0), column 'reference_img_id'"),
    ("circo", CIRCO, put(5, "semantic_aspects", ["colour"]), "5 (from 0), column 'semantic_aspects'"),
    ("fashioniq", DRESS, drop(3, "target"), "3 (from 0), column 'target'"),
    ("fashioniq", DRESS, put(3, "candidate", "B9"), "3 (from 0), column 'candidate': the image 'B9'"),
    ("fashioniq", DRESS, put(3, "target", "BS00001"), "3 (from 0), column 'target': the image 'BS00001'"),
    ("fashioniq", DRESS, put(3, "captions", ["one"]), "3 (from 0), column 'captions': must hold two"),
    ("fashioniq", "image_splits/split.dress.val.json", copy(3, 0, 2), "row 3 (from 0)"),
    ("visdial", f"dialogues/{SAID}", drop(3, "img"), "3 (from 0), column 'img'"),
    ("visdial", f"dialogues/{SAID}", put(3, "img", "x.jpg"), "3 (from 0), column 'img': the image 'x.jpg'"),
    ("visdial", f"dialogues/{SAID}", put(3, "dialog", ["a"]), "3 (from 0), column 'dialog': must hold 11"),
    ("mscoco", "dataset_coco.json", images(drop(3, "sentids")), "3 (from 0), column 'sentids'"),
    ("mscoco", "dataset_coco.json", images(copy(3, "imgid", 2)), "3 (from 0), column 'sentences.0.imgid'"),
    ("mscoco", "dataset_coco.json", images(copy(3, "filename", 2)), "3 (from 0), column 'filename'"),
    (
        "mscoco", "dataset_coco.json", images(inside(3, ("sentences", 1, "sentid"), 2)),
        "3 (from 0), column 'sentences.1.sentid': caption id '2' occurs again, first in row 0",
    ),
    ("mscoco", "dataset_coco.json", images(inside(3, ("sentids", 1), 999)), "3 (from 0), column 'sentids'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "change", "says"), JSON)
def test_json(name: str, file: str, change: Change, says: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    body = json.loads((tmp_path / file).read_text())
    if name == "fashioniq" and file.startswith("image_splits"):
        body[3] = body[2]
    else:
        change(body)
    dump(tmp_path / file, body)
    with pytest.raises(InputError) as told:
        load_task(name, tmp_path)
    assert says in str(told.value)
    assert Path(file).name in str(told.value)


def test_a_gallery_that_names_an_image_twice(tmp_path: Path) -> None:
    MAKERS["cirr"](tmp_path)
    text = (tmp_path / SPLIT).read_text()
    (tmp_path / SPLIT).write_text(text.replace("{", '{"dev-0-0-img0": "./dev/x.png", ', 1))
    with pytest.raises(InputError, match=r"split\.rc2\.val\.json: the key 'dev-0-0-img0' occurs twice"):
        load_task("cirr", tmp_path)
    MAKERS["visdial"](tmp_path)
    space = tmp_path / "ChatIR_Protocol/Search_Space_val_50k.json"
    body = json.loads(space.read_text())
    dump(space, [*body, body[4]])
    with pytest.raises(InputError, match=r"row 60 \(from 0\): an image path, .*, occurs again"):
        load_task("visdial", tmp_path)


def test_circo_knows_the_gallery_where_it_is_given(tmp_path: Path) -> None:
    MAKERS["circo"](tmp_path)
    listed = tmp_path / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
    dump(listed, {"images": [{"id": n} for n in range(500)]})
    assert "500 images, but 123403 are published" in load_task("circo", tmp_path).warnings[-1]
    rows = json.loads((tmp_path / CIRCO).read_text())
    rows[2]["gt_img_ids"].append(777)
    dump(tmp_path / CIRCO, rows)
    with pytest.raises(InputError, match=r"row 2 \(from 0\), column 'gt_img_ids': there is no image 777"):
        load_task("circo", tmp_path)


TABLES = [
    ("inquire-fullrank", "inquire_queries_test.csv", (0, 1, "q"), "header), column 'query_id'"),
    ("inquire-fullrank", "inquire_queries_test.csv", (3, 1, "4"), "2 (from 0), column 'query_id'"),
    ("inquire-fullrank", "inquire_queries_test.csv", (3, 2, "A thing, number 3"), "column 'query_text'"),
    ("inquire-fullrank", "inquire_queries_test.csv", (3, 1, "five"), "2 (from 0), column 'query_id'"),
    ("inquire-fullrank", "inquire_annotations.csv", (0, 2, "path"), "header), column 'image_path'"),
    ("inquire-fullrank", "inquire_annotations.csv", (3, 0, "99"), "2 (from 0), column 'query_id'"),
    ("inquire-fullrank", "inquire_annotations.csv", (3, 1, "1"), "column 'image_"),
    ("inquire-rerank", "inquire_annotations.csv", (3, 1, ""), "2 (from 0), column 'image_id'"),
    ("flickr30k", "flickr_annotations_30k.csv", (0, 3, "ids"), "header), column 'sentids'"),
    ("flickr30k", "flickr_annotations_30k.csv", (3, 3, "[0, 1, 2, 3, 4]"), "2 (from 0), column 'sentids'"),
    ("flickr30k", "flickr_annotations_30k.csv", (3, 3, "[10]"), "2 (from 0), column 'sentids': has 1 ids"),
    ("flickr30k", "flickr_annotations_30k.csv", (3, 2, "no list"), "2 (from 0), column 'raw'"),
    ("flickr30k", "flickr_annotations_30k.csv", (3, 0, "1.jpg"), "2 (from 0), column 'filename'"),
    ("flickr30k", "flickr_annotations_30k.csv", (3, 4, "1"), "2 (from 0), column 'imgid'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "cell", "says"), TABLES)
def test_tables(name: str, file: str, cell: tuple[int, int, str], says: str, tmp_path: Path) -> None:
    from benchmark_samples import caption_table, inquire

    (caption_table if name == "flickr30k" else inquire)(tmp_path)
    path = tmp_path / file
    with path.open(newline="", encoding="utf-8") as read:
        rows = list(csv.reader(read))
    row, column, value = cell
    rows[row][column] = value
    with path.open("w", newline="", encoding="utf-8") as write:
        csv.writer(write).writerows(rows)
    with pytest.raises(InputError) as told:
        load_task(name, tmp_path)
    assert says in str(told.value)
    assert file in str(told.value)


def test_a_pair_that_is_annotated_twice(tmp_path: Path) -> None:
    MAKERS["inquire-fullrank"](tmp_path)
    path = tmp_path / "inquire_annotations.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[4]]) + "\n")
    says = rf"row {len(lines) - 1} \(from 0\), column 'image_id': the pair .* occurs again, first in row 3"
    with pytest.raises(InputError, match=says):
        load_task("inquire-fullrank", tmp_path)


def test_rows_of_the_rerank_task(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    MAKERS["inquire-rerank"](tmp_path / "a")
    path = tmp_path / "a/data/test-00001-of-00002.parquet"
    rows = parquet.read_table(path).to_pylist()

    def written(change: Change) -> None:
        changed = [dict(r) for r in rows]
        change(changed)
        parquet.write_table(pyarrow.Table.from_pylist(changed), path)

    for change, says in (
        (put(3, "relevant", 2), r"row 3 \(from 0\), column 'relevant': a label is 0 or 1, not 2"),
        (copy(3, "inat24_image_id", 1), r"row 3 \(from 0\), column 'inat24_image_id'"),
        (put(3, "query", None), r"row 3 \(from 0\), column 'query'"),
        (lambda r: [x.pop("relevant") for x in r], "column 'relevant': there is no such column"),
    ):
        written(change)
        with pytest.raises(InputError, match=says):
            load_task("inquire-rerank", tmp_path / "a")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"test-00001-of-00002\.parquet cannot be read"):
        load_task("inquire-rerank", tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "elsewhere"}, "4 (from 0), column 'label': 'elsewhere' is not among the candidates"),
        ({"label": []}, "4 (from 0), column 'label'"),
        ({"label": None}, "4 (from 0), column 'label'"),
        ({"prediction": None}, "4 (from 0), column 'prediction'"),
        ({"prediction": [1, 2]}, "4 (from 0), column 'prediction': must hold candidate keys"),
        ({"rel_scores": [1, 2, 3]}, "4 (from 0), column 'rel_scores': has 3 grades for 1 labels"),
    ],
)
def test_predictions(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    MAKERS["mmeb"](tmp_path)
    path = tmp_path / "ImageNet-1K_pred.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = json.dumps(json.loads(lines[4]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as told:
        load_task("mmeb", tmp_path)
    assert says in str(told.value)
    path.write_text("{not json}\n")
    with pytest.raises(InputError, match=r"row 0 \(from 0\) is not valid JSON"):
        load_task("mmeb", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "2 (from 0), column 'id'"),
        ({"id": "q 1"}, "2 (from 0), column 'id': query id 'q 1' occurs again, first in row 1"),
        ({"relevant": ["pictures/99.jpg"]}, "2 (from 0), column 'relevant': there is no image"),
        ({"relevant": {"pictures/1.jpg": -1}}, "2 (from 0), column 'relevant': a grade is a whole"),
        ({"relevant": []}, "2 (from 0), column 'relevant': no image is right"),
        ({"relevant": None}, "2 (from 0), column 'relevant'"),
        ({"text": " "}, "2 (from 0), column 'text'"),
        ({"candidates": ["pictures/1.jpg"]}, "2 (from 0), column 'relevant': there is no image"),
    ],
)
def test_own_folders(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    MAKERS["folder"](tmp_path)
    path = tmp_path / "queries.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as told:
        load_task("folder", tmp_path)
    assert says in str(told.value)


def test_blank_cells_are_no_values(tmp_path: Path) -> None:
    table(
        tmp_path / "queries.csv",
        ["id", "text", "relevant", "image", "turns", "exclude", "candidates", "category"],
        [
            ["a", "a boat", '["1.jpg"]', "", "", "", "", ""],
            ["b", "", "", "2.jpg", '["first"]', '["night"]', '["1.jpg", "3.jpg"]', "sea"],
        ],
    )
    (tmp_path / "qrels.txt").write_text("b 0 3.jpg 2\n")
    task = load_task("folder", tmp_path)
    assert task.queries["a"] == BenchmarkQuery(text="a boat")
    assert task.queries["b"] == BenchmarkQuery(image="2.jpg", turns=("first",), exclude=("night",))
    assert task.qrels == {"a": {"1.jpg": 1}, "b": {"3.jpg": 2}}
    assert (task.lists, task.categories) == ({"b": ["1.jpg", "3.jpg"]}, {"b": "sea"})


@pytest.mark.parametrize("name", ["cirr", "circo", "fashioniq", "visdial", "mscoco", "inquire-fullrank"])
def test_files_may_be_compressed(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path)
    want = load_task(name, tmp_path, split=sample.split)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    got = load_task(name, tmp_path, split=sample.split)
    assert (got.queries, got.qrels) == (want.queries, want.qrels)


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", "null", "[[]]", '"x"', "\udcff", "[" * 100_000])
@pytest.mark.parametrize(
    ("name", "file"), [("cirr", CIRR), ("circo", CIRCO), ("mscoco", "dataset_coco.json")]
)
def test_files_that_are_something_else(name: str, file: str, text: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=Path(file).name.replace(".", r"\.")):
        load_task(name, tmp_path)

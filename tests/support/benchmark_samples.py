"""Small samples of every benchmark in its own files and layout, written by us, with a random run for each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrerank.benchmark import Scores

Lists = dict[str, list[str]]


def dump(path: Path, body: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body), "utf-8")
    return path


def table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def trec(path: Path, lists: Lists) -> Path:
    from mmrerank.benchmark import Run
    from mmrerank.evaluation.measure.metrics import in_order
    from mmrerank.evaluation.measure.runs import write_run

    write_run(path, Run(rows={q: in_order(ids) for q, ids in lists.items()}))
    return path


@dataclass(frozen=True)
class Sample:
    """A folder of data and a run; ``gallery`` is what the lists were drawn from."""

    data: Path
    split: str
    lists: Lists
    right: dict[str, list[str]]


def inquire(data: Path, seed: int = 0, split: str = "test", length: int = 60) -> Sample:
    """Queries of both splits, and one annotation file for both; lists are of image ids."""
    rng = np.random.default_rng(seed)
    images = {n: f"train/{n:05d}_Animalia_x/{n:08x}-aa.jpg" for n in range(100, 400)}
    right: dict[str, list[str]] = {}
    notes = []
    for own, ids in (("val", range(3)), ("test", range(3, 11))):
        rows = [
            [n, q, f"A thing, number {q}  ", "Species", "Identification", "birds_and_more"]
            for n, q in enumerate(ids)
        ]
        columns = ["", "query_id", "query_text", "supercategory", "category", "iconic_group"]
        table(data / f"inquire_queries_{own}.csv", columns, rows)
        for q in ids:
            some = sorted(int(i) for i in rng.choice(list(images), int(rng.integers(1, 80)), False))
            notes += [[q, i, images[i]] for i in some]
            if own == split:
                right[str(q)] = [str(i) for i in some]
    table(data / "inquire_annotations.csv", ["query_id", "image_id", "image_path"], notes)
    lists = {q: [str(i) for i in rng.permutation(list(images))[:length]] for q in right}
    return Sample(data=data, split=split, lists=lists, right=right)


def inquire_rows(data: Path, seed: int = 0) -> Sample:
    """The rows of INQUIRE-Rerank as Parquet, 100 pictures a query, query ids by text."""
    import pyarrow
    import pyarrow.parquet as parquet

    rng = np.random.default_rng(seed)
    rows = []
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    for q in range(4):
        text = f"A bird of the kind {q}"
        ids = [int(i) for i in rng.permutation(2000)[:100]]
        labels = [int(v) for v in rng.integers(0, 6, 100) == 0]
        rows += [
            {
                "query": text,
                "relevant": label,
                "clip_score": float(rng.random()),
                "inat24_image_id": i,
                "inat24_file_name": f"train/a_b/{i:08x}.jpg",
                "supercategory": "Behavior",
                "image": b"not read",
            }
            for i, label in zip(ids, labels, strict=True)
        ]
        right[text] = [str(i) for i, label in zip(ids, labels, strict=True) if label]
        lists[text] = [str(i) for i in rng.permutation(ids)]
    (data / "data").mkdir(parents=True)
    half = len(rows) // 2
    for n, part in enumerate((rows[:half], rows[half:])):
        path = data / "data" / f"test-{n:05d}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(part), path)
    return Sample(data=data, split="test", lists=lists, right=right)


def karpathy(data: Path, name: str = "coco", seed: int = 0) -> Sample:
    """``dataset_NAME.json`` with images of two splits, five captions each and six for one."""
    rng = np.random.default_rng(seed)
    images = []
    right: dict[str, list[str]] = {}
    sentid = 0
    for n in range(30):
        split = "test" if n % 3 == 0 else "train"
        sentences = []
        for c in range(6 if n == 3 else 5):
            text = "A dog runs." if c == 0 and n in (0, 6) else f"caption {c} of {n}"
            sentences.append({"raw": text, "tokens": text.split(), "imgid": n, "sentid": sentid})
            if split == "test":
                right[str(sentid)] = [str(7000 + 3 * n)]
            sentid += 1
        images.append(
            {
                "filename": f"COCO_val2014_{7000 + 3 * n:012d}.jpg",
                "filepath": "val2014",
                "imgid": n,
                "cocoid": 7000 + 3 * n,
                "split": split,
                "sentids": [s["sentid"] for s in sentences],
                "sentences": sentences,
            }
        )
    dump(data / f"dataset_{name}.json", {"images": images, "dataset": name})
    gallery = [str(i["cocoid"]) for i in images if i["split"] == "test"]
    lists = {q: [str(i) for i in rng.permutation(gallery)] for q in right}
    return Sample(data=data, split="test", lists=lists, right=right)


def caption_table(data: Path, seed: int = 0) -> Sample:
    """The table that reranking papers use for Flickr30K; lists are of file names."""
    rng = np.random.default_rng(seed)
    rows = []
    right: dict[str, list[str]] = {}
    for n in range(12):
        ids = list(range(5 * n, 5 * n + 5))
        texts = [f'He said "{c}", it\'s {n}' for c in range(5)]
        split = "test" if n < 8 else "val"
        rows.append([f"{n}.jpg", split, json.dumps(texts), str(ids), n, "[]"])
        if split == "test":
            right |= {str(i): [f"{n}.jpg"] for i in ids}
    columns = ["filename", "split", "raw", "sentids", "imgid", "tokens"]
    table(data / "flickr_annotations_30k.csv", columns, rows)
    lists = {q: [f"{i}.jpg" for i in rng.permutation(8)] for q in right}
    return Sample(data=data, split="test", lists=lists, right=right)


def cirr(data: Path, seed: int = 0, split: str = "val") -> Sample:
    """Four sets of six pictures; lists are of the whole gallery, the reference included."""
    rng = np.random.default_rng(seed)
    names = [f"dev-{n}-{m}-img{n % 2}" for n in range(6) for m in range(6)]
    captions = []
    right: dict[str, list[str]] = {}
    for n in range(24):
        members = names[6 * (n % 4) : 6 * (n % 4) + 6]
        reference, target = (members[int(i)] for i in rng.permutation(6)[:2])
        row: dict[str, Any] = {
            "pairid": 12060 + n,
            "reference": reference,
            "target_hard": target,
            "target_soft": {target: 1.0},
            "caption": "" if n == 5 else f"the same, number {n}",
            "img_set": {
                "id": n % 4,
                "members": [str(m) for m in rng.permutation(members)],
                "reference_rank": 3,
                "target_rank": 4,
            },
        }
        if split == "test1":
            del row["target_hard"], row["target_soft"]
        captions.append(row)
        right[str(row["pairid"])] = [target]
    dump(data / f"captions/cap.rc2.{split}.json", captions)
    files = {n: f"./dev/{n}.png" for n in names}
    dump(data / f"image_splits/split.rc2.{split}.json", files)
    lists = {q: [str(i) for i in rng.permutation(names)] for q in right}
    return Sample(data=data, split=split, lists=lists, right=right)


ASPECTS = ("cardinality", "addition", "negation", "viewpoint")


def circo(data: Path, seed: int = 0, split: str = "val") -> Sample:
    """Queries with one to five right answers; lists of fifty, reference now and then among them."""
    rng = np.random.default_rng(seed)
    rows = []
    right: dict[str, list[str]] = {}
    lists: Lists = {}
    for n in range(12):
        pool = [int(i) for i in rng.permutation(500)]
        targets, reference = pool[: int(rng.integers(1, 6))], pool[10]
        row: dict[str, Any] = {
            "id": n,
            "reference_img_id": reference,
            "relative_caption": f"has more of it, {n}",
            "shared_concept": "a dog",
        }
        if split == "val":
            row |= {
                "target_img_id": targets[0],
                "gt_img_ids": targets,
                "semantic_aspects": [a for a in ASPECTS if rng.random() < 0.5],
            }
        rows.append(row)
        right[str(n)] = [str(i) for i in targets]
        lists[str(n)] = [str(i) for i in rng.permutation(pool[:60])[:50]]
    dump(data / f"annotations/{split}.json", rows)
    return Sample(data=data, split=split, lists=lists, right=right)


def fashioniq(data: Path, seed: int = 0) -> Sample:
    """Three categories; some garments are neither candidate nor target; lists are of the split file."""
    rng = np.random.default_rng(seed)
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    for category, size in (("dress", 70), ("shirt", 80), ("toptee", 90)):
        names = [f"B{category[0].upper()}{n:05d}" for n in range(size)]
        rows = []
        for n in range(int(rng.integers(8, 14))):
            candidate, target = (names[int(i)] for i in rng.permutation(30)[:2])
            wishes = ["is red.", ""] if n == 2 else ["is red.", f"has {n} sleeves"]
            rows.append({"candidate": candidate, "target": target, "captions": wishes})
            right[f"{category}/{n}"] = [target]
            lists[f"{category}/{n}"] = [str(i) for i in rng.permutation(names)]
        dump(data / f"captions/cap.{category}.val.json", rows)
        dump(data / f"image_splits/split.{category}.val.json", names)
    return Sample(data=data, split="val", lists=lists, right=right)


def visdial(data: Path, seed: int = 0, dialogues: int = 9) -> Sample:
    """Dialogues of eleven turns over a small search space; whole lists for every round."""
    rng = np.random.default_rng(seed)
    space = [f"unlabeled2017/{n:012d}.jpg" for n in range(60)]
    rows = []
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    for d in range(dialogues):
        target = space[int(rng.integers(60))]
        turns = [f"a picture of {d}", *(f"is it {t}? no" for t in range(1, 11))]
        rows.append({"img": target, "dialog": turns})
        for t in range(11):
            right[f"{d}/{t}"] = [target]
            lists[f"{d}/{t}"] = [str(i) for i in rng.permutation(space)]
    dump(data / "dialogues/VisDial_v1.0_queries_val.json", rows)
    dump(data / "ChatIR_Protocol/Search_Space_val_50k.json", space)
    return Sample(data=data, split="val", lists=lists, right=right)


def mmeb(data: Path, seed: int = 0) -> Sample:
    """Prediction files of three data sets, one with a candidate listed twice; lists are those of a run."""
    rng = np.random.default_rng(seed)
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    data.mkdir(parents=True, exist_ok=True)
    for name, several in (("ImageNet-1K", False), ("RefCOCO-Matching", False), ("VisDial", True)):
        lines = []
        for row in range(20):
            keys = [f"{name} {n}.jpg:a caption" for n in range(int(rng.integers(6, 30)))]
            label: Any = keys[:3] if several else keys[0]
            order = [str(k) for k in rng.permutation(keys)]
            if name == "RefCOCO-Matching" and row < 3:
                order.insert(2, keys[0])
            lines.append(json.dumps({"prediction": order, "label": label, "rel_scores": None}))
            right[f"{name}/{row}"] = label if several else [label]
            lists[f"{name}/{row}"] = list(dict.fromkeys(order))
        (data / f"{name}_pred.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return Sample(data=data, split="test", lists=lists, right=right)


def folder(data: Path, seed: int = 0) -> Sample:
    """Graded answers and a gallery."""
    rng = np.random.default_rng(seed)
    names = [f"pictures/{n}.jpg" for n in range(40)]
    rows = []
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    for n in range(6):
        some = [names[int(i)] for i in rng.permutation(40)[:4]]
        relevant: Any = {i: int(rng.integers(1, 4)) for i in some} if n % 2 else some
        rows.append({"id": f"q {n}", "text": f"words {n}", "relevant": relevant, "category": "any"})
        right[f"q {n}"] = some
        lists[f"q {n}"] = [str(i) for i in rng.permutation(names)]
    data.mkdir(parents=True, exist_ok=True)
    (data / "queries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    (data / "gallery.txt").write_text("\n".join(names) + "\n", "utf-8")
    return Sample(data=data, split="all", lists=lists, right=right)


def mrb(data: Path, seed: int = 0) -> Sample:
    """Two data sets with candidates of their own."""
    rng = np.random.default_rng(seed)
    lists: Lists = {}
    right: dict[str, list[str]] = {}
    for name in ("one", "two"):
        rows = []
        for n in range(5):
            candidates = [f"{name}{n}-{i}.jpg" for i in range(12)]
            rows.append({"id": str(n), "text": "x", "candidates": candidates, "relevant": candidates[:2]})
            right[f"{name}/{n}"] = candidates[:2]
            lists[f"{name}/{n}"] = [str(i) for i in rng.permutation(candidates)]
        (data / name).mkdir(parents=True)
        path = data / name / "queries.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return Sample(data=data, split="test", lists=lists, right=right)


MAKERS = {
    "inquire-fullrank": inquire,
    "inquire-rerank": inquire_rows,
    "flickr30k": caption_table,
    "mscoco": karpathy,
    "cirr": cirr,
    "circo": circo,
    "fashioniq": fashioniq,
    "visdial": visdial,
    "mmeb": mmeb,
    "folder": folder,
    "mrb": mrb,
}


def figures(scores: Scores) -> dict[str, float]:
    return {n: m.value for n, m in scores.metrics.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def recall(
    lists: Lists, right: dict[str, list[str]], k: int, only: Callable[[str], bool] = lambda q: True
) -> float:
    return mean([float(bool(set(lists.get(q, [])[:k]) & set(r))) for q, r in right.items() if only(q)])

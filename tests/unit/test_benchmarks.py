"""Every benchmark against its figures computed again here, by the protocol's words, on planted runs."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_samples import (
    ASPECTS,
    MAKERS,
    Lists,
    Sample,
    circo,
    cirr,
    dump,
    fashioniq,
    inquire,
    karpathy,
    mmeb,
    trec,
    visdial,
)

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluate.benchmark import load_task, names, read_answer, score_files, write_submission
from mmrerank.evaluate.runs import read_run
from mmrerank.evaluate.scores import Scores


def figures(scores: Scores) -> dict[str, float]:
    return {n: m.value for n, m in scores.metrics.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def recall(
    lists: Lists, right: dict[str, list[str]], k: int, only: Callable[[str], bool] = lambda q: True
) -> float:
    return mean(
        [float(bool(set(lists.get(q, [])[:k]) & set(r))) for q, r in right.items() if only(q)]
    )


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_every_benchmark_scores_a_run_and_counts_what_is_missing(name: str, tmp_path: Path) -> None:
    sample: Sample = MAKERS[name](tmp_path / "data")
    run = trec(tmp_path / "run.trec.gz", sample.lists)
    scores = score_files(name, sample.data, [run], split=sample.split)
    assert scores.benchmark == name
    assert scores.split == sample.split
    assert not scores.missing
    for measured in scores.metrics.values():
        assert measured.value == pytest.approx(measured.value_scored)
        assert measured.tie_rule
        assert measured.lower_is_better or 0 <= measured.value <= 1
    lost = list(sample.lists)[::3]
    part = trec(
        tmp_path / "part.trec", {q: ids for q, ids in sample.lists.items() if q not in lost}
    )
    body = score_files(name, sample.data, [part], split=sample.split).to_dict()
    assert body["queries"] == {
        "expected": len(sample.right),
        "scored": len(sample.right) - len(lost),
        "missing": len(lost),
    }
    assert list(body) == ["benchmark", "split", "metrics", "queries", "warnings"]
    assert any(m["value"] != m["value_scored"] for m in body["metrics"].values())


def test_names_are_those_of_the_files() -> None:
    assert {*MAKERS, "demo"} == set(names())


def test_inquire_full_rank(tmp_path: Path) -> None:
    from test_metrics import sklearn_ap, sklearn_ndcg

    sample = inquire(tmp_path)
    scores = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    ap, ndcg = [], []
    for query, ids in sample.lists.items():
        right = set(sample.right[query])
        labels = [int(i in right) for i in ids[:50]]
        order = [float(50 - n) for n in range(50)]
        ap.append(sklearn_ap(labels, order, len(right), 50))
        ndcg.append(sklearn_ndcg(labels, order, len(right)))
    assert figures(scores)["INQUIRE_AP@50"] == pytest.approx(mean(ap), abs=1e-9)
    assert figures(scores)["INQUIRE_nDCG@50"] == pytest.approx(mean(ndcg), abs=1e-9)
    inside = [len(set(i[:50]) & set(sample.right[q])) / 50 for q, i in sample.lists.items()]
    assert figures(scores)["P@50"] == pytest.approx(mean(inside), abs=1e-9)
    assert "8 queries, but 200 are published" in scores.warnings[0]


@pytest.mark.parametrize("spelling", ["path", "stem", "below", "name", "bare"])
def test_inquire_images_go_by_any_of_their_names(tmp_path: Path, spelling: str) -> None:
    sample = inquire(tmp_path)

    def spelt(image: str) -> str:
        path = f"train/{int(image):05d}_Animalia_x/{int(image):08x}-aa.jpg"
        return {
            "path": path,
            "stem": path.removesuffix(".jpg"),
            "below": path.removeprefix("train/"),
            "name": path.rpartition("/")[2],
            "bare": path.rpartition("/")[2].removesuffix(".jpg"),
        }[spelling]

    want = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    named = {q: [spelt(i) for i in ids] for q, ids in sample.lists.items()}
    got = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "n.trec", named)])
    assert figures(got) == figures(want)
    twice = {q: [*ids, spelt(next(i for i in ids if i in sample.right[q]))]
             for q, ids in sample.lists.items() if set(ids) & set(sample.right[q])}  # fmt: skip
    with pytest.raises(InputError, match="twice, under two of its names"):
        score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "t.trec", twice)])


def test_inquire_rerank_recounts_r_inside_the_list(tmp_path: Path) -> None:
    from test_metrics import sklearn_ap

    sample = inquire(tmp_path, length=100)
    some = dict(list(sample.lists.items())[:5])
    scores = score_files("inquire-rerank", tmp_path, [trec(tmp_path / "r.trec", some)])
    want = []
    for query, ids in some.items():
        labels = [int(i in sample.right[query]) for i in ids]
        want.append(sklearn_ap(labels, [float(-n) for n in range(100)], max(sum(labels), 1), 100))
    assert figures(scores)["INQUIRE_AP"] == pytest.approx(mean(want), abs=1e-9)
    assert figures(scores)["INQUIRE_AP@100"] == pytest.approx(mean(want), abs=1e-9)
    assert scores.expected == 5
    assert "no rows of INQUIRE-Rerank" in scores.warnings[0]
    full = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "f.trec", some)])
    assert full.expected == 8  # there, a query that is not answered counts


def test_captions_and_their_counts(tmp_path: Path) -> None:
    sample = karpathy(tmp_path)
    run = trec(tmp_path / "r.trec", sample.lists)
    scores = score_files("mscoco", tmp_path, [run])
    for k in (1, 5, 10):
        want = recall(sample.lists, sample.right, k)
        assert figures(scores)[f"R@{k}"] == pytest.approx(want, abs=1e-12)
    assert scores.expected == 51
    assert [w.split(": ")[1] for w in scores.warnings] == [
        "10 images, but 5000 are published for mscoco test",
        "51 queries, but 25010 are published for mscoco test",
    ]
    first = score_files("mscoco", tmp_path, [run], options={"captions": "first5"})
    assert first.expected == 50
    merged = load_task("mscoco", tmp_path, options={"captions": "merged"})
    assert (
        len(merged.queries) == 50
    )  # two pictures share a caption: one query with two right answers
    assert max(len(r) for r in merged.qrels.values()) == 2


def test_images_of_coco_go_by_either_number(tmp_path: Path) -> None:
    sample = karpathy(tmp_path)
    want = figures(score_files("mscoco", tmp_path, [trec(tmp_path / "a.trec", sample.lists)]))
    for way in (
        lambda i: str((int(i) - 7000) // 3),
        lambda i: f"COCO_val2014_{int(i):012d}.jpg",
        lambda i: f"val2014/COCO_val2014_{int(i):012d}.jpg",
    ):
        lists = {q: [way(i) for i in ids] for q, ids in sample.lists.items()}
        got = score_files("mscoco", tmp_path, [trec(tmp_path / "b.trec", lists)])
        assert figures(got) == want


def test_cirr_leaves_the_reference_out(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    rows = json.loads((tmp_path / "captions/cap.rc2.val.json").read_text())
    reference = {str(r["pairid"]): r["reference"] for r in rows}
    members = {str(r["pairid"]): set(r["img_set"]["members"]) for r in rows}
    scores = score_files("cirr", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    clean = {q: [i for i in ids if i != reference[q]] for q, ids in sample.lists.items()}
    few = {q: [i for i in ids if i in members[q]] for q, ids in clean.items()}
    for k in (1, 5, 10, 50):
        assert figures(scores)[f"R@{k}"] == pytest.approx(recall(clean, sample.right, k))
    for k in (1, 2, 3):
        assert figures(scores)[f"Rsub@{k}"] == pytest.approx(recall(few, sample.right, k))
    both = (figures(scores)["R@5"] + figures(scores)["Rsub@1"]) / 2
    assert figures(scores)["mean(R@5,Rsub@1)"] == pytest.approx(both)
    kept = {q: [i for i in ids if i in members[q]] for q, ids in sample.lists.items()}
    assert recall(kept, sample.right, 1) < recall(few, sample.right, 1)  # keeping it would cost


def test_cirr_submission_files_are_written_checked_and_scored(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    run = trec(tmp_path / "r.trec", sample.lists)
    short = trec(tmp_path / "s.trec", {q: i[:24] for q, i in sample.lists.items()})
    task = load_task("cirr", tmp_path)
    with pytest.raises(InputError, match=r"has \d+ of the 50 images that recall needs"):
        write_submission(task, [read_answer(task, short)], tmp_path / "out")
    paths = write_submission(task, [read_answer(task, run)], tmp_path / "out")
    assert [p.name for p in paths] == ["recall.json", "recall_subset.json"]
    body = json.loads(paths[1].read_text())
    assert (body["version"], body["metric"]) == ("rc2", "recall_subset")
    assert all(len(v) == 3 for k, v in body.items() if k not in ("version", "metric"))
    whole = figures(score_files("cirr", tmp_path, [run]))
    assert figures(score_files("cirr", tmp_path, paths)) == whole
    packed = tmp_path / "recall.json.gz"
    packed.write_bytes(gzip.compress(paths[0].read_bytes()))
    alone = figures(score_files("cirr", tmp_path, [packed]))
    assert alone == {f"R@{k}": whole[f"R@{k}"] for k in (1, 5, 10, 50)}
    with pytest.raises(UsageError, match="a second time"):
        score_files("cirr", tmp_path, [paths[0], packed])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.update(metric="Recall"), "key 'metric': must be recall or recall_subset"),
        (lambda b: b.update(version="rc1"), "key 'version': must be 'rc2'"),
        (lambda b: b.update({"12060": "dev-0"}), "entry '12060': must be a list of image names"),
        (lambda b: b.update({"12060": [3]}), "entry '12060': must be a list of image names"),
        (lambda b: b.update({"12060": ["dev-5-5-img1"]}), "not in the query's set"),
    ],
)
def test_a_wrong_cirr_submission_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    sample = cirr(tmp_path)
    task = load_task("cirr", tmp_path)
    answer = read_answer(task, trec(tmp_path / "r.trec", sample.lists))
    path = write_submission(task, [answer], tmp_path / "out")[1]
    body = json.loads(path.read_text())
    change(body)
    dump(path, body)
    with pytest.raises(InputError, match=says):
        read_answer(task, path)


def test_cirr_test_labels_are_private(tmp_path: Path) -> None:
    sample = cirr(tmp_path, split="test1")
    run = trec(tmp_path / "r.trec", sample.lists)
    with pytest.raises(InputError, match="labels of cirr test1 are not public"):
        score_files("cirr", tmp_path, [run], split="test1")


def circo_by_the_official_rules(sample: Sample, rows: Any) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        ids = np.array([int(i) for i in sample.lists[str(row["id"])]])
        labels = np.isin(ids, row["gt_img_ids"])
        precisions = np.cumsum(labels) * labels / np.arange(1, len(ids) + 1)
        for k in (5, 10, 25, 50):
            ap = precisions[:k].sum() / min(len(row["gt_img_ids"]), k)
            found.setdefault(f"mAP@{k}", []).append(ap)
            found.setdefault(f"R@{k}", []).append(float((ids == row["target_img_id"])[:k].sum()))
        for aspect in row["semantic_aspects"]:
            ap = precisions[:10].sum() / min(len(row["gt_img_ids"]), 10)
            found.setdefault(f"{aspect}.mAP@10", []).append(ap)
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_circo(tmp_path: Path) -> None:
    sample = circo(tmp_path)
    rows = json.loads((tmp_path / "annotations/val.json").read_text())
    run = trec(tmp_path / "r.trec", sample.lists)
    scores = score_files("circo", tmp_path, [run])
    want = circo_by_the_official_rules(sample, rows)
    assert figures(scores) == pytest.approx(want, abs=1e-9)
    assert {f"{a}.mAP@10" for a in ASPECTS} < set(want)
    # the reference picture is not taken out: it stands as any other wrong answer
    references = {str(r["id"]): str(r["reference_img_id"]) for r in rows}
    without = {q: [i for i in ids if i != references[q]] for q, ids in sample.lists.items()}
    assert without != sample.lists
    other = score_files("circo", tmp_path, [trec(tmp_path / "o.trec", without)])
    assert figures(other) != figures(scores)
    task = load_task("circo", tmp_path)
    (path,) = write_submission(task, [read_answer(task, run)], tmp_path / "out")
    assert figures(score_files("circo", tmp_path, [path])) == figures(scores)
    body = json.loads(path.read_text())
    body["3"][7] = body["3"][2]
    with pytest.raises(InputError, match=r"entry '3': image \d+ occurs twice"):
        read_answer(task, dump(tmp_path / "twice.json", body))
    del body["3"]
    part = score_files("circo", tmp_path, [dump(tmp_path / "part.json", body)])
    assert part.missing == ["3"]
    assert "lacks 1 queries" in part.warnings[-1]


def test_fashioniq_has_two_galleries(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    run = trec(tmp_path / "r.trec", sample.lists)
    used: dict[str, set[str]] = {}
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{category}.val.json").read_text())
        used[category] = {r[c] for r in rows for c in ("candidate", "target")}
    union = {
        q: [i for i in ids if i in used[q.partition("/")[0]]] for q, ids in sample.lists.items()
    }
    for gallery, lists in (("original", sample.lists), ("union", union)):
        found = figures(score_files("fashioniq", tmp_path, [run], options={"gallery": gallery}))
        for k in (10, 50):
            each = [recall(lists, sample.right, k, lambda q, c=c: q.startswith(c)) for c in used]
            assert [found[f"{c}.R@{k}"] for c in used] == pytest.approx(each)
            assert found[f"R@{k}"] == pytest.approx(mean(each))  # unweighted
    with pytest.raises(UsageError, match="gallery must be one of original, union"):
        load_task("fashioniq", tmp_path, options={"gallery": "both"})
    asked = load_task("fashioniq", tmp_path).queries
    assert asked["dress/0"].text == "is red and has 0 sleeves"
    assert asked["dress/2"].text == "is red"


def dialogues_by_the_official_rules(sample: Sample, count: int) -> dict[str, float]:
    ranks = np.array(
        [
            [sample.lists[f"{d}/{t}"].index(sample.right[f"{d}/{t}"][0]) for d in range(count)]
            for t in range(11)
        ]
    )
    found = {}
    times = np.full(count, np.inf)
    for t in range(11):
        times = np.minimum(times, np.where(ranks[t] < 10, t, np.inf))
        found[f"Hits@10.round{t}"] = float((times < np.inf).mean())
        found[f"R@10.round{t}"] = float((ranks[t] < 10).mean())
    best = np.log(np.minimum.accumulate(ranks, axis=0) + 1)
    found["BRI"] = float(np.mean([(best[t] + best[t + 1]) / 2 for t in range(10)]))
    for name in ("Hits@10", "R@10"):
        found[name] = mean([found[f"{name}.round{t}"] for t in range(11)])
    return found


def test_visdial(tmp_path: Path) -> None:
    sample = visdial(tmp_path)
    scores = score_files("visdial", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    assert figures(scores) == pytest.approx(dialogues_by_the_official_rules(sample, 9), abs=1e-9)
    assert scores.metrics["BRI"].lower_is_better


def test_visdial_rank_ten_is_no_hit_and_a_hit_stays(tmp_path: Path) -> None:
    sample = visdial(tmp_path, dialogues=1)
    space = json.loads((tmp_path / "ChatIR_Protocol/Search_Space_val_50k.json").read_text())
    target = sample.right["0/0"][0]
    others = [i for i in space if i != target]

    def at(rank: int) -> list[str]:
        return [*others[:rank], target, *others[rank:]]

    ranks = [10, 9, 30, *[20] * 8]
    run = trec(tmp_path / "r.trec", {f"0/{t}": at(rank) for t, rank in enumerate(ranks)})
    found = figures(score_files("visdial", tmp_path, [run]))
    assert [found[f"Hits@10.round{t}"] for t in range(4)] == [0, 1, 1, 1]
    assert [found[f"R@10.round{t}"] for t in range(4)] == [0, 1, 0, 0]
    assert found["BRI"] == pytest.approx((math.log(11) / 2 + 9.5 * math.log(10)) / 10)
    lost = trec(tmp_path / "l.trec", {f"0/{t}": at(ranks[t]) for t in range(11) if t != 2})
    part = score_files("visdial", tmp_path, [lost])
    assert part.missing == ["0/2"]
    assert figures(part)["Hits@10.round2"] == 1  # found in round 1


def test_mmeb_predictions_are_scored_as_they_lie(tmp_path: Path) -> None:
    sample = mmeb(tmp_path)
    files = sorted(tmp_path.glob("*_pred.jsonl"))
    scores = score_files("mmeb", tmp_path, files)
    found = figures(scores)
    each = {}
    for path in files:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        name = path.name.removesuffix("_pred.jsonl")
        labels = [r["label"] if isinstance(r["label"], list) else [r["label"]] for r in rows]
        for k in (1, 5, 10):
            hits = [
                float(bool(set(r["prediction"][:k]) & set(right)))
                for r, right in zip(rows, labels, strict=True)
            ]
            each[f"{name}.Hit@{k}"] = mean(hits)
            reciprocal = [
                next((1 / n for n, p in enumerate(r["prediction"][:k], 1) if p in right), 0.0)
                for r, right in zip(rows, labels, strict=True)
            ]
            each[f"{name}.MRR@{k}"] = mean(reciprocal)
    for name, value in each.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    sets = ("ImageNet-1K", "RefCOCO-Matching", "VisDial")
    assert found["Hit@1"] == pytest.approx(mean([each[f"{s}.Hit@1"] for s in sets]))
    assert found["GRD.Hit@1"] == each["RefCOCO-Matching.Hit@1"]
    assert found["IND.Hit@1"] == pytest.approx(
        mean([each["ImageNet-1K.Hit@1"], each["VisDial.Hit@1"]])
    )
    # the positive that is listed twice counts once: with one right answer AP is the reciprocal rank
    assert found["RefCOCO-Matching.mAP@10"] == pytest.approx(found["RefCOCO-Matching.MRR@10"])
    assert any("3 of MMEB's 36 data sets" in w for w in scores.warnings)
    assert any("3 lists have a candidate twice" in w for w in scores.warnings)
    assert (
        figures(score_files("mmeb", tmp_path, files[:1]))["ImageNet-1K.Hit@1"]
        == each["ImageNet-1K.Hit@1"]
    )
    assert len(sample.lists) == 60


def test_mmeb_constant_scores_win_nothing(tmp_path: Path) -> None:
    sample = mmeb(tmp_path / "data")
    lines = []
    for query, right in sample.right.items():
        rest = [i for i in sample.lists[query] if i not in right]
        for n, candidate in enumerate(
            [*right, *rest], start=1
        ):  # the positive first, as in the files
            key = candidate.replace(" ", "%20")
            lines.append(f"{query} Q0 {key} {n} 0.5 constant\n")
    (tmp_path / "run.trec").write_text("".join(lines))
    found = figures(score_files("mmeb", sample.data, [tmp_path / "run.trec"]))
    assert found["Hit@1"] == 0
    broken = "".join(lines).replace(" 0.5 ", " nan ", 1)
    (tmp_path / "nan.trec").write_text(broken)
    with pytest.raises(InputError, match="line 1: the score 'nan' is not finite"):
        score_files("mmeb", sample.data, [tmp_path / "nan.trec"])


def test_mmeb_grades_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lines = []
    for _ in range(30):
        keys = [f"page {n}" for n in range(12)]
        labels = [str(k) for k in rng.permutation(keys)[:5]]
        order = [str(k) for k in rng.permutation(keys)]
        grades = [int(g) for g in rng.integers(1, 4, 5)]
        lines.append(json.dumps({"prediction": order, "label": labels, "rel_scores": grades}))
    (tmp_path / "ViDoRe_pred.jsonl").write_text("\n".join(lines))
    program = (
        "import sys; from pathlib import Path; from mmrerank.evaluate.benchmark import score_files\n"
        "d = Path(sys.argv[1]); s = score_files('mmeb', d, sorted(d.glob('*_pred.jsonl')))\n"
        "print(repr({n: m.value for n, m in s.metrics.items()}))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in (0, 1, 2)
    }  # fmt: skip
    assert len(told) == 1
    assert "nDCG_linear@5" in told.pop()


def test_the_positive_is_not_first_among_the_candidates_of_a_first_stage(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    rows = [
        {"qry_text": f"q{n}", "qry_img_path": "", "tgt_text": [f"right {n}", "b", "c", "d", "e"],
         "tgt_img_path": [""] * 5}
        for n in range(50)
    ]  # fmt: skip
    folder = tmp_path / "OK-VQA"
    folder.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    task = load_task("mmeb", tmp_path)
    first = [task.lists[q][0].startswith("right") for q in task.queries]
    assert 2 <= sum(first) <= 22  # one in five, by chance
    assert task.qrels["OK-VQA/7"] == {"right 7": 1}
    again = load_task("mmeb", tmp_path)
    assert again.lists == task.lists


def test_queries_that_share_a_text_stay_apart(tmp_path: Path) -> None:
    sample = karpathy(tmp_path)
    task = load_task("mscoco", tmp_path)
    same = [q for q, asked in task.queries.items() if asked.text == "A dog runs."]
    assert len(same) == 2
    lists = dict.fromkeys(same, sample.right[same[0]])
    scores = score_files("mscoco", tmp_path, [trec(tmp_path / "r.trec", lists)])
    assert scores.metrics["R@1"].values == {same[0]: 1.0, same[1]: 0.0}


def test_ids_with_spaces_and_percent_come_back(tmp_path: Path) -> None:
    lists = {"a b/1": ["x y.jpg", "100%.jpg", "tab\tbed", "ü  ü"]}
    path = trec(tmp_path / "r.trec", lists)
    text = path.read_text()
    assert "x%20y.jpg" in text
    assert "100%25.jpg" in text
    assert all(len(line.split(" ")) == 6 for line in text.splitlines())
    assert {q: [r.id for r in rows] for q, rows in read_run(path).rows.items()} == lists


def test_a_run_of_another_benchmark_is_told(tmp_path: Path) -> None:
    sample = cirr(tmp_path / "cirr")
    other = karpathy(tmp_path / "coco")
    run = trec(tmp_path / "r.trec", other.lists)
    with pytest.raises(InputError, match="has no query of cirr val: its ids are like '0'"):
        score_files("cirr", sample.data, [run])
    mixed = trec(tmp_path / "m.trec", {q: ["nobody.jpg", *ids] for q, ids in sample.lists.items()})
    scores = score_files("cirr", sample.data, [mixed])
    assert "1 ids are no image of cirr val" in scores.warnings[-1]
    assert figures(scores)["R@1"] == 0  # a stranger holds the first place


@pytest.mark.parametrize("name", sorted({*MAKERS}))
def test_missing_data_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="How to get"):
        load_task(name, tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        load_task(name, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="has no split 'tset'"):
        load_task(name, tmp_path, split="tset")


def test_images_go_by_their_files_too(tmp_path: Path) -> None:
    for name, maker, spelt in (
        ("cirr", cirr, lambda i: f"./dev/{i}.png"),
        ("cirr", cirr, lambda i: f"{i}.png"),
        ("fashioniq", fashioniq, lambda i: f"images/{i}.jpg"),
        ("circo", circo, lambda i: f"{int(i):012d}.jpg"),
    ):
        sample = maker(tmp_path / name)
        want = figures(score_files(name, sample.data, [trec(tmp_path / "a.trec", sample.lists)]))
        lists = {q: [spelt(i) for i in ids] for q, ids in sample.lists.items()}
        assert figures(score_files(name, sample.data, [trec(tmp_path / "b.trec", lists)])) == want
        twice = {q: [*ids, spelt(ids[0])] for q, ids in sample.lists.items()}
        with pytest.raises(InputError, match="twice, under two of its names"):
            score_files(name, sample.data, [trec(tmp_path / "c.trec", twice)])


def test_a_broken_archive_is_told(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    for name in ("r.trec.gz", "r.json.gz"):
        whole = gzip.compress(b"x" * 5000)
        (tmp_path / name).write_bytes(whole[:12] + b"\xff" * 9 + whole[21:])
        with pytest.raises(InputError, match="cannot be read"):
            score_files("cirr", sample.data, [tmp_path / name])


def test_fashioniq_predictions_of_each_category(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    want = figures(score_files("fashioniq", tmp_path, [trec(tmp_path / "r.trec", sample.lists)]))
    files = []
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{category}.val.json").read_text())
        told = [{**r, "ranking": sample.lists[f"{category}/{n}"]} for n, r in enumerate(rows)]
        files.append(dump(tmp_path / f"{category}.val.pred.json", told))
    assert figures(score_files("fashioniq", tmp_path, files)) == want
    part = score_files("fashioniq", tmp_path, files[:2])
    assert part.metrics["toptee.R@10"].value == 0
    assert part.metrics["toptee.R@10"].value_scored == 0
    with pytest.raises(UsageError, match="a second time"):
        score_files("fashioniq", tmp_path, [files[0], files[0]])


def test_a_run_without_answers_is_no_run(tmp_path: Path) -> None:
    cirr(tmp_path)
    (tmp_path / "empty.trec").write_text("")
    bare = dump(tmp_path / "bare.json", {"version": "rc2", "metric": "recall"})
    for path in (tmp_path / "empty.trec", bare):
        with pytest.raises(InputError, match="answers no query"):
            score_files("cirr", tmp_path, [path])


def test_inquire_paths_may_lead_from_anywhere(tmp_path: Path) -> None:
    sample = inquire(tmp_path)
    want = figures(
        score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    )
    far = {
        q: [f"data/inat/train/{int(i):05d}_Animalia_x/{int(i):08x}-aa.jpg" for i in ids]
        for q, ids in sample.lists.items()
    }
    got = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "f.trec", far)])
    assert figures(got) == want


def test_ids_of_another_kind_are_told_where_no_gallery_is_known(tmp_path: Path) -> None:
    for name, maker in (("inquire-fullrank", inquire), ("circo", circo)):
        sample = maker(tmp_path / name)
        strange = {q: [f"photo {i}" for i in ids] for q, ids in sample.lists.items()}
        scores = score_files(name, sample.data, [trec(tmp_path / "s.trec", strange)])
        assert "none of its ids is a right answer" in scores.warnings[-1]
    sample = mmeb(tmp_path / "mmeb")
    strange = {q: [f"photo {i}" for i in ids] for q, ids in sample.lists.items()}
    with pytest.raises(InputError, match="has no image of mmeb test"):
        score_files("mmeb", sample.data, [trec(tmp_path / "m.trec", strange)])


def test_strange_garments_are_wrong_answers_and_other_categories_none(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    want = figures(score_files("fashioniq", tmp_path, [trec(tmp_path / "r.trec", sample.lists)]))
    shirts = sample.lists["shirt/0"][:60]
    mixed = {
        q: [*shirts, *ids] if q.startswith("dress") else ids for q, ids in sample.lists.items()
    }
    assert figures(score_files("fashioniq", tmp_path, [trec(tmp_path / "m.trec", mixed)])) == want
    odd = {q: [*(f"x{n}" for n in range(60)), *ids] for q, ids in sample.lists.items()}
    scores = score_files("fashioniq", tmp_path, [trec(tmp_path / "o.trec", odd)])
    assert set(figures(scores).values()) == {0}
    assert "they count as wrong answers" in scores.warnings[-1]


def test_a_reranker_is_given_tied_candidates_without_their_labels(tmp_path: Path) -> None:
    sample = mmeb(tmp_path / "data")
    lines = []
    for query, right in sample.right.items():
        ids = [*right, *(i for i in sample.lists[query] if i not in right)]
        lines += [f"{query} Q0 {i.replace(' ', '%20')} {n} 0.5 x\n" for n, i in enumerate(ids, 1)]
    (tmp_path / "run.trec").write_text("".join(lines))
    answer = read_answer(load_task("mmeb", sample.data), tmp_path / "run.trec")
    assert all(
        answer.rows[q].ids[0] in right for q, right in sample.right.items()
    )  # as in the file

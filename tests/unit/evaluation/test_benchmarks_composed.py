"""Benchmarks with reference images and dialogues against their official rules, written out here."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_samples import (
    ASPECTS,
    Sample,
    circo,
    cirr,
    dump,
    fashioniq,
    figures,
    mean,
    recall,
    trec,
    visdial,
)

from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.compare.compute import compare
from mmrerank.evaluation.measure.runs import read_run, write_run
from mmrerank.evaluation.tasks import load_task, read_answer, score_files, write_submission


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
    with pytest.raises(
        InputError, match=r"fewer than the 35 images that recall needs \(.*\): 24 \('12060' with 23"
    ):
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
    with pytest.raises(InputError, match=r"lists that name an image twice: 1 \('3'\)"):
        read_answer(task, dump(tmp_path / "twice.json", body))
    del body["3"]
    with pytest.raises(InputError, match=r"queries missing: 1 of 12 \('3'\)"):
        read_answer(task, dump(tmp_path / "part.json", body))


def test_fashioniq_has_two_galleries(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    run = trec(tmp_path / "r.trec", sample.lists)
    used: dict[str, set[str]] = {}
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{category}.val.json").read_text())
        used[category] = {r[c] for r in rows for c in ("candidate", "target")}
    union = {q: [i for i in ids if i in used[q.partition("/")[0]]] for q, ids in sample.lists.items()}
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


def test_the_rounds_of_a_dialogue_are_one_proof(tmp_path: Path) -> None:
    """Twelve better dialogues have a p of 2 / 2^12, however many rounds each has."""
    sample = visdial(tmp_path, dialogues=12)
    best = {q: [*sample.right[q], *(i for i in ids if i not in sample.right[q])]
            for q, ids in sample.lists.items()}  # fmt: skip
    worst = {q: ids[::-1] for q, ids in best.items()}
    runs = {name: score_files("visdial", tmp_path, [trec(tmp_path / f"{name}.trec", lists)])
            for name, lists in (("worst", worst), ("best", best))}  # fmt: skip
    for difference in compare(runs, metrics=["Hits@10", "R@10"], draws=5000).differences:
        assert (difference.value, difference.wins) == (1, 12)
        assert difference.p == pytest.approx(2 / 2**12)
    lost = {q: ids for q, ids in best.items() if not q.startswith("0/") or q > "0/4"}
    part = score_files("visdial", tmp_path, [trec(tmp_path / "part.trec", lost)])
    measured = part.metrics["R@10"]
    assert measured.value == pytest.approx(mean([figures(part)[f"R@10.round{n}"] for n in range(11)]))
    assert measured.values["0"] == pytest.approx(len([q for q in lost if q.startswith("0/")]) / 11)


def test_a_list_that_ends_before_its_picture_is_told(tmp_path: Path) -> None:
    sample = visdial(tmp_path)
    whole = score_files("visdial", tmp_path, [trec(tmp_path / "r.trec", sample.lists)])
    assert not any("BRI" in w for w in whole.warnings)
    cut = {q: [i for i in ids if i not in sample.right[q]][:20] if q == "3/4" else ids
           for q, ids in sample.lists.items()}  # fmt: skip
    scores = score_files("visdial", tmp_path, [trec(tmp_path / "c.trec", cut)])
    assert "1 of 99 lists end before their picture, such as '3/4'" in scores.warnings[-1]


@pytest.mark.parametrize("maker", [cirr, circo, fashioniq])
def test_raw_scores_are_no_submission(maker: Callable[[Path], Sample], tmp_path: Path) -> None:
    sample = maker(tmp_path)
    name = maker.__name__
    path = trec(tmp_path / "r.trec", sample.lists)
    write_run(tmp_path / "again.trec", read_run(path), raw=tmp_path / "r.raw.jsonl")
    want = figures(score_files(name, tmp_path, [path]))
    assert figures(score_files(name, tmp_path, [tmp_path / "r.raw.jsonl"])) == want


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


def test_strange_garments_are_wrong_answers_and_other_categories_none(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    want = figures(score_files("fashioniq", tmp_path, [trec(tmp_path / "r.trec", sample.lists)]))
    shirts = sample.lists["shirt/0"][:60]
    mixed = {q: [*shirts, *ids] if q.startswith("dress") else ids for q, ids in sample.lists.items()}
    assert figures(score_files("fashioniq", tmp_path, [trec(tmp_path / "m.trec", mixed)])) == want
    odd = {q: [*(f"x{n}" for n in range(60)), *ids] for q, ids in sample.lists.items()}
    scores = score_files("fashioniq", tmp_path, [trec(tmp_path / "o.trec", odd)])
    assert set(figures(scores).values()) == {0}
    assert "they count as wrong answers" in scores.warnings[-1]

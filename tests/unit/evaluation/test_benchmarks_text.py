"""INQUIRE, captions and MMEB against their figures computed again here, on planted runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from benchmark_samples import figures, inquire, inquire_rows, karpathy, mean, mmeb, recall, trec

from mmrerank.errors import InputError
from mmrerank.evaluation.tasks import load_task, read_answer, score, score_files


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


def test_a_short_list_of_inquire_rerank_gains_nothing(tmp_path: Path) -> None:
    sample = inquire_rows(tmp_path / "rows")
    whole = score_files("inquire-rerank", sample.data, [trec(tmp_path / "r.trec", sample.lists)])
    assert not any("lists have other than" in w for w in whole.warnings)
    one = {q: right[:1] for q, right in sample.right.items()}
    scores = score_files("inquire-rerank", sample.data, [trec(tmp_path / "one.trec", one)])
    want = mean([1 / len(right) for right in sample.right.values()])
    for name in ("INQUIRE_AP", "INQUIRE_AP@100"):
        assert figures(scores)[name] == pytest.approx(want)
    assert figures(scores)["INQUIRE_nDCG"] < 1
    assert "4 lists have other than the 100 images" in scores.warnings[-1]
    sample = inquire(tmp_path / "notes")  # lists of 60, and no rows of the task's own
    scores = score_files("inquire-rerank", sample.data, [trec(tmp_path / "s.trec", sample.lists)])
    assert "8 lists have other than the 100 images" in scores.warnings[-1]


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
    assert len(merged.queries) == 50  # two pictures share a caption: one query with two right answers
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
    assert found["IND.Hit@1"] == pytest.approx(mean([each["ImageNet-1K.Hit@1"], each["VisDial.Hit@1"]]))
    # the positive that is listed twice counts once: with one right answer AP is the reciprocal rank
    assert found["RefCOCO-Matching.mAP@10"] == pytest.approx(found["RefCOCO-Matching.MRR@10"])
    assert any("3 of MMEB's 36 data sets" in w for w in scores.warnings)
    assert any("3 lists have a candidate twice" in w for w in scores.warnings)
    assert figures(score_files("mmeb", tmp_path, files[:1]))["ImageNet-1K.Hit@1"] == each["ImageNet-1K.Hit@1"]
    assert len(sample.lists) == 60


def test_mmeb_constant_scores_win_nothing(tmp_path: Path) -> None:
    sample = mmeb(tmp_path / "data")
    lines = []
    for query, right in sample.right.items():
        rest = [i for i in sample.lists[query] if i not in right]
        for n, candidate in enumerate([*right, *rest], start=1):  # the positive first, as in the files
            key = candidate.replace(" ", "%20")
            lines.append(f"{query} Q0 {key} {n} 0.5 constant\n")
    (tmp_path / "run.trec").write_text("".join(lines))
    found = figures(score_files("mmeb", sample.data, [tmp_path / "run.trec"]))
    assert found["Hit@1"] == 0
    broken = "".join(lines).replace(" 0.5 ", " nan ", 1)
    (tmp_path / "nan.trec").write_text(broken)
    with pytest.raises(InputError, match="line 1: the score 'nan' is not finite"):
        score_files("mmeb", sample.data, [tmp_path / "nan.trec"])


@pytest.mark.slow
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
        "import sys; from pathlib import Path; from mmrerank.evaluation.tasks import score_files\n"
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


def test_inquire_paths_may_lead_from_anywhere(tmp_path: Path) -> None:
    sample = inquire(tmp_path)
    want = figures(score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "r.trec", sample.lists)]))
    far = {
        q: [f"data/inat/train/{int(i):05d}_Animalia_x/{int(i):08x}-aa.jpg" for i in ids]
        for q, ids in sample.lists.items()
    }
    got = score_files("inquire-fullrank", tmp_path, [trec(tmp_path / "f.trec", far)])
    assert figures(got) == want


def test_a_reranker_is_given_tied_candidates_without_their_labels(tmp_path: Path) -> None:
    sample = mmeb(tmp_path / "data")
    lines = []
    for query, right in sample.right.items():
        ids = [*right, *(i for i in sample.lists[query] if i not in right)]
        lines += [f"{query} Q0 {i.replace(' ', '%20')} {n} 0.5 x\n" for n, i in enumerate(ids, 1)]
    (tmp_path / "run.trec").write_text("".join(lines))
    answer = read_answer(load_task("mmeb", sample.data), tmp_path / "run.trec")
    assert all(answer.rows[q].ids[0] in right for q, right in sample.right.items())  # as in the file


def test_mmeb_holds_one_data_set_at_a_time(tmp_path: Path) -> None:
    """36 sets of 1,000 queries with 1,000 candidates each are gigabytes of text."""
    for name in (f"set{n}" for n in range(12)):
        rows = (
            {"prediction": [f"{name}/a long name of a candidate/{q}/{n}" for n in range(200)],
             "label": f"{name}/a long name of a candidate/{q}/0"}
            for q in range(20)
        )  # fmt: skip
        (tmp_path / f"{name}_pred.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    files = sorted(tmp_path.glob("*_pred.jsonl"))
    text = sum(f.stat().st_size for f in files)
    score_files("mmeb", tmp_path, files[:1])  # what is imported on the way does not count
    tracemalloc.start()
    found = score_files("mmeb", tmp_path, files)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.metrics["Hit@1"].value == 1
    # one set as bytes, text, lines and lists; all sets together would be several times as much as their text
    assert peak < text


def test_mmeb_files_that_change_while_they_are_read_are_named(tmp_path: Path) -> None:
    mmeb(tmp_path)
    files = sorted(tmp_path.glob("*_pred.jsonl"))
    task = load_task("mmeb", tmp_path)
    answers = [read_answer(task, f) for f in files]
    files[0].write_text(files[0].read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="was changed while it was read"):
        score(task, answers)

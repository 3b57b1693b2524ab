"""Lists too short for a cut-off are reported and their figures marked: one rule for all benchmarks.

After reports such as CIRR's Recall@5 of 100 % from lists of a query's own six pictures, and Rsub@k of lists
that end before the members of the set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_samples import (
    MAKERS,
    Sample,
    circo,
    cirr,
    fashioniq,
    figures,
    inquire_rows,
    karpathy,
    trec,
    visdial,
)
from command import data, run
from hypothesis import given, settings
from hypothesis import strategies as st

import mmrerank
from mmrerank.benchmark import Ranked, Scores
from mmrerank.evaluation.measure.short import MARK, too_short
from mmrerank.evaluation.tasks import score_files


def marked(scores: Scores) -> dict[str, tuple[int, int]]:
    """The marked figures: how many lists are too short, and how many of them lack a right answer."""
    found = {n: m.too_short for n, m in scores.metrics.items()}
    return {n: (len(s.held), len(s.lacking)) for n, s in found.items() if s}


def cut(tmp_path: Path, name: str, sample: Sample, length: int, **options: Any) -> Scores:
    path = trec(tmp_path / f"{name}.{length}.trec", {q: i[:length] for q, i in sample.lists.items()})
    return score_files(name, sample.data, [path], split=sample.split, options=options)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_whole_lists_are_not_marked_and_lists_of_one_name_are(name: str, tmp_path: Path) -> None:
    sample = MAKERS[name](tmp_path / "data")
    options = {"metrics": "nDCG@10,R@1,P@5"} if name == "folder" else {}
    assert not marked(cut(tmp_path, name, sample, 10**6, **options))
    short = cut(tmp_path, name, sample, 1, **options)
    assert marked(short)
    assert any("lists are too short" in w or "other than the 100 images" in w for w in short.warnings)
    for measured in short.metrics.values():
        assert ("short" in measured.to_dict()) is (measured.too_short is not None)
        if measured.name.endswith("@1") and name != "cirr":
            assert measured.too_short is None  # one name is all that is looked at


def test_lists_of_the_own_set_say_nothing_of_the_gallery(tmp_path: Path) -> None:
    """All six members, the reference among them: the right one is always within five."""
    cirr(tmp_path)
    rows = json.loads((tmp_path / "captions/cap.rc2.val.json").read_text())
    sets = trec(tmp_path / "set.trec", {str(r["pairid"]): r["img_set"]["members"] for r in rows})
    scores = score_files("cirr", tmp_path, [sets])
    assert figures(scores)["R@5"] == 1
    whole = {"R@1", "R@5", "R@10", "R@50", "mean(R@5,Rsub@1)"}
    assert marked(scores) == dict.fromkeys(whole, (24, 0))
    assert any("24 of 24 lists hold images of their query's own set alone" in w for w in scores.warnings)
    shown = run("eval", "cirr", "--data", tmp_path, "--run", sets)
    assert f"100.00 %{MARK}" in shown.stdout
    assert "lists are too short, such as '12060' with 5 of the 35 names" in shown.stderr
    body = data("eval", "cirr", "--data", tmp_path, "--run", sets)
    assert body["metrics"]["R@5"]["short"] == {
        "lists": 24, "lacking": 0, "wanted": 35, "first": ["12060", "12061", "12062"],
    }  # fmt: skip
    assert "short" not in body["metrics"]["Rsub@1"]
    assert any("lists are too short" in w for w in body["warnings"])
    # three names of the set in every list are no answer to R@1 either; one name may be the nearest
    three = {str(r["pairid"]): [m for m in r["img_set"]["members"] if m != r["reference"]][:3] for r in rows}
    assert marked(score_files("cirr", tmp_path, [trec(tmp_path / "3.trec", three)]))["R@1"][0] == 24
    one = trec(tmp_path / "1.trec", {q: ids[:1] for q, ids in three.items()})
    assert "R@1" not in marked(score_files("cirr", tmp_path, [one]))


def test_the_subset_question_needs_the_set_in_the_list(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    rows = json.loads((tmp_path / "captions/cap.rc2.val.json").read_text())
    scores = cut(tmp_path, "cirr", sample, 12)
    for k in (1, 2, 3):
        held = {str(r["pairid"]): len({*sample.lists[str(r["pairid"])][:12]} & {*r["img_set"]["members"]}
                                      - {r["reference"]}) for r in rows}  # fmt: skip
        found = scores.metrics[f"Rsub@{k}"].too_short
        assert found is not None
        assert dict(found.held) == {q: n for q, n in held.items() if n < k}


def test_the_removal_of_the_reference_may_shorten_a_list(tmp_path: Path) -> None:
    sample = cirr(tmp_path)
    scores = cut(tmp_path, "cirr", sample, 10)
    rows = json.loads((tmp_path / "captions/cap.rc2.val.json").read_text())
    nine = {str(r["pairid"]) for r in rows if r["reference"] in sample.lists[str(r["pairid"])][:10]}
    found = scores.metrics["R@10"].too_short
    assert found is not None
    assert nine
    assert dict(found.held) == dict.fromkeys([q for q in sample.lists if q in nine], 9)


def test_a_filtered_list_of_the_union_is_short(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    assert not marked(cut(tmp_path, "fashioniq", sample, 50))
    union = marked(cut(tmp_path, "fashioniq", sample, 50, gallery="union"))
    assert union["R@50"][0] == sum(union[f"{c}.R@50"][0] for c in ("dress", "shirt", "toptee"))


def test_fifty_of_the_hundred(tmp_path: Path) -> None:
    sample = inquire_rows(tmp_path / "rows")
    scores = cut(tmp_path, "inquire-rerank", sample, 50)
    assert set(marked(scores)) == set(scores.metrics)
    assert sum("4 lists have other than the 100 images" in w for w in scores.warnings) == 1
    assert not any("lists are too short" in w for w in scores.warnings)  # once is enough


def test_a_round_counts_for_the_rounds_after_it(tmp_path: Path) -> None:
    sample = visdial(tmp_path)
    lists = {q: ids[:4] if q == "3/4" else ids for q, ids in sample.lists.items()}
    found = marked(score_files("visdial", tmp_path, [trec(tmp_path / "r.trec", lists)]))
    assert {n for n in found if n.startswith("Hits")} == {
        "Hits@10", *(f"Hits@10.round{t}" for t in range(4, 11))
    }  # fmt: skip
    assert {n for n in found if n.startswith("R@")} == {"R@10", "R@10.round4"}


def test_compare_marks_them_and_names_no_best(tmp_path: Path) -> None:
    sample = karpathy(tmp_path)
    right = {q: [*r, *(i for i in sample.lists[q] if i not in r)] for q, r in sample.right.items()}
    runs = {"whole": sample.lists, "short": {q: ids[:5] for q, ids in right.items()}}
    paths = [trec(tmp_path / f"{n}.trec", lists) for n, lists in runs.items()]
    found = mmrerank.compare(paths, benchmark="mscoco", data=tmp_path, metrics=["R@1", "R@10"])
    text = str(found)
    assert f"1.0000{MARK}" in text
    assert "too short for this figure" in text
    assert f"not different{MARK}" in text  # both find all within ten, but one with five names
    assert any("R@10: lists of short are too short" in w for w in found.warnings)
    body = found.to_dict()
    short = [v.get("short", {}).get("lists", 0) for v in body["values"]]
    assert short == [0, 0, 0, 51]
    assert [d.get("short", False) for d in body["differences"]] == [False, True]
    assert f"1.0000{MARK}" in found._repr_html_()
    assert [row[-1].text for row in found.long_table.rows] == ["0", "0", "0", "51"]
    assert found.long_table.columns[-1] == "short_lists"
    alike = mmrerank.compare(
        {"a": {q: dict.fromkeys(ids[:5], 1.0) for q, ids in right.items()}, "b": paths[1]},
        benchmark="mscoco", data=tmp_path, metrics=["R@10"],
    )  # fmt: skip
    assert any("the same lists are too short in every run" in w for w in alike.warnings)


def test_whole_lists_of_different_length_are_reported(tmp_path: Path) -> None:
    runs = {"deep": {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, "flat": {"q": {"a": 2.0}}}
    found = mmrerank.compare(runs, qrels={"q": {"c": 1}}, metrics=["AP", "R@1"])
    assert any("AP: looks at whole lists" in w and "deep to 3, flat to 1" in w for w in found.warnings)
    cut_off = mmrerank.compare(runs, qrels={"q": {"c": 1}}, metrics=["R@1"])
    assert not any("whole lists" in w for w in cut_off.warnings)


def test_a_run_against_qrels(tmp_path: Path) -> None:
    """No gallery is known: a list is too short where a right answer is missing from it."""
    found = mmrerank.score(
        {"a": {"x": 1.0, "n": 0.5}, "b": {"z": 1.0}}, {"a": {"x": 1, "y": 1}, "b": {"z": 1}},
        ["R@10", "nDCG@2", "RR@10", "AP"],
    )  # fmt: skip
    assert marked(found.scores) == {"R@10": (1, 1)}
    assert found.warnings == [
        "R@10: 1 of 2 lists are too short, such as 'a' with 2 of the 10 names looked at; "
        "1 lacks a right answer, which counts as not found; longer lists may hold it"
    ]
    assert f"75.00 %{MARK}" in str(found)
    assert found.records[0]["short"]["lists"] == 1


@given(
    held=st.integers(0, 12),
    k=st.none() | st.integers(1, 12),
    size=st.none() | st.integers(1, 12),
    right=st.sets(st.integers(0, 14), min_size=1),
    first=st.booleans(),
)
@settings(max_examples=50)
def test_the_rule(held: int, k: int | None, size: int | None, right: set[int], first: bool) -> None:
    ranked = Ranked([str(n) for n in range(held)], range(held, 0, -1))
    found = too_short(
        {"q": ranked}, {"q": {str(r): 1 for r in right}}, k, room=lambda _: size, first=first
    )  # fmt: skip
    bounds = [b for b in (k, size) if b is not None]
    inside = [r for r in right if r < held]
    complete = bool(inside) if first else len(inside) == len(right)
    if not bounds or held >= min(bounds):
        assert found is None  # long enough, or nobody knows
    elif complete and len(bounds) < 2:
        assert found is None  # nothing could change
    else:
        assert found is not None
        assert (found.held, found.wanted) == ({"q": held}, {"q": min(bounds)})
        assert ("q" in found.lacking) is not complete


def test_a_run_over_the_smaller_gallery_is_reported(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    used: dict[str, set[str]] = {}
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((tmp_path / f"captions/cap.{category}.val.json").read_text())
        used[category] = {r[c] for r in rows for c in ("candidate", "target")}
    lists = {q: [i for i in ids if i in used[q.partition("/")[0]]] for q, ids in sample.lists.items()}
    union = trec(tmp_path / "u.trec", lists)
    warned = score_files("fashioniq", tmp_path, [union]).warnings
    assert any("the lists of dress, shirt, toptee hold candidates and targets alone" in w for w in warned)
    same = score_files("fashioniq", tmp_path, [union], options={"gallery": "union"})
    assert not any("targets alone" in w for w in same.warnings)
    assert not marked(same)
    whole = score_files("fashioniq", tmp_path, [trec(tmp_path / "w.trec", sample.lists)])
    assert not any("targets alone" in w for w in whole.warnings)


def test_a_category_without_an_answer_is_named(tmp_path: Path) -> None:
    sample = fashioniq(tmp_path)
    part = trec(tmp_path / "p.trec", {q: i for q, i in sample.lists.items() if not q.startswith("toptee")})
    warned = score_files("fashioniq", tmp_path, [part]).warnings
    assert "no query of toptee has an answer; each of them counts as 0 in means such as R@10" in warned


def test_rounds_without_an_answer_are_reported(tmp_path: Path) -> None:
    sample = visdial(tmp_path, dialogues=2)
    early = trec(tmp_path / "e.trec", {q: i for q, i in sample.lists.items() if int(q[2:]) < 5})
    scores = score_files("visdial", tmp_path, [early])
    assert any("12 rounds of dialogues that are answered have no answer, such as '0/5'" in w
               for w in scores.warnings)  # fmt: skip
    assert len(scores.missing) == 12


@pytest.mark.parametrize("spelt", ["{stem}", "{stem}.jpg", "images/{stem}.jpg"])
def test_pictures_of_dialogues_go_by_their_names(spelt: str, tmp_path: Path) -> None:
    sample = visdial(tmp_path, dialogues=1)
    want = figures(score_files("visdial", tmp_path, [trec(tmp_path / "a.trec", sample.lists)]))
    lists = {q: [spelt.format(stem=Path(i).stem) for i in ids] for q, ids in sample.lists.items()}
    assert figures(score_files("visdial", tmp_path, [trec(tmp_path / "b.trec", lists)])) == want


@pytest.mark.parametrize("spelt", ["{:012d}", "{:012d}.jpg", "COCO_val2014_{:012d}"])
def test_pictures_of_coco_go_by_padded_numbers(spelt: str, tmp_path: Path) -> None:
    sample = karpathy(tmp_path)
    want = figures(score_files("mscoco", tmp_path, [trec(tmp_path / "a.trec", sample.lists)]))
    lists = {q: [spelt.format(int(i)) for i in ids] for q, ids in sample.lists.items()}
    assert figures(score_files("mscoco", tmp_path, [trec(tmp_path / "b.trec", lists)])) == want


def test_a_run_of_another_split_is_asked_about(tmp_path: Path) -> None:
    sample = circo(tmp_path)
    more = {str(n): next(iter(sample.lists.values())) for n in range(40)}
    warned = score_files("circo", tmp_path, [trec(tmp_path / "r.trec", more)]).warnings
    assert any("28 queries are not in circo val" in w and "(--split test)?" in w for w in warned)


def test_documents_of_another_spelling_are_reported() -> None:
    found = mmrerank.score({"a": {"x.jpg": 1.0}}, {"a": {"x": 1}}, ["R@1"])
    assert found.warnings == [
        "the run: the qrels judge none of its documents; its ids are like 'x.jpg', those of the qrels "
        "like 'x'"
    ]

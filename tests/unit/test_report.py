from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mmrerank.result_page import fragment, page
from mmrerank.results import SearchResult, build_hits, in_first_order
from mmrerank.types import Assessment, Candidate, Component, Explanation, Image, Query, Ranking, Verdict

EVIL = '<script>alert("x")</script>'


@pytest.fixture
def result(picture: object) -> SearchResult:
    made = [picture(60, 40, n) for n in range(3)]  # type: ignore[operator]
    gone = Image(path=Path("nowhere/at/all.png"))
    broken = Image(data=b"not an image")
    before = Ranking(
        tuple(
            Candidate(id=f"{n}{EVIL}", image=image, score=0.9 - n / 10)
            for n, image in enumerate([*made, gone, broken])
        )
    )
    after, _ = before.reorder([before.ids[2]])
    verdict = Verdict(component="c1", verdict="partly", note=EVIL)
    why = Explanation(
        components=(Component(id="c1", kind="exclusion", text=EVIL),),
        assessments={i: Assessment(grade=1, verdicts=(verdict,)) for i in before.ids},
        reason=EVIL,
    )
    hits = build_hits(before, after, why)
    return SearchResult(
        query=Query(text=EVIL, exclude=(EVIL,)),
        hits=hits,
        first=in_first_order(hits, 5),
        method="cotrr",
        explanation=why,
        warnings=(EVIL,),
    )


def test_nothing_anybody_says_becomes_markup(result: SearchResult) -> None:
    whole = page([result], title=EVIL)
    assert "<script" not in whole
    assert whole.count("&lt;script&gt;") > 5


def test_the_page_fetches_nothing(result: SearchResult) -> None:
    whole = page([result])
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', whole)
    assert "url(" not in whole
    assert "@import" not in whole


def test_unreadable_pictures_are_tiles(result: SearchResult) -> None:
    assert fragment(result).count('class="gone"') >= 4


def test_the_same_result_gives_the_same_page(result: SearchResult) -> None:
    assert page([result]) == page([result])
    assert result._repr_html_() == fragment(result)


def test_movement_and_no_match_are_said(result: SearchResult) -> None:
    text = fragment(result)
    assert "▲ 2" in text
    assert "▼ 1" in text
    assert "No image meets every part" in text
    assert "★☆☆" in text


def test_what_was_found_on_the_way_is_new_and_reasons_stand_without_verdicts(result: SearchResult) -> None:
    ids = [h.id for h in result.hits]
    told = {ids[0]: Assessment(reason="chosen: half of a smile \ud83d")}
    hits = tuple(
        replace(h, first_rank=None if n == 1 else h.first_rank, assessment=told.get(h.id))
        for n, h in enumerate(result.hits)
    )
    shown = replace(result, hits=hits, method="feedback")
    assert ">new</span>" in fragment(shown)
    assert "chosen: half of a smile ?" in page([shown]).encode("utf-8").decode("utf-8")
    assert fragment(shown).count("<tr>") == 2


def test_a_result_is_json(result: SearchResult, tmp_path: Path) -> None:
    body = result.to_dict()
    assert [h["rank"] for h in body["hits"]] == [1, 2, 3, 4, 5]
    assert [h["first_rank"] for h in body["hits"]] == [3, 1, 2, 4, 5]
    assert body["no_match"] is True
    assert body["components"] == [{"id": "c1", "kind": "exclusion", "text": EVIL, "excluded": True}]
    assert result.save_html(tmp_path / "new" / "r.html").exists()

"""The picture book: deterministic, true of itself, and with streams that never meet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmrerank.errors import InputError, UsageError
from mmrerank.picturebook import words
from mmrerank.picturebook.caption import caption
from mmrerank.picturebook.draw import render
from mmrerank.picturebook.export import draw_world, evaluation_scenes, export
from mmrerank.picturebook.facts import (
    CountFact,
    ExclusionFact,
    Noun,
    PlaceFact,
    RelationFact,
    SubjectFact,
    UnknownFact,
    WeatherFact,
    grade,
    grade_verdicts,
    met_facts,
)
from mmrerank.picturebook.queries import CATEGORIES, Truth, make_queries, make_unmatched, qrels, sample_query
from mmrerank.picturebook.training.vlm_searches import Searches
from mmrerank.picturebook.wording import FRAMES, HELD_OUT_LEADS, LEADS, is_practised, say
from mmrerank.picturebook.world import MARGIN, SPLITS, Scene, is_seen, sample_scene, stream


def scenes(split: str, n: int, seed: int = 3) -> list[Scene]:
    rng = stream(split, seed)  # type: ignore[arg-type]
    return [sample_scene(rng, split) for _ in range(n)]  # type: ignore[arg-type]


def test_the_same_seed_draws_the_same_picture() -> None:
    one, other = scenes("evaluation", 5), scenes("evaluation", 5)
    assert one == other
    assert np.array_equal(np.asarray(render(one[0])), np.asarray(render(other[0])))
    assert render(one[0]).size == (384, 384)
    assert render(one[0], 96).size == (96, 96)


def test_streams_are_disjoint() -> None:
    seen = [{s.id for s in scenes(split, 300)} for split in SPLITS]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_held_out_combinations_are_never_practised() -> None:
    for scene in [*scenes("train", 400), *scenes("validation", 400)]:
        assert all(is_seen(g.kind, g.colour, scene.place) for g in scene.groups)
    assert not all(is_seen(g.kind, g.colour, s.place) for s in scenes("evaluation", 400) for g in s.groups)


def test_scenes_survive_json() -> None:
    for scene in scenes("evaluation", 20):
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_true_facts_are_met_and_their_opposites_are_not() -> None:
    for scene in scenes("evaluation", 100):
        for fact in met_facts(scene):
            assert fact.judge(scene).verdict == "met", fact.text
            if isinstance(fact, SubjectFact):
                assert ExclusionFact(absent=fact).judge(scene).verdict == "missed"
            if isinstance(fact, CountFact):
                wrong = CountFact(noun=fact.noun, count=fact.count + 1)
                assert wrong.judge(scene).verdict == "partly"


def test_relations_are_what_geometry_says() -> None:
    for scene in scenes("evaluation", 150):
        for fact in met_facts(scene):
            if not isinstance(fact, RelationFact) or fact.relation == "inside":
                continue
            axis, sign = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1),
                          "below": ("y", 1)}[fact.relation]  # fmt: skip
            gaps = [
                sign * (getattr(scene.things[i], axis) - getattr(scene.things[j], axis))
                for i in fact.one.found(scene)
                for j in fact.other.found(scene)
                if i != j
            ]
            assert max(gaps) >= MARGIN - 1e-9


def test_grades() -> None:
    assert grade_verdicts(["met", "met"]) == 3
    assert grade_verdicts(["met", "met", "missed"]) == 2
    assert grade_verdicts(["met", "cannot_tell"]) == 1
    assert grade_verdicts(["partly", "missed", "missed"]) == 0


def test_the_table_of_truth_agrees_with_judging_one_by_one() -> None:
    book = scenes("evaluation", 200)
    rng, truth = stream("evaluation", 9), Truth(book)
    for _ in range(30):
        query = sample_query(rng, "evaluation", unknown=0.1)
        assert truth.grades(query.facts).tolist() == [grade(query.facts, s) for s in book]


def test_queries_have_the_promised_matches() -> None:
    book = scenes("evaluation", 800)
    rng, truth = stream("evaluation", 4), Truth(book)
    queries = make_queries(book, 35, rng, "evaluation", truth=truth)
    assert {q.category for q in queries} == set(CATEGORIES)
    table = qrels(queries, book, truth=truth)
    for query in queries:
        assert 3 <= sum(g == 3 for g in table[query.id].values()) <= 60
        assert len(query.facts) <= 4
        assert (query.reference is None) == (query.category != "composed")
        assert (len(query.turns) == 2) == (query.category == "dialogue")
    for query in make_unmatched(book, 10, rng, "evaluation", truth=truth):
        assert (truth.grades(query.facts) < 3).all()


def test_some_wordings_are_kept_from_training() -> None:
    thing, place = SubjectFact(noun=Noun(kind="boat")), PlaceFact(place="beach")
    night = WeatherFact(weather="night")
    phrasings = [(lead, frame) for lead in LEADS + HELD_OUT_LEADS for frame in FRAMES]
    both = (thing, place, night)
    for facts in ((thing,), (thing, thing), (place,), (thing, place), (thing, night), both):
        # what the words show decides, not where they come from: no text is both practised and held out
        worded: dict[bool, set[str]] = {True: set(), False: set()}
        for phrasing in phrasings:
            texts = {say(np.random.default_rng(n), facts, phrasing) for n in range(3)}
            worded[is_practised(phrasing)] |= texts
        assert not worded[True] & worded[False]
        assert worded[True]
        assert worded[False]
    rng = stream("train", 1)
    asked = [sample_query(rng, "train", category=c) for c in CATEGORIES for _ in range(100)]
    assert all(q.practised for q in asked)
    # they put in a new way what is known: their words are those that training has
    known = {word.strip(",?") for q in asked for word in " ".join((*q.turns, q.text)).split()}
    assert {w.strip(",?") for lead in HELD_OUT_LEADS for w in lead.split()} - {"{}"} <= known
    searches = Searches([sample_scene(rng, "train") for _ in range(200)], rng, "train")
    for _ in range(100):
        drawn = (searches.plain(), searches.mixed(), searches.seldom(), searches.search(), searches.strange())
        for demo in drawn:
            assert demo.practised


def test_no_picture_takes_the_name_of_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would have one name"):
        draw_world(tmp_path, seed=6, scenes=27_697)
    assert not list(tmp_path.iterdir())


def test_what_is_inside_is_small_and_what_holds_it_large() -> None:
    for scene in scenes("evaluation", 1200, seed=0):
        for thing in scene.things:
            if thing.inside is not None:
                assert (thing.size, scene.things[thing.inside].size) == ("small", "large")


def test_the_same_is_one_of_them() -> None:
    rng = stream("evaluation", 3)
    asked = [sample_query(rng, "evaluation", category="composed") for _ in range(60)]
    assert {len(q.reference.things) for q in asked if q.reference} == {1}


def test_words_from_outside() -> None:
    assert len(set(words.TRAINING)) >= 80
    assert len(set(words.EVALUATION)) >= 80
    assert not set(words.TRAINING) & set(words.EVALUATION)
    scene = scenes("evaluation", 1)[0]
    assert UnknownFact(word="cello").judge(scene).verdict == "cannot_tell"


def test_captions_are_true_and_worded_like_searches() -> None:
    rng = stream("train", 2)
    captions = [(scene, caption(rng, scene, "train")) for scene in scenes("train", 300)]
    assert all(grade(c.facts, scene) == 3 for scene, c in captions)
    assert all(c.text == c.text.lower() for _, c in captions)
    kinds = Counter(fact.kind for _, c in captions for fact in c.facts)
    assert all(kinds[kind] > 30 for kind in ("subject", "count", "detail", "exclusion"))
    sizes = {f.noun.size for _, c in captions for f in c.facts if isinstance(f, SubjectFact)}
    assert sizes == {None, "small", "large"}


def test_a_noun_with_two_colours_is_not_confused() -> None:
    scene = next(s for s in scenes("evaluation", 400) if len({g.kind for g in s.groups}) < len(s.groups))
    group = scene.groups[0]
    assert Noun(kind=group.kind, colour=group.colour).found(scene)


@pytest.mark.slow
def test_export_tells_nothing_in_its_pictures(tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    folder = Path(str(tmp_path)) / "book"
    book = export(folder, seed=5, scenes=300, queries=7)
    files = sorted((folder / "images").iterdir())
    assert [f.name for f in files] == sorted(book.names)
    assert book.scenes == evaluation_scenes(5, 300)
    for file in files[:5]:
        with Image.open(file) as picture:
            assert picture.size == (384, 384)
            assert not picture.info
    lines = [json.loads(x) for x in (folder / "queries.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 7
    for row in (folder / "qrels.txt").read_text("utf-8").splitlines():
        _, _, name, grade_ = row.split(" ")
        assert (folder / "images" / name).exists()
        assert grade_ in "123"
    assert json.loads((folder / "vocabulary.json").read_text("utf-8"))["counts"] == [1, 2, 3, 4]
    with pytest.raises(InputError, match="not empty"):
        export(folder, seed=5, scenes=3, queries=0)


def test_drawing_a_world_deletes_pictures_of_worlds_only(tmp_path: Path) -> None:
    draw_world(tmp_path, seed=3, scenes=2)
    old = {p.name for p in (tmp_path / "images").iterdir()}
    (tmp_path / "images" / "0123abcd.part").write_bytes(b"half")
    draw_world(tmp_path, seed=4, scenes=2)  # another world takes the place of the first
    now = {p.name for p in (tmp_path / "images").iterdir()}
    assert len(now) == 2
    assert not now & old
    (tmp_path / "images" / "holiday.png").write_bytes(b"mine")
    (tmp_path / "images" / "summer").mkdir()
    with pytest.raises(InputError, match=r"holiday\.png; it is left as it is"):
        draw_world(tmp_path, seed=5, scenes=2)
    assert {p.name for p in (tmp_path / "images").iterdir()} == {*now, "holiday.png", "summer"}

"""What `recommend` says of methods, several results made one, and the tutorial's method of one's own."""

from __future__ import annotations

import doctest
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import mmrerank
from mmrerank import Budget, Candidate, Price, Reranker, combine, recommend, registry
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.cli.main import cli
from mmrerank.errors import UsageError
from mmrerank.picturebook.draw import render
from mmrerank.picturebook.export import evaluation_scenes
from mmrerank.rerank.methods import method_specs, split_methods
from mmrerank.types import Image, Query

ROOT = Path(mmrerank.__file__).parents[1]
ALL = {"generate", "choice_logprobs", "attention", "embed", "token_embeddings"}


def candidates(n: int) -> list[Candidate]:
    return [Candidate(id=f"i{k}", image=Image(data=b"x")) for k in range(n)]


# --- recommend ---------------------------------------------------------------------------------------


def test_every_method_is_told_with_its_own_count_of_calls() -> None:
    rows = {o.method: o for o in recommend(ALL, k=20)}
    assert set(rows) == set(registry.names("strategy"))
    for name, row in rows.items():
        module = registry.load("strategy", name)
        assert row.calls == module.Options().calls(20)
        # a chat orders by reading; what scores is opened in its place
        assert row.possible == (name != "scorer")
        assert (row.input_tokens > 0) == (row.calls > 0)
    assert [o.method for o in rows.values() if o.recommended] == ["cotrr"]
    assert rows["pointwise"].images == 20
    assert rows["tsprank"].images == 760


def test_what_a_backend_lacks_and_a_budget_forbids_is_told() -> None:
    rows = {o.method: o for o in recommend({"generate"}, k=20, budget=Budget(calls=4))}
    assert rows["icr"].lacks == ("attention",)
    assert rows["erank"].lacks == ("choice_logprobs",)
    assert rows["cotrr"].over == "calls"
    assert rows["grouprank"].recommended
    # the index is no capability of a model
    assert rows["feedback"].lacks == ("choice_logprobs",)
    only = [o for o in recommend(set(), k=20) if o.possible]
    assert [o.method for o in only] == ["none"]
    assert only[0].recommended


def test_money_is_tokens_times_price() -> None:
    budget = Budget(money=0.001, price=Price(input=1.0, output=2.0))
    for row in recommend(ALL, k=20, budget=budget):
        assert row.money == pytest.approx((row.input_tokens + 2 * row.output_tokens) / 1e6)
        assert ("money" in row.over) == ((row.money or 0) > 0.001)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["recommend", "--chat", "oracle", "--candidates", "7", "--budget", "calls=7"]
    for extra in ([], ["--output", "json"]):
        with pytest.raises(SystemExit) as end:
            cli([*arguments, *extra], prog_name="mmrerank")
        assert end.value.code == 0
        shown = capsys.readouterr().out
        if extra:
            body = json.loads(shown)
            assert body["recommended"] == "grouprank"
            assert {m["method"] for m in body["methods"]} == set(registry.names("strategy"))
        else:
            assert "Begin with: mmrerank search ... --rerank grouprank" in shown
            assert "more calls than the budget" in shown


# --- names of methods --------------------------------------------------------------------------------


def test_methods_are_named_with_options() -> None:
    found = method_specs(["none", *split_methods("prp( schedule = heap; top=5 ),cotrr, cotrr")])
    assert [m.label for m in found] == ["none", "prp(schedule=heap;top=5)", "cotrr"]
    assert found[1].options.top == 5
    assert found[1].stem == "prp.schedule-heap-top-5"
    assert {m.name for m in method_specs(["all"])} == set(registry.names("strategy"))
    for wrong in ("prp(", "prp(top)", "prp(depth=3)", "nonesuch", "a b", "prp(top=x)"):
        with pytest.raises(UsageError):
            method_specs([wrong])


# --- voting across models ----------------------------------------------------------------------------


def test_what_models_agree_on_comes_first() -> None:
    votes = [
        Reranker("pointwise", Oracle(lambda q, i, g=g: g[int(i[1:])])).rank("x", candidates(4))
        for g in ([0, 3, 2, 1], [1, 3, 0, 2], [3, 2, 0, 1])
    ]
    for rule in ("borda", "rrf"):
        result = combine(votes, rule=rule)  # type: ignore[arg-type]
        assert result.hits[0].id == "i1"
        assert sorted(h.id for h in result) == ["i0", "i1", "i2", "i3"]
        assert result.usage.calls == 12
        assert result.hits[0].assessment
        assert result.hits[0].assessment.reason == "ranks 1, 1, 2"
    even = combine(votes[:1])
    assert [h.id for h in even] == [h.id for h in votes[0]]


def test_only_like_is_combined_with_like() -> None:
    one = Reranker("none").rank("x", candidates(3))
    with pytest.raises(UsageError, match="one query"):
        combine([one, Reranker("none").rank("y", candidates(3))])
    with pytest.raises(UsageError, match="same candidates"):
        combine([one, Reranker("none").rank("x", candidates(4))])
    with pytest.raises(UsageError, match="at least one"):
        combine([])


# --- methods of one's own ----------------------------------------------------------------------------


def tutorial_method() -> tuple[str, dict[str, Any]]:
    """The tutorial's own words, and what they define."""
    text = (ROOT / "docs/tutorials/method.md").read_text("utf-8")
    (block,) = [b for b in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "yield from" in b]
    names: dict[str, Any] = {}
    exec(block, names)
    return block, names


def test_the_method_in_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for n, scene in enumerate(evaluation_scenes(4, 8)):
        render(scene, 128).save(f"photos/{n}.png")
    block, names = tutorial_method()
    method = block[block.index("def ") :].split("\n\n")[0]
    assert len([line for line in method.splitlines() if line.strip()]) <= 10
    assert next(h.id for h in names["result"]) == "a red boat"
    images = sorted(Path("photos").glob("*.png"))
    result = Reranker(names["halves"], chat="bundled").rank("a red boat", images)
    assert sorted(h.id for h in result) == [f"photos/{n}.png" for n in range(8)]
    assert result.usage.calls == 9
    assert result.method == "halves"


def test_a_method_of_ones_own_is_ideal_with_a_model_that_knows() -> None:
    _, names = tutorial_method()
    grades = [0, 3, 1, 2, 3, 0, 1, 2]
    result = Reranker(names["halves"], Oracle(lambda q, i: grades[int(i[1:])])).rank(
        Query(text="x"), candidates(8)
    )
    assert [h.id for h in result] == ["i1", "i4", "i3", "i7", "i2", "i6", "i0", "i5"]
    with pytest.raises(UsageError, match="takes no options"):
        Reranker(names["halves"], Oracle(), depth=3)


@pytest.mark.parametrize(
    "module", ["mmrerank.rerank.combine", "mmrerank.rerank.schedules", "mmrerank.rerank.strategies.plan"]
)
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(import_module(module))
    if module.endswith("plan"):
        # its example makes components
        found = doctest.testmod(import_module(module), extraglobs={"Component": mmrerank.Component})
    assert found.attempted
    assert not found.failed

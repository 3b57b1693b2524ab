"""Models in several threads: one loads at a time, none runs meanwhile, and every search gets the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from index_world import ColourEmbedder, build

from mmrerank import Candidate, ImageSearch, Query
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.loading import ModelLock, loading, running
from mmrerank.messages import Retrieve


def begun(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_who_loads_is_alone() -> None:
    inside: list[str] = []
    most: list[int] = []

    def enter(kind: str) -> None:
        with loading() if kind == "load" else running():
            inside.append(kind)
            time.sleep(0.005)
            if "load" in inside:
                most.append(len(inside))
            inside.remove(kind)

    threads = [begun(lambda k=k: enter(k)) for k in ["run", "load", "run", "run", "load", "run"] * 3]
    for thread in threads:
        thread.join()
    assert most
    assert set(most) == {1}


def test_models_run_side_by_side_and_a_thread_may_enter_again() -> None:
    meet = threading.Barrier(2, timeout=5)

    def run() -> None:
        with running(), running():
            meet.wait()

    threads = [begun(run), begun(run)]
    for thread in threads:
        thread.join()
    lock = ModelLock()
    with loading(), loading(), running(), lock, lock:
        pass
    with lock, loading():  # a model that opens another in the midst of its work
        pass


def test_a_waiting_load_does_not_stop_those_that_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model at work may begin threads that run it too, which must not wait for the load for ever."""
    monkeypatch.setattr("mmrerank.loading._PATIENCE", 0.05)
    started, done = threading.Event(), []

    def load() -> None:
        started.set()
        with loading():
            done.append("load")

    def helper() -> None:
        with running():
            done.append("help")

    with running():
        loader = begun(load)
        started.wait()
        begun(helper).join(timeout=5)
    loader.join(timeout=5)
    assert done == ["help", "load"]


class Colours(ColourEmbedder):
    def embed_queries(self, queries: Sequence[Query]) -> Any:
        return self.embed_images([_picture(q.text) for q in queries])


def _picture(text: str) -> Any:
    import PIL.Image

    return PIL.Image.new("RGB", (2, 2), (len(text) * 20, 90, 40))


@pytest.fixture
def search(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSearch:
    build(tmp_path / "x", source)
    opened: list[str] = []

    def slow(kind: str, made: Any) -> Any:
        def opener(*args: Any, **options: Any) -> Any:
            opened.append(kind)
            time.sleep(0.03)
            return made()

        return opener

    monkeypatch.setattr("mmrerank.search.words_embedder", slow("embedder", Colours))
    monkeypatch.setattr(
        "mmrerank.reranker.open_chat", slow("chat", lambda: Oracle(lambda query, id: ord(id[0])))
    )
    found = ImageSearch.open(tmp_path / "x", chat="some:model")
    vars(found)["opened"] = opened
    return found


def test_threads_that_share_a_search_open_each_model_once_and_agree(search: ImageSearch) -> None:
    def ask(n: int) -> list[str]:
        return [h.id for h in search.search("red", k=4, rerank="pointwise", candidates=4)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert sorted(vars(search)["opened"]) == ["chat", "embedder"]
    assert found == [ask(0)] * 4


def test_keep_narrows_the_first_stage_and_what_methods_search_again(search: ImageSearch) -> None:
    def more(candidate: Candidate) -> bool:
        return candidate.id.startswith("more/")

    assert sorted(h.id for h in search.search("red", keep=more)) == ["more/0.png", "more/1.png", "more/2.png"]
    assert len(search.search("red", k=2, keep=more)) == 2
    assert len(search.search("red", keep=lambda c: False)) == 0
    (again,) = search.retrieve([Retrieve(query=Query(text="red"), k=5)], keep=more)
    assert {c.id for c in again} == {"more/0.png", "more/1.png", "more/2.png"}


def test_a_search_streams_from_its_first_stage_to_its_result(search: ImageSearch) -> None:
    told = list(search.stream("red", k=3, rerank="pointwise", candidates=3))
    assert [e.name for e in told if e.name != "order"] == ["searched", *["judged"] * 3, "done"]
    assert len(told[0].to_dict()["hits"]) == 3
    assert (
        told[-1].to_dict()["result"] == search.search("red", k=3, rerank="pointwise", candidates=3).to_dict()
    )


# ---------------------------------------------------------------- real models


@pytest.mark.slow
def test_random_weights_are_the_same_in_every_thread_whatever_others_draw() -> None:
    import torch

    from mmrerank.embed._random_weights import drawn_from

    def weights(seeded: Any) -> Any:
        with seeded:
            layers = [torch.nn.Linear(30, 20), torch.nn.Conv2d(3, 4, 3), torch.nn.Embedding(9, 5)]
            torch.nn.init.trunc_normal_(layers[0].weight, std=0.1)
            drawn = [p for layer in layers for p in layer.parameters()]
            return [*drawn, torch.randn(4), torch.empty(3).uniform_(), torch.rand(2), torch.randperm(9)]

    def disturb() -> None:
        while not stop.wait(0.0005):
            torch.randn(16)

    stop = threading.Event()
    state = torch.get_rng_state().clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        wanted = weights(nullcontext())
    assert all(map(torch.equal, weights(drawn_from(5)), wanted))
    assert torch.equal(state, torch.get_rng_state())
    other = begun(disturb)
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: weights(drawn_from(5)), range(40)):
                assert all(map(torch.equal, found, wanted))
    finally:
        stop.set()
        other.join()


@pytest.mark.slow
def test_weights_may_load_while_another_model_answers(tiny_qwen: Any, picture: Any) -> None:
    from mmrerank import Reranker
    from mmrerank.chat.open import open_chat

    spec = f"transformers:{tiny_qwen('qwen3_vl')}"
    images = [{"id": str(n), "image": picture(seed=n)} for n in range(2)]
    alone = [h.id for h in Reranker("pointwise", open_chat(spec)).rank("a dog", images)]

    def ask(n: int) -> list[str]:
        return [h.id for h in Reranker("pointwise", open_chat(spec)).rank("a dog", images)]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(3))) == [alone] * 3

from __future__ import annotations

from typing import Any

import pytest

from mmrerank.errors import ChatError, ImageIndexError, UsageError
from mmrerank.reranker import Reranker
from mmrerank_app.launch import build, method_names, serve
from mmrerank_app.search_tab import answer, note, options_of, query_of


def test_methods_come_from_the_registry() -> None:
    assert {"none", "cotrr"} <= set(method_names())


def test_the_page_builds() -> None:
    page = build(object(), examples=["a boat"], method="none")  # type: ignore[arg-type]
    assert page.title == "mmrerank"
    # a reference image reaches our decoder as it was uploaded
    (image,) = (b for b in page.blocks.values() if type(b).__name__ == "Image")
    assert (image.type, image.image_mode) == ("filepath", None)
    (chosen,) = (b for b in page.blocks.values() if type(b).__name__ == "Dropdown")
    assert chosen.value == "none"


def test_errors_are_shown_and_escaped() -> None:
    class Broken:
        def search_batch(self, *args: Any, **kwargs: Any) -> Any:
            raise ImageIndexError("no <b>index</b>")

    (shown,) = answer(Broken(), "a boat", "none", 10, 20, None, "", "", "")  # type: ignore[arg-type]
    assert "no &lt;b&gt;index&lt;/b&gt;" in shown
    assert 'role="alert"' in shown
    (hint,) = answer(Broken(), "  ", "none", 10, 20, None, "", "", "")  # type: ignore[arg-type]
    assert "Type what you are looking for" in hint
    assert "<script>" not in note("<script>")


def test_a_model_that_fails_altogether_leaves_the_first_stage_in_sight() -> None:
    class Gone:
        def search_batch(self, queries: Any, *, rerank: str = "none", **_: Any) -> Any:
            if rerank != "none":
                raise ChatError("vl at localhost cannot be reached", kind="unreachable")
            photos = [{"id": "boat-1", "text": "a caption of its own"}]
            return [Reranker("none").rank(query, photos) for query in queries]

    *_, shown = answer(Gone(), "a boat", "listwise", 10, 20, None, "", "", "")  # type: ignore[arg-type]
    assert "vl at localhost cannot be reached" in shown
    assert 'role="alert"' in shown
    assert "a caption of its own" in shown


def test_forms_become_queries_and_options() -> None:
    query = query_of("at night", None, "people; cars", "a boat\n\nred")
    assert query is not None
    assert (query.turns, query.exclude) == (("a boat", "red"), ("people", "cars"))
    assert options_of("mode=single\n\n group_size = 3") == {"mode": "single", "group_size": "3"}
    with pytest.raises(UsageError, match="name=value"):
        options_of("mode")


def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    class Page:
        def queue(self, **_: Any) -> Page:
            return self

        def launch(self, **_: Any) -> None:
            raise OSError("Cannot find empty port in range: 7860-7860.")

    with pytest.raises(UsageError, match=r"127.0.0.1:7860; give another --port"):
        serve(Page())  # type: ignore[arg-type]

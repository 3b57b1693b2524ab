from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from page_server import FORM, Noted

from mmrerank.errors import ChatError, ImageIndexError, UsageError
from mmrerank_app.form import options_of, read_form
from mmrerank_app.launch import build, listen, method_names
from mmrerank_app.limits import PageLimits
from mmrerank_app.search_tab import Searches, note
from mmrerank_app.telling import Telling
from mmrerank_app.uploads import Uploads
from mmrerank_app.work import Watched, Work


def answers(search: Any, form: Sequence[Any]) -> list[tuple[str, str | None]]:
    searches = Searches(search, Uploads(), telling=Telling(), work=Work())
    return list(searches.answer(form))


def test_methods_come_from_the_registry() -> None:
    assert {"none", "cotrr"} <= set(method_names())


def test_the_page_builds() -> None:
    page = build(Noted(), examples=["a boat"], method="none", limits=PageLimits(candidates=7))  # type: ignore[arg-type]
    assert page.title == "mmrerank"
    # a reference image reaches our decoder as it was uploaded
    (image,) = (b for b in page.blocks.values() if type(b).__name__ == "Image")
    assert (image.type, image.image_mode) == ("filepath", None)
    (chosen,) = (b for b in page.blocks.values() if type(b).__name__ == "Dropdown")
    assert chosen.value == "none"
    assert [b.maximum for b in page.blocks.values() if type(b).__name__ == "Slider"] == [50, 7]


def test_errors_are_shown_and_escaped() -> None:
    search = Noted()
    search.fails = ImageIndexError("no <b>index</b>")
    ((shown, _),) = answers(search, FORM)
    assert "no &lt;b&gt;index&lt;/b&gt;" in shown
    assert 'role="alert"' in shown
    ((hint, _),) = answers(search, ["  ", *FORM[1:]])
    assert "Type what you are looking for" in hint
    assert "<script>" not in note("<script>")


def test_a_model_that_fails_altogether_leaves_the_first_stage_in_sight() -> None:
    class Gone(Noted):
        def search_batch(self, queries: Any, *, rerank: str = "none", **given: Any) -> Any:
            if rerank != "none":
                raise ChatError("vl at localhost cannot be reached", kind="unreachable")
            return super().search_batch(queries, **given)

    told = answers(Gone(), [FORM[0], "listwise", *FORM[2:]])
    assert "vl at localhost cannot be reached" in told[-1][0]
    assert 'role="alert"' in told[-1][0]
    assert told[-1][1] is None  # what stands there is left
    assert any("a caption" in (result or "") for _, result in told)


def test_forms_become_queries_and_options() -> None:
    form = read_form(
        ["at night", "none", 3, 4.0, None, "people; cars", "a boat\n\nred", "a=1"], ["none"], Uploads()
    )
    assert form.query is not None
    assert (form.query.turns, form.query.exclude) == (("a boat", "red"), ("people", "cars"))
    assert (form.k, form.candidates, form.options) == (3, 4, {"a": "1"})
    assert options_of("mode=single\n\n group_size = 3") == {"mode": "single", "group_size": "3"}
    with pytest.raises(UsageError, match="name=value"):
        options_of("mode")
    # half a character, as a program may send it
    form = read_form(["a\ud83d", *FORM[1:]], ["none"], Uploads())
    assert form.query is not None
    assert form.query.text == "a?"
    for odd in (10**400, -1, 1e308, float("nan"), float("inf"), True, "3", 2.5):
        with pytest.raises(UsageError, match="images judged: .*(1 to 100 are allowed|whole number)"):
            read_form([*FORM[:3], odd, *FORM[4:]], ["none", "cotrr"], Uploads())


def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    taken = listen(build(Noted(), method="none"), port=0)  # type: ignore[arg-type]
    port = taken.socket.getsockname()[1]
    try:
        with pytest.raises(UsageError, match=rf"127.0.0.1:{port}; give another --port"):
            listen(build(Noted(), method="none"), port=port)  # type: ignore[arg-type]
    finally:
        taken.socket.close()


def test_limits_are_named_and_checked() -> None:
    assert PageLimits.parse(["calls=5", "seconds = 2.5"]) == PageLimits(calls=5, seconds=2.5)
    for wrong, why in (("calls", "NAME=VALUE"), ("cals=5", "Did you mean 'calls'"), ("calls=0", "above 0")):
        with pytest.raises(UsageError, match=why):
            PageLimits.parse([wrong])
    with pytest.raises(UsageError, match="not nan"):
        PageLimits.parse(["seconds=nan"])


def test_work_that_nobody_waits_for_ends_and_what_was_in_line_never_begins() -> None:
    work, begun, steps = Work(), threading.Event(), []

    def task(watched: Watched) -> None:
        begun.set()
        for step in range(100):
            time.sleep(0.02)
            if watched.left.is_set():
                return
            steps.append(step)
            watched.progress(step, 100)

    first = work.run(task)
    waiting = work.run(lambda watched: steps.append(-1))
    next(first), next(waiting)
    assert begun.is_set()
    waiting.close()
    first.close()
    time.sleep(0.1)
    count = len(steps)
    time.sleep(0.1)
    assert len(steps) == count < 100
    assert -1 not in steps
    assert list(work.run(lambda watched: None)) == []  # the thread is free again


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no '/srv/a b/c.jpg'", "no '…/c.jpg'"),
        ("model transformers:/opt/vl/7b, gone", "model transformers:…/7b, gone"),
        ("open C:\\Users\\me\\x.png", "open …/x.png"),
        ("~/photos is away", "…/photos is away"),
        ("at http://localhost:8000/v1 and/or 1/2", "at http://localhost:8000/v1 and/or 1/2"),
    ],
)
def test_folders_are_taken_out_of_texts(text: str, clean: str) -> None:
    assert Telling(["/srv/a b"]).clean(text) == clean

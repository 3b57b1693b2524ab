"""The page running at a loopback port, over a search that keeps what it was asked, and clients of it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx

from mmrerank.errors import CancelledError
from mmrerank.reranker import Reranker
from mmrerank.results import SearchResult
from mmrerank.types import Query
from mmrerank_app.launch import build, listen
from mmrerank_app.limits import PageLimits

META = {"_type": "gradio.FileData"}
FORM = ["a boat", "none", 10, 20, None, "", "", ""]


class Noted:
    """Keeps its queries and finds one candidate; a method asks ``questions``, ``pause`` seconds each."""

    def __init__(
        self, *, source: str = "/srv/my photographs", questions: int = 0, pause: float = 0.0
    ) -> None:
        self.index = SimpleNamespace(
            path="/srv/indexes/one", manifest=SimpleNamespace(source=source, sources=())
        )
        self.queries: list[Query] = []
        self.budgets: list[Any] = []
        self.asked = 0
        self.questions, self.pause = questions, pause
        self.fails: Exception | None = None

    def search_batch(
        self,
        queries: Sequence[Query],
        *,
        rerank: str = "none",
        progress: Any = None,
        cancel: Any = None,
        **given: Any,
    ) -> list[SearchResult]:
        """One result for each query, or the error that was set."""
        self.queries += queries
        self.budgets.append(given.get("budget"))
        if self.fails is not None:
            raise self.fails
        for number in range(self.questions if rerank != "none" else 0):
            if cancel.is_set():
                raise CancelledError("the ranking was cancelled")
            self.asked += 1
            time.sleep(self.pause)
            progress(number + 1, self.questions)
        return [Reranker("none").rank(q, [{"id": "boat", "text": "a caption"}]) for q in queries]


@contextmanager
def running(search: Any, limits: PageLimits | None = None, **how: Any) -> Iterator[str]:
    """Serves the page over ``search`` in a thread; gives its address."""
    listening = listen(build(search, method="none", limits=limits), port=0, **how)
    thread = threading.Thread(target=listening.run, daemon=True)
    thread.start()
    try:
        yield listening.address
    finally:
        listening.server.should_exit = True
        thread.join(10)


class Visitor:
    """A browser's session with the page, as far as HTTP goes."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=30)
        self.fn_index = next(
            d["id"] for d in self.http.get("/config").json()["dependencies"] if len(d["inputs"]) == len(FORM)
        )

    def upload(self, data: bytes, name: str = "mine.png") -> str:
        """The name of an upload."""
        told = self.http.post("/gradio_api/upload", files={"files": (name, data, "image/png")})
        assert told.status_code == 200, told.text
        return str(told.json()[0])

    def join(self, form: Sequence[Any], session: str, **headers: str) -> httpx.Response:
        """Sends a form; the events come to ``session``."""
        body = {"data": list(form), "fn_index": self.fn_index, "session_hash": session}
        return self.http.post("/gradio_api/queue/join", json=body, headers=headers)

    def events(
        self, session: str, until: Callable[[dict[str, Any]], bool] | None = None
    ) -> list[dict[str, Any]]:
        """The events of a session until it ends, or the first for which ``until`` is true."""
        found: list[dict[str, Any]] = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            assert stream.status_code == 200, stream.status_code
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    found.append(json.loads(line[5:]))
                    if found[-1]["msg"] == "close_stream" or (until and until(found[-1])):
                        break
        return found

    def search(self, form: Sequence[Any]) -> str:
        """All that a form's events say, as one text."""
        session = uuid.uuid4().hex
        told = self.join(form, session)
        assert told.status_code == 200, told.text
        return json.dumps(self.events(session))

    def search_with(self, image: Any) -> str:
        """`search` with a reference image."""
        return self.search([*FORM[:4], image, *FORM[5:]])

"""The cache of replies: never a wrong answer, whoever shares it, whatever is killed or damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.chat.around import around
from mmrerank.chat.around.cache import Cached, ReplyStore, clear
from mmrerank.chat.fakes.oracle import Oracle
from mmrerank.errors import ChatError, InputError
from mmrerank.messages import Ask, Message, Part, Reply
from mmrerank.ports import Chat
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Image, Usage

ROUNDS = 30


class Counting(Chat):
    """A backend that answers with what it was asked, and counts. ``name`` is its model."""

    domain = ""

    def __init__(self, name: str = "m", **settings: Any) -> None:
        self.spec = f"counting:{name}"
        self.capabilities: Any = frozenset({"generate", "choice_logprobs", "embed"})
        self.settings = settings
        self.asked: list[Ask] = []
        self.error: ChatError | None = None

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked.extend(asks)
        usage = Usage(calls=1, input_tokens=7, output_tokens=2)
        if self.error:
            return [Reply(error=self.error, finish="error", usage=usage) for _ in asks]
        return [
            Reply(
                text=f"{self.spec} {a.digest()}",
                logprobs={c: -float(n) for n, c in enumerate(a.choices)},
                states=(np.arange(4, dtype=np.float32),) if a.read else (),
                usage=usage,
            )
            for a in asks
        ]


def ask(text: str = "hello", *images: Image, **kw: Any) -> Ask:
    parts = (Part(text=text), *(Part(image=i) for i in images))
    return Ask(messages=(Message(role="user", parts=parts),), **kw)


def test_the_second_time_costs_nothing(tmp_path: Path) -> None:
    inner = Counting()
    questions = [ask("a"), ask("b", choices=("x", "y")), ask("c", read="embed"), ask("a")]
    first = Cached(inner, tmp_path / "c.sqlite").reply(questions)
    assert len(inner.asked) == 3  # the equal one was asked once
    again = Cached(inner, tmp_path / "c.sqlite")
    second = again.reply(questions)
    assert len(inner.asked) == 3
    for one, two in zip(first, second, strict=True):
        assert (one.text, one.logprobs, one.finish) == (two.text, two.logprobs, two.finish)
        assert [s.tolist() for s in one.states] == [s.tolist() for s in two.states]
        assert two.usage.calls == two.usage.input_tokens == 0
    assert first[0].usage.calls == 1
    assert first[3].usage.calls == 0
    assert [r is not None for r in again.known([*questions, ask("new")])] == [True] * 4 + [False]


def test_anything_that_can_change_a_reply_is_another_key(tmp_path: Path, picture: Any) -> None:
    cached = Cached(Counting(), tmp_path / "c.sqlite")
    image = picture(40, 40, 1)
    pixel = bytearray(image.data)
    from io import BytesIO

    from PIL import Image as Pillow

    opened = Pillow.open(BytesIO(image.data)).convert("RGB")
    opened.putpixel((3, 3), (1, 2, 3))
    file = BytesIO()
    opened.save(file, "png")
    assert bytes(pixel) != file.getvalue()
    plain = ask("a", image)
    system = Message(role="system", parts=(Part(text="a"),))
    others = [
        plain,
        ask("a", Image(data=file.getvalue())),
        ask("b", image),
        ask("a"),
        ask("a", image, image),
        replace(plain, temperature=0.1),
        replace(plain, max_tokens=5),
        replace(plain, image_tokens=64),
        replace(plain, schema={"type": "object"}),
        replace(plain, choices=("a", "b")),
        replace(plain, choices=("b", "a")),
        replace(plain, read="embed"),
        replace(plain, messages=(system, *plain.messages)),
    ]
    keys = {cached.key(a) for a in others}
    assert None not in keys
    assert len(keys) == len(others)
    # what only fakes and traces read changes nothing
    assert cached.key(replace(plain, kind="order", shown=("x",), labels=("A",))) == cached.key(plain)


def test_two_models_never_share(tmp_path: Path, tiny_qwen: Callable[[str], Path]) -> None:
    a, b, c = Counting("a"), Counting("b"), Counting("a", dtype="float16")
    texts = {Cached(m, tmp_path / "c.sqlite").reply([ask()])[0].text for m in (a, b)}
    assert len(texts) == 2
    Cached(c, tmp_path / "c.sqlite").reply([ask()])
    assert len(a.asked) == len(b.asked) == len(c.asked) == 1
    # one folder, other weights in it: another model
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    one = Counting()
    one.spec = f"transformers:{folder}"
    keys = [Cached(one, tmp_path / "c.sqlite").key(ask())]
    (folder / "model.safetensors").write_bytes(b"two")
    keys.append(Cached(one, tmp_path / "c.sqlite").key(ask()))
    # and the same weights under another plug-in
    one.spec = f"vllm:{folder}"
    keys.append(Cached(one, tmp_path / "c.sqlite").key(ask()))
    assert len(set(keys)) == 3


def test_an_image_that_changed_under_its_name_is_asked_again(tmp_path: Path, picture: Any) -> None:
    inner = Counting()
    cached = Cached(inner, tmp_path / "c.sqlite")
    file = tmp_path / "a.png"
    file.write_bytes(picture(20, 20, 1).data)
    stale = Image(path=file, sha256="0" * 64)  # as an index remembers it
    cached.reply([ask("a", stale)])
    file.write_bytes(picture(20, 20, 2).data)
    os.utime(file, ns=(1, 1))
    cached.reply([ask("a", stale)])
    assert len(inner.asked) == 2
    file.unlink()
    assert cached.key(ask("a", stale)) is None
    cached.reply([ask("a", stale)])  # whatever the backend says of it
    assert len(inner.asked) == 3


def test_failures_are_not_kept_and_fakes_not_cached(tmp_path: Path) -> None:
    inner = Counting()
    inner.error = ChatError("down", retryable=True)
    cached = Cached(inner, tmp_path / "c.sqlite")
    assert cached.reply([ask()])[0].error is not None
    inner.error = None
    assert cached.reply([ask()])[0].error is None
    assert len(inner.asked) == 2
    fake = Oracle()
    assert around(fake, cache=tmp_path / "c.sqlite") is fake
    assert around(inner, cache="off") is inner
    twice = around(around(inner, cache=tmp_path / "c.sqlite"), cache=tmp_path / "c.sqlite")
    assert isinstance(twice, Cached)
    assert twice.inner is inner


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), max_size=12), st.data())
def test_any_mixture_gets_its_own_replies_in_order(texts: list[str], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        inner = Counting()
        cached = Cached(inner, Path(folder) / "c.sqlite")
        known = data.draw(st.sets(st.sampled_from("abcdefg")))
        cached.reply([ask(t) for t in sorted(known)])
        before = len(inner.asked)
        replies = cached.reply([ask(t) for t in texts])
        assert [r.text for r in replies] == [f"{inner.spec} {ask(t).digest()}" for t in texts]
        assert len(inner.asked) - before == len(set(texts) - known)
        cached.store.close()


class TestDamage:
    """A damaged file is an error that names the way out; it is never an answer."""

    def filled(self, tmp_path: Path, count: int = 200) -> Path:
        path = tmp_path / "c.sqlite"
        cached = Cached(Counting(), path)
        cached.reply([ask(f"question {n} " + "x" * 200) for n in range(count)])
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        cached.store.close()
        return path

    def test_no_byte_can_be_changed_unnoticed(self, tmp_path: Path) -> None:
        path = self.filled(tmp_path, 40)
        whole = path.read_bytes()
        questions = [ask(f"question {n} " + "x" * 200) for n in range(40)]
        right = [r.text for r in Counting().reply(questions)]
        dice = np.random.default_rng(0)
        noticed = 0
        for place in dice.integers(0, len(whole), 150):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(dice.integers(8))
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            path.write_bytes(damaged)
            try:
                cached = Cached(Counting(), path)
                replies = cached.reply(questions)
                cached.store.close()
            except InputError:
                noticed += 1
            else:
                assert [r.text for r in replies] == right
        assert noticed > 30

    @pytest.mark.parametrize("what", ["cut", "text", "other"])
    def test_what_is_no_cache_is_refused_and_told(self, tmp_path: Path, what: str) -> None:
        path = self.filled(tmp_path)
        if what == "cut":
            path.write_bytes(path.read_bytes()[:6000])
        elif what == "text":
            path.write_text("these are my notes, thank you\n" * 50)
        else:
            path.unlink()
            with sqlite3.connect(path) as db:
                db.execute("CREATE TABLE mine (a)")
            db.close()
        with pytest.raises(InputError, match=r"cache") as caught:
            Cached(Counting(), path).reply([ask("question 3 " + "x" * 200)])
        if what == "text":
            with pytest.raises(InputError, match="by hand"):
                clear(path)
            assert path.exists()
        elif what == "cut":
            assert "mmrerank cache clear" in str(caught.value)
            assert clear(path)
            assert Cached(Counting(), path).reply([ask()])[0].error is None

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be made"):
            Cached(Counting(), tmp_path / "file" / "c.sqlite")


def _write(path: Path, worker: int, errors: Any, barrier: Any) -> None:
    """What each of eight processes does: all ask the same and something of their own."""
    inner = Counting()
    try:
        for n in range(20):  # made by all of them at once
            barrier.wait(120)
            made = ReplyStore(path.with_name(f"{n}.sqlite"))
            assert made.info().replies == 0
            made.close()
        cached = Cached(inner, path)
        for n in range(ROUNDS):
            questions = [ask(f"shared {n}"), ask(f"own {worker} {n}")]
            for question, reply in zip(questions, cached.reply(questions), strict=True):
                assert reply.text == f"{inner.spec} {question.digest()}"
    except BaseException as error:
        errors.put(repr(error))


@pytest.mark.slow
def test_eight_processes_share_it(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("spawn")
    errors = context.Queue()
    barrier = context.Barrier(8)
    workers = [context.Process(target=_write, args=(path, n, errors, barrier)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert errors.empty(), errors.get()
    assert all(w.exitcode == 0 for w in workers)
    store = ReplyStore(path)
    store.check()
    assert store.info().replies == ROUNDS * 9
    store.close()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_reply_cache import Cached, Counting, ask
cached = Cached(Counting(), Path({path!r}))
print("ready", flush=True)
n = 0
while True:
    cached.reply([ask(f"question {{n + m}} " + "y" * 500) for m in range(20)])
    n += 20
"""


@pytest.mark.slow
def test_a_writer_killed_with_9_never_corrupts_it(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    code = KILLED.format(folder=str(Path(__file__).parent), path=str(path))
    kept = 0
    for round_ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.06 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = ReplyStore(path)
        store.check()
        assert store.info().replies >= kept
        kept = store.info().replies
        store.close()
    assert kept
    inner = Counting()
    cached = Cached(inner, path)
    cached.reply([ask(f"question {m} " + "y" * 500) for m in range(20)])
    assert not inner.asked


def test_pruning_by_age_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for age in (50, 20, 0):
        monkeypatch.setattr(time, "time", lambda age=age: now - age * 86400)
        Cached(Counting(), tmp_path / "c.sqlite").reply([ask(f"{age} {n} " + "z" * 400) for n in range(150)])
    monkeypatch.undo()
    store = ReplyStore(tmp_path / "c.sqlite")
    assert store.info().replies == 450
    assert store.prune(older_than=30 * 86400) == 150
    largest = store.info().bytes // 2
    assert store.prune(largest=largest) > 0
    told = store.info()
    assert told.bytes <= largest
    assert 0 < told.replies < 300
    assert told.oldest is not None
    assert told.models == {"counting:m": told.replies}
    assert store.prune(largest=0) == told.replies
    store.close()


def test_a_ranking_over_a_warm_cache_asks_nothing_and_is_the_same(
    tmp_path: Path, qwen_chats: Callable[[str], Any], picture: Any
) -> None:
    chat = qwen_chats("qwen3_vl")
    found = [Candidate(id=str(n), image=picture(64, 64, n)) for n in range(4)]
    plain = Reranker("pointwise", chat).rank("a red dog", found)
    results = [
        Reranker("pointwise", chat, cache=tmp_path / "c.sqlite").rank("a red dog", found) for _ in range(2)
    ]
    assert [h.id for h in results[0]] == [h.id for h in results[1]] == [h.id for h in plain]
    assert results[1].explanation == results[0].explanation
    assert (results[0].usage.calls, results[1].usage.calls) == (4, 0)


class Moody(Chat):
    """Apologises with a good status while it is ``busy``; else it orders the images as they stand."""

    spec, capabilities, domain = "moody", frozenset({"generate"}), ""

    def __init__(self) -> None:
        self.busy, self.asked = True, 0

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        self.asked += len(asks)
        text = (
            "The service is overloaded, try later."
            if self.busy
            else '{"reason": "", "scores": {"A": 1, "B": 9}}'
        )
        return [Reply(text=text, usage=Usage(calls=1)) for _ in asks]


def test_an_apology_is_not_kept_as_the_answer(tmp_path: Path) -> None:
    """From stanfordnlp/dspy#1544: a sentence of apology came out of the cache for ever after."""
    photos = [Candidate(id=i, text=i) for i in "ab"]
    chat = Moody()
    reranker = Reranker("listwise", chat, cache=tmp_path / "c.sqlite")
    assert reranker.rank("x", photos).degraded
    assert ReplyStore(tmp_path / "c.sqlite").info().replies == 0
    chat.busy = False
    for _ in range(2):
        result = reranker.rank("x", photos)
        assert [h.id for h in result] == ["b", "a"]
        assert not result.degraded
    assert chat.asked == 2
    # a question that nobody knows how to read is kept as it was answered
    store = ReplyStore(tmp_path / "d.sqlite")
    store.close()
    plain = around(Moody(), cache=tmp_path / "d.sqlite")
    question = Ask(messages=(Message(role="user", parts=(Part(text="say anything"),)),))
    assert plain.reply([question])[0].usage.calls == 1
    assert plain.reply([question])[0].usage.calls == 0


def test_an_old_cache_that_holds_an_apology_heals(tmp_path: Path) -> None:
    photos = [Candidate(id=i, text=i) for i in "ab"]
    chat = Moody()
    cached = around(chat, cache=tmp_path / "c.sqlite")
    assert isinstance(cached, Cached)
    seen: list[Ask] = []
    Reranker("listwise", chat).rank("x", photos)

    class Spy(Moody):
        def reply(self, asks: Sequence[Ask]) -> list[Reply]:
            seen.extend(asks)
            return super().reply(asks)

    Reranker("listwise", Spy()).rank("x", photos)
    key = cached.key(seen[0])
    assert key is not None
    cached.store.put([(key, Reply(text="Sorry, I am busy."))], "moody")  # as older versions kept it
    assert cached.known([seen[0]]) == [None]
    chat.busy, chat.asked = False, 0
    for _ in range(2):
        assert [h.id for h in Reranker("listwise", cached).rank("x", photos)] == ["b", "a"]
    assert chat.asked == 1
    assert cached.store.info().replies == 1
    # while it lasts, the old one does no harm, and is asked for each time
    cached.store.put([(key, Reply(text="Sorry, I am busy."))], "moody", over=True)
    chat.busy = True
    assert Reranker("listwise", cached).rank("x", photos).degraded
    assert chat.asked == 2

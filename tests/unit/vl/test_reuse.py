"""What is kept between prompts only saves time: replies are those of a model that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_qwen import Counted, plain_run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_qwen import EACH

from mmrerank.errors import ChatError
from mmrerank.messages import Ask, Message, Part
from mmrerank.types import Image
from mmrerank.vl import prefix
from mmrerank.vl.feature_folder import FeatureFolder
from mmrerank.vl.features import FeatureStore

Picture = Callable[..., Image]
SCHEMA = {
    "type": "object",
    "properties": {"note": {"type": "string", "maxLength": 6}, "grade": {"enum": [0, 1, 2, 3]}},
    "required": ["note", "grade"],
    "additionalProperties": False,
}


@pytest.fixture(params=EACH)
def make(request: pytest.FixtureRequest, qwen_chats: Callable[[str], Any]) -> Any:
    def chat(**options: Any) -> Counted:
        return Counted(qwen_chats(request.param), **options)

    return chat


@pytest.fixture
def plain(make: Any) -> Callable[[list[Ask]], list[Any]]:
    """Replies of a chat that keeps nothing, one ask at a time."""
    chat = make(batch_size=1, prefix_bytes=0, feature_bytes=0)
    return lambda asks: [chat.reply([a])[0] for a in asks]


def ask(*parts: str | Image, **kw: Any) -> Ask:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts)
    system = Message(role="system", parts=(Part(text="You judge images for a search engine."),))
    return Ask(messages=(system, Message(role="user", parts=made)), **kw)


@pytest.fixture
def images(picture: Picture) -> list[Image]:
    return [picture(90 + 12 * n, 140 - 7 * n, seed=n) for n in range(5)]


def query_first(images: list[Image], query: str = "a red dog near the blue house", **kw: Any) -> list[Ask]:
    return [ask(f"Does the image show {query}? ", i, " Answer yes or no.", **kw) for i in images]


def images_first(images: list[Image], queries: tuple[str, ...], **kw: Any) -> list[Ask]:
    shown = [p for n, i in enumerate(images) for p in (f"Image {n}: ", i)]
    return [ask(*shown, "Which image shows this? Search: ", q, **kw) for q in queries]


def same(found: list[Any], wanted: list[Any]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.text == other.text
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert len(one.states) == len(other.states)
        for a, b in zip(one.states, other.states, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


QUERIES = ("a red dog", "two blue cups on the table", "N/A", "the car under a green tree")
READS = [
    {"choices": ("yes", "no")},
    {"max_tokens": 10},
    {"schema": SCHEMA, "max_tokens": 32},
    {"temperature": 1.0, "max_tokens": 8},
    {"read": "attention"},
    {"read": "embed"},
    {"read": "token_embeddings"},
]


@pytest.mark.parametrize("read", READS, ids=lambda r: "-".join(r))
@pytest.mark.parametrize("layout", ["query first", pytest.param("images first", marks=pytest.mark.slow)])
def test_replies_do_not_depend_on_batches_order_or_what_is_kept(
    make: Any, plain: Any, images: list[Image], layout: str, read: dict[str, Any]
) -> None:
    asks = (
        query_first(images, **read) if layout == "query first" else images_first(images[:3], QUERIES, **read)
    )
    wanted = plain(asks)
    chat = make()
    same(chat.reply(asks), wanted)
    same(chat.reply(asks), wanted)  # everything is known by now
    same(chat.reply(asks[::-1])[::-1], wanted)
    same([chat.reply([a])[0] for a in asks], wanted)
    same(make(batch_size=2, prefix_bytes=100_000, feature_bytes=60_000).reply(asks), wanted)


def test_kinds_of_asks_may_be_mixed(make: Any, plain: Any, images: list[Image]) -> None:
    asks = [a for read in READS for a in query_first(images[:2], **read)]
    asks += [a for read in READS[::2] for a in images_first(images[:2], QUERIES[:2], **read)]
    same(make().reply(asks), plain(asks))


def test_an_image_seen_again_is_not_looked_at_again(make: Any, images: list[Image]) -> None:
    chat = make()
    chat.reply(query_first(images, choices=("yes", "no")))
    assert chat.looked == len(images)
    chat.reply(query_first(images, "cats", choices=("yes", "no")))
    assert chat.looked == 0
    fewer = query_first(images[:1], choices=("yes", "no"), image_tokens=4)
    chat.reply(fewer)
    assert chat.looked == 1  # another size is another image to the model
    forgetful = make(feature_bytes=0)
    pairs = [ask("A: ", a, "B: ", b, choices=("yes", "no")) for a in images[:2] for b in images[:2]]
    forgetful.reply(pairs)
    assert forgetful.looked == 2  # even then, once a call


def test_pictures_are_prepared_in_threads_where_there_are_cores(
    make: Any, plain: Any, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = images_first(images, QUERIES, choices=("yes", "no")) + query_first(images, choices=("yes", "no"))
    wanted = plain(asks)
    chat = make()
    monkeypatch.setattr("mmrerank.vl.prompts._cores", lambda: 4)
    monkeypatch.setattr("mmrerank.chat.transformers.AHEAD", 3)
    same(chat.reply(asks), wanted)
    assert chat.looked == len(images)
    gone = ask("What?", Image(data=b"no image"), images[0], choices=("yes", "no"))
    one, two = chat.chat.reply([gone, asks[0]])
    assert isinstance(one.error, ChatError)
    assert two.error is None


def test_the_store_of_features_is_bounded_and_forgets_the_oldest(make: Any, images: list[Image]) -> None:
    chat = make()
    chat.reply(query_first(images, choices=("yes", "no")))
    sizes = [f.size for f in chat.qwen.features._kept.values()]
    small = FeatureStore(sum(sizes[-3:]))
    chat = make(features=small, prefix_bytes=0)
    for question in query_first(images, choices=("yes", "no")):
        chat.reply([question])
    assert 0 < sum(f.size for f in small._kept.values()) <= sum(sizes[-3:])
    chat.reply(query_first(images[-2:], choices=("yes", "no")))
    assert chat.looked == 0
    chat.reply(query_first(images[:1], choices=("yes", "no")))
    assert chat.looked == 1


def test_features_on_disk_serve_the_next_process(
    make: Any, plain: Any, images: list[Image], tmp_path: Path
) -> None:
    asks = query_first(images, choices=("yes", "no"))
    make(features=FeatureStore(folder=FeatureFolder(tmp_path, owner="this model"))).reply(asks)
    again = make(features=FeatureStore(folder=FeatureFolder(tmp_path, owner="this model")))
    same(again.reply(asks), plain(asks))
    assert again.looked == 0
    other = make(features=FeatureStore(folder=FeatureFolder(tmp_path, owner="another model")))
    other.reply(asks)
    assert other.looked == len(images)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    damaged = make(features=FeatureStore(folder=FeatureFolder(tmp_path, owner="this model")))
    same(damaged.reply(asks), plain(asks))
    assert damaged.looked == len(images)
    mended = make(features=FeatureStore(folder=FeatureFolder(tmp_path, owner="this model")))
    same(mended.reply(asks), plain(asks))
    assert mended.looked == 0


def test_instructions_and_query_are_read_once(make: Any, images: list[Image]) -> None:
    asks = query_first(images, " ".join(["a red dog near the blue house"] * 8), choices=("yes", "no"))
    chat = make()
    lengths = [chat.qwen.encode(a.messages, image_tokens=256).length for a in asks]
    chat.reply(asks)
    shared = prefix.common(*(chat.qwen.encode(a.messages, image_tokens=256).marks for a in asks[:2]))
    assert shared * 5 > prefix.WORTH
    longest = max(lengths)
    assert chat.tokens == shared + len(asks) * (longest - shared)
    assert chat.passes == 2


def test_a_further_question_about_the_same_images_reads_only_itself(make: Any, images: list[Image]) -> None:
    asks = images_first(images, QUERIES, choices=("yes", "no"))
    chat = make()
    chat.reply(asks[:1])
    first = chat.tokens
    assert chat.looked == len(images)
    for further in asks[1:]:
        chat.reply([further])
        assert chat.tokens <= first / 5
        assert chat.looked == 0
    # and in one call the images are read once
    chat = make()
    chat.reply(asks)
    assert chat.tokens < 2 * first
    # another image among them is another beginning
    changed = images_first([images[1], *images[1:]], QUERIES[:1], choices=("yes", "no"))
    chat.reply(changed)
    assert chat.tokens > first / 2


def test_rounds_of_many_queries_find_their_own_images_again(
    make: Any, plain: Any, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "LONG", 100)
    monkeypatch.setattr(prefix, "WORTH", 50)
    sets = [images[:3], images[1:4], images[2:]]
    rounds = [[images_first(s, (q,), choices=("yes", "no"))[0] for s in sets] for q in QUERIES]
    chat = make()
    chat.reply(rounds[0])
    first = chat.tokens
    for asks in rounds[1:]:
        same(chat.reply(asks), plain(asks))
        assert chat.tokens < first / 2


def test_what_is_kept_of_beginnings_is_bounded(make: Any, images: list[Image]) -> None:
    limit = 300_000
    chat = make(prefix_bytes=limit)
    for n in range(6):
        chat.reply(images_first(images[n:] + images[:n], QUERIES[:2], choices=("yes", "no")))
        kept = chat.chat._prefixes._kept
        assert sum(p.size for p in kept) <= limit
        assert len(kept) <= prefix.MOST


def test_after_a_failure_the_answer_is_the_same(
    make: Any, plain: Any, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = images_first(images[:3], QUERIES, choices=("yes", "no"))
    chat = make()
    hidden = chat.qwen.hidden

    def tight(batch: Any, cache: Any = None) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(chat.qwen, "hidden", tight)
    same(chat.reply(asks), plain(asks))
    monkeypatch.setattr(chat.qwen, "hidden", hidden)
    same(chat.reply(asks), plain(asks))


class TestStates:
    """Attention and hidden states are those of one plain run over the whole prompt."""

    def test_attention(self, make: Any, images: list[Image]) -> None:
        import torch

        asks = images_first(images[:3], ("a red dog", "N/A"), read="attention")
        chat = make()
        for question, reply in zip(asks, make().reply(asks), strict=True):
            prompt, out = plain_run(chat, question)
            query = question.messages[-1].parts[-1].text
            ids = prompt.ids[prompt.words[-1].start : prompt.words[-1].end]
            assert chat.qwen.tokenizer.decode(ids).strip() == query
            total = torch.stack(out.attentions).sum((0, 2))[0]
            paid = total[prompt.words[-1].start : prompt.words[-1].end].mean(0)
            assert len(reply.states) == 3
            for states, (start, end) in zip(reply.states, prompt.spans, strict=True):
                assert states.dtype == np.float32
                assert states == pytest.approx(paid[start:end].numpy(), abs=1e-5)

    def test_both_queries_share_one_pass_over_the_images(self, make: Any, images: list[Image]) -> None:
        asks = images_first(images, ("a red dog", "N/A"), read="attention")
        chat = make()
        one, other = chat.reply(asks)
        assert (chat.passes, chat.looked) == (3, len(images))
        assert len({s.shape for s in (*one.states, *other.states)}) >= 1
        chat.reply(images_first(images, ("a blue cup",), read="attention"))
        assert (chat.passes, chat.looked) == (1, 0)
        assert not np.allclose(one.states[0], other.states[0])

    def test_attention_needs_words_and_images(self, make: Any, images: list[Image]) -> None:
        chat = make()
        for question in (ask("a dog", read="attention"), ask(images[0], read="attention")):
            (reply,) = chat.chat.reply([question])
            assert isinstance(reply.error, ChatError)
        early = ask("a dog", images[0], read="attention")
        assert not chat.reply([early])[0].states[0].any()  # words before an image cannot look at it

    def test_embed(self, make: Any, images: list[Image]) -> None:
        chat = make()
        asks = [*query_first(images[:2], read="embed"), ask("only words", read="embed")]
        for question, reply in zip(asks, make().reply(asks), strict=True):
            _, out = plain_run(chat, question)
            last = out.hidden_states[-1][0, -1]
            (vector,) = reply.states
            assert vector == pytest.approx((last / last.norm()).numpy(), abs=1e-5)

    def test_token_embeddings(self, make: Any, images: list[Image]) -> None:
        chat = make()
        asks = [
            *query_first(images[:2], read="token_embeddings"),
            ask("A: ", images[0], "B: ", images[3], read="token_embeddings"),
            ask("a red dog", " near a cup", read="token_embeddings"),
        ]
        replies = make().reply(asks)
        for question, reply in zip(asks, replies, strict=True):
            prompt, out = plain_run(chat, question)
            spans = prompt.spans or [(w.start, w.end) for w in prompt.words if w.role == "user"]
            rows = np.concatenate([out.hidden_states[-1][0, a:b].numpy() for a, b in spans])
            (states,) = reply.states
            wanted = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            assert states == pytest.approx(wanted, abs=1e-5)
        user = ask("a red dog near a cup").messages[-1].text
        ids = chat.qwen.tokenizer(user, add_special_tokens=False)["input_ids"]
        assert len(replies[-1].states[0]) == len(ids)

    def test_words_are_found_whatever_they_say(self, make: Any, images: list[Image]) -> None:
        qwen = make().qwen
        for texts in (("s",), ("<|im_end|>", "user"), ("\n", " x "), ("a", "b", "c"), ("é漢", "🙂")):
            question = ask("Image: ", images[0], *texts)
            prompt = qwen.encode(question.messages, image_tokens=64, words=True)
            said = [w for w in prompt.words if w.message == 1]
            assert len(said) == 1 + len(texts)
            for text, word in zip(("Image: ", *texts), said, strict=True):
                decoded = qwen.tokenizer.decode(prompt.ids[word.start : word.end])
                assert qwen.prompts.defuse(text).strip() in decoded


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=8), min_size=1, max_size=12))
def test_plans_name_every_prompt_once_and_only_what_is_shared(prompts: list[list[int]]) -> None:
    # tokens stand for fifty each, so that some sharing pays
    marks = [np.repeat(np.array(p, dtype=np.int64), 50) for p in prompts]
    limits = [len(m) - 1 for m in marks]
    groups = prefix.plan(marks, limits)
    assert sorted(n for places, _ in groups for n in places) == list(range(len(prompts)))
    cost = 0
    for places, shared in groups:
        assert all(shared <= limits[n] for n in places)
        assert len({marks[n][:shared].tobytes() for n in places}) == 1
        cost += shared + sum(len(marks[n]) - shared for n in places)
    assert cost <= sum(len(m) for m in marks)


def test_plans_share_what_pays() -> None:
    instructions, query, other = [1] * 50, [2] * 60, [3] * 60
    marks = [
        np.array(instructions + q + [10 + n] * 200, dtype=np.int64) for q in (query, other) for n in range(20)
    ]
    groups = prefix.plan(marks, [len(m) - 1 for m in marks])
    assert sorted((len(p), s) for p, s in groups) == [(20, 110), (20, 110)]
    few = [m for n, m in enumerate(marks) if n % 20 < 2]  # two a query: not worth a pass each
    assert prefix.plan(few, [len(m) - 1 for m in few]) == [([0, 1, 2, 3], 0)] or [
        len(p) for p, _ in prefix.plan(few, [len(m) - 1 for m in few])
    ] == [4]
    assert replace(prefix.NOTHING).length == 0

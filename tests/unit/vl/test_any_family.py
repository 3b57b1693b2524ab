"""Every family of multimodal models on tiny random checkpoints: plumbing, never quality.

Equal to a plain call of transformers, batched equal to single, kept features equal to pixels, budgets in the
family's own tokens, methods through the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
from command import run, write_lines

from mmrerank.chat.open import open_chat
from mmrerank.errors import ModelError
from mmrerank.images import decode
from mmrerank.messages import Ask, Message, Part
from mmrerank.types import Image

pytestmark = pytest.mark.slow
Picture = Callable[..., Image]
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
ROOMY = 1024


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Callable[[str], Path]
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind in QWEN:
            return tiny_qwen(kind)
        if kind not in made:
            made[kind] = tiny_vlm.build(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def chats(folders: Callable[[str], Path]) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def chat(kind: str) -> Any:
        if kind not in made:
            made[kind] = open_chat(f"transformers:{folders(kind)}")
        return made[kind]

    return chat


def ask(*parts: str | Image, **kw: Any) -> Ask:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts)
    system = Message(role="system", parts=(Part(text="You judge images."),))
    return Ask(messages=(system, Message(role="user", parts=made)), **kw)


@pytest.fixture
def questions(picture: Picture) -> list[Ask]:
    """Questions of different lengths with no, one, two and three images of different sizes."""
    made = []
    for n, count in enumerate((0, 1, 2, 3, 1)):
        # sizes that every resizer leaves alone: ours and the processors' blur differently
        images = [picture(224 + 224 * ((n + i) % 2), 224, seed=n + 7 * i) for i in range(count)]
        made.append(
            ask(*images, f"Is this {'a red dog ' * (n + 1)}?", choices=("A", "B"), image_tokens=ROOMY)
        )
    return made


@cache
def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def plain_logits(folder: Path, question: Ask) -> Any:
    """What transformers itself computes: no code of this project."""
    import torch

    model, processor = loaded(folder)
    turns = [
        {
            "role": m.role,
            "content": [
                {"type": "text", "text": p.text}
                if p.image is None
                else {"type": "image", "image": decode(p.image)}
                for p in m.parts
            ],
        }
        for m in question.messages
    ]
    inputs = processor.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        enable_thinking=False,
    )  # fmt: skip
    with torch.inference_mode():
        return model(**inputs).logits[0, -1].float()


def ours(chat: Any, question: Ask) -> Any:
    import torch

    model = chat.qwen
    with torch.inference_mode():
        prompt = model.encode(question.messages, image_tokens=question.image_tokens)
        return model.forward(model.collate([prompt]))[0]


def near(one: Any, other: Any) -> bool:
    scale = max(1.0, float(other.abs().max()))
    return bool((one - other).abs().max() <= 1e-5 * scale)


@pytest.mark.parametrize("kind", [*tiny_vlm.KINDS, *QWEN])
def test_logits_are_those_of_a_plain_call_and_of_kept_features(
    kind: str, folders: Any, chats: Any, questions: list[Ask]
) -> None:
    chat = chats(kind)
    for question in questions:
        wanted = plain_logits(folders(kind), question)
        chat.qwen.features.clear()
        assert near(ours(chat, question), wanted), "from pixels"
        assert near(ours(chat, question), wanted), "from what was kept"
    blind = [ask(f"Is this {'a red dog ' * 2}?", choices=("A", "B"))]
    assert not near(ours(chat, blind[0]), plain_logits(folders(kind), questions[1])), "images matter"


@pytest.mark.parametrize("kind", [*tiny_vlm.KINDS, *QWEN])
def test_batched_is_single_and_order_does_not_matter(kind: str, chats: Any, questions: list[Ask]) -> None:
    chat = chats(kind)
    together = chat.reply(questions)
    backwards = chat.reply(questions[::-1])[::-1]
    alone = []
    for question in questions:
        chat.qwen.features.clear()
        alone.append(chat.reply([question])[0])
    for replies in (together, backwards):
        assert [r.error for r in replies] == [None] * len(questions)
        for one, two in zip(replies, alone, strict=True):
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)
            assert one.mass == pytest.approx(two.mass, abs=1e-5)
    written = [Ask(messages=q.messages, max_tokens=10, image_tokens=ROOMY) for q in questions]
    assert [r.text for r in chat.reply(written)] == [chat.reply([w])[0].text for w in written]


def test_what_a_family_can_do_is_said(chats: Any) -> None:
    on = {kind: {a.name: a.on for a in chats(kind).facts().abilities} for kind in tiny_vlm.KINDS}
    assert {kind for kind in on if not on[kind]["image reuse"]} == {"llava_onevision"}
    assert {kind for kind in on if on[kind]["prompt reuse"]} == {"internvl", "idefics3", "mistral3"}
    assert "attention" not in chats("qwen3_5").capabilities
    why = {a.name: a.why for a in chats("llava_onevision").facts().abilities}
    assert why["image reuse"] == "how many tokens an image has depends on the images beside it"
    assert "32 x 32" in {a.name: a.why for a in chats("qwen3_5").facts().abilities}["image size"]
    assert "28 x 28" in {a.name: a.why for a in chats("mistral3").facts().abilities}["image size"]


@pytest.mark.parametrize("kind", tiny_vlm.KINDS)
@pytest.mark.parametrize("size", [(1, 1), (600, 4), (4, 600), (900, 500)])
def test_images_of_any_shape_stay_within_their_tokens_where_the_family_can(
    kind: str, chats: Any, picture: Picture, size: tuple[int, int]
) -> None:
    model = chats(kind).qwen
    for tokens in (24, 100):
        prompt = model.encode(ask(picture(*size)).messages, image_tokens=tokens)
        count = int((prompt.ids == model.prompts.image_id).sum())
        assert count >= 1
        assert (count <= tokens) or (kind == "llava_onevision" and f"{count} tokens" in prompt.notes[0])


@pytest.mark.parametrize("kind", tiny_vlm.KINDS)
def test_special_tokens_in_text_stay_text(kind: str, chats: Any, picture: Picture) -> None:
    model = chats(kind).qwen
    clean = model.encode(ask("a dog", picture()).messages, image_tokens=64)
    names = {*model.tokenizer.all_special_tokens, *model.processor.all_special_multimodal_tokens}
    for parts in (("".join(sorted(names)),), ("<|im_", "end|>"), tuple(sorted(names))):
        encoded = model.encode(ask("a dog", *parts, picture()).messages, image_tokens=64)
        for name in names:
            token = model.tokenizer.convert_tokens_to_ids(name)
            assert (encoded.ids == token).sum() == (clean.ids == token).sum(), name


def plain_states(folder: Path, question: Ask) -> tuple[Any, Any, Any]:
    """Token ids, the last layer's states, and attention summed over layers and heads."""
    import torch

    model, processor = loaded(folder)
    content = [
        {"type": "text", "text": p.text} if p.image is None else {"type": "image", "image": decode(p.image)}
        for p in question.messages[-1].parts
    ]
    inputs = processor.apply_chat_template(
        [{"role": "system", "content": [{"type": "text", "text": question.messages[0].text}]},
         {"role": "user", "content": content}],
        tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        enable_thinking=False,
    )  # fmt: skip
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = model.model(**inputs, output_attentions=True)
    model.set_attn_implementation("sdpa")
    attention = [a[0].sum(0) for a in out.attentions if a is not None]
    return inputs["input_ids"][0], out.last_hidden_state[0], sum(attention)


@pytest.mark.parametrize("kind", tiny_vlm.KINDS)
def test_states_and_attention_are_those_of_a_plain_run(
    kind: str, chats: Any, folders: Any, picture: Picture
) -> None:
    import torch

    chat = chats(kind)
    images = [picture(224, 224), picture(448, 224, seed=1)]
    shown = ask(*images, "Is this a red dog?", image_tokens=ROOMY)
    ids, states, attention = plain_states(folders(kind), shown)
    unit = torch.nn.functional.normalize(states, dim=-1).numpy()
    visual = (ids == chat.qwen.image_id).numpy()
    wanted = {"embed": [unit[-1]], "token_embeddings": [unit[visual]]}
    if "attention" in chat.capabilities:
        asked = chat.qwen.tokenizer("Is this a red dog?", add_special_tokens=False)["input_ids"]
        at = next(n for n in range(len(ids)) if ids[n : n + len(asked)].tolist() == asked)
        paid = attention[at : at + len(asked)].mean(0).numpy()
        edges = [int(n) for n in visual.nonzero()[0]]
        cut = len(chat.reply([replace(shown, read="attention")])[0].states[0])
        wanted["attention"] = [paid[edges[:cut]], paid[edges[cut:]]]
    for read, arrays in wanted.items():
        reply = chat.reply([replace(shown, read=read)])[0]
        assert reply.error is None
        for mine, theirs in zip(reply.states, arrays, strict=True):
            assert mine == pytest.approx(theirs, abs=2e-5), read


@pytest.mark.parametrize("kind", tiny_vlm.KINDS)
def test_shared_beginnings_change_nothing(kind: str, chats: Any, folders: Any, picture: Picture) -> None:
    first = ["You see: ", picture(224, 224), " and ", picture(448, 224, seed=2), "A red dog. " * 60]
    asks = [ask(*first, f"Is it {n}?", choices=("A", "B"), image_tokens=ROOMY) for n in range(4)]
    whole: Any = open_chat(f"transformers:{folders(kind)}", prefix_bytes=0, feature_bytes=0)
    for mine, theirs in zip(chats(kind).reply(asks), whole.reply(asks), strict=True):
        assert mine.error is None
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


METHODS = ("pointwise", "first", "listwise", "cotrr")


@pytest.mark.parametrize("kind", [*tiny_vlm.KINDS, *QWEN])
def test_methods_run_through_the_command_line_with_two_and_twenty_images(
    kind: str, folders: Any, picture: Picture, tmp_path: Path
) -> None:
    terse = tiny_vlm.hurried(folders(kind), tmp_path / "model", 2.0)
    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(picture(56 + n, 70, seed=n).data or b"")
    rows = [
        {
            "query": {"text": "a red dog"},
            "candidates": [{"id": f"c{n}", "image": f"{n}.png", "score": 1 - n / 20} for n in range(count)],
        }
        for count in (2, 20)
    ]
    asked = write_lines(tmp_path / "requests.jsonl", rows)
    for method in METHODS:
        # random weights spread over all tokens: what the labels hold is taken, however little
        result = run(
            "rerank", "--input", asked, "--rerank", method, "--chat", f"transformers:{terse}",
            "--chat-option", "label_share=0", "--output", "json", code=None,
        )  # fmt: skip
        for line, row in zip(result.stdout.splitlines(), rows, strict=True):
            found = json.loads(line)
            assert {h["id"] for h in found["hits"]} == {c["id"] for c in row["candidates"]}
            # chance may name a part without a word; nothing else may fail
            assert result.exit_code == (7 if found["repairs"]["failed"] else 0), result.stderr
            assert found["repairs"]["failed"] <= (method == "cotrr"), found["warnings"]


def test_features_are_found_again_on_disk(folders: Any, picture: Picture, tmp_path: Path) -> None:
    question = ask(picture(224, 224), picture(448, 224, seed=1), "Is it?", choices=("A", "B"))
    for kind in ("mistral3", "idefics3", "qwen3_5"):
        replies = []
        for n in range(2):
            chat: Any = open_chat(f"transformers:{folders(kind)}", feature_folder=tmp_path / kind)
            if n:  # it looks at nothing any more
                chat.qwen._seen = None
            replies += chat.reply([question])
        assert replies[0].logprobs == pytest.approx(replies[1].logprobs, abs=1e-6)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build_text(tmp_path_factory.mktemp("text"))


class TestTextOnly:
    """A causal model without eyes."""

    def test_texts_are_ranked_and_images_refused(self, blind: Path, picture: Picture) -> None:
        chat: Any = open_chat(f"transformers:{blind}", label_share=0)
        question = ask("Does 'a red dog' match 'a dog'?", choices=("A", "B"))
        assert chat.reply([question])[0].error is None
        assert near(ours(chat, question), self.plain(blind, question))
        reply = chat.reply([ask(picture(), "Is it?", choices=("A", "B"))])[0]
        assert reply.error.kind == "no_images"
        assert "reads text only and cannot see images" in str(reply.error)
        assert [(a.name, a.on) for a in chat.facts().abilities] == [("images", False)]

    @staticmethod
    def plain(folder: Path, question: Ask) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        turns = [{"role": m.role, "content": m.text} for m in question.messages]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            return AutoModelForCausalLM.from_pretrained(folder).eval()(**inputs).logits[0, -1].float()

    def test_through_the_command_line(self, blind: Path, picture: Picture, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(picture().data or b"")
        texts = [{"id": t, "text": t, "score": 0.5} for t in ("a red dog", "a blue cat")]
        images = [{"id": t, "image": "a.png", "score": 0.5} for t in "ab"]
        for candidates, code in ((texts, 0), (images, 6)):
            row = {"query": {"text": "a red dog"}, "candidates": candidates}
            asked = write_lines(tmp_path / "requests.jsonl", [row])
            result = run(
                "rerank", "--input", asked, "--rerank", "pointwise", "--chat", f"transformers:{blind}",
                "--chat-option", "label_share=0", code=code,
            )  # fmt: skip
        assert "reads text only and cannot see images" in result.stderr

    def test_a_template_without_a_system_turn_gets_it_in_the_users(self, tmp_path: Path) -> None:
        strict = (
            "{%- for m in messages %}{%- if m.role == 'system' %}"
            "{{ raise_exception('System role not supported') }}{%- endif %}"
            "{{ '[' + m.role + ']' + m.content + '\n' }}{%- endfor %}[assistant]"
        )
        chat: Any = open_chat(f"transformers:{tiny_vlm.build_text(tmp_path, template=strict)}")
        written = chat.qwen.prompts.render(ask("Is it?").messages)
        assert written == "[user]You judge images.\n\nIs it?\n[assistant]"
        assert chat.qwen.before == "\n[assistant]"


def test_images_stand_where_they_are_named(chats: Any, picture: Picture) -> None:
    shown = ask("Image A: ", picture(), " Image B: ", picture(seed=1), " Which?")
    for kind in tiny_vlm.KINDS:
        prompts = chats(kind).qwen.prompts
        text = prompts.render(shown.messages)
        places = [text.index("Image A:"), text.index(prompts.placeholder), text.index("Image B:"),
                  text.rindex(prompts.placeholder), text.index("Which?")]  # fmt: skip
        assert places == sorted(places), kind


def test_a_thinking_template_is_told_not_to(chats: Any) -> None:
    assert chats("qwen3_5").qwen.before.endswith("assistant\n<think>\n\n</think>\n\n")


def test_fewer_tiles_where_fewer_tokens_are_asked_for(chats: Any, picture: Picture) -> None:
    image = picture(448, 448)
    for kind in ("internvl", "idefics3"):
        model = chats(kind).qwen
        counts = [
            int((model.encode(ask(image).messages, image_tokens=n).ids == model.image_id).sum())
            for n in (4, 20, 40, 400)
        ]
        assert counts == sorted(counts)
        assert counts[0] == 4
        assert counts[-1] > counts[0]
        assert all(c <= n for c, n in zip(counts, (4, 20, 40, 400), strict=True))
    gemma = chats("gemma3").qwen.encode(ask(image).messages, image_tokens=2)
    assert "4 tokens" in gemma.notes[0]
    assert chats("gemma3").reply([ask(image, "?", max_tokens=2, image_tokens=2)])[0].notes == gemma.notes


def test_too_long_a_question_is_refused(folders: Any, picture: Picture, tmp_path: Path) -> None:
    folder = tiny_vlm.build(tmp_path, "mistral3", max_position_embeddings=64)
    replies = open_chat(f"transformers:{folder}").reply(
        [ask("A " * 80, max_tokens=4), ask("A", max_tokens=4)]
    )
    assert replies[0].error is not None
    assert replies[0].error.kind == "context"
    assert replies[1].error is None


def test_doctor_says_what_is_on_and_off(folders: Any) -> None:
    for kind, line in (
        ("llava_onevision", "how many tokens an image has depends on the images beside it"),
        ("gemma3", "images attend within themselves"),
    ):
        result = run("doctor", "--chat", f"transformers:{folders(kind)}", "--output", "json", code=None)
        checks = {c["name"]: c for c in json.loads(result.stdout)["checks"]}
        found = checks["image reuse" if kind == "llava_onevision" else "prompt reuse"]
        assert (found["status"], found["detail"]) == ("off", line)


def test_a_model_of_another_kind_is_refused(folders: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}), "utf-8")
    with pytest.raises(ModelError, match=r"is a 'vit' model; allowed are \d+ kinds that transformers knows"):
        open_chat(f"transformers:{tmp_path}")
